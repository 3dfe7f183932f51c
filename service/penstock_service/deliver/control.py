"""The control service: what the server is and which datasets it has."""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc
import grpc.aio

from penstock_proto.v1 import PROTOCOL, codes, control_pb2_grpc
from penstock_proto.v1 import control_pb2 as pb
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import ServiceError

Context: TypeAlias = Any  # grpc.aio.ServicerContext: grpc ships no types
T = TypeVar("T")

_STATUS = {
    codes.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    codes.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    codes.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    codes.DATA_ERROR: grpc.StatusCode.DATA_LOSS,
    codes.SOURCE_CHANGED: grpc.StatusCode.FAILED_PRECONDITION,
    codes.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    codes.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}


class Datasets(Protocol):
    """The registry as the control service sees it. Every call raises ServiceError with what to do."""

    async def register(
        self,
        name: str,
        path: str | Sequence[str],
        description: str,
        tags: tuple[str, ...],
        required: Mapping[str, Sequence[str]] | None,
    ) -> DatasetVersion: ...

    async def datasets(self, text: str, tag: str) -> list[DatasetVersion]: ...

    async def dataset(self, name: str) -> DatasetVersion: ...

    async def remove(self, name: str) -> DatasetVersion: ...


class ControlService(control_pb2_grpc.ControlServicer):
    """Serves `penstock.v1.Control`. Errors travel as status, with the error's code in the trailer `penstock-code`."""

    def __init__(self, datasets: Datasets, version: str) -> None:
        self._datasets = datasets
        self._version = version

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.ServerInfo:  # noqa: N802
        return pb.ServerInfo(version=self._version, protocol_min=PROTOCOL, protocol_max=PROTOCOL, capabilities=["grpc"])

    async def RegisterDataset(self, request: pb.RegisterDatasetRequest, context: Context) -> pb.Dataset:  # noqa: N802
        required = {columns.split: list(columns.columns) for columns in request.required}
        paths = [path for path in (request.path, *request.paths) if path]
        call = self._datasets.register(request.name, paths or "", request.description, tuple(request.tags), required)
        return describe(await _answer(call, context))

    async def ListDatasets(self, request: Any, context: Context) -> pb.ListDatasetsResponse:  # noqa: N802
        found = await _answer(self._datasets.datasets("", ""), context)
        return pb.ListDatasetsResponse(datasets=[describe(d) for d in found])

    async def SearchDatasets(  # noqa: N802
        self, request: pb.SearchDatasetsRequest, context: Context
    ) -> pb.ListDatasetsResponse:
        found = await _answer(self._datasets.datasets(request.text, request.tag), context)
        return pb.ListDatasetsResponse(datasets=[describe(d) for d in found])

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.Dataset:  # noqa: N802
        return describe(await _answer(self._datasets.dataset(request.name), context))

    async def RemoveDataset(  # noqa: N802
        self, request: pb.RemoveDatasetRequest, context: Context
    ) -> pb.RemoveDatasetResponse:
        removed = await _answer(self._datasets.remove(request.name), context)
        return pb.RemoveDatasetResponse(removed=describe(removed))


async def _answer(call: Awaitable[T], context: Context) -> T:
    try:
        return await call
    except ServiceError as problem:
        context.set_trailing_metadata((("penstock-code", problem.code),))
        status = _STATUS.get(problem.code, grpc.StatusCode.INTERNAL)
        await context.abort(status, str(problem))
        raise  # never reached: abort raises


def describe(dataset: DatasetVersion) -> pb.Dataset:
    return pb.Dataset(
        name=dataset.name,
        version=dataset.version,
        path=dataset.path,
        rows=dataset.manifest.rows,
        size=dataset.manifest.bytes,
        shards=dataset.manifest.shards.num_rows,
        schema=dataset.schema.serialize().to_pybytes(),
        description=dataset.description,
        tags=dataset.tags,
        registered_at=dataset.registered_at,
        formats=dataset.formats,
        splits=[
            pb.Split(name=s.name, rows=s.rows, size=s.bytes, shards=s.shards, schema=s.schema.serialize().to_pybytes())
            for s in dataset.splits
        ],
    )
