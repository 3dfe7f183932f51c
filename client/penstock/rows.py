"""Rows by position from the server: one call, its pages put together, begun again where a connection broke."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import grpc
import numpy as np
import pyarrow as pa

from penstock.errors import InvalidRequest, PenstockError, ServerError, ServerUnavailable
from penstock.link import Link
from penstock.registered import DatasetInfo
from penstock.retry import Backoff
from penstock_proto.v1 import rows_pb2 as pb
from penstock_proto.v1 import rows_pb2_grpc

_ASKED_AT_ONCE: Final = 16_384  # positions of one call that are no range
_RETRY_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Page:
    """Rows as they came. `memory` is the writable array that `batch` was read from."""

    batch: pa.RecordBatch
    memory: np.ndarray[Any, np.dtype[np.uint8]] | None  # None: Arrow owns it


@dataclass(frozen=True)
class StoredRows:
    """The rows of one dataset version. Picklable: nothing of a connection is in it."""

    link: Link
    dataset: str  # NAME@VERSION, NAME@VERSION:SPLIT
    columns: tuple[str, ...]
    schema: pa.Schema  # of the pages
    rows: int

    @classmethod
    def of(cls, link: Link, info: DatasetInfo, columns: Sequence[str] | None) -> Self:
        """Those of a dataset as the server described it; raises InvalidRequest for a column that is not there."""
        named = info.reference
        have = info.schema.names
        wanted = list(have if columns is None else columns)
        if isinstance(columns, str):
            raise InvalidRequest(f"columns={columns!r}: must be a list of names, as columns=[{columns!r}]")
        for name in wanted:
            if name not in have:
                raise InvalidRequest(f"no column {name!r} in {named}; the columns are {have}")
            if wanted.count(name) > 1:
                raise InvalidRequest(f"column {name!r} is named {wanted.count(name)} times; name it once")
        if not wanted:
            raise InvalidRequest(f"columns=[]: name at least one; the columns are {have}")
        schema = pa.schema([info.schema.field(name) for name in wanted])
        return cls(link, named, tuple(wanted), schema, info.rows)

    def read(self, positions: range | Sequence[int]) -> Iterator[Page]:
        """The rows at `positions`, in that order.

        Raises:
            DataError: a row that could not be read, when those before it were handed out.
            RetryableError: the server could not be reached for a while.
        """
        backoff: Backoff | None = None
        while len(positions):
            try:
                for page in self._call(positions):
                    backoff = None
                    positions = positions[page.batch.num_rows :]
                    yield page
            except PenstockError as error:
                if not error.retryable:
                    raise
                backoff = backoff or Backoff(_RETRY_SECONDS)
                if not backoff.pause():
                    raise

    def _call(self, positions: range | Sequence[int]) -> Iterator[Page]:
        stub = rows_pb2_grpc.RowsStub(self.link.channel())
        call = stub.Read(self._request(positions), metadata=self.link.metadata)
        try:
            yield from self._pages(call)
        except grpc.RpcError as error:
            raise self.link.error(error) from None
        finally:
            call.cancel()  # nothing where it is over; else whoever asked wants no more

    def _request(self, positions: range | Sequence[int]) -> pb.ReadRequest:
        request = pb.ReadRequest(dataset=self.dataset, columns=self.columns)
        if isinstance(positions, range):
            asked = pb.Range(start=positions.start, step=positions.step, count=len(positions))
            request.range.CopyFrom(asked)
        else:
            request.positions.at.extend(positions[:_ASKED_AT_ONCE])
        return request

    def _pages(self, call: Any) -> Iterator[Page]:
        for first in call:
            memory = np.empty(first.body_bytes, np.uint8)
            filled, part = 0, first
            while True:
                data = np.frombuffer(part.data, np.uint8)
                if not len(data) or filled + len(data) > len(memory):
                    raise ServerError(f"{self.link.target} sent a page that is not as long as it says")
                memory[filled : filled + len(data)] = data
                filled += len(data)
                if filled == len(memory):
                    break
                part = next(call, None)
                if part is None:
                    raise ServerUnavailable(f"{self.link.target} ended the call within a page")
            batch = pa.ipc.read_record_batch(pa.py_buffer(memory), self.schema)
            if batch.num_rows != first.rows or not batch.num_rows:
                raise ServerError(f"{self.link.target} sent {batch.num_rows} rows where it announced {first.rows}")
            yield Page(batch, memory)
