"""A transform that holds memory, as much as a file beside the data says: in MiB."""

import os
from pathlib import Path

import pyarrow as pa

FILE = "LEAK_FILE"  # names that file

_held: list[bytearray] = []


def leak(batch: pa.RecordBatch) -> pa.RecordBatch:
    wanted = int(Path(os.environ[FILE]).read_text())
    del _held[wanted:]
    while len(_held) < wanted:
        _held.append(bytearray(os.urandom(4096) * 256))
    return batch
