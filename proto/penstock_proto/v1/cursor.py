"""The cursor: where in a stream's order a trainer is. JSON, small, versioned; lives in the trainer's own checkpoint."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Self

from penstock_proto.v1.skips import Skips, joined

VERSION: Final = 1
MAX_BYTES: Final = 4096


class BadCursor(ValueError):
    """Not a cursor, or one of a version this code does not know."""


@dataclass(frozen=True)
class Cursor:
    """A position after what was received.

    `taken` units of `segment` of `epoch` were part of steps before `step`; `digest` is that of the segment's row ids
    (0 while nothing was taken, or where the position was forced upon another plan). `plan` and `fingerprint` say of
    which order; `seed` and `global_batch` are fields of their own: another batch or world size may go on from here.
    `run` is the run's id and journal as the server made them, empty before there is one; `skip` holds (epoch, begin,
    end) of steps passed over; `on_error` is the policy by which `taken` was counted: whether bad rows are among the
    units depends on it.
    """

    epoch: int
    segment: int
    taken: int
    step: int
    global_batch: int
    seed: int
    digest: int
    plan: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    skip: Skips = ()
    on_error: str = "fail"

    def to_json(self) -> str:
        return json.dumps({"v": VERSION, **asdict(self), "digest": f"{self.digest:016x}"}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            BadCursor: with what is wrong.
        """
        if len(text) > MAX_BYTES:
            raise BadCursor(f"a cursor has at most {MAX_BYTES} bytes, this has {len(text)}")
        try:
            data = json.loads(text)
        except ValueError as error:
            raise BadCursor(f"not JSON: {error}") from error
        if not isinstance(data, dict):
            raise BadCursor(f"expected a JSON object, found {type(data).__name__}")
        version = data.pop("v", None)
        if version != VERSION:
            raise BadCursor(f"cursor version {version!r}; this side reads version {VERSION}")
        return cls._checked(data)

    @classmethod
    def _checked(cls, data: dict[str, Any]) -> Self:
        numbers = ("epoch", "segment", "taken", "step", "global_batch", "seed")
        missing = [name for name in (*numbers, "digest", "plan", "fingerprint") if name not in data]
        if missing:
            raise BadCursor(f"fields {missing} are missing")
        for name in numbers:
            if not isinstance(data[name], int) or data[name] < 0:
                raise BadCursor(f"{name}={data[name]!r}: must be an integer >= 0")
        for name in ("plan", "fingerprint"):
            if not isinstance(data[name], dict):
                raise BadCursor(f"{name}={data[name]!r}: must be an object")
        try:
            digest = int(data["digest"], 16)
        except (TypeError, ValueError) as error:
            raise BadCursor(f"digest={data['digest']!r}: must be hexadecimal digits") from error
        return cls(
            **{n: data[n] for n in numbers},
            digest=digest,
            plan=data["plan"],
            fingerprint=data["fingerprint"],
            run=_object(data.get("run", {})),
            skip=read_skip(data.get("skip", [])),
            on_error=str(data.get("on_error", "fail")),
        )

    def after(self, steps: int, units: int, spans: Sequence[tuple[int, int, int]], first: int) -> Self:
        """The position after `steps` more steps, which end `units` units into the bundle.

        Args:
            spans: (segment, units the bundle takes from it, digest), in order; the bundle begins at this cursor.
            first: units taken from the first span's segment before the bundle.
        """
        left, before = units, first
        for segment, of_segment, digest in spans:
            if left <= of_segment:
                return replace(self, segment=segment, taken=before + left, digest=digest, step=self.step + steps)
            left, before = left - of_segment, 0
        raise ValueError(f"{units} units are not in a bundle of {sum(s[1] for s in spans)}")

    def start_of(self, epoch: int) -> Self:
        """Before the first step of an epoch of the same order."""
        return replace(self, epoch=epoch, segment=0, taken=0, step=0, digest=0)

    def next_epoch(self) -> Self:
        return self.start_of(self.epoch + 1)

    def same_order(self, other: Self) -> bool:
        """Is the other one a position in the same order of the same run?"""
        mine, its = ((at.seed, at.plan, at.run.get("id")) for at in (self, other))
        return mine == its


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadCursor(f"run={value!r}: must be an object")
    return value


def read_skip(value: object) -> Skips:
    """[[epoch, begin, end], ...] as ranges of steps; raises BadCursor."""
    try:
        ranges = tuple((int(epoch), int(begin), int(end)) for epoch, begin, end in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise BadCursor(f"skip={value!r}: must be a list of [epoch, begin, end]") from error
    if any(epoch < 0 or not 0 <= begin <= end for epoch, begin, end in ranges):
        raise BadCursor(f"skip={value!r}: must be steps 0 <= begin <= end of epochs >= 0")
    return joined(ranges)
