"""Who is slow: the time of the training loop, split by where it went. A mapping as well as a sentence."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from penstock_proto.v1 import data_pb2 as pb


@dataclass
class Clock:
    """Adds up what the loop waited for and what it did in between. Times in seconds."""

    began: float | None = None
    waited: float = 0.0
    first_wait: float | None = None  # until the first step of all: start-up, told apart
    steps: int = 0
    rows: int = 0
    bytes: int = 0
    reconnects: int = 0
    server_rows: float = 0.0  # the server waited for rows to be made, for bundles the trainer waited for
    server_gather: float = 0.0
    epochs: int = 0
    dropped: int = 0
    padded: int = 0
    repeated: int = 0
    unread: int = 0
    skipped: int = 0  # bad rows left out
    substituted: int = 0  # bad rows that another row stood for
    target_rows_per_s: float = 0.0  # what the user wants; 0: nothing said
    paced: float = 0.0  # seconds held back by max_rows_per_s
    copied: int = 0  # bytes copied to make tensors of what was received
    received: Callable[[], Mapping[str, float | int | str]] = dict  # what the connection and the receive buffers say
    transport: str = "not connected"
    transport_reason: str = ""
    waits_by: dict[str, float] = field(default_factory=lambda: {"storage": 0.0, "mixing": 0.0, "wire": 0.0})

    def step(self, waited: float, rows: int) -> None:
        now = time.monotonic()
        if self.began is None:
            self.began = now
            self.first_wait = waited
            for cause in self.waits_by:
                self.waits_by[cause] = 0.0
        else:
            self.waited += waited
        self.steps += 1
        self.rows += rows

    def epoch(self, end: pb.EpochEnd) -> None:
        self.epochs += 1
        self.dropped += end.dropped
        self.padded += end.padded
        self.repeated += end.repeated_rows
        self.unread += end.unread
        self.skipped += end.skipped_rows
        self.substituted += end.substituted_rows

    def bundle(self, waited: float, rows_wait: float, gather: float, size: int) -> None:
        """A bundle came after the loop had waited `waited` for it; the server says what it was doing."""
        self.bytes += size
        storage = min(waited, rows_wait)
        mixing = min(waited - storage, gather)
        self.waits_by["storage"] += storage
        self.waits_by["mixing"] += mixing
        self.waits_by["wire"] += waited - storage - mixing


class Profile(Mapping[str, float | int | str]):
    """A snapshot of a stream's clock. `str(profile)` is the verdict."""

    def __init__(self, clock: Clock) -> None:
        total = time.monotonic() - clock.began if clock.began is not None else 0.0
        share = min(1.0, clock.waited / total) if total > 0 else 0.0
        causes = clock.waits_by
        known = sum(causes.values())
        self._values: dict[str, float | int | str] = {
            "seconds": total,
            "steps": clock.steps,
            "rows": clock.rows,
            "bytes": clock.bytes,
            "copied_bytes": clock.copied,
            "copies": clock.copied / clock.bytes if clock.bytes else 0.0,
            "rows_per_s": clock.rows / total if total > 0 else 0.0,
            "bytes_per_s": clock.bytes / total if total > 0 else 0.0,
            "waited_s": clock.waited,
            "waited_share": share,
            "first_batch_s": clock.first_wait or 0.0,
            **{f"{cause}_share": value / known if known else 0.0 for cause, value in causes.items()},
            "reconnects": clock.reconnects,
            "epochs": clock.epochs,
            "dropped_rows": clock.dropped,
            "padded_rows": clock.padded,
            "repeated_rows": clock.repeated,
            "unread_rows": clock.unread,
            "skipped_rows": clock.skipped,
            "substituted_rows": clock.substituted,
            "paced_s": clock.paced,
            "target_rows_per_s": clock.target_rows_per_s,
            "transport": clock.transport,
            "transport_reason": clock.transport_reason,
            **clock.received(),
        }

    def __getitem__(self, key: str) -> float | int | str:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __str__(self) -> str:
        v = self._values
        if not v["steps"]:
            return "nothing was received yet"
        share = float(v["waited_share"])
        target = float(v["target_rows_per_s"])
        missed = f"; the target of {target:,.0f} rows/s is missed" if float(v["rows_per_s"]) < target else ""
        text = (
            f"{v['steps']} steps, {v['rows']} rows in {float(v['seconds']):.1f} s "
            f"({float(v['rows_per_s']):,.0f} rows/s, {float(v['bytes_per_s']) / 1e6:,.1f} MB/s over {v['transport']}); "
            f"{float(v['copies']):.1f} copies of what was received; "
            f"the first batch took {float(v['first_batch_s']):.2f} s; "
            f"after it the trainer waited {share:.0%} of the time{missed}"
        )
        if share < 0.05:
            return f"{text}: the trainer is the slow one"
        shares = {cause: float(v[f"{cause}_share"]) for cause in ("storage", "mixing", "wire")}
        worst = max(shares, key=lambda cause: shares[cause])
        split = ", ".join(f"{value:.0%} {cause}" for cause, value in shares.items())
        return f"{text}, of that {split}: {worst} is the slow one"

    def __repr__(self) -> str:
        return f"<Profile: {self}>"
