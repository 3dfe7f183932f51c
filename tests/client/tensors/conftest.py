from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest


@pytest.fixture
def receive() -> Callable[[pa.RecordBatch], tuple[pa.RecordBatch, npt.NDArray[np.uint8]]]:
    """As the client receives a bundle: read from bytes that a writable array owns."""

    def receive(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, npt.NDArray[np.uint8]]:
        # A whole stream and not the message alone, because dictionaries are messages of their own.
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        memory = np.frombuffer(bytearray(sink.getvalue()), np.uint8)
        return pa.ipc.open_stream(pa.py_buffer(memory)).read_next_batch(), memory

    return receive
