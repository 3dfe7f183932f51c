"""A dataset as the server has it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import pyarrow as pa

from penstock_proto.v1 import control_pb2 as pb

_JOINED: Final = ("name", "version", "path")
_SUMMED: Final = ("rows", "bytes", "shards")


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset as the server has it. `rows` and `bytes` are those stored, over `shards` files."""

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
        )

    @classmethod
    def joined(cls, infos: "Sequence[DatasetInfo]") -> "DatasetInfo":
        """The facts of several datasets one after another: names joined by "+", numbers added, tags united.

        What they agree on stays; what they do not agree on is empty.
        """
        if len(infos) == 1:
            return infos[0]
        found = {
            field.name: _joined(field.name, [getattr(info, field.name) for info in infos]) for field in fields(cls)
        }
        return cls(**found)


def _joined(name: str, values: list[Any]) -> Any:
    first = values[0]
    if name in _JOINED:
        return "+".join(values)
    if name in _SUMMED:
        return sum(values)
    if all(value == first for value in values):
        return first
    if isinstance(first, tuple):
        return tuple(dict.fromkeys(item for value in values for item in value))
    return type(first)() if isinstance(first, (str, int, float)) else None
