"""Who holds each rank: a newer process takes it over from an older one. Pure bookkeeping; time is passed in.

Only another *process* fences: stream objects of one process share a rank as they like. The server remembers whom it
fenced, so that one who did not hear of it is refused when it comes back; memory is enough, because no order of rows
depends on it.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from penstock_service.core.errors import Fenced

REMEMBERED: Final = 60.0  # seconds after its last session in which the holder is taken to be reconnecting
KEYS: Final = 4096  # most keys that are remembered without a session
FENCED: Final = 16  # most fenced processes that are remembered for each key


@dataclass(frozen=True)
class Key:
    """One rank's place in a job."""

    job: str
    name: str
    rank: int
    replica: int


@dataclass(frozen=True)
class Comer:
    """Who opens a session. `token` is PROCESS.OBJECT; empty: a client that tells none, which is never fenced."""

    token: str
    reopened: bool  # the object had a session before
    client: str

    @property
    def process(self) -> str:
        return self.token.partition(".")[0]


@dataclass(frozen=True)
class Taken:
    """Sessions that end because another one began."""

    fenced: tuple[str, ...] = ()  # of another process
    replaced: tuple[str, ...] = ()  # of the same stream object: what it had before it reconnected


@dataclass
class _Held:
    process: str
    client: str
    live: dict[str, str] = field(default_factory=dict)  # token by session
    left: float = float("-inf")  # when the last session ended
    fenced: OrderedDict[str, None] = field(default_factory=OrderedDict)  # processes, the latest last

    def holding(self, now: float) -> bool:
        return bool(self.live) or now - self.left < REMEMBERED


class Fences:
    """The holder of each key."""

    def __init__(self) -> None:
        self._held: OrderedDict[Key, _Held] = OrderedDict()

    def check(self, key: Key, comer: Comer, now: float) -> None:
        """Raises Fenced where the key was taken over from this comer."""
        held = self._held.get(key)
        if held is None or not comer.token or comer.process == held.process:
            return
        fenced = comer.process in held.fenced
        if (comer.reopened and (fenced or held.holding(now))) or (fenced and held.live):
            raise taken_over(key, held.client)

    def take(self, key: Key, comer: Comer, session: str, now: float) -> Taken:
        """`session` of `comer` holds the key from now on, and those named in the answer must end.

        Raises:
            Fenced: as `check`.
        """
        if not comer.token:
            return Taken()
        self.check(key, comer, now)
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = _Held(comer.process, comer.client)
        fenced: tuple[str, ...] = ()
        if held.process != comer.process:
            if held.live:
                held.fenced[held.process] = None
                fenced = tuple(held.live)
            held.fenced.pop(comer.process, None)
            held.process, held.live = comer.process, {}
        held.client = comer.client
        replaced = tuple(old for old, token in held.live.items() if token == comer.token)
        for old in replaced:
            del held.live[old]
        held.live[session] = comer.token
        while len(held.fenced) > FENCED:
            held.fenced.popitem(last=False)
        self._held.move_to_end(key)
        self._forget()
        return Taken(fenced, replaced)

    def leave(self, key: Key, session: str, now: float) -> None:
        """The session has ended. May be called twice, and for one that holds nothing."""
        held = self._held.get(key)
        if held is not None and held.live.pop(session, None) is not None and not held.live:
            held.left = now

    def _forget(self) -> None:
        """Of keys without a session only the latest are remembered."""
        if len(self._held) <= KEYS:
            return
        idle = [key for key, held in self._held.items() if not held.live]
        for key in idle[: max(0, len(idle) - KEYS)]:
            del self._held[key]


def taken_over(key: Key, by: str) -> Fenced:
    return Fenced(
        f"rank {key.rank} (replica {key.replica}) of job {key.job!r}, stream {key.name!r}, was taken over by another "
        f"process: {by}. One process at a time reads a rank. If this one is a leftover, end it; if both are meant, "
        "give them different rank=, replica=, name= or job=, and start this one again",
        by,
    )
