"""The HTTP side: metrics, health, and the API that the command line and people with curl use."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client.exposition import choose_encoder
from starlette.exceptions import HTTPException

from penstock_proto.v1 import codes
from penstock_service.admin.answers import (
    Dataset,
    Datasets,
    Difference,
    Discovery,
    Information,
    Live,
    Readiness,
    Registration,
    Session,
    Sessions,
)
from penstock_service.admin.explaining import Explanation, Question
from penstock_service.admin.failures import add_failures
from penstock_service.admin.hosts import HostGuard
from penstock_service.admin.job_answers import Jobs
from penstock_service.admin.memory_answers import Memory
from penstock_service.admin.metrics import make_registry
from penstock_service.admin.operations import Operations
from penstock_service.admin.runs import PROBLEMS, add_runs
from penstock_service.admin.store_answers import add_store
from penstock_service.admin.streams import Streams
from penstock_service.admin.workers import add_workers
from penstock_service.config.addresses import host_and_port, is_loopback
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import ServiceError

log = logging.getLogger(__name__)

STATUS = {
    codes.NOT_FOUND: 404,
    codes.ALREADY_EXISTS: 409,
    codes.INVALID_REQUEST: 400,
    codes.PROTOCOL_MISMATCH: 400,
    codes.CURSOR_MISMATCH: 409,
    codes.ORDER_CHANGED: 409,
    codes.JOURNAL_CONFLICT: 409,
    codes.DATA_ERROR: 422,
    codes.SOURCE_CHANGED: 409,
    codes.SOURCE_UNREADABLE: 503,
    codes.RESOURCE_EXHAUSTED: 503,
    codes.RANKS_DISAGREE: 409,
    codes.FENCED: 409,
    codes.UNAVAILABLE: 503,
    codes.INTERNAL: 500,
}


def make_http(operations: Operations, *, address: str = "127.0.0.1:7401") -> FastAPI:
    """`address` is what the server listens on: on loopback, requests with a foreign Host header are refused."""
    http = FastAPI(
        title="Penstock",
        version=operations.info().version,
        docs_url=None,  # their pages load scripts from a CDN; /openapi.json is all we own of it
        redoc_url=None,
    )
    http.add_middleware(HostGuard, loopback_only=is_loopback(host_and_port(address)[0]))
    _add_errors(http)
    _add_health(http, operations)
    _add_datasets(http, operations)
    add_runs(http, operations)
    _add_explain(http, operations)
    _add_status(http, operations)
    add_failures(http, operations)
    add_store(http, operations)
    add_workers(http, operations)
    return http


def _add_health(http: FastAPI, operations: Operations) -> None:
    registry = make_registry(operations)

    @http.get("/metrics", include_in_schema=False)
    @http.get("/metrics/", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)

    @http.get("/livez", tags=["health"])
    @http.get("/healthz", tags=["health"])
    async def live() -> Live:
        """The event loop answers. Depends on nothing else, so that a slow disk restarts no server."""
        return Live()

    @http.get("/readyz", tags=["health"], responses={503: {"model": Readiness}}, response_model_exclude_none=True)
    async def ready(response: Response, verbose: Annotated[str | None, Query()] = None) -> Readiness:
        """Should trainers be sent here? 503 while not, with the checks that fail."""
        checks = operations.checks()
        failing = sorted(name for name, passed in checks.items() if not passed)
        response.status_code = 503 if failing else 200
        return Readiness(ready=not failing, failing=failing, checks=None if verbose is None else checks)


def _add_datasets(http: FastAPI, operations: Operations) -> None:
    @http.get("/api/v1/datasets", tags=["datasets"], responses=PROBLEMS)
    async def list_datasets(text: str = "", task: str = "", tag: str = "") -> Datasets:
        """All datasets, or those that hold `text` (in name, description, tags, task, metric or columns), are of the
        task type `task` and carry `tag`."""
        return await _all(operations.datasets(text, task, tag))

    @http.post("/api/v1/datasets", tags=["datasets"], status_code=201, responses=PROBLEMS)
    async def register_dataset(wanted: Registration) -> Dataset:
        """Scans the path and keeps the dataset under its name. Answers when the scan is done."""
        made = await operations.register(wanted.name, wanted.path, wanted.said())
        return await asyncio.to_thread(Dataset.of, made)

    @http.get("/api/v1/datasets/{name}", tags=["datasets"], responses=PROBLEMS)
    async def get_dataset(name: str) -> Dataset:
        """`name` is NAME or NAME@VERSION."""
        return await asyncio.to_thread(Dataset.of, await operations.dataset(name))

    @http.get("/api/v1/datasets/{name}/versions", tags=["datasets"], responses=PROBLEMS)
    async def list_versions(name: str) -> Datasets:
        """All versions of a dataset, the newest first."""
        return await _all(operations.versions(name))

    @http.delete("/api/v1/datasets/{name}", tags=["datasets"], responses=PROBLEMS)
    async def remove_dataset(name: str, force: bool = False) -> Dataset:
        """Forgets the dataset and answers with what it was. Its files stay. Refused while streams read it, unless
        `force`: they run on to their end."""
        return await asyncio.to_thread(Dataset.of, await operations.remove(name, force))

    @http.get("/api/v1/diff", tags=["datasets"], responses=PROBLEMS)
    async def diff_datasets(a: str, b: str) -> Difference:
        """The shards that were added, are gone or changed from `a` to `b`, each NAME or NAME@VERSION."""
        return await asyncio.to_thread(Difference.of, await operations.diff(a, b))

    @http.post("/api/v1/discover", tags=["datasets"], responses=PROBLEMS)
    async def discover_datasets() -> Discovery:
        """Looks into the folder of datasets (`--discover`) now. A child that cannot be registered is in the answer
        with the reason, and stops no other."""
        return Discovery.of(await operations.discover())


def _add_explain(http: FastAPI, operations: Operations) -> None:
    @http.post("/api/v1/explain", tags=["streams"], responses=PROBLEMS)
    async def explain_step(question: Question) -> Explanation:
        """Where each row of one step comes from. Nothing is delivered, and no trainer takes notice."""
        asked = question.message()
        rows = await operations.explain(asked, question.step, question.epoch, question.rank is None)
        return await asyncio.to_thread(Explanation.of, question, rows)


async def _all(call: Awaitable[list[DatasetVersion]]) -> Datasets:
    found = await call
    # A manifest may have a million shards: what is summed over them stays off the event loop.
    return Datasets(datasets=await asyncio.to_thread(lambda: [Dataset.of(version) for version in found]))


def _add_status(http: FastAPI, operations: Operations) -> None:
    @http.get("/api/v1/sessions", tags=["status"])
    async def list_sessions() -> Sessions:
        return Sessions(sessions=[Session.of(status) for status in operations.sessions()])

    @http.get("/api/v1/streams", tags=["streams"])
    async def list_streams() -> Streams:
        """The orders that trainers read or have read lately, and how well their last epochs were mixed."""
        return Streams.of(operations.streams())

    @http.get("/api/v1/jobs", tags=["status"])
    async def list_jobs() -> Jobs:
        """Every job: its streams and their ranks, those that are missing too."""
        return Jobs.of(operations.jobs())

    @http.get("/api/v1/memory", tags=["status"])
    async def get_memory() -> Memory:
        """Who holds how much memory, and what is given up to stay below the limit."""
        return Memory.of(operations.memory())

    @http.get("/api/v1/info", tags=["status"])
    async def get_information() -> Information:
        return Information.model_validate(operations.info(), from_attributes=True)


def _add_errors(http: FastAPI) -> None:
    """Every error has one shape, whoever raised it."""

    @http.exception_handler(ServiceError)
    async def service_error(request: Request, error: ServiceError) -> JSONResponse:
        return _problem(STATUS.get(error.code, 500), error.code, str(error))

    @http.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        lines = [f"{'.'.join(str(part) for part in e['loc'][1:]) or 'body'}: {e['msg']}" for e in error.errors()]
        return _problem(400, codes.INVALID_REQUEST, "; ".join(lines))

    @http.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 404:
            return _problem(
                404, codes.NOT_FOUND, f"there is nothing at {request.url.path}; /openapi.json lists what is"
            )
        message = f"{request.method} {request.url.path}: {error.detail}"
        return _problem(error.status_code, codes.INVALID_REQUEST, message)

    @http.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        # Starlette raises it again after this answer, so the traceback is in the log.
        return _problem(500, codes.INTERNAL, f"a bug of ours: {type(error).__name__}; the server's log has the details")


def _problem(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"code": code, "message": message}, status_code=status)
