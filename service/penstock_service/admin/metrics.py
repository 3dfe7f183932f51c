"""Prometheus metrics, made from the server's numbers when they are scraped. docs/metrics.md says how to read each."""

import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from penstock_proto.v1 import codes
from penstock_service.admin.memory import held_bytes
from penstock_service.admin.operations import Operations
from penstock_service.core.budget import Rung
from penstock_service.core.status import Numbers

# Series that must be there, at 0, before anything happened: a rate over a series that appears late misses its start.
STAGES = ("read", "mix", "gather", "send")
POLICIES = ("fail", "skip", "substitute", "quarantine")
REASONS = ("credit", "rows")
TUNED = ("workers", "read-ahead")
TRANSPORTS = ("grpc", "shm", "tcp")
SIZES = ("0.5", "1", "2")  # of ghosts, in caps
CODES = tuple(value for name, value in vars(codes).items() if name.isupper())


def make_registry(operations: Operations) -> CollectorRegistry:
    """A registry of our own: nothing that another library counts gets in."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServerCollector(operations))
    ProcessCollector(registry=registry)  # CPU seconds, open files, start time; nothing outside Linux
    return registry


class ServerCollector(Collector):
    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def collect(self) -> Iterator[Metric]:
        numbers = self._operations.numbers()
        yield from _sent(numbers)
        yield from _waits(numbers)
        yield from _making(numbers)
        yield from _mixed(numbers)
        yield from _bounds(numbers)
        yield from _memory(numbers)
        yield from _failures(numbers)
        yield _gauge("penstock_ready", "1 while every readiness check passes.", all(self._operations.checks().values()))
        yield _gauge("penstock_event_loop_lag_seconds", "Worst of the last ten seconds.", numbers.loop_lag_seconds)
        yield _gauges("penstock_memory_bytes", "Memory of the server process.", "kind", held_bytes())
        yield _build_info(self._operations.info().version)


def _sent(numbers: Numbers) -> Iterator[Metric]:
    yield _counters("penstock_rows_sent", "Rows handed to trainers.", "dataset", numbers.rows_sent)
    sizes = dict.fromkeys(TRANSPORTS, 0) | numbers.bytes_sent
    sessions = dict.fromkeys(TRANSPORTS, 0) | numbers.sessions
    yield _counters("penstock_bytes_sent", "Arrow body bytes handed to trainers.", "transport", sizes)
    yield _counter("penstock_steps_sent", "Steps handed to trainers, counted per rank.", numbers.steps_sent)
    yield _counter("penstock_bundles_sent", "Bundles (hand-overs of several steps).", numbers.bundles_sent)
    yield _gauges("penstock_sessions", "Sessions that are open.", "transport", sessions)
    yield _gauge(
        "penstock_sessions_below_target",
        "Sessions that get fewer rows per second than they said they want, the server being why.",
        numbers.sessions_below_target,
    )
    yield _gauge("penstock_ranks_missing", "Ranks that should be connected and are not.", numbers.ranks_missing)
    yield _gauge("penstock_ranks_lagging", "Ranks far behind the front rank of their stream.", numbers.ranks_lagging)
    yield _gauge("penstock_steps_behind_max", "Steps from the last rank to the front one.", numbers.steps_behind_max)
    yield _counter("penstock_sessions_opened", "Sessions opened since start.", numbers.sessions_total)


def _waits(numbers: Numbers) -> Iterator[Metric]:
    stages = dict.fromkeys(STAGES, 0.0) | numbers.stage_seconds
    waits = dict.fromkeys(REASONS, 0.0) | numbers.wait_seconds
    yield _counters("penstock_stage_seconds", "Seconds of work, over all workers and sessions.", "stage", stages)
    yield _counters("penstock_wait_seconds", "Seconds that sessions waited, by what for.", "reason", waits)


def _making(numbers: Numbers) -> Iterator[Metric]:
    yield _counter("penstock_chunks_made", "Chunks read from their source and processed.", numbers.chunks_made)
    yield _counter("penstock_chunk_hits", "Uses of chunks that were in the store or in memory.", numbers.chunk_hits)
    yield _counter("penstock_chunk_misses", "Chunks made because somebody used them.", numbers.chunk_misses)
    yield _counter("penstock_chunks_made_ahead", "Chunks made by preload or warm.", numbers.chunks_made_ahead)
    yield _counter("penstock_chunk_miss_seconds", "Seconds of workers for the misses.", numbers.chunk_seconds_missed)
    yield _counter("penstock_chunk_saved_seconds", "Seconds of workers that hits saved.", numbers.chunk_seconds_saved)
    ratios = dict.fromkeys(SIZES, 0.0) | numbers.ghost_hit_ratios
    yield _gauges("penstock_store_ghost_hit_ratio", "What a store of so many caps would have hit.", "caps", ratios)
    yield _gauge(
        "penstock_mixing_bytes", "Indices of segments, and rows that wait in mixing pools.", numbers.mixing_bytes
    )
    yield _counter("penstock_segments_built", "Segments of the global order that were planned.", numbers.segments_built)
    yield _gauge("penstock_workers", "Prefetch workers.", numbers.workers)
    yield _counter("penstock_workers_busy_seconds", "Seconds of workers with a task.", numbers.workers_busy_seconds)
    yield _counter("penstock_workers_restarted", "Workers that died and were replaced.", numbers.workers_restarted)
    yield _counter("penstock_starved_seconds", "Seconds in which somebody waited for a chunk.", numbers.starved_seconds)
    yield _counter("penstock_chunks_begun_again", "Late tasks that a second worker began.", numbers.chunks_begun_again)
    tuned = dict.fromkeys(TUNED, 0) | numbers.tuned
    yield _counters("penstock_tuning_decisions", "Numbers that the server changed by itself.", "what", tuned)


def _mixed(numbers: Numbers) -> Iterator[Metric]:
    distinct = {stream: q.shards / q.shards_ideal for stream, q in numbers.mixed.items() if q.shards_ideal}
    adjacent = {stream: q.adjacent - q.adjacent_ideal for stream, q in numbers.mixed.items()}
    ranks = {stream: q.rank_correlation for stream, q in numbers.mixed.items()}
    text = "Of the stream's last finished epoch: "
    yield _gauges(
        "penstock_mix_shards_ratio", f"{text}distinct shards against a perfect shuffle's.", "stream", distinct
    )
    yield _gauges("penstock_mix_adjacent_excess", f"{text}neighbours of one shard beyond that.", "stream", adjacent)
    yield _gauges("penstock_mix_rank_correlation", f"{text}emitted against stored order.", "stream", ranks)


def _bounds(numbers: Numbers) -> Iterator[Metric]:
    used = {b.name: b.used for b in numbers.bounds}
    limit = {b.name: b.limit for b in numbers.bounds}
    waited = {b.name: b.wait_seconds for b in numbers.bounds}
    yield _gauges("penstock_bound_bytes", "Bytes inside each bound.", "bound", used)
    yield _gauges("penstock_bound_limit_bytes", "The limit of each bound.", "bound", limit)
    yield _counters("penstock_bound_wait_seconds", "Seconds that others waited to enter.", "bound", waited)


def _memory(numbers: Numbers) -> Iterator[Metric]:
    memory = numbers.memory
    yield _gauges(
        "penstock_memory_held_bytes",
        "Memory by who holds it.",
        "stage",
        {str(stage): size for stage, size in memory.stages().items()},
    )
    yield _gauge("penstock_memory_measured_bytes", "What counts against the limit.", memory.measured)
    yield _gauge("penstock_memory_limit_bytes", "The memory limit.", memory.limit)
    rungs = {rung.words: rung.words == memory.rung for rung in Rung}
    yield _gauges("penstock_memory_rung", "1 for what is given up for memory now.", "rung", rungs)


def _failures(numbers: Numbers) -> Iterator[Metric]:
    errors = dict.fromkeys(CODES, 0) | numbers.errors
    yield _counters("penstock_errors", "Errors sent to clients.", "code", errors)
    yield _counter("penstock_data_errors", "Stored rows that did not become rows.", numbers.data_errors)
    bad = dict.fromkeys(POLICIES, 0) | numbers.bad_rows
    yield _counters("penstock_bad_rows", "Bad rows that streams met, by what they do about them.", "policy", bad)
    yield _gauge("penstock_places_open", "Places whose circuit breaker is not closed.", numbers.places_open)


def _build_info(own: str) -> Metric:
    labels = {
        "version": own,
        "python": platform.python_version(),
        "pyarrow": version("pyarrow"),
        "grpcio": version("grpcio"),
    }
    family = GaugeMetricFamily("penstock_build_info", "Always 1; the labels are the versions.", labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return _labelled(CounterMetricFamily(name, text, labels=[label]), values.items())


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return _labelled(GaugeMetricFamily(name, text, labels=[label]), values.items())


def _labelled(
    family: CounterMetricFamily | GaugeMetricFamily, values: Iterable[tuple[str, float]]
) -> CounterMetricFamily | GaugeMetricFamily:
    for label, value in values:
        family.add_metric([label], value)
    return family
