"""The control service: what the server is, which datasets it has, and the runs that are read from it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from penstock_proto.v1 import PROTOCOL, control_pb2_grpc, data_pb2
from penstock_proto.v1 import control_pb2 as pb
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.declaration import Declaration
from penstock_service.core.difference import Difference
from penstock_service.core.discovery import Discovery
from penstock_service.core.errors import ServiceError
from penstock_service.core.run import Began, RunStatus
from penstock_service.core.store import AheadStatus
from penstock_service.deliver import registered, runs
from penstock_service.deliver.refusal import Context, refuse

T = TypeVar("T")


class Datasets(Protocol):
    """The registry as the control service sees it. Every call raises ServiceError with what to do."""

    async def register(self, name: str, path: str | Sequence[str], said: Declaration) -> DatasetVersion: ...

    async def datasets(self, text: str = "", task: str = "", tag: str = "") -> list[DatasetVersion]: ...

    async def dataset(self, name: str) -> DatasetVersion: ...

    async def versions(self, name: str) -> list[DatasetVersion]: ...

    async def diff(self, a: str, b: str) -> Difference: ...

    async def remove(self, name: str, force: bool = False) -> DatasetVersion: ...

    async def discover(self) -> Discovery: ...

    def warm(self, name: str, split: str = "") -> AsyncGenerator[AheadStatus, None]: ...

    async def explain(
        self, request: data_pb2.Open, step: int, epoch: int | None, all_ranks: bool
    ) -> pa.RecordBatch: ...


class Runs(Protocol):
    """The runs that are being read, as the control service sees them."""

    async def runs(self) -> list[RunStatus]: ...

    async def set_mixture(self, run: str, weights: Mapping[str, float]) -> Began: ...

    async def quarantine(self, run: str, dataset: str, rows: Sequence[int | str], reason: str = "") -> Began: ...


class Asked(Datasets, Runs, Protocol):
    """All that the control service asks."""


class ControlService(control_pb2_grpc.ControlServicer):
    """Serves `penstock.v1.Control`. Errors travel as status, with the error's code in the trailer `penstock-code`."""

    def __init__(self, asked: Asked, version: str) -> None:
        self._datasets: Datasets = asked
        self._runs: Runs = asked
        self._version = version

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.ServerInfo:  # noqa: N802
        return pb.ServerInfo(version=self._version, protocol_min=PROTOCOL, protocol_max=PROTOCOL, capabilities=["grpc"])

    async def RegisterDataset(self, request: pb.RegisterDatasetRequest, context: Context) -> pb.Dataset:  # noqa: N802
        return await _answer(self._register(request), context)

    async def ListDatasets(self, request: Any, context: Context) -> pb.ListDatasetsResponse:  # noqa: N802
        return await _answer(_all(self._datasets.datasets()), context)

    async def SearchDatasets(  # noqa: N802
        self, request: pb.SearchDatasetsRequest, context: Context
    ) -> pb.ListDatasetsResponse:
        return await _answer(_all(self._datasets.datasets(request.text, request.task, request.tag)), context)

    async def ListVersions(  # noqa: N802
        self, request: pb.ListVersionsRequest, context: Context
    ) -> pb.ListDatasetsResponse:
        return await _answer(_all(self._datasets.versions(request.name)), context)

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.Dataset:  # noqa: N802
        return registered.dataset(await _answer(self._datasets.dataset(request.name), context))

    async def RemoveDataset(  # noqa: N802
        self, request: pb.RemoveDatasetRequest, context: Context
    ) -> pb.RemoveDatasetResponse:
        removed = await _answer(self._datasets.remove(request.name, request.force), context)
        return pb.RemoveDatasetResponse(removed=registered.dataset(removed))

    async def DiffDatasets(self, request: pb.DiffDatasetsRequest, context: Context) -> pb.DatasetDiff:  # noqa: N802
        return registered.difference(await _answer(self._datasets.diff(request.a, request.b), context))

    async def DiscoverDatasets(self, request: Any, context: Context) -> pb.DiscoverDatasetsResponse:  # noqa: N802
        return registered.discovery(await _answer(self._datasets.discover(), context))

    async def ListRuns(self, request: Any, context: Context) -> pb.ListRunsResponse:  # noqa: N802
        found = await _answer(self._runs.runs(), context)
        return pb.ListRunsResponse(runs=[runs.run(status) for status in found])

    async def SetMixture(self, request: pb.SetMixtureRequest, context: Context) -> pb.Began:  # noqa: N802
        change = self._runs.set_mixture(request.run, dict(request.weights))
        return runs.began(await _answer(change, context))

    async def Quarantine(self, request: pb.QuarantineRequest, context: Context) -> pb.Began:  # noqa: N802
        change = self._runs.quarantine(request.run, request.dataset, list(request.rows), request.reason)
        return runs.began(await _answer(change, context))

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:  # noqa: N802
        epoch = request.epoch if request.HasField("epoch") else None
        rows = await _answer(self._datasets.explain(request.open, request.step, epoch, request.all_ranks), context)
        return pb.ExplainResponse(rows=await asyncio.to_thread(_ipc_stream, rows))

    async def Warm(self, request: pb.WarmRequest, context: Context) -> AsyncIterator[pb.Warming]:  # noqa: N802
        try:
            async with aclosing(self._datasets.warm(request.name, request.split)) as going:
                async for status in going:
                    yield registered.warming(status)
        except ServiceError as problem:
            await refuse(problem, context)

    async def _register(self, request: pb.RegisterDatasetRequest) -> pb.Dataset:
        paths = [path for path in (request.path, *request.paths) if path]
        made = await self._datasets.register(request.name, paths or "", registered.declaration(request))
        return registered.dataset(made)


async def _all(call: Awaitable[list[DatasetVersion]]) -> pb.ListDatasetsResponse:
    return pb.ListDatasetsResponse(datasets=[registered.dataset(d) for d in await call])


def _ipc_stream(rows: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    data: bytes = sink.getvalue().to_pybytes()
    return data


async def _answer(call: Awaitable[T], context: Context) -> T:
    try:
        return await call
    except ServiceError as problem:
        await refuse(problem, context)
