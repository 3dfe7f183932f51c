"""`penstock store` and `penstock warm`: what the chunk store holds, and having a dataset made before it is read."""

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from penstock_service.admin.dataset_commands import Http, Json, Name
from penstock_service.admin.remote import RemoteError, Server
from penstock_service.admin.tables import print_json, print_table, readable_bytes


def show_store(http: Http = None, as_json: Json = False) -> None:
    """The chunk store of a running server: what is in it, what it saves, what another size would do."""
    found = Server(http).store()
    print_json(found) if as_json else print_store(found)


def print_store(store: Mapping[str, Any]) -> None:
    print(f"{store['folder'] or 'no folder'}: {readable_bytes(store['used'])} of {readable_bytes(store['limit'])}")
    if store["trouble"]:
        print(f"chunks are handed over in memory, the store cannot take them: {store['trouble']}")
    print(uses(store))
    adaptive = f", chosen by the ghost list: {store['reason']}" if store["policy"] == "adaptive" else ""
    print(f"versions give way by {store['rule']}{adaptive}; {store['evicted']:,} chunks have")
    print(f"being read: {readable_bytes(store['working_set'])} of chunks")
    for title, rows in (("versions", _versions(store)), ("ghosts", _ghosts(store)), ("ahead", _ahead(store))):
        if rows:
            print()
            print_table(_COLUMNS[title], rows)


_COLUMNS = {
    "versions": ("DATASET", ">CHUNKS", ">STORED", ">SIZE", ">NEEDS", ">HITS", ">MISSES", ">SAVED", ""),
    "ghosts": ("A STORE OF", ">SIZE", "BY", ">WOULD HAVE HIT"),
    "ahead": ("AHEAD", "WHY", "STATE", ">CHUNKS", ">THERE", ">MADE", ">SIZE", ">SECONDS", "REASON"),
}


def uses(store: Mapping[str, Any]) -> str:
    if store["hit_ratio"] is None:
        return f"no chunk was used yet; {store['ahead']:,} chunks made ahead"
    per_miss = "" if store["seconds_per_miss"] is None else f" of {store['seconds_per_miss']:.3f} s each"
    return (
        f"{store['hits']:,} hits, {store['misses']:,} misses{per_miss}: {store['hit_ratio']:.1%} hit, "
        f"{store['seconds_saved']:,.1f} s of workers saved; {store['ahead']:,} chunks made ahead"
    )


def _versions(store: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            v["dataset"] or "found at start",
            *(f"{v[name]:,}" if v[name] else "" for name in ("chunks", "stored_chunks")),
            *(readable_bytes(v[name]) if v[name] else "" for name in ("stored_bytes", "needs_bytes")),
            *(f"{v[name]:,}" for name in ("hits", "misses")),
            f"{v['seconds_saved']:.1f} s",
            "being read" if v["held"] else "",
        )
        for v in store["versions"]
    ]


def _ghosts(store: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (f"{g['factor']:g} x the cap", readable_bytes(g["bytes"]), g["policy"], f"{g['hit_ratio']:.1%}")
        for g in store["ghosts"]
    ]


def _ahead(store: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            *(p["dataset"], p["why"], p["state"], f"{p['chunks']:,}", f"{p['there']:,}", f"{p['made']:,}"),
            *(readable_bytes(p["made_bytes"]), f"{p['seconds']:.1f}", p["reason"]),
        )
        for p in store["preloads"]
    ]


def warm(
    name: Name,
    split: Annotated[str, typer.Option(help="default: train")] = "",
    http: Http = None,
    as_json: Json = False,
) -> None:
    """Make all chunks of a dataset now, so that its first epoch is as fast as the second. Ctrl-C ends it."""
    last: dict[str, Any] = {}
    seen = False
    for last in Server(http).warm(name, split):
        if not as_json and sys.stderr.isatty():
            seen = True
            print(f"\r{last['dataset']}: {_done(last)} of {last['chunks']:,} chunks", end="", file=sys.stderr)
    if seen:
        print(file=sys.stderr)
    if last.get("state") not in ("done", "stopped"):
        raise RemoteError("the server ended before all was made")
    if as_json:
        print_json(last)
    else:
        print(
            f"{last['dataset']}: {last['made']:,} chunks made in {last['seconds']:.1f} s "
            f"({readable_bytes(last['made_bytes'])}); {last['there']:,} were there; {last['chunks']:,} in all"
        )
    if last["state"] == "stopped":
        raise RemoteError(last["reason"])


def _done(status: Mapping[str, Any]) -> str:
    return f"{status['there'] + status['made']:,}"
