"""Runs: what a client may ask about the order of a stream that is being read, and change in it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from penstock.errors import InvalidRequest
from penstock.link import Link
from penstock_proto.v1 import control_pb2 as pb
from penstock_proto.v1 import control_pb2_grpc

_CALL_TIMEOUT: Final = 30.0  # seconds


@dataclass(frozen=True)
class RunInfo:
    """A run: one job's reading of one stream, from its beginning on, over all resumes. Its journal holds what was
    changed by hand, or could not be read.
    """

    id: str
    job: str
    stream: str  # its name within the job
    datasets: tuple[str, ...]  # NAME@VERSION; empty while nobody reads it
    world_size: int  # 0 while nobody reads it
    ranks: tuple[int, ...]  # those that read it now
    epoch: int | None  # the first segment of which no rank holds a row
    segment: int | None
    head: str  # of the chain of entries
    entries: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, run: pb.Run) -> Self:
        return cls(
            id=run.id,
            job=run.job,
            stream=run.stream,
            datasets=tuple(run.datasets),
            world_size=run.world_size,
            ranks=tuple(run.ranks),
            epoch=run.epoch if run.HasField("epoch") else None,
            segment=run.segment if run.HasField("segment") else None,
            head=run.head,
            entries=tuple(json.loads(run.entries or "[]")),
        )


@dataclass(frozen=True)
class Change:
    """A change of a run that was written down, and from where on it holds. `str` says it in a sentence."""

    run: str
    epoch: int
    segment: int
    step: int  # of that epoch: the first that may hold a row of that segment
    exact: bool  # False: `step` is an estimate
    complete_epoch: int  # from here on no row is left that entered the pool before
    complete_segment: int
    complete_step: int  # about

    @classmethod
    def of(cls, began: pb.Began) -> Self:
        return cls(
            began.run,
            began.epoch,
            began.segment,
            began.step,
            began.exact,
            began.complete_epoch,
            began.complete_segment,
            began.complete_step,
        )

    def __str__(self) -> str:
        begins = f"{'' if self.exact else 'about '}step {self.step} of epoch {self.epoch} (segment {self.segment})"
        complete = (
            f"by about step {self.complete_step} of epoch {self.complete_epoch} (segment {self.complete_segment})"
        )
        if (self.complete_epoch, self.complete_segment) == (self.epoch, self.segment):
            complete = "there"
        return f"run {self.run}: begins with {begins} and is complete {complete}"


class Runs:
    """The part of a `Client` that is about runs."""

    _link: Link

    def runs(self) -> list[RunInfo]:
        """Runs that are being read from this server, and those whose journal it keeps."""
        return [RunInfo.of(run) for run in _ask(self._link, "ListRuns", pb.ListRunsRequest()).runs]

    def set_mixture(
        self, weights: Mapping[str, float], *, run: str = "", job: str | None = None, stream: str | None = None
    ) -> Change:
        """Change the mixture of a run while it is read, on all its ranks and for good: for what is left of the epoch
        from the first chunk set on of which no rank holds a row, and for all later epochs. Written down before it
        takes effect; a resume from before it meets it at the same row.

        Args:
            weights: of every dataset of the mixture, by name.
            run: its id, or as many of its first letters as tell it from others; else `job` and `stream` name the one
                run that is being read.

        Raises:
            InvalidRequest: weights that cannot be; ranks of the run that are not connected; or a later entry of the
                journal after a rollback.
        """
        run = run or self._being_read(job, stream)
        return Change.of(change_mixture(self._link, run, weights))

    def quarantine(
        self,
        dataset: str,
        rows: Sequence[int | str],
        *,
        run: str = "",
        job: str | None = None,
        stream: str | None = None,
        reason: str = "",
    ) -> Change:
        """Leave rows of a dataset out of what a run has still to read; no other row moves.

        Args:
            dataset: by name, as in the mixture.
            rows: stored numbers (`batch.metadata.ids`, `ds[i]`), or ranges such as "40-49".
            run, job, stream: as for `set_mixture`.
            reason: is kept with it.

        Raises: as `set_mixture`.
        """
        run = run or self._being_read(job, stream)
        request = pb.QuarantineRequest(run=run, dataset=dataset, rows=[str(r) for r in rows], reason=reason)
        return Change.of(_ask(self._link, "Quarantine", request))

    def _being_read(self, job: str | None, stream: str | None) -> str:
        if job is None and stream is None:
            raise InvalidRequest("which run? Give run=, or job= and stream=; client.runs() lists them")
        found = [r for r in self.runs() if r.ranks and job in (None, r.job) and stream in (None, r.stream)]
        if len(found) != 1:
            which = ", ".join(f"{r.id} (job {r.job!r}, stream {r.stream!r})" for r in found) or "none"
            raise InvalidRequest(f"job={job!r}, stream={stream!r}: of the runs being read these fit: {which}")
        return found[0].id


def change_mixture(link: Link, run: str, weights: Mapping[str, float]) -> pb.Began:
    """What the server says of a mixture that was changed."""
    began: pb.Began = _ask(link, "SetMixture", pb.SetMixtureRequest(run=run, weights=_numbers(weights)))
    return began


def reads(link: Link, run: str, rank: int) -> bool:
    """Does the server know that this rank reads the run now?"""
    return any(r.id == run and rank in r.ranks for r in _ask(link, "ListRuns", pb.ListRunsRequest()).runs)


def _ask(link: Link, method: str, request: Any) -> Any:
    stub = control_pb2_grpc.ControlStub(link.channel())
    return link.call(getattr(stub, method), request, _CALL_TIMEOUT)


def _numbers(weights: Mapping[str, float]) -> dict[str, float]:
    try:
        return {str(name): float(weight) for name, weight in weights.items()}
    except (AttributeError, TypeError, ValueError):
        raise InvalidRequest(f"weights={weights!r}: must be numbers by dataset, as {{'web': 0.5, ...}}") from None
