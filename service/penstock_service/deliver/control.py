"""The control service: what the server is and which datasets it has."""

from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

from penstock_proto.v1 import PROTOCOL, control_pb2_grpc
from penstock_proto.v1 import control_pb2 as pb
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import ServiceError
from penstock_service.deliver.refusal import Context, refuse

T = TypeVar("T")


class Datasets(Protocol):
    """The registry as the control service sees it. Every call raises ServiceError with what to do."""

    async def register(self, name: str, path: str, description: str, tags: tuple[str, ...]) -> DatasetVersion: ...

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
        call = self._datasets.register(request.name, request.path, request.description, tuple(request.tags))
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
        await refuse(problem, context)


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
    )
