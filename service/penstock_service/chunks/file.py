"""The file of a chunk: uncompressed Arrow IPC, one record batch, what is known of it in its schema's metadata.

A file becomes visible only by a rename after its bytes are on disk, so that a file that has its last name is whole.
"""

import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from penstock_service.chunks.content import content_hash
from penstock_service.core.chunk import ChunkInfo, ChunkValue, RowError, pack_rows

FORMAT: Final = 2  # of the file; raised when what stands in it changes its meaning
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


def seal(key: str, value: ChunkValue) -> Sealed:
    rows = value.rows
    dropped = pack_rows(value.dropped, value.stored_rows)
    info = ChunkInfo(value.stored_rows, value.errors, pa.ipc.get_record_batch_size(rows), content_hash(rows), dropped)
    facts = {
        "format": FORMAT,
        "key": key,
        "stored_rows": info.stored_rows,
        "bytes": info.bytes,
        "content": info.content,
        "errors": [list(error) for error in info.errors],
        "dropped": b64encode(info.dropped).decode(),
    }
    rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), _FACTS: json.dumps(facts)})
    counted = pa.MockOutputStream()
    with pa.ipc.new_file(counted, rows.schema) as writer:
        writer.write_batch(rows)
    return Sealed(rows, info, counted.size())


def write(sealed: Sealed, place: Place) -> None:
    """Write, sync, rename. Raises OSError, and then leaves nothing at either name."""
    try:
        with open(place.temp, "xb") as file:  # noqa: PTH123 - buffered: a raw file may write less than asked
            with pa.ipc.new_file(file, sealed.rows.schema) as writer:
                writer.write_batch(sealed.rows)
            file.flush()
            if place.durable:
                _sync(file.fileno())
        os.replace(place.temp, place.final)  # noqa: PTH105
    except BaseException:
        Path(place.temp).unlink(missing_ok=True)
        raise


def open_file(path: str | Path, key: str) -> tuple[ChunkInfo, pa.RecordBatch, int]:
    """The chunk in `path`, mapped, and the size of the file. BadFile if it is torn or another; OSError as it comes.

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
            )
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
    return info, rows.replace_schema_metadata(metadata or None), size


def _sync(descriptor: int) -> None:
    # macOS has no fdatasync
    getattr(os, "fdatasync", os.fsync)(descriptor)
