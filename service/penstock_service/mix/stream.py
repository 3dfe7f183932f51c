"""A stream as the server sees it: what was subscribed to, resolved against the registry, and its fingerprint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np

from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import CHUNK_FAULTS, InvalidRequest, JournalConflict
from penstock_service.core.hashing import short_hash
from penstock_service.core.journal import Entry, Journal, mixtures
from penstock_service.core.plan import PlanConstants, PoolDefaults, PoolWish, Until, resolve
from penstock_service.core.segment import ChunkSource
from penstock_service.mix.epochs import Epochs
from penstock_service.mix.masks import Masks
from penstock_service.mix.meter import Meter
from penstock_service.mix.pool import InOrder, MixingPool, Order
from penstock_service.mix.quality import Stored
from penstock_service.mix.schedule import Schedule, integer_weights

WeightBy = Literal["rows", "shards", "bytes"]

SEMANTICS: Final = 1
"""Raised by hand when the order made from the same inputs changes; pinned by golden tests."""


@dataclass(frozen=True)
class StreamWish:
    """What a client asked for, with datasets looked up."""

    sources: tuple[DatasetVersion, ...]
    weights: tuple[float | None, ...]
    seed: int
    shuffle: bool = True
    pool: PoolWish = field(default_factory=PoolWish)
    until: Until = "all"
    epoch_rows: int | None = None
    reshuffle: bool = True
    weight_by: WeightBy = "rows"


@dataclass(frozen=True)
class Stream:
    """A stream whose order is fixed: everything but the epoch is known."""

    sources: tuple[DatasetVersion, ...]
    weights: tuple[int, ...]
    seed: int
    shuffle: bool
    plan: PlanConstants
    until: Until
    epoch_rows: int | None
    reshuffle: bool = True
    row_bytes: float = 64.0  # mean, processed, over fixed chunks; no part of the fingerprint
    entries: tuple[Entry, ...] = ()  # of the run's journal; no part of the fingerprint either

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for streams with the same order, and only for them."""
        return (
            *self.fingerprint().values(),
            self.seed,
            self.plan,
            tuple(s.root for s in self.sources),
            Journal("", self.entries).head,
        )

    def fingerprint(self) -> dict[str, str]:
        """One short hash per field; seed, epoch, batch, world size and what only the view knows are not in it."""
        return {
            "sources": short_hash(*(s.label for s in self.sources)),
            "versions": short_hash(*(s.content for s in self.sources)),
            "weights": short_hash(*(str(w) for w in self.weights)),
            "transforms": short_hash(*(s.chain.fingerprint for s in self.sources if s.chain is not None)),
            "pool": short_hash(*(f"{k}={v}" for k, v in self.plan.to_json().items())),
            "end": short_hash(self.until, str(self.epoch_rows)),
            "order": short_hash(
                "mixed" if self.shuffle else "stored",
                "anew each epoch" if self.reshuffle or not self.shuffle else "the same each epoch",
                str(SEMANTICS),
            ),
        }

    @property
    def may_drop(self) -> bool:
        """May filters leave rows out? Then nobody knows beforehand how many steps there are."""
        return any(s.chain is not None and s.chain.may_drop for s in self.sources)

    def order(self) -> Order:
        """The order itself; holds memos, so ask once per stream."""
        if not self.shuffle:
            return InOrder([s.manifest.rows for s in self.sources], self.plan.drain, self.epoch_rows)
        starts = [s.manifest.shard_start for s in self.sources]
        rows = [s.manifest.rows for s in self.sources]
        changes = [(place, self._ordered(weights)) for place, weights in mixtures(self.entries)]
        epochs = Epochs(rows, self.weights, self.plan, self.until, self.epoch_rows, changes)
        return MixingPool(epochs, self.plan, starts, self.seed, self.reshuffle)

    def masks(self) -> Masks | None:
        """Rows that the journal leaves out; None where it leaves out none."""
        return Masks(self.entries, [s.name for s in self.sources]) or None

    def under(self, journal: Journal) -> "Stream":
        """The same stream, as the journal of its run has it."""
        return replace(self, entries=journal.entries)

    def weights_of(self, weights: Mapping[str, float]) -> dict[str, int]:
        """Integer weights for a changed mixture, by the names of all sources.

        Raises:
            InvalidRequest: a name too many or too few, a weight that is none, or a stream without a mixture.
        """
        names = [s.name for s in self.sources]
        if not self.shuffle:
            raise InvalidRequest("a stream with shuffle=False has no mixture: it reads its datasets one after another")
        if len(names) == 1:
            raise InvalidRequest(f"this stream reads one dataset, {names[0]!r}: there is no mixture to change")
        unknown, missing = sorted(weights.keys() - set(names)), sorted(set(names) - weights.keys())
        if unknown or missing:
            raise InvalidRequest(
                f"weights must name every dataset of the mixture, which are {', '.join(names)}; "
                f"not of it: {', '.join(unknown) or 'none'}; missing: {', '.join(missing) or 'none'}"
            )
        none = [name for name in names if not weights[name]]
        if none and self.until == "all":
            raise InvalidRequest(
                f"weight 0 of {', '.join(none)}: with until='all' every row comes, so each dataset keeps a share; take "
                "a small weight, or a stream with until='first' or 'repeat'"
            )
        whole = integer_weights([weights[name] for name in names])
        if not any(w and s.manifest.rows for w, s in zip(whole, self.sources, strict=True)):
            raise InvalidRequest("only datasets without rows have a weight above 0: nothing could be streamed")
        return dict(zip(names, whole, strict=True))

    def _ordered(self, weights: Mapping[str, int]) -> tuple[int, ...]:
        names = [s.name for s in self.sources]
        if weights.keys() != set(names):
            raise JournalConflict(
                f"the run's journal has a mixture of {', '.join(weights)}, and this stream reads {', '.join(names)}: "
                "go on with the datasets that the run began with, or begin a new run without the state"
            )
        return tuple(weights[name] for name in names)

    def meter(self, order: Order) -> Meter | None:
        """Measures how well it is mixed; None: it is not mixed at all."""
        if not self.shuffle:
            return None
        starts = [s.manifest.shard_start for s in self.sources]
        return Meter(Stored(starts, self.schedule().rows_by_source, self.plan.drain), order.segments)

    def readings(self) -> list[str]:
        """How often each source is read in an epoch, where that is not once."""
        if self.until != "repeat":
            return []
        taken = zip(self.sources, self.schedule().rows_by_source, strict=True)
        return [
            f"{source.name} is read {rows / source.manifest.rows:.2f} times in an epoch (until='repeat')"
            for source, rows in taken
            if rows != source.manifest.rows and source.manifest.rows
        ]

    def schedule(self) -> Schedule:
        rows = [s.manifest.rows for s in self.sources]
        return Schedule(rows, self.weights, self.plan, self.until, self.epoch_rows)


async def settle(
    wish: StreamWish, chunks: ChunkSource, defaults: PoolDefaults, carried: PlanConstants | None
) -> Stream:
    """Fix a stream's plan constants: those a cursor brings, else by the pool asked for and the size of rows."""
    _validate(wish)
    rows = [s.manifest.rows for s in wish.sources]
    given = [w for w in wish.weights if w is not None]
    weights = integer_weights(given or [_weight(s, wish.weight_by) for s in wish.sources])
    plan, row_bytes = carried, await _row_bytes(wish.sources, chunks)
    if plan is None:
        # The epoch's length does not depend on the pool: any plan will do to ask for it.
        probe = PlanConstants(pool_rows=1, drain=1, cycles=1, start="ramp")
        epoch_rows = Schedule(rows, weights, probe, wish.until, wish.epoch_rows).rows
        plan = resolve(wish.pool, defaults, epoch_rows, row_bytes)
    return Stream(
        wish.sources,
        weights,
        wish.seed,
        wish.shuffle,
        plan,
        wish.until,
        wish.epoch_rows,
        wish.reshuffle,
        row_bytes,
    )


def _weight(source: DatasetVersion, by: WeightBy) -> int:
    if by == "shards":
        return int(source.manifest.shards.num_rows)
    return source.manifest.bytes if by == "bytes" else source.manifest.rows


def _validate(wish: StreamWish) -> None:
    if not wish.sources:
        raise InvalidRequest("a stream needs at least one dataset; none was named")
    if wish.until not in ("all", "first", "repeat"):
        raise InvalidRequest(f"until={wish.until!r}: allowed are 'all', 'first' and 'repeat'")
    if wish.weight_by not in ("rows", "shards", "bytes"):
        raise InvalidRequest(f"weight_by={wish.weight_by!r}: allowed are 'rows', 'shards' and 'bytes'")
    if wish.weight_by != "rows" and any(w is not None for w in wish.weights):
        raise InvalidRequest(f"weight_by={wish.weight_by!r} and weights of your own: give one of them")
    if wish.epoch_rows is not None and wish.epoch_rows < 1:
        raise InvalidRequest(f"epoch_rows={wish.epoch_rows}: must be at least 1")
    unweighted = [s.name for s, w in zip(wish.sources, wish.weights, strict=True) if w is None]
    if unweighted and len(unweighted) < len(wish.sources):
        raise InvalidRequest(f"some datasets have a weight, but {unweighted} have none; give all of them one, or none")
    names = [s.name for s in wish.sources]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InvalidRequest(
            f"dataset {twice[0]!r} is named {names.count(twice[0])} times in one mixture; name it once"
        )
    first = wish.sources[0]
    for other in wish.sources[1:]:
        _same_schema(first, other)
    if not wish.shuffle and any(w is not None for w in wish.weights):
        raise InvalidRequest("weights mean nothing with shuffle=False: it reads the sources one after another, whole")


def _same_schema(first: DatasetVersion, other: DatasetVersion) -> None:
    for column in first.schema:
        found = other.schema.field(column.name).type if column.name in other.schema.names else None
        if found != column.type:
            has = f"has it as {found}" if found is not None else f"has no such column (it has {other.schema.names})"
            raise InvalidRequest(
                f"datasets of one mixture must have the same columns: {first.name!r} has {column.name!r} as "
                f"{column.type}, {other.name!r} {has}; stream them apart, or make the files agree"
            )
    extra = [n for n in other.schema.names if n not in first.schema.names]
    if extra:
        raise InvalidRequest(
            f"datasets of one mixture must have the same columns: {other.name!r} has {extra}, {first.name!r} has not"
        )


async def _row_bytes(sources: Sequence[DatasetVersion], chunks: ChunkSource) -> float:
    """Mean bytes of a processed row over three fixed chunks per source, weighted by the sources' rows."""
    total = 0.0
    for source in sources:
        last = source.manifest.chunks - 1
        if last < 0:
            continue
        # of a huge read unit its first chunk: the others would be there only when most of it has been read
        fixed = sorted({source.manifest.chunks_read_with(chunk)[0] for chunk in (0, last // 2, last)})
        try:
            infos = await chunks.infos(source, fixed)
            rows, size = sum(i.rows for i in infos), sum(i.bytes for i in infos)
        except CHUNK_FAULTS:  # raised where its rows would come; the manifest's estimate is as fixed as the bytes are
            rows, size = source.manifest.rows, int(np.sum(source.manifest.chunk_bytes))
        total += source.manifest.rows * (size / max(1, rows))
    return total / max(1, sum(s.manifest.rows for s in sources))
