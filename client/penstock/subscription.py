"""What a stream asks the server for, checked where it is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from penstock.arguments import flag, mapping, number, text, texts, whole, whole_or_none
from penstock.errors import InvalidRequest
from penstock.on_error import OnError
from penstock.tensor_pool import TensorPool
from penstock.tensors import Nulls
from penstock.tensors.output import OUTPUTS, load_device
from penstock.unpacking import CODECS
from penstock.world import World
from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1 import frames
from penstock_proto.v1.skips import Skips

Last = Literal["short", "drop", "pad", "wrap"]
Start = Literal["ramp", "full"]
Until = Literal["all", "first", "repeat"]
WeightBy = Literal["rows", "shards", "bytes"]
Layout = Literal["columns", "rows"]
Transport = Literal["auto", "tcp", "grpc"]
TRANSPORTS: Final[Mapping[Transport, Sequence[str]]] = {
    "auto": ("shm", "tcp", "grpc"),
    "tcp": ("tcp", "grpc"),
    "grpc": ("grpc",),
}  # what the server may take, the best first
Compression = Literal["auto", "none", "lz4", "zstd"]
Datasets = str | Sequence[str] | Mapping[str, float]


@dataclass(frozen=True)
class Order:
    """What decides the order of rows. None: the server's default."""

    datasets: Datasets
    seed: int | None = 0  # None: the server draws one for the whole job
    shuffle: bool = True
    pool_rows: int | None = None
    pool_bytes: int | None = None
    refill_below: float | None = None
    start: Start = "ramp"
    until: Until = "all"
    epoch_rows: int | None = None
    reshuffle: bool = True
    weight_by: WeightBy = "rows"
    rows: str = ""  # row transforms, JSON
    split: str = "train"

    def __post_init__(self) -> None:
        if not isinstance(self.datasets, str | Mapping):
            _keep(self, {"datasets": texts("dataset", self.datasets)})
        if not self.sources():
            raise InvalidRequest("a stream needs at least one dataset; none was named")
        checked: dict[str, Any] = {
            "seed": whole_or_none("seed", self.seed, most=(1 << 64) - 1),
            "split": text("split", self.split),
            **{name: flag(name, getattr(self, name)) for name in ("shuffle", "reshuffle")},
            **{name: whole_or_none(name, getattr(self, name), 1) for name in ("pool_rows", "pool_bytes", "epoch_rows")},
        }
        if self.refill_below is not None:
            checked["refill_below"] = number("refill_below", self.refill_below)
        _keep(self, checked)
        _one_of("start", self.start, get_args(Start))
        _one_of("until", self.until, get_args(Until))
        _one_of("weight_by", self.weight_by, get_args(WeightBy))

    def sources(self) -> list[tuple[str, float | None]]:
        """(name, weight or None), in the order given."""
        if isinstance(self.datasets, str):
            return [(self.datasets, None)]
        names = texts("dataset", self.datasets)
        if isinstance(self.datasets, Mapping):
            return [(name, number(f"weight of {name!r}", self.datasets[name])) for name in names]
        return [(name, None) for name in names]

    def message(self) -> pb.StreamSpec:
        return pb.StreamSpec(
            sources=[pb.Source(dataset=name, weight=weight, split=self.split) for name, weight in self.sources()],
            seed=self.seed,
            unshuffled=not self.shuffle,
            pool_rows=self.pool_rows,
            pool_bytes=self.pool_bytes,
            refill_below=self.refill_below,
            start=self.start,
            until=self.until,
            epoch_rows=self.epoch_rows,
            same_every_epoch=not self.reshuffle,
            weight_by=self.weight_by,
            rows=self.rows,
        )


@dataclass(frozen=True)
class Share:
    """How this process looks at the order: its rank, and how many rows of a step are its own."""

    world: World
    global_batch: int
    last: Last = "short"
    columns: Sequence[str] | None = None
    text: bool = False
    replica: int = 0
    row_ids: bool = False
    target_rows_per_s: float = 0.0
    on_error: OnError = OnError()  # noqa: RUF009 - frozen
    skip: Skips = ()  # steps that no rank gets

    def __post_init__(self) -> None:
        _one_of("last", self.last, get_args(Last))
        checked: dict[str, Any] = {
            "replica": whole("replica", self.replica),
            "row_ids": flag("row_ids", self.row_ids),
            "target_rows_per_s": number("target_rows_per_s", self.target_rows_per_s),
        }
        if self.columns is not None:
            checked["columns"] = texts("columns", self.columns)
        _keep(self, checked)
        if self.columns is not None and not self.columns:
            raise InvalidRequest("columns=[]: no column would be left; name some, or leave it out to get all")
        if self.target_rows_per_s < 0:
            raise InvalidRequest(f"target_rows_per_s={self.target_rows_per_s}: must be 0 (none) or more")

    @property
    def may_pad(self) -> bool:
        """May the last step hold rows that are no data?"""
        return self.last == "pad" or (self.last == "short" and self.world.world_size > 1)

    def message(self) -> pb.View:
        return pb.View(
            global_batch=self.global_batch,
            rank=self.world.rank,
            world_size=self.world.world_size,
            replica=self.replica,
            last=self.last,
            columns=list(self.columns or ()),
            text=self.text,
            row_ids=self.row_ids,
            target_rows_per_s=self.target_rows_per_s,
            on_error=self.on_error.policy,
            placeholder=self.on_error.placeholder,
            skip=[pb.StepRange(epoch=epoch, begin=begin, end=end) for epoch, begin, end in self.skip],
        )


def global_batch(batch_size: int | None, global_batch_size: int | None, world: World) -> int:
    """Rows of one step over all ranks, of whichever of the two sizes was given.

    Raises:
        InvalidRequest: both or none given, no integer, below 1, or not divisible by the world size.
    """
    if (batch_size is None) == (global_batch_size is None):
        raise InvalidRequest(
            f"batch_size={batch_size}, global_batch_size={global_batch_size}: give one of them "
            "(rows per rank, or rows over all ranks)"
        )
    if batch_size is not None:
        return whole("batch_size", batch_size, 1) * world.world_size
    global_batch_size = whole("global_batch_size", global_batch_size, 1)
    if global_batch_size % world.world_size:
        below = global_batch_size // world.world_size * world.world_size
        near = [n for n in (below, below + world.world_size) if n]
        raise InvalidRequest(
            f"global_batch_size={global_batch_size} cannot be split evenly over {world.world_size} ranks; "
            f"the nearest sizes that can: {' and '.join(map(str, near))}"
        )
    return global_batch_size


@dataclass(frozen=True)
class Delivery:
    """How batches reach the loop. Does not touch the order."""

    output: str = "torch"
    prefetch: int = 2048  # steps that may be under way: the credit window
    prefetch_bytes: int = 64 << 20
    pin_memory: bool = False
    device: Any = None
    ragged: bool = False
    nulls: Literal["error", "mask"] = "error"
    fill: Mapping[str, Any] = field(default_factory=dict)
    reconnect_timeout: float = 60.0
    max_rows_per_s: float | None = None
    sparse: Mapping[str, int] = field(default_factory=dict)
    layout: Layout = "columns"
    unified_memory: bool | None = None
    transport: Transport = "auto"
    compression: Compression = "auto"
    tensor_pool: TensorPool | None = None  # None: one for each stream

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            raise InvalidRequest(f'layout={self.layout!r}: must be "columns" or "rows"')
        if self.layout == "rows" and (self.pin_memory or self.device is not None):
            raise InvalidRequest('pin_memory and device are for layout="columns": a list of rows has no one tensor')
        _one_of("output", self.output, OUTPUTS)
        _one_of("transport", self.transport, get_args(Transport))
        _one_of("compression", self.compression, get_args(Compression))
        if self.compression in frames.CODECS and self.compression not in CODECS:
            raise InvalidRequest(
                f"compression={self.compression!r}: this pyarrow was built without it; take 'auto' or 'none'"
            )
        _one_of("nulls", self.nulls, get_args(Nulls))
        self._check_types()
        if self.reconnect_timeout < 0:
            raise InvalidRequest(f"reconnect_timeout={self.reconnect_timeout}: must be 0 or more seconds")
        if self.max_rows_per_s is not None and self.max_rows_per_s <= 0:
            raise InvalidRequest(f"max_rows_per_s={self.max_rows_per_s}: must be more than 0, or None")
        if self.unified_memory is not None and self.output != "mlx":
            raise InvalidRequest(f"unified_memory is for output='mlx', not output={self.output!r}")
        if (self.pin_memory or self.device is not None) and self.output != "torch":
            raise InvalidRequest(f"pin_memory and device are for output='torch', not output={self.output!r}")
        if self.device is not None:
            load_device().check_device(self.device)

    def _check_types(self) -> None:
        checked: dict[str, Any] = {
            **{name: whole(name, getattr(self, name), 1) for name in ("prefetch", "prefetch_bytes")},
            **{name: flag(name, getattr(self, name)) for name in ("pin_memory", "ragged")},
            **{name: mapping(name, getattr(self, name)) for name in ("fill", "sparse")},
            "reconnect_timeout": number("reconnect_timeout", self.reconnect_timeout),
        }
        if self.max_rows_per_s is not None:
            checked["max_rows_per_s"] = number("max_rows_per_s", self.max_rows_per_s)
        if self.unified_memory is not None:
            checked["unified_memory"] = flag("unified_memory", self.unified_memory)
        if self.tensor_pool is not None and not isinstance(self.tensor_pool, TensorPool):
            raise InvalidRequest(f"tensor_pool={self.tensor_pool!r}: must be a penstock.TensorPool, or None")
        _keep(self, checked)


def _keep(options: object, checked: Mapping[str, Any]) -> None:
    """Put checked values into a frozen object that is being made."""
    for name, value in checked.items():
        object.__setattr__(options, name, value)


def _one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        *first, last = map(repr, allowed)
        raise InvalidRequest(f"{name}={value!r}: allowed are {', '.join(first)} and {last}")
