"""What the ranks of one job must have in common: pure bookkeeping of what their sessions ask for.

Claims of a job's stream form *rounds*: stream objects of different ranks that agree with each other. A rank's new
object, of a restarted job or of a loop that opens one stream after the other, differs from what the rank had before; it
then begins a round, and the other ranks' new objects join it. So old sessions that still linger refuse nobody.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from penstock_service.core.errors import RanksDisagree

Facts = tuple[tuple[str, object], ...]  # what, and its value
Slot = tuple[int, int]  # rank, replica
Stream = tuple[str, str]  # job, name

_START: Final = "start"


@dataclass(frozen=True)
class Claim:
    """What one rank asks for, and from where on."""

    rank: int
    replica: int
    token: str  # of the stream object; empty where a client tells none
    reopened: bool  # the object was let in before, perhaps by another server
    start: str  # where its process took its first step; empty: not told, and compared with nobody's
    position: tuple[int, int, int]  # epoch, segment, units taken: where this session begins
    always: Facts  # the same for all ranks
    here: Facts  # the same for all ranks that begin at this position; None: anything

    @property
    def slot(self) -> Slot:
        return self.rank, self.replica


@dataclass
class _Round:
    objects: dict[Slot, str] = field(default_factory=dict)  # the token that came last on each rank, also if it left
    live: dict[int, Claim] = field(default_factory=dict)  # by ticket

    def fits(self, claim: Claim) -> bool:
        """Does `claim` ask for what all here ask for, other objects of its own rank too?"""
        return not any(
            mine != theirs for other in self.live.values() for mine, theirs in _compared(claim, other, whole=True)
        )

    def differing(self, claim: Claim, whole: bool = True) -> list[str]:
        """What `claim` asks for otherwise than another rank; not `whole`: only what may change from step to step."""
        found: dict[str, str] = {}
        for other in self.live.values():
            if other.slot == claim.slot:
                continue
            for (name, mine), (_, theirs) in _compared(claim, other, whole):
                if mine != theirs:
                    text = f"{name}: rank {claim.rank} asks for {mine}, rank {other.rank} for {theirs}"
                    found.setdefault(name, text)
        return list(found.values())


class Agreement:
    """Claims of live sessions."""

    def __init__(self) -> None:
        self._rounds: dict[Stream, list[_Round]] = {}
        self._next = 0

    def join(self, job: str, name: str, claim: Claim) -> int:
        """Enter a claim; gives the ticket to leave with.

        Raises:
            RanksDisagree: other ranks of the job ask for something else.
        """
        rounds = self._rounds.setdefault((job, name), [])
        try:
            found = _round_of(rounds, claim)
        except _Differ as differ:
            raise _disagree(job, name, differ.what) from None
        finally:
            if not rounds:
                del self._rounds[job, name]
        if found is None:
            found = _Round()
            self._rounds.setdefault((job, name), rounds).append(found)
        self._next += 1
        found.live[self._next] = claim
        found.objects[claim.slot] = claim.token
        return self._next

    def started(self, job: str, name: str, ticket: int, start: str) -> None:
        """The rank takes its first step, at `start`.

        Raises:
            RanksDisagree: other ranks of the job began elsewhere. The rank then has no place among them.
        """
        for found in self._rounds.get((job, name), []):
            claim = found.live.get(ticket)
            if claim is None or claim.start:
                continue
            claim = found.live[ticket] = replace(claim, start=start)
            differing = found.differing(claim)
            if differing:
                found.objects.pop(claim.slot, None)
                raise _disagree(job, name, differing)

    def leave(self, job: str, name: str, ticket: int) -> None:
        """May be called twice."""
        rounds = self._rounds.get((job, name), [])
        for found in rounds:
            found.live.pop(ticket, None)
        rounds[:] = [found for found in rounds if found.live]
        if not rounds:
            self._rounds.pop((job, name), None)


class _Differ(Exception):
    def __init__(self, what: list[str]) -> None:
        super().__init__(what)
        self.what = what


def _round_of(rounds: list[_Round], claim: Claim) -> _Round | None:
    """The round that a claim belongs to; None: one of its own. Raises _Differ where it belongs and disagrees."""
    newest_first = rounds[::-1]
    for found in newest_first:
        if claim.token and found.objects.get(claim.slot) == claim.token:
            if differing := found.differing(claim, whole=False):
                raise _Differ(differing)
            return found
    for found in newest_first:
        if found.fits(claim):
            return found
    # One that was let in before is not judged anew: after a restart of the server the others may be of another round.
    if not claim.reopened:
        for found in newest_first:
            if claim.slot not in found.objects and (differing := found.differing(claim)):
                raise _Differ(differing)
    return None


def _compared(claim: Claim, other: Claim, whole: bool) -> list[tuple[tuple[str, object], tuple[str, object]]]:
    pairs = list(zip(claim.always, other.always, strict=True)) if whole else []
    if claim.position == other.position:
        here = zip(claim.here, other.here, strict=True)
        pairs += [pair for pair in here if None not in (pair[0][1], pair[1][1])]
    if whole and claim.start and other.start:
        pairs.append(((_START, _place(claim.start)), (_START, _place(other.start))))
    return pairs


def _place(start: str) -> str:
    epoch, segment, taken = start.split(".")
    return f"epoch {epoch}, segment {segment} after {taken} units"


def _disagree(job: str, name: str, differing: list[str]) -> RanksDisagree:
    return RanksDisagree(
        f"the ranks of job {job!r} disagree on stream {name!r}; {'; '.join(differing)}. All ranks must ask for the "
        "same and begin at the same state; jobs that have nothing to do with each other need another job= or name="
    )
