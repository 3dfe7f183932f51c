"""`penstock jobs`: who trains from a running server, and who holds the others up."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock_service.admin.dataset_commands import Http, Json
from penstock_service.admin.remote import Server
from penstock_service.admin.tables import print_json, print_table


def show_jobs(http: Http = None, as_json: Json = False) -> None:
    """The jobs of a running server: each rank, where it is, how far behind, and what it waits for."""
    found = Server(http).jobs()
    print_json({"jobs": found}) if as_json else print_jobs(found)


def print_jobs(jobs: Sequence[Mapping[str, Any]]) -> None:
    if not jobs:
        print("no jobs: nobody is connected")
        return
    columns = ("JOB", "STREAM", ">RANK", "STATE", ">FOR", ">EPOCH", ">STEP", ">ROWS/S", ">BEHIND", "CLIENT")
    print_table(columns, list(_rows(jobs)))
    for job in jobs:
        for stream in job["streams"]:
            for what in ("missing", "lagging"):
                if stream[what]:
                    numbers = ", ".join(map(str, stream[what]))
                    print(f"{what}: {numbers} of the {stream['world_size']} ranks of {job['job']}, {stream['name']}")


def _rows(jobs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for job in jobs:
        for stream in job["streams"]:
            for rank in stream["ranks"]:
                replica = f" ({rank['replica']})" if rank["replica"] else ""
                yield (
                    job["job"],
                    stream["name"],
                    f"{rank['rank']}{replica}",
                    "stalled, " + rank["state"] if rank["stalled"] else rank["state"],
                    f"{rank['seconds']:.0f} s",
                    str(rank["epoch"]),
                    f"{rank['step']:,}",
                    f"{rank['rows_per_s']:,.0f}",
                    _behind(rank),
                    rank["client"],
                )


def _behind(rank: Mapping[str, Any]) -> str:
    if not rank["connected"]:
        return ""
    steps = "" if rank["steps_behind"] is None else f"{rank['steps_behind']:,} steps"
    return f"{steps}, {rank['seconds_behind']:.0f} s".lstrip(", ") if rank["seconds_behind"] >= 1 else steps
