"""What the chunk stage says of itself, for the metrics."""

from dataclasses import dataclass

from penstock_service.chunks.ahead import Ahead
from penstock_service.chunks.executor import Executor
from penstock_service.chunks.production import Production
from penstock_service.chunks.store import Store, StoreNumbers
from penstock_service.chunks.usage import Usage
from penstock_service.core.channel import Bound, Counters
from penstock_service.core.store import StoreStatus


@dataclass(frozen=True)
class ChunkNumbers:
    """Totals since start. `waiting`: chunks that somebody waits for."""

    made: int
    hits: int  # uses of chunks that need not be made for them
    misses: int
    ahead: int  # made before anybody asked
    seconds_missed: float
    seconds_saved: float
    ghost_hit_ratios: dict[str, float]  # that half the cap, the cap and twice the cap would have had lately
    failed: int
    retried: int
    making_seconds: float  # of workers
    hints_forgotten: int
    held_back_seconds: float  # while the look-ahead kept a free worker waiting
    waiting: int
    workers: int
    workers_restarted: int
    begun_again: int  # tasks that took so long that another worker began them too
    busy_seconds: float  # of workers
    starved_seconds: float  # while somebody waited for a chunk
    queued: int  # tasks that somebody waits for and no worker has been given
    read_ahead: Bound
    store: StoreNumbers

    @property
    def bounds(self) -> tuple[Bound, ...]:
        return (self.read_ahead, self.store.store, self.store.memory)


def chunk_numbers(
    production: Production, executor: Executor, usage: Usage, store: Store, counters: Counters
) -> ChunkNumbers:
    values, tallies = counters.values, usage.tallies.values()
    ghosts = {f"{g.factor:g}": g.hit_ratio for g in usage.ghosts if g.policy == usage.rule}
    return ChunkNumbers(
        made=int(values.get("made", 0)),
        hits=sum(t.hits for t in tallies),
        misses=sum(t.misses for t in tallies),
        ahead=usage.ahead,
        seconds_missed=sum(t.seconds_missed for t in tallies),
        seconds_saved=sum(t.seconds_saved for t in tallies),
        ghost_hit_ratios=ghosts,
        failed=int(values.get("failed", 0)),
        retried=int(values.get("retried", 0)),
        making_seconds=values.get("making_seconds", 0.0),
        hints_forgotten=production.agenda.hints_forgotten,
        held_back_seconds=production.agenda.bound.wait_seconds,
        waiting=len(production.flights),
        workers=executor.workers,
        workers_restarted=executor.restarted,
        begun_again=int(values.get("begun_again", 0)),
        busy_seconds=production.busy.integral,
        starved_seconds=production.starved.seconds,
        queued=production.agenda.queued,
        read_ahead=production.agenda.bound,
        store=store.numbers(),
    )


def store_status(store: Store, usage: Usage, ahead: Ahead) -> StoreStatus:
    numbers, tallies = store.numbers(), usage.tallies.values()
    return StoreStatus(
        folder=str(store.folder or ""),
        limit=numbers.store.limit,
        used=numbers.store.used,
        memory_limit=numbers.memory.limit,
        memory_used=numbers.memory.used,
        chunks=numbers.chunks,
        evicted=numbers.evicted,
        bad_files=numbers.bad_files,
        trouble=numbers.trouble,
        policy=usage.policy,
        rule=usage.rule,
        reason=usage.chooser.reason if usage.chooser is not None else "",
        hits=sum(t.hits for t in tallies),
        misses=sum(t.misses for t in tallies),
        ahead=usage.ahead,
        seconds_missed=sum(t.seconds_missed for t in tallies),
        seconds_saved=sum(t.seconds_saved for t in tallies),
        working_set=usage.working_set(),
        ghosts=usage.ghosts,
        versions=usage.versions(),
        preloads=ahead.statuses(),
    )
