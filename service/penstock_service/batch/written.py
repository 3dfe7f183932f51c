"""An Arrow record batch message, written by Arrow straight into memory that is there already."""

import io

import numpy as np
import pyarrow as pa

from penstock_service.core.errors import Internal
from penstock_service.core.feed import U8, Memory, ordinary


def written(batch: pa.RecordBatch, memory: Memory) -> U8:
    """The bytes of `batch.serialize()`, in what `memory` gives."""
    if memory is ordinary:
        return np.frombuffer(batch.serialize(), np.uint8)
    message = memory(pa.ipc.get_record_batch_size(batch))
    sink = _Message(message, batch.schema.serialize().size)
    with pa.PythonFile(sink, "w") as file, pa.ipc.new_stream(file, batch.schema) as writer:
        writer.write_batch(batch)
    if sink.at < message.size:
        raise Internal(f"Arrow wrote {sink.at} bytes where it said {message.size}")
    return message


class _Message(io.RawIOBase):
    """A stream's first message after the schema; the rest of the stream is dropped. Each part is copied once."""

    def __init__(self, message: U8, skipped: int) -> None:
        self.at = -skipped
        self._message = message

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = np.frombuffer(data, np.uint8)  # type: ignore[call-overload]
        at, self.at = self.at, self.at + len(part)
        if 0 <= at < self._message.size:
            self._message[at : at + len(part)] = part
        return len(part)
