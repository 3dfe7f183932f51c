"""From sessions to jobs: who is missing, who is behind. Pure: it is shown the sessions now and then, and the time.

How far behind a rank is, is measured in time: the front rank was where this one is so many seconds ago. Trainers say
where they are every few seconds, so their steps alone would make every fast job look torn apart.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from penstock_service.core.job import JobStatus, JobStreamStatus, RankStatus
from penstock_service.core.status import SessionStatus

Position = tuple[int, int]  # epoch, step
Slot = tuple[int, int]  # replica, rank
Key = tuple[str, str]  # job, stream

_RATE_OVER: Final = 30.0  # seconds that rows/s are counted over
_LISTED: Final = 4096  # most ranks of a stream that are looked for; of those beyond only the connected are listed
_FRONTS: Final = 600  # most positions of the front that are remembered


@dataclass
class _Place:
    """What is remembered of one rank."""

    session: str = ""
    came: float = 0.0
    left: float | None = None
    client: str = ""
    at: Position = (0, 0)
    jumped: float = float("-inf")  # when it last went back
    rows: deque[tuple[float, int]] = field(default_factory=deque)  # sent until when

    def see(self, status: SessionStatus, now: float) -> None:
        if status.session != self.session:
            self.session, self.came = status.session, now - status.seconds_connected
            self.rows.clear()
            self.rows.append((self.came, 0))
        at = (status.taken_epoch, status.taken_step)
        if at[1] == status.epoch_steps:
            at = (at[0] + 1, 0)
        if at < self.at:
            self.jumped = now
        self.at, self.left, self.client = at, None, status.client
        self.rows.append((now, status.rows_sent))
        while len(self.rows) > 2 and now - self.rows[1][0] > _RATE_OVER:
            self.rows.popleft()

    @property
    def rows_per_s(self) -> float:
        (began, before), (ended, after) = self.rows[0], self.rows[-1]
        return 0.0 if self.left is not None or ended <= began else (after - before) / (ended - began)


@dataclass
class _Seen:
    """What is remembered of one stream of a job."""

    first: float
    places: dict[Slot, _Place] = field(default_factory=dict)
    fronts: deque[tuple[float, Position]] = field(default_factory=lambda: deque(maxlen=_FRONTS))

    def move_front(self, front: Position, now: float) -> None:
        if self.fronts and front < self.fronts[-1][1]:
            self.fronts.clear()
        if not self.fronts or front > self.fronts[-1][1]:
            self.fronts.append((now, front))

    def behind_since(self, place: _Place, now: float) -> float:
        passed = next((when for when, front in self.fronts if front > place.at), now)
        return max(passed, place.came, place.jumped)


class Ranks:
    """Remembers what was seen of jobs that have a session."""

    def __init__(self, missing_after: float, lagging_after: float) -> None:
        """Seconds after which a rank is called missing, or lagging."""
        self._missing_after = missing_after
        self._lagging_after = lagging_after
        self._seen: dict[Key, _Seen] = {}
        self._told: set[tuple[Key, str, tuple[int, ...]]] = set()

    def observe(self, sessions: Iterable[SessionStatus], now: float) -> tuple[JobStatus, ...]:
        """All jobs that have a session, by name."""
        by_stream: dict[Key, list[SessionStatus]] = {}
        for status in sessions:
            by_stream.setdefault((status.job, status.name), []).append(status)
        self._seen = {key: seen for key, seen in self._seen.items() if key in by_stream}
        streams: dict[str, list[JobStreamStatus]] = {}
        for key in sorted(by_stream):
            streams.setdefault(key[0], []).append(self._stream(key, by_stream[key], now))
        return tuple(JobStatus(job, tuple(found)) for job, found in streams.items())

    def news(self, jobs: Iterable[JobStatus]) -> list[str]:
        """What an operator should read, told once: ranks that are missing or lag, and that they no longer do."""
        now: dict[tuple[Key, str, tuple[int, ...]], str] = {}
        there: set[Key] = set()
        for job in jobs:
            for stream in job.streams:
                key = job.job, stream.name
                there.add(key)
                where = f"job {job.job}, stream {stream.name}"
                if stream.missing:
                    now[key, "missing", stream.missing] = (
                        f"{where}: {_ranks(stream.missing, stream.world_size)} not been there for more than "
                        f"{self._missing_after:g} s"
                    )
                if stream.lagging:
                    now[key, "lagging", stream.lagging] = f"{where}: {_laggards(stream)}"
        lines = [line for what, line in now.items() if what not in self._told]
        still = {what[:2] for what in now}
        over = sorted((k, w) for k, w, _ in self._told if k in there and (k, w) not in still)
        lines += [f"job {k[0]}, stream {k[1]}: no rank is {w} now" for k, w in over]
        self._told = set(now)
        return lines

    def _stream(self, key: Key, sessions: Sequence[SessionStatus], now: float) -> JobStreamStatus:
        newest = min(sessions, key=lambda s: s.seconds_connected)
        seen = self._seen.setdefault(key, _Seen(now - max(s.seconds_connected for s in sessions)))
        live: dict[Slot, SessionStatus] = {}
        for status in sorted(sessions, key=lambda s: -s.seconds_connected):
            live[status.replica, status.rank] = status  # where a rank has two, the newer one
        for slot, status in live.items():
            seen.places.setdefault(slot, _Place()).see(status, now)
        self._note_who_left(seen, live, newest.world_size, now)
        front = max(seen.places[slot].at for slot in live)
        seen.move_front(front, now)
        replicas = {replica for replica, _ in seen.places}
        numbers = range(min(newest.world_size, _LISTED))
        slots = sorted({(replica, rank) for replica in replicas for rank in numbers} | set(live))
        ranks = tuple(self._rank(seen, slot, live.get(slot), front, now) for slot in slots)
        return JobStreamStatus(
            name=key[1],
            datasets=newest.datasets,
            world_size=newest.world_size,
            epoch=front[0],
            step=front[1],
            rows_per_s=sum(r.rows_per_s for r in ranks),
            missing=tuple(sorted({r.rank for r in ranks if r.missing})),
            lagging=tuple(sorted({r.rank for r in ranks if r.lagging})),
            ranks=ranks,
        )

    @staticmethod
    def _note_who_left(seen: _Seen, live: dict[Slot, SessionStatus], world_size: int, now: float) -> None:
        for slot, place in list(seen.places.items()):
            if slot not in live:
                if slot[1] >= world_size:
                    del seen.places[slot]
                elif place.left is None:
                    place.left = now

    def _rank(self, seen: _Seen, slot: Slot, status: SessionStatus | None, front: Position, now: float) -> RankStatus:
        replica, rank = slot
        place = seen.places.get(slot, _Place(left=seen.first))
        away = 0.0 if status is not None or place.left is None else now - place.left
        missing = away > self._missing_after
        behind = 0.0
        if status is not None and place.at < front:
            behind = now - seen.behind_since(place, now)
        lagging = behind > self._lagging_after
        return RankStatus(
            rank=rank,
            replica=replica,
            connected=status is not None,
            missing=missing,
            state=status.state if status is not None else "missing" if missing else "expected",
            seconds=now - place.came if status is not None else away,
            client=place.client,
            epoch=place.at[0],
            step=place.at[1],
            rows_per_s=place.rows_per_s if place.rows else 0.0,
            steps_behind=_steps_between(place.at, front, status.epoch_steps) if status is not None else None,
            seconds_behind=behind,
            lagging=lagging,
            stalled=lagging and status is not None and status.seconds_since_moved > self._lagging_after,
        )


def _steps_between(at: Position, front: Position, epoch_steps: int | None) -> int | None:
    if at[0] == front[0]:
        return front[1] - at[1]
    return None if epoch_steps is None else (front[0] - at[0]) * epoch_steps + front[1] - at[1]


def _laggards(stream: JobStreamStatus) -> str:
    """One clause for each rank that is far behind."""
    said = []
    for rank in stream.ranks:
        if rank.lagging:
            steps = "" if rank.steps_behind is None else f"steps behind: {rank.steps_behind}, "
            how = "does not get on" if rank.stalled else "lags"
            said.append(
                f"rank {rank.rank} {how}: {rank.seconds_behind:.0f} s behind the front, {steps}{rank.state} "
                f"({rank.client})"
            )
    return "; ".join(said)


def _ranks(numbers: tuple[int, ...], world_size: int) -> str:
    shown = ", ".join(map(str, numbers[:20])) + (f" and {len(numbers) - 20} more" if len(numbers) > 20 else "")
    return f"rank {shown} of {world_size} has" if len(numbers) == 1 else f"ranks {shown} of {world_size} have"
