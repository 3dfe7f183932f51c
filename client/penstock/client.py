"""The client: a target, its datasets, and streams of them."""

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import pyarrow as pa

from penstock.errors import InvalidRequest
from penstock.link import Link
from penstock.stream import Stream, client_name
from penstock.subscription import Datasets, Delivery, Last, Order, Share, Start, Until, WeightBy, global_batch
from penstock.world import detect_job, detect_world
from penstock_proto.v1 import control_pb2 as pb
from penstock_proto.v1 import control_pb2_grpc

DEFAULT_TARGET: Final = "127.0.0.1:7400"
_CALL_TIMEOUT: Final = 30.0  # seconds for calls that answer from memory or SQLite


@dataclass(frozen=True)
class SplitInfo:
    """One split of a dataset, in numbers: rows and bytes as stored, over `shards` files."""

    name: str
    rows: int
    bytes: int
    shards: int
    schema: pa.Schema


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset as the server has it. `rows` and `bytes` are those stored, over `shards` files.

    They and the schema are those of the split `train`, or of the first one; `splits` has all.
    """

    name: str
    version: str
    path: str
    rows: int
    bytes: int
    shards: int
    schema: pa.Schema
    description: str
    tags: tuple[str, ...]
    formats: tuple[str, ...]
    registered_at: str
    splits: tuple[SplitInfo, ...] = ()

    @classmethod
    def of(cls, message: pb.Dataset) -> Self:
        return cls(
            name=message.name,
            version=message.version,
            path=message.path,
            rows=message.rows,
            bytes=message.size,
            shards=message.shards,
            schema=pa.ipc.read_schema(pa.py_buffer(message.schema)),
            description=message.description,
            tags=tuple(message.tags),
            formats=tuple(message.formats),
            registered_at=message.registered_at,
            splits=tuple(
                SplitInfo(s.name, s.rows, s.size, s.shards, pa.ipc.read_schema(pa.py_buffer(s.schema)))
                for s in message.splits
            ),
        )


def connect(target: str | None = None, *, token: str | None = None, job: str | None = None) -> "Client":
    """A client of the server at `target` ("host:port"; default: PENSTOCK_TARGET, else 127.0.0.1:7400).

    Nothing is sent before the client is used, so this cannot fail for want of a server.

    Args:
        token: sent with every call, for servers that want one.
        job: which ranks belong together; default: found from the launcher, else this process alone.
    """
    return Client(target or os.environ.get("PENSTOCK_TARGET") or DEFAULT_TARGET, token=token, job=job)


class Client:
    """Made by `connect`. May be used from several threads, pickled, and used after a fork."""

    def __init__(self, target: str, *, token: str | None = None, job: str | None = None) -> None:
        self.target = target
        self._link = Link(target, token)
        self._job = job
        self._streams = itertools.count()

    # -- datasets -----------------------------------------------------------------------------------------------

    def datasets(self, text: str = "", tag: str = "") -> list[DatasetInfo]:
        """All datasets of the server, or those whose name or description contains `text` and that have `tag`."""
        request = pb.SearchDatasetsRequest(text=text, tag=tag)
        answer = self._link.call(self._stub().SearchDatasets, request, _CALL_TIMEOUT)
        return [DatasetInfo.of(d) for d in answer.datasets]

    def get(self, name: str) -> DatasetInfo:
        """One dataset by NAME or NAME@VERSION.

        Raises:
            DatasetNotFound: with the nearest names.
        """
        return DatasetInfo.of(self._link.call(self._stub().GetDataset, pb.GetDatasetRequest(name=name), _CALL_TIMEOUT))

    def register(
        self,
        name: str,
        path: str | Sequence[str],
        *,
        shards: str = "",
        required: Mapping[str, Sequence[str]] | None = None,
        description: str = "",
        tags: Sequence[str] = (),
    ) -> DatasetInfo:
        """Register a file, folder or glob on the server's machine, or several; returns when it was scanned.

        Args:
            shards: of each path, only those with these numbers in their names, such as "0-99,120-"; the same as to
                write PATH#0-99,120-.
            required: by split, columns that each of its files must have.
        """
        paths = [path] if isinstance(path, str) else list(path)
        request = pb.RegisterDatasetRequest(
            name=name,
            paths=[f"{one}#{shards}" if shards else one for one in paths],
            required=[pb.Columns(split=split, columns=columns) for split, columns in (required or {}).items()],
            description=description,
            tags=list(tags),
        )
        # A scan takes as long as it takes: keepalive notices a dead server.
        return DatasetInfo.of(self._link.call(self._stub().RegisterDataset, request, None))

    def remove(self, name: str) -> DatasetInfo:
        """Forget a dataset; its files stay."""
        answer = self._link.call(self._stub().RemoveDataset, pb.RemoveDatasetRequest(name=name), _CALL_TIMEOUT)
        return DatasetInfo.of(answer.removed)

    # -- streams ------------------------------------------------------------------------------------------------

    def stream(
        self,
        dataset: Datasets,
        *,
        split: str = "train",
        batch_size: int | None = None,
        global_batch_size: int | None = None,
        seed: int | None = 0,
        shuffle: bool = True,
        reshuffle: bool = True,
        last: Last = "short",
        columns: Sequence[str] | None = None,
        output: Literal["torch", "mlx", "numpy", "arrow"] = "torch",
        rank: int | None = None,
        world_size: int | None = None,
        replica: int = 0,
        pool_rows: int | None = None,
        pool_bytes: int | None = None,
        refill_below: float | None = None,
        start: Start = "ramp",
        until: Until = "all",
        epoch_rows: int | None = None,
        max_rows: int | None = None,
        weight_by: WeightBy = "rows",
        rows: Sequence[Mapping[str, Any]] = (),
        row_ids: bool = False,
        target_rows_per_s: float = 0.0,
        max_rows_per_s: float | None = None,
        prefetch: int = 2048,
        prefetch_bytes: int = 64 << 20,
        pin_memory: bool = False,
        device: Any = None,
        ragged: bool = False,
        nulls: Literal["error", "mask"] = "error",
        fill: Mapping[str, Any] | None = None,
        name: str | None = None,
        reconnect_timeout: float = 60.0,
    ) -> Stream:
        """Subscribe to a dataset ("NAME" or "NAME@VERSION"), several, or a mixture `{"web": 0.7, "code": 0.3}`.

        Args:
            split: of each dataset; val, valid, validation and dev find each other. See docs/datasets.md.
            batch_size: rows of a step at this rank.
            global_batch_size: rows of a step over all ranks, instead; must be divisible by the world size.
            seed: with the epoch it decides the order. None: the server draws one for the whole job and writes it down
                (`stream.seed`).
            shuffle: False: the datasets one after another, as stored.
            reshuffle: False: one order for all epochs.
            last: what becomes of the rows left over at the end of an epoch. "short": spread over the ranks, which
                then differ by a row at most (a rank that would get none gets padding and a mask `valid`); "drop";
                "pad": padded to a full step, every batch has `valid`; "wrap": filled up from the epoch's start. Every
                rank gets the same number of steps in each.
            columns: which, in this order; None: all but strings and binaries, which come only when named.
            output: what a batch holds. "torch" and "mlx" must be installed; "arrow" gives `pyarrow.RecordBatch`es.
            rank, world_size: this process among the data-parallel ranks; default: found from torch.distributed or the
                launcher, else 0 of 1.
            replica: tells processes apart that want the same rank's rows (tensor or sequence parallel).
            pool_rows, pool_bytes, refill_below, start: the mixing pool; see docs/architecture.md.
            until: what happens when a dataset of a mixture runs out: "all" (the others go on), "first" (the epoch ends)
                or "repeat" (it is read again, until the epoch has `epoch_rows`).
            prefetch, prefetch_bytes: steps and bytes that may be under way or received and not used: the window.
            pin_memory, device: for torch: copy each batch into page-locked memory, and to this device.
            ragged, nulls, fill: how lists and nulls become tensors; see docs/types.md.
            max_rows: the most rows an epoch has, over all ranks; for a first try of something.
            weight_by: what a dataset's share is measured in where no weights are given: "rows" (so that all end
                together), "shards" or "bytes".
            rows: row transforms, done once and kept by the server: `{"select": [...]}`, `{"cast": {column: type}}`,
                `{"filter": "x > 0 and label in (1, 2)"}`, `{"python": "module:function"}`; see docs/transforms.md.
            row_ids: True: `batch.metadata.ids` and `.source` say where each row comes from.
            target_rows_per_s: what this rank needs; where it gets less, `profile()` and the server's metrics say so.
            max_rows_per_s: hands rows out no faster than this.
            name: of the stream within the job.
            reconnect_timeout: seconds to try to reach the server again before giving up.

        Raises:
            InvalidRequest: an argument is wrong. What only the server can judge is raised at first use.
        """
        world = detect_world(rank, world_size)
        batch_rows = global_batch(batch_size, global_batch_size, world)
        order = Order(
            dataset,
            seed,
            shuffle,
            pool_rows=pool_rows,
            pool_bytes=pool_bytes,
            refill_below=refill_below,
            start=start,
            until=until,
            epoch_rows=_epoch_rows(epoch_rows, max_rows, until),
            reshuffle=reshuffle,
            weight_by=weight_by,
            rows=json.dumps(list(rows)) if rows else "",
            split=split,
        )
        share = Share(world, batch_rows, last, columns, output == "arrow", replica, row_ids, target_rows_per_s)
        delivery = Delivery(
            output,
            prefetch,
            prefetch_bytes,
            pin_memory=pin_memory,
            device=device,
            ragged=ragged,
            nulls=nulls,
            fill=dict(fill or {}),
            reconnect_timeout=reconnect_timeout,
            max_rows_per_s=max_rows_per_s,
        )
        name = name or f"{'+'.join(n for n, _ in order.sources())}#{next(self._streams)}"
        return Stream(self._link, order, share, delivery, detect_job(self._job).id, name, client_name())

    # -- the rest -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection; may be called twice. Streams end with it, and reconnect if they are used again."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<penstock.Client of {self.target}>"

    def __getstate__(self) -> dict[str, Any]:
        return {"target": self.target, "link": self._link, "job": self._job}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.target, self._link, self._job = state["target"], state["link"], state["job"]
        self._streams = itertools.count()

    def _stub(self) -> control_pb2_grpc.ControlStub:
        return control_pb2_grpc.ControlStub(self._link.channel())


def _epoch_rows(epoch_rows: int | None, max_rows: int | None, until: Until) -> int | None:
    if max_rows is None:
        if epoch_rows is not None and until != "repeat":
            raise InvalidRequest(
                f"epoch_rows={epoch_rows} is for until='repeat'; to end an epoch early say max_rows={epoch_rows}"
            )
        return epoch_rows
    if max_rows < 1:
        raise InvalidRequest(f"max_rows={max_rows}: must be at least 1")
    return max_rows if epoch_rows is None else min(epoch_rows, max_rows)
