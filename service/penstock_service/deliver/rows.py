"""The rows service: pages of rows by position."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_proto.v1 import rows_pb2 as pb
from penstock_proto.v1 import rows_pb2_grpc
from penstock_service.core.errors import InvalidRequest, ServiceError
from penstock_service.deliver.refusal import Context, refuse

I64 = npt.NDArray[np.int64]

_MOST_ROWS = 1 << 40  # of one request: far beyond any dataset, and no danger to integers
_log = logging.getLogger(__name__)


class StoredRows(Protocol):
    """Datasets to be indexed, as the service sees them."""

    def read(self, dataset: str, columns: tuple[str, ...], positions: "I64 | range") -> AsyncIterator[pa.RecordBatch]:
        """Pages in the order of `positions`; raises ServiceError with what to do."""
        ...


class RowsService(rows_pb2_grpc.RowsServicer):
    """Serves `penstock.v1.Rows`. Parts hold at most `part_bytes` bytes of data."""

    def __init__(self, rows: StoredRows, part_bytes: int) -> None:
        self._rows = rows
        self._part_bytes = part_bytes

    async def Read(self, request: pb.ReadRequest, context: Context) -> AsyncIterator[pb.Part]:  # noqa: N802
        try:
            async for page in self._rows.read(request.dataset, tuple(request.columns), _positions(request)):
                for part in _parts(page, self._part_bytes):
                    yield part
        except ServiceError as problem:
            _log.info("rows of %s refused: %s: %s", request.dataset, problem.code, problem)
            await refuse(problem, context)


def _positions(request: pb.ReadRequest) -> "I64 | range":
    kind = request.WhichOneof("which")
    if kind == "positions":
        at = np.array(request.positions.at, np.uint64)
        if len(at) and at.max() >= _MOST_ROWS:
            raise InvalidRequest(f"position {at.max()}: no dataset has so many rows")
        return at.astype(np.int64)
    if kind != "range":
        raise InvalidRequest("Read: neither a range nor positions were asked for")
    asked = request.range
    if asked.step == 0 or asked.count > _MOST_ROWS or max(abs(asked.start), abs(asked.step)) > _MOST_ROWS:
        raise InvalidRequest(f"range of {asked.count} rows from {asked.start} by {asked.step}: no dataset has such")
    return range(asked.start, asked.start + asked.step * asked.count, asked.step)


def _parts(page: pa.RecordBatch, part_bytes: int) -> Iterator[pb.Part]:
    body = memoryview(page.serialize())
    first = pb.Part(rows=page.num_rows, body_bytes=len(body), data=bytes(body[:part_bytes]))
    yield first
    for at in range(part_bytes, len(body), part_bytes):
        yield pb.Part(data=bytes(body[at : at + part_bytes]))
