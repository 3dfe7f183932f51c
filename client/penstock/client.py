"""The client: a target, its datasets, and streams of them."""

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Self

from penstock.arguments import mapping, text, transforms, whole_or_none
from penstock.dataset import Dataset, DatasetOutput, Form
from penstock.errors import InvalidRequest
from penstock.link import Link
from penstock.on_error import OnError, Wish
from penstock.registry import Registry
from penstock.rows import StoredRows
from penstock.runs import Runs
from penstock.stream import Stream
from penstock.subscription import (
    Compression,
    Datasets,
    Delivery,
    Last,
    Layout,
    Order,
    Share,
    Start,
    Transport,
    Until,
    WeightBy,
    global_batch,
)
from penstock.tensor_pool import TensorPool
from penstock.world import detect_job, detect_world

DEFAULT_TARGET: Final = "127.0.0.1:7400"


def connect(target: str | None = None, *, token: str | None = None, job: str | None = None) -> "Client":
    """A client of the server at `target` ("host:port"; default: PENSTOCK_TARGET, else 127.0.0.1:7400).

    Nothing is sent before the client is used, so this cannot fail for want of a server.

    Args:
        token: sent with every call, for servers that want one.
        job: which ranks belong together; default: found from the launcher, else this process alone.
    """
    return Client(target or os.environ.get("PENSTOCK_TARGET") or DEFAULT_TARGET, token=token, job=job)


class Client(Registry, Runs):
    """Made by `connect`. May be used from several threads, pickled, and used after a fork.

    What it may ask about datasets (register, get, list, search, versions, diff, remove, discover, warm) is in
    `registry.py`; about runs (runs, set_mixture, quarantine) in `runs.py`.
    """

    def __init__(self, target: str, *, token: str | None = None, job: str | None = None) -> None:
        self.target = target
        super().__init__(Link(target, token))
        self._job = job
        self._streams = itertools.count()

    # -- datasets by index ---------------------------------------------------------------------------------------

    def dataset(
        self,
        name: str,
        *,
        split: str = "train",
        columns: Sequence[str] | None = None,
        output: DatasetOutput = "torch",
        ragged: bool = False,
        nulls: Literal["error", "mask"] = "error",
        fill: Mapping[str, Any] | None = None,
        sparse: Mapping[str, int] | None = None,
    ) -> Dataset:
        """A dataset to be indexed, in stored order: `ds[7]`, `ds[-1]`, `ds[10:20]`, `ds.take([3, 1])`, `len(ds)`.

        The version is settled now: registering other files under the name does not change it.

        Args:
            name: NAME or NAME@VERSION.
            split: val, valid, validation and dev find each other. See docs/datasets.md.
            columns: which, in this order; None: all, strings and binaries too.
            output: "torch", "mlx" or "numpy": a row is a dict of one row's tensors, several rows are a `Batch`.
                "arrow" and "rows": a row is a dict of Python values; several are a `pyarrow.RecordBatch`, or a list of
                such dicts.
            ragged, nulls, fill, sparse: how lists, nulls and sparse columns become tensors; see docs/types.md.

        Raises:
            DatasetNotFound: with the nearest names.
            InvalidRequest: a column that is not there.
            ConversionError: a column that has no form as a tensor, with its type and the cures.
        """
        info = self.get(name).of_split(split)
        form = Form(output, ragged, nulls, mapping("fill", fill), mapping("sparse", sparse))
        return Dataset.of(info, StoredRows.of(self._link, info, columns), form)

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
        on_error: Wish = "fail",
        target_rows_per_s: float = 0.0,
        max_rows_per_s: float | None = None,
        prefetch: int = 2048,
        prefetch_bytes: int = 64 << 20,
        pin_memory: bool = False,
        device: Any = None,
        ragged: bool = False,
        nulls: Literal["error", "mask"] = "error",
        fill: Mapping[str, Any] | None = None,
        sparse: Mapping[str, int] | None = None,
        layout: Layout = "columns",
        unified_memory: bool | None = None,
        transport: Transport = "auto",
        compression: Compression = "auto",
        tensor_pool: TensorPool | None = None,
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
            ragged, nulls, fill, sparse: how lists, nulls and sparse columns become tensors; see docs/types.md.
            layout: "columns": a batch is a dict of tensors. "rows": it is a list of dicts, one per row.
            unified_memory: for MLX: arrays of 256 KiB and more share memory with what was received instead of being
                copied. Default: where Metal is; see docs/mlx.md.
            transport: "auto": shared memory where the server is on this host, else a TCP socket of its own, else gRPC;
                "tcp": no shared memory; "grpc": always gRPC. Which it is, and why, is in `profile()`.
            compression: of what travels over TCP or gRPC: "none", "lz4", "zstd", or "auto": by the measured speed of
                the link, never on one host. See docs/client.md.
            tensor_pool: what batches are received into; None: a `TensorPool` of 512 MiB of its own.
            max_rows: the most rows an epoch has, over all ranks; for a first try of something.
            weight_by: what a dataset's share is measured in where no weights are given: "rows" (so that all end
                together), "shards" or "bytes".
            rows: row transforms, done once and kept by the server: `{"select": [...]}`, `{"cast": {column: type}}`,
                `{"filter": "x > 0 and label in (1, 2)"}`, `{"python": "module:function"}`; see docs/transforms.md.
            row_ids: True: `batch.metadata.ids` and `.source` say where each row comes from (with output="arrow" the
                columns `__row__` and `__source__`).
            on_error: what becomes of rows that cannot be had. "fail": the stream stops at their step; "skip": they are
                left out; "quarantine": likewise, and the server lists them; "substitute": the nearest good row of the
                same file stands for each, or the row of `{"substitute": {column: value, ...}}`. See docs/errors.md.
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
            rows=transforms(rows),
            split=split,
        )
        policy = OnError.of(on_error)
        share = Share(
            *(world, batch_rows, last, columns, output == "arrow", replica, row_ids, target_rows_per_s, policy)
        )
        delivery = Delivery(
            output,
            prefetch,
            prefetch_bytes,
            pin_memory=pin_memory,
            device=device,
            ragged=ragged,
            nulls=nulls,
            fill=mapping("fill", fill),
            sparse=mapping("sparse", sparse),
            layout=layout,
            unified_memory=unified_memory,
            transport=transport,
            compression=compression,
            tensor_pool=tensor_pool,
            reconnect_timeout=reconnect_timeout,
            max_rows_per_s=max_rows_per_s,
        )
        name = text("name", name or "") or f"{'+'.join(n for n, _ in order.sources())}#{next(self._streams)}"
        return Stream(self._link, order, share, delivery, detect_job(self._job), name)

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
        super().__init__(state["link"])
        self.target, self._job = state["target"], state["job"]
        self._streams = itertools.count()


def _epoch_rows(epoch_rows: int | None, max_rows: int | None, until: Until) -> int | None:
    max_rows, epoch_rows = whole_or_none("max_rows", max_rows, 1), whole_or_none("epoch_rows", epoch_rows, 1)
    if max_rows is None:
        if epoch_rows is not None and until != "repeat":
            raise InvalidRequest(
                f"epoch_rows={epoch_rows} is for until='repeat'; to end an epoch early say max_rows={epoch_rows}"
            )
        return epoch_rows
    return max_rows if epoch_rows is None else min(epoch_rows, max_rows)
