"""The file of a chunk: uncompressed Arrow IPC, one record batch, what is known of it in its schema's metadata.

A file gets its last name only by a rename after its bytes are on disk (`sync.py`), so that a file that has it is whole.
Until then it may be used under its temporary name.
"""

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from penstock_service.chunks.content import content_hash
from penstock_service.core.chunk import TOLD, ChunkInfo, ChunkValue, RowError, cut, pack_rows

FORMAT: Final = 3  # of the file; raised when what stands in it changes its meaning
_FACTS: Final = b"penstock.chunk"


class BadFile(Exception):
    """The file is torn, or is not the chunk that its name says."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk's file is to be written. `durable` is false for a hand-over through memory."""

    key: str
    temp: str
    final: str
    size: int
    durable: bool


@dataclass(frozen=True, slots=True)
class Sealed:
    """A chunk ready to be written."""

    rows: pa.RecordBatch  # with the facts in its schema's metadata
    info: ChunkInfo
    size: int  # of the file, exactly


class Opened(NamedTuple):
    """A chunk file that is mapped."""

    info: ChunkInfo
    rows: pa.RecordBatch
    size: int  # of the file
    seconds: float  # that a worker took to make the chunk; 0: not known


def seal(key: str, value: ChunkValue, seconds: float = 0.0) -> Sealed:
    """`seconds`: what it took to make, kept beside the chunk so that a later server knows what a hit is worth."""
    rows = value.rows
    dropped = pack_rows(value.dropped, value.stored_rows)
    errors = tuple(error._replace(reason=cut(error.reason)) for error in value.errors[:TOLD])
    untold = np.fromiter((error.row for error in value.errors[TOLD:]), np.int64)
    more = pack_rows(np.concatenate([untold, value.more]), value.stored_rows)
    size = pa.ipc.get_record_batch_size(rows)
    info = ChunkInfo(value.stored_rows, errors, size, content_hash(rows), dropped, more)
    facts = {
        "format": FORMAT,
        "key": key,
        "stored_rows": info.stored_rows,
        "bytes": info.bytes,
        "content": info.content,
        "errors": [list(error) for error in info.errors],
        "dropped": b64encode(info.dropped).decode(),
        "more": b64encode(info.more).decode(),
        "seconds": f"{min(seconds, 99_999):012.6f}",  # of one width: a file's size is that of its value
    }
    rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), _FACTS: json.dumps(facts)})
    counted = pa.MockOutputStream()
    with pa.ipc.new_file(counted, rows.schema) as writer:
        writer.write_batch(rows)
    return Sealed(rows, info, counted.size())


def write(sealed: Sealed, place: Place) -> None:
    """Write to the temporary name. Raises OSError, and then leaves nothing there."""
    try:
        with pa.OSFile(place.temp, "wb") as file, pa.ipc.new_file(file, sealed.rows.schema) as writer:
            writer.write_batch(sealed.rows)
    except BaseException:
        Path(place.temp).unlink(missing_ok=True)
        raise


def open_file(path: str | Path, key: str) -> Opened:
    """The chunk in `path`, mapped. BadFile if it is torn or another; OSError as it comes.

    The descriptor is closed on return: only the mapping stays, for as long as somebody refers to the batch.
    """
    with pa.memory_map(str(path)) as source:
        size = source.size()
        try:
            reader = pa.ipc.open_file(source)
            if reader.num_record_batches != 1:
                raise BadFile(f"{path} has {reader.num_record_batches} record batches instead of 1")
            metadata = dict(reader.schema.metadata or {})
            facts = json.loads(metadata.pop(_FACTS))
            info = ChunkInfo(
                stored_rows=facts["stored_rows"],
                errors=tuple(RowError(*error) for error in facts["errors"]),
                bytes=facts["bytes"],
                content=facts["content"],
                dropped=b64decode(facts["dropped"]),
                more=b64decode(facts["more"]),
            )
            seconds = float(facts.get("seconds", 0.0))
            rows = reader.get_batch(0)
            rows.validate()
        except OSError as error:
            if error.errno is not None:
                raise
            raise BadFile(f"{path}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:  # what Arrow and JSON say of torn or foreign bytes
            raise BadFile(f"{path}: {error}") from error
    if (facts["format"], facts["key"], info.rows) != (FORMAT, key, rows.num_rows):
        raise BadFile(f"{path} holds format {facts['format']}, key {facts['key']}, {rows.num_rows} rows")
    return Opened(info, rows.replace_schema_metadata(metadata or None), size, seconds)
