"""What reading commands print for people. Machines use --json."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

SHARDS_SHOWN = 20  # of each kind of difference
PIPE_WIDTH = 240  # where there is no terminal, lines are not broken at 80


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def print_datasets(datasets: Sequence[Mapping[str, Any]]) -> None:
    if not datasets:
        print("no datasets")
        return
    rows = [
        (
            d["name"],
            d["version"],
            f"{d['rows']:,}",
            f"{d['shards']:,}",
            readable_bytes(d["bytes"]),
            ", ".join(d["formats"]),
            d["task"],
            ", ".join(d["tags"]),
            d["path"],
        )
        for d in datasets
    ]
    _print(("NAME", "VERSION", ">ROWS", ">SHARDS", ">SIZE", "FORMATS", "TASK", "TAGS", "PATH"), rows)


def print_dataset(dataset: Mapping[str, Any]) -> None:
    facts = [
        ("name", dataset["name"]),
        ("version", dataset["version"]),
        ("path", dataset["path"]),
        ("rows", f"{dataset['rows']:,}"),
        ("shards", f"{dataset['shards']:,}"),
        ("chunks", f"{dataset['chunks']:,}"),
        ("size", readable_bytes(dataset["bytes"])),
        ("formats", ", ".join(dataset["formats"])),
        ("features", f"{dataset['features']:,}"),
        ("task", dataset["task"]),
        ("target", ", ".join(dataset["target"])),
        ("metric", dataset["metric"]),
        ("tags", ", ".join(dataset["tags"])),
        ("description", dataset["description"]),
        ("registered", dataset["registered_at"]),
    ]
    _print(None, facts)
    print()
    if len(dataset["splits"]) > 1:
        _print(
            ("SPLIT", ">ROWS", ">SHARDS", ">SIZE", "COLUMNS"),
            [
                (
                    *(s["name"], f"{s['rows']:,}", f"{s['shards']:,}", readable_bytes(s["bytes"])),
                    ", ".join(c["name"] for c in s["columns"]),
                )
                for s in dataset["splits"]
            ],
        )
        print()
    _print(
        ("COLUMN", "TYPE", "NULLS"),
        [(c["name"], c["type"], "yes" if c["nullable"] else "no") for c in dataset["columns"]],
    )


def print_versions(datasets: Sequence[Mapping[str, Any]]) -> None:
    """The newest first."""
    rows = [
        (d["version"], f"{d['rows']:,}", f"{d['shards']:,}", readable_bytes(d["bytes"]), d["registered_at"], d["path"])
        for d in datasets
    ]
    _print(("VERSION", ">ROWS", ">SHARDS", ">SIZE", "REGISTERED", "PATH"), rows)


def print_difference(difference: Mapping[str, Any]) -> None:
    counts = difference["counts"]
    kinds = ("added", "gone", "changed")
    said = ", ".join(f"{counts[kind]:,} {kind}" for kind in (*kinds, "same"))
    print(f"{difference['a']} to {difference['b']}: shards {said}")
    rows = [
        (kind, s["path"], f"{s['rows_before']:,}", f"{s['rows']:,}", f"{s['bytes_before']:,}", f"{s['bytes']:,}")
        for kind in kinds
        for s in difference[kind][:SHARDS_SHOWN]
    ]
    if rows:
        _print(("", "SHARD", ">ROWS BEFORE", ">ROWS", ">BYTES BEFORE", ">BYTES"), rows)
    if any(counts[kind] > SHARDS_SHOWN for kind in kinds):
        print(f"the first {SHARDS_SHOWN} of each kind are shown; --json lists more")


def print_discovery(discovery: Mapping[str, Any]) -> None:
    children = discovery["children"]
    print(f"{discovery['folder']}: {len(children)} children")
    if children:
        rows = [(c["name"], c["version"], c["state"], c["path"], c["reason"]) for c in children]
        _print(("NAME", "VERSION", "STATE", "PATH", "REASON"), rows)


def print_bad_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        print("no bad rows")
        return
    lines = [
        (r["dataset"], f"{r['row']:,}", f"{r['rows']:,}", r["where"], r["reason"], r["on_error"], r["job"], r["stream"])
        for r in rows
    ]
    _print(("DATASET", ">ROW", ">ROWS", "WHERE", "REASON", "ON_ERROR", "JOB", "STREAM"), lines)


def print_runs(runs: Sequence[Mapping[str, Any]], entries: bool = False) -> None:
    if not runs:
        print("no runs")
        return
    rows = [
        (
            *(r["run"], r["job"], r["stream"], ", ".join(r["datasets"])),
            f"{len(r['ranks'])} of {r['world_size']}" if r["ranks"] else "",
            "" if r["epoch"] is None else f"{r['epoch']}",
            "" if r["segment"] is None else f"{r['segment']}",
            f"{len(r['entries'])}",
        )
        for r in runs
    ]
    _print(("RUN", "JOB", "STREAM", "DATASETS", ">RANKS", ">EPOCH", ">SEGMENT", ">ENTRIES"), rows)
    for run in runs if entries else ():
        found = [(e["kind"], str(e["epoch"]), str(e["segment"]), _entry(e)) for e in run["entries"]]
        if found:
            print()
            _print(("ENTRY", ">EPOCH", ">SEGMENT", "WHAT"), found)


def _entry(entry: Mapping[str, Any]) -> str:
    if entry["kind"] == "mixture":
        return ", ".join(f"{name}={weight}" for name, weight in entry["weights"].items())
    said = [
        f"{name} " + ", ".join(f"{first}-{behind - 1}" for first, behind in ranges)
        for name, ranges in entry["rows"].items()
    ]
    return "; ".join([*said, entry["reason"]] if entry["reason"] else said)


def print_explanation(explanation: Mapping[str, Any]) -> None:
    print(f"step {explanation['step']} of epoch {explanation['epoch']}")
    rows = [
        (
            str(r["rank"]),
            str(r["place"]),
            f"{r['dataset']}@{r['version']}" + ("" if r["split"] == "train" else f":{r['split']}"),
            r["shard"],
            *(f"{r[name]:,}" for name in ("shard_row", "row", "segment", "unit")),
            r["bad"] or ("" if r["valid"] else "padding"),
        )
        for r in explanation["rows"]
    ]
    _print((">RANK", ">PLACE", "DATASET", "SHARD", ">ROW IN SHARD", ">ROW", ">SEGMENT", ">UNIT", ""), rows)


def print_streams(streams: Sequence[Mapping[str, Any]]) -> None:
    if not streams:
        print("no streams")
        return
    rows = []
    for s in streams:
        whole = [e for e in s["epochs"] if e["segments"] == e["of_segments"]]
        last = (whole or s["epochs"] or [None])[-1]
        rows.append(
            (
                ", ".join(s["datasets"]),
                str(s["seed"]),
                str(s["sessions"]),
                f"{s['pool_rows']:,}" if s["shuffle"] else "by-passed",
                str(last["epoch"]) if last else "",
                f"{last['segments']} of {last['of_segments']}" if last else "",
                f"{last['shards']:.1f} of {last['shards_ideal']:.1f}" if last else "",
                f"{last['adjacent']:.2%} ({last['adjacent_ideal']:.2%})" if last else "",
                f"{last['rank_correlation']:+.3f}" if last else "",
            )
        )
    names = ("DATASETS", ">SEED", ">SESSIONS", ">POOL", ">EPOCH", ">SEGMENTS", ">SHARDS", ">NEIGHBOURS", ">RANKS")
    _print(names, rows)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns whose name begins with ">" are set to the right."""
    _print(columns, rows)


def print_settings(settings: Iterable[tuple[str, str, str]]) -> None:
    _print(("SETTING", "VALUE", "FROM"), settings)


def readable_bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _print(columns: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> None:
    """A column whose name begins with ">" is set to the right. Cells are text: brackets in a path are no markup."""
    table = Table(box=None, pad_edge=False, show_header=columns is not None)
    for name in columns or ("", ""):
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)
