"""Functions over record batches for the tests, as a user would write them."""

import os
import signal
import time

import pyarrow as pa
import pyarrow.compute as pc


def double(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.append_column("twice", pc.multiply(batch["id"], 2).cast(pa.int32()))


def keep_even(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, list[bool]]:
    mask = [i % 2 == 0 for i in batch["id"].to_pylist()]
    return batch.filter(pa.array(mask)), mask


def fails_at_seven(batch: pa.RecordBatch) -> pa.RecordBatch:
    if 7 in batch["id"].to_pylist():
        raise ValueError("seven")
    return batch


class _Unshown(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no text")


def raises_at_length(batch: pa.RecordBatch) -> pa.RecordBatch:
    raise ValueError("x" * 100_000)


def raises_the_unshown(batch: pa.RecordBatch) -> pa.RecordBatch:
    raise _Unshown


NO_FUNCTION = 3


def too_many(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.Table.from_batches([batch, batch]).combine_chunks().to_batches()[0]


def uses_the_clock(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.set_column(0, "id", pa.array([time.time_ns()] * batch.num_rows))


def kills_its_worker_at_300(batch: pa.RecordBatch) -> pa.RecordBatch:
    if 300 in batch["id"].to_pylist():
        os.kill(os.getpid(), signal.SIGKILL)
    return batch
