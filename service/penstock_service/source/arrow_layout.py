"""Where the record batches of an Arrow IPC file or stream lie, and how many rows each has, without reading bodies.

pyarrow gives a batch's length only together with its whole body. The few fields needed are decoded here from the
flatbuffers of the format (https://arrow.apache.org/docs/format/Columnar.html, "Serialization and IPC").
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa

from penstock_service.source.place import Range

MAGIC = b"ARROW1"
_CONTINUATION = 0xFFFFFFFF
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3  # MessageHeader


class Span(NamedTuple):
    """One message with a record batch."""

    offset: int  # of the message in the file
    length: int  # with its body
    body: int
    rows: int


class Layout(NamedTuple):
    """The record batches in order, and whether dictionaries stand between them."""

    batches: list[Span]
    dictionaries: bool


class BrokenLayoutError(ValueError):
    """The bytes are no Arrow IPC; says where."""


class _Table:
    """A flatbuffer table: fields by number."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self._vtable = at - _number("<i", data, at)
        self._vtable_size = _number("<H", data, self._vtable)

    @classmethod
    def root(cls, data: bytes) -> "_Table":
        return cls(data, _number("<I", data, 0))

    def _where(self, field: int) -> int | None:
        slot = 4 + 2 * field
        if slot >= self._vtable_size:
            return None
        offset = _number("<H", self.data, self._vtable + slot)
        return self.at + offset if offset else None

    def number(self, field: int, layout: str) -> int:
        where = self._where(field)
        return 0 if where is None else _number(layout, self.data, where)

    def table(self, field: int) -> "_Table":
        where = self._where(field)
        if where is None:
            raise BrokenLayoutError(f"metadata without field {field}")
        return _Table(self.data, where + _number("<I", self.data, where))

    def vector(self, field: int) -> tuple[int, int]:
        """First byte and number of items."""
        where = self._where(field)
        if where is None:
            return 0, 0
        start = where + _number("<I", self.data, where)
        return start + 4, _number("<I", self.data, start)


def _number(layout: str, data: bytes, at: int) -> int:
    try:
        return int(struct.unpack_from(layout, data, at)[0])
    except struct.error as error:
        raise BrokenLayoutError(f"metadata ends too early: {error}") from error


Open = Callable[[list[Range]], pa.NativeFile]
"""open(ranges): the same file, to read these ranges."""


def layout_of(stream: pa.NativeFile, size: int, open_for: Open) -> Layout:
    """The layout of an IPC file (by its footer) or stream (by hopping from message to message)."""
    if is_file(stream):
        return _file_layout(stream, size, open_for)
    return _stream_layout(stream, size)


def is_file(stream: pa.NativeFile) -> bool:
    stream.seek(0)
    return bytes(stream.read(len(MAGIC))) == MAGIC


def _file_layout(stream: pa.NativeFile, size: int, open_for: Open) -> Layout:
    tail = 4 + len(MAGIC)
    stream.seek(max(size - tail, 0))
    end = bytes(stream.read(tail))
    if end[4:] != MAGIC:
        raise BrokenLayoutError(
            f"truncated: no {MAGIC.decode()} at byte {size - len(MAGIC)}, where the file should end with it"
        )
    length = _number("<i", end, 0)
    if not 0 < length <= size - tail:
        raise BrokenLayoutError(f"a footer of {length} bytes in a file of {size}")
    stream.seek(size - tail - length)
    footer = _Table.root(bytes(stream.read(length)))
    messages = []
    first, count = footer.vector(3)
    for i in range(count):
        offset, meta, body = struct.unpack_from("<qi4xq", footer.data, first + 24 * i)
        if offset < 0 or offset + meta + body > size:
            raise BrokenLayoutError(f"record batch {i} ends at byte {offset + meta + body} of {size}")
        messages.append(Range(offset, meta))
    with open_for(messages) as messages_only:
        spans = [_span(messages_only, size, message.offset)[1] for message in messages]
    return Layout(spans, footer.vector(2)[1] > 0)


def _stream_layout(stream: pa.NativeFile, size: int) -> Layout:
    spans = []
    dictionaries = False
    at = 0
    while at < size:
        kind, span = _span(stream, size, at)
        if at == 0 and kind != _SCHEMA:
            raise BrokenLayoutError("no Arrow IPC stream: it does not begin with a schema")
        if kind == 0:  # end of stream
            break
        if kind == _BATCH:
            spans.append(span)
        dictionaries = dictionaries or kind == _DICTIONARY
        at = span.offset + span.length
    return Layout(spans, dictionaries)


def _span(stream: pa.NativeFile, size: int, at: int) -> tuple[int, Span]:
    """Kind and extent of the message at `at`; kind 0 is the mark at the end of a stream."""
    stream.seek(at)
    head = bytes(stream.read(8))
    prefix = 8
    length = _number("<I", head.ljust(8, b"\0"), 0)
    if length == _CONTINUATION:
        length = _number("<I", head.ljust(8, b"\0"), 4)
    else:  # before Arrow 0.15 there was no continuation mark
        prefix = 4
    if length == 0:
        return 0, Span(at, prefix, 0, 0)
    if at + prefix + length > size:
        raise BrokenLayoutError(
            f"truncated: the message at byte {at} has {length} bytes of metadata, the file has {size}"
        )
    stream.seek(at + prefix)
    message = _Table.root(bytes(stream.read(length)))
    kind = message.number(1, "<B")
    body = message.number(3, "<q")
    if body < 0 or at + prefix + length + body > size:
        raise BrokenLayoutError(
            f"truncated: the message at byte {at} ends at byte {at + prefix + length + body} of {size}"
        )
    rows = message.table(2).number(0, "<q") if kind == _BATCH else 0
    return kind, Span(at, prefix + length + body, body, rows)
