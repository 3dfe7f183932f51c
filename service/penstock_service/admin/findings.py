"""What `penstock doctor` looks for: a list of functions, each from what the server says to findings. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from penstock_service.admin.tables import readable_bytes

Severity = Literal["problem", "note"]
"""A problem costs time or stops somebody now; a note is worth knowing."""

Facts = Mapping[str, Any]
"""JSON of the API: `ready`, `store`, `load`, `sessions`, `jobs`, `places`."""


@dataclass(frozen=True)
class Finding:
    severity: Severity
    what: str
    cure: str


def not_ready(facts: Facts) -> Iterator[Finding]:
    for check in facts["ready"]["failing"]:
        yield Finding("problem", f"not ready: {check}", "the server is starting or draining; its log says what it does")


def places(facts: Facts) -> Iterator[Finding]:
    for place in facts["places"]:
        if place["state"] != "closed":
            yield Finding(
                "problem",
                f"{place['place']} failed {place['failures']} times in a row: {place['error']}",
                "mend the disk, mount or store; it is tried again now and then",
            )


def store_trouble(facts: Facts) -> Iterator[Finding]:
    store = facts["store"]
    if store["trouble"]:
        yield Finding(
            "problem",
            f"chunks cannot be written to {store['folder']}: {store['trouble']}",
            "free the disk, or give the server another --store-dir or a smaller --store-bytes",
        )
    if store["bad_files"]:
        yield Finding(
            "note", f"{store['bad_files']} torn chunk files were found and made again", "look at the disk's health"
        )


def working_set(facts: Facts) -> Iterator[Finding]:
    store = facts["store"]
    if store["limit"] and store["working_set"] > store["limit"]:
        enough = -(-store["working_set"] * 11 // 10 >> 20) + 1
        yield Finding(
            "problem",
            f"what is read now needs {readable_bytes(store['working_set'])} of chunks, the store holds "
            f"{readable_bytes(store['limit'])}: the rest is made again in every epoch",
            f"--store-bytes {enough}MiB",
        )


def hit_ratio(facts: Facts) -> Iterator[Finding]:
    store = facts["store"]
    ghosts = {g["factor"]: g for g in store["ghosts"] if g["policy"] == store["rule"]}
    same, twice = ghosts.get(1.0), ghosts.get(2.0)
    if same and twice and twice["hit_ratio"] - same["hit_ratio"] > 0.1:
        yield Finding(
            "note",
            f"{same['hit_ratio']:.0%} of the latest uses of chunks were hits; twice the store would have hit "
            f"{twice['hit_ratio']:.0%}",
            f"--store-bytes {twice['bytes'] >> 20}MiB",
        )
    others = {g["policy"]: g["hit_ratio"] for g in store["ghosts"] if g["factor"] == 1.0}
    best = max(others, key=lambda policy: others[policy], default=store["rule"])
    if store["policy"] != "adaptive" and others and others[best] - others.get(store["rule"], 0.0) > 0.1:
        yield Finding(
            "note",
            f"versions give way by {store['rule']}; by {best} {others[best]:.0%} would have been hits",
            f"--store-policy {best}, or adaptive",
        )


def shared_memory(facts: Facts) -> Iterator[Finding]:
    for session in facts["sessions"]:
        reason = session["transport_reason"]
        over = session["transport"]
        named = "gRPC" if over == "grpc" else "TCP"
        if over != "shm" and reason.startswith("no shared memory"):
            yield Finding(
                "problem",
                f"session {session['session']} of {session['job']} gets its rows over {named}: {reason}",
                "make /dev/shm larger (docker run --shm-size), or the client's prefetch_bytes smaller",
            )
        elif over == "grpc" and reason.startswith("no payload socket"):
            yield Finding(
                "problem",
                f"session {session['session']} of {session['job']} gets its rows over gRPC, which costs more: {reason}",
                "let trainers reach the port that GET /api/v1/info calls payload, pinned with --payload PORT; behind "
                "NAT or a proxy name it with --payload-advertise HOST:PORT",
            )


def waiting(facts: Facts) -> Iterator[Finding]:
    for session in facts["sessions"]:
        rows, connected = session["seconds_waiting_for_rows"], session["seconds_connected"]
        if connected > _FIRST_SECONDS and rows > 0.2 * connected and rows > session["seconds_waiting_for_credit"]:
            yield Finding(
                "problem",
                f"rank {session['rank']} of {session['job']}, {session['name']}, waited for rows "
                f"{rows / connected:.0%} of its time: the server is slower than its trainer",
                "more --workers if CPUs are free; penstock warm before the job; fewer or cheaper row transforms",
            )


def missing_ranks(facts: Facts) -> Iterator[Finding]:
    for job in facts["jobs"]:
        for stream in job["streams"]:
            if stream["missing"]:
                named = ", ".join(map(str, stream["missing"]))
                yield Finding(
                    "problem",
                    f"ranks {named} of the {stream['world_size']} of {job['job']}, {stream['name']}, are missing",
                    "look at those trainers: the others may wait for them",
                )


def event_loop(facts: Facts) -> Iterator[Finding]:
    lag = facts["load"]["loop_lag_seconds"]
    if lag > 0.05:
        yield Finding(
            "problem",
            f"the server's event loop was {lag:.2f} s late in the last ten seconds: every session waits for it",
            "give the machine more CPU, or the server fewer --workers",
        )
    if restarted := facts["load"]["workers_restarted"]:
        yield Finding(
            "note", f"{restarted} workers died and were replaced", "the log says why; the kernel's, if memory was short"
        )


_FIRST_SECONDS: Final = 10.0  # of a session, in which its first rows are waited for

CHECKS: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    not_ready,
    places,
    store_trouble,
    working_set,
    hit_ratio,
    shared_memory,
    waiting,
    missing_ranks,
    event_loop,
)


def examine(facts: Facts) -> list[Finding]:
    """Problems first."""
    found = [finding for check in CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: finding.severity != "problem")
