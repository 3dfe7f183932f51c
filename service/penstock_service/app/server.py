"""The server as a whole: what is started in which order, and what ends it."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from functools import partial
from importlib.metadata import version
from typing import Final

from penstock_proto.v1 import data_pb2
from penstock_service.admin.http import make_http
from penstock_service.app import memory_report
from penstock_service.app.badrows import BadRows
from penstock_service.app.discovery import Discoverer
from penstock_service.app.guard import EXIT_CODE as MEMORY_EXIT_CODE
from penstock_service.app.guard import guarding
from penstock_service.app.indexing import Indexing
from penstock_service.app.journal import Journals, Passing
from penstock_service.app.lag import LagProbe
from penstock_service.app.library import Library
from penstock_service.app.lock import StateLock
from penstock_service.app.making import make_chunks
from penstock_service.app.mixers import Mixers
from penstock_service.app.operations import Addresses, ServerOperations
from penstock_service.app.runs import Runs
from penstock_service.app.seeds import Seeds
from penstock_service.app.state_file import state_file
from penstock_service.app.strict import EXIT_CODE, Strict
from penstock_service.app.subscriptions import Subscriptions
from penstock_service.app.tuner import Tuner, tuning_for
from penstock_service.app.warming import Warming
from penstock_service.app.watch import RankWatch
from penstock_service.app.web import WebServer
from penstock_service.chunks.chunks import Chunks
from penstock_service.chunks.executor import Executor, ThreadExecutor
from penstock_service.chunks.mixed import MixedExecutor
from penstock_service.chunks.processes import ProcessExecutor
from penstock_service.chunks.store import Store
from penstock_service.config import Settings
from penstock_service.config.addresses import host_and_port
from penstock_service.core.breaker import Limits
from penstock_service.core.channel import Bound, Counters
from penstock_service.core.feed import Opening
from penstock_service.core.plan import PoolDefaults
from penstock_service.core.retry import Retry
from penstock_service.deliver.control import ControlService
from penstock_service.deliver.data import DataService
from penstock_service.deliver.payload import PayloadPort
from penstock_service.deliver.rows import RowsService
from penstock_service.deliver.server import GrpcServer
from penstock_service.deliver.session import Limits as BundleLimits
from penstock_service.deliver.slots import sweep
from penstock_service.deliver.transport import Transports
from penstock_service.source.format import ChunkLimits
from penstock_service.source.formats import SEMANTICS
from penstock_service.source.registry import Registry
from penstock_service.source.stores import Stores

_REGISTRY_CURE: Final = "remove it: then datasets that no flag names must be registered again"
_SLOTS: Final = 0.4  # of the memory: most that slots of all sessions take; what finds no room travels
_STOPPING: Final = 3.0  # seconds of the grace that are kept for what comes after the streams

_log = logging.getLogger(__name__)


class Server:
    """start, drain, stop. `stop` may be called twice, or after a `start` that failed, and leaves nothing behind."""

    def __init__(self, settings: Settings, passing: Passing = lambda point: None) -> None:
        """`passing` is told of each point of a write to the journal."""
        self._settings = settings
        self._passing = passing
        self._version = f"penstock {version('penstock')}"
        self._lock = StateLock(settings.state_dir)
        self._addresses = Addresses(settings.grpc, settings.http)
        self._counters = Counters()
        self._lag = LagProbe()
        self._web = WebServer(settings.http)
        self._up = {"registry": False, "workers": False, "grpc": False, "not draining": True}
        self._stack = contextlib.AsyncExitStack()
        self._strict = Strict(self._failed) if settings.strict else None
        self.ending = asyncio.Event()
        self.ending_why = "it was asked to stop"
        self.exit_code = 0

    def _failed(self) -> None:
        self._end(EXIT_CODE, "a bad row ends the server (--strict)")

    def _end(self, code: int, why: str) -> None:
        self.exit_code, self.ending_why = code, why
        self.ending.set()

    @property
    def addresses(self) -> Addresses:
        return self._addresses

    async def start(self) -> None:
        """Scan what was named, then listen.

        Raises:
            ServiceError: something named cannot be served, or an address or folder is taken.
        """
        settings = self._settings
        self._lock.acquire()
        self._stack.callback(self._lock.release)
        if settings.shared_memory and (swept := await asyncio.to_thread(sweep)):
            _log.info("%d files of shared memory removed that a killed server had left", swept)
        http_port = self._web.bind()
        self._stack.push_async_callback(self._web.stop)
        self._addresses.http = _with_port(settings.http, http_port)

        limits = ChunkLimits(rows=settings.chunk_rows, bytes=settings.chunk_bytes)
        stores = _stores(settings)
        registry_file = partial(state_file, settings.state_dir / "registry.sqlite", _REGISTRY_CURE)
        with registry_file():
            registry = await asyncio.to_thread(Registry, settings.state_dir, limits, stores)
        self._stack.callback(registry.close)
        seeds = await asyncio.to_thread(Seeds, settings.state_dir)
        self._stack.callback(seeds.close)
        self._bad_rows = await asyncio.to_thread(BadRows, settings.state_dir, self._counters)
        self._stack.callback(self._bad_rows.close)
        tuning = tuning_for(settings)
        self._chunks = Chunks(
            partial(make_chunks, stores=stores),
            Store(settings.store_dir, settings.store_bytes, settings.store_memory_bytes),
            _executor(settings.worker_kind, tuning.workers),
            Bound("read_ahead", tuning.read_ahead),
            semantics=SEMANTICS,
            retry=Retry(
                settings.read_retries,
                settings.read_retry_base,
                settings.read_retry_cap,
                settings.read_retry_deadline,
            ),
            breaker=Limits(settings.breaker_failures, settings.breaker_pause),
            policy=settings.store_policy,
        )
        self._tuner = Tuner(tuning, self._chunks, settings.worker_kind, lambda: self._guard.share)
        payload = _payload_port(settings)
        self._data = DataService(
            self._subscribe,
            BundleLimits(settings.bundle_bytes, settings.bundle_steps, settings.frame_bytes),
            Transports(settings.shared_memory, settings.bundle_bytes, payload, int(_SLOTS * settings.memory)),
            settings.max_sessions,
            self._version,
            self._strict.told if self._strict is not None else None,
            lambda request: self._guard.room(request),
        )
        self._watch = RankWatch(self._data.sessions, settings.missing_after, settings.lagging_after)
        self._library = Library(registry, self._data.datasets_in_use, stores, settings.python_modules, registry_file)
        self._warming = Warming(
            settings.preload, self._chunks, self._library.lookup, self._library.datasets, settings.python_modules
        )
        self._discoverer = Discoverer(settings.discover, settings.discover_every, registry, registry_file)
        self._stack.push_async_callback(self._discoverer.stop)
        self._stack.callback(self._library.close)
        journals = await asyncio.to_thread(Journals, settings.state_dir, self._passing)
        self._stack.callback(journals.close)
        self._mixers = Mixers(self._chunks, self._counters)
        self._runs = Runs(journals, self._mixers, self._passing)
        self._stack.push_async_callback(self._runs.stop)
        parts = (self._chunks, self._mixers, self._data)
        most = max(tuning.read_ahead, tuning.limits.most_read_ahead)
        self._guard = await guarding(settings, most, parts, partial(self._end, MEMORY_EXIT_CODE))
        self._stack.push_async_callback(self._guard.stop)
        defaults = PoolDefaults(settings.pool_rows, settings.pool_bytes, settings.refill_below)
        self._subscriptions = Subscriptions(
            self._library.lookup,
            self._mixers,
            self._runs,
            self._chunks,
            seeds,
            defaults,
            settings.memory // 4,
            settings.python_modules,
            self._counters,
            self._bad_rows,
            self._warming.opened,
            self._guard.room_for,
        )
        self._guard.start()

        # Worker processes, if any, begin before gRPC does: nothing may fork a process that speaks gRPC.
        self._stack.push_async_callback(self._chunks.stop)
        await self._chunks.start()
        self._up["workers"] = True
        self._tuner.start()
        self._stack.push_async_callback(self._tuner.stop)
        self._stack.push_async_callback(self._warming.stop)
        self._stack.push_async_callback(self._mixers.stop)
        operations = self._operations()
        await self._web.start(make_http(operations, address=settings.http))
        await self._library.register_all(settings.dataset_arguments)
        if settings.discover is not None:
            await self._discoverer.look()
            self._discoverer.start()
        await self._warming.eager()
        self._up["registry"] = True

        control = ControlService(operations, self._version)
        rows = RowsService(Indexing(self._library.lookup_reference, self._chunks), settings.frame_bytes)
        self._grpc = GrpcServer(settings.grpc, self._data, control, rows, payload)
        self._stack.push_async_callback(self._grpc.stop, 0.5)
        grpc_port = await self._grpc.start()
        self._addresses.grpc = _with_port(settings.grpc, grpc_port)
        if payload is not None:
            self._addresses.payload = _with_port(settings.grpc, payload.listened)
        self._lag.start()
        self._stack.push_async_callback(self._lag.stop)
        self._watch.start()
        self._stack.push_async_callback(self._watch.stop)
        self._lock.note({"grpc": self._addresses.grpc, "http": self._addresses.http})
        self._up["grpc"] = True
        self._warming.look()

    async def drain(self, reason: str) -> None:
        """Not ready any more; streams finish the bundle in hand. Returns when they have, or early enough to stop within
        the grace: streams that are still in a bundle then (their client takes nothing) are cut."""
        self._up["not draining"] = False
        await self._grpc.drain(reason)
        grace = self._settings.grace
        try:
            async with asyncio.timeout(max(grace - _STOPPING, grace / 2)):
                await self._data.idle()
        except TimeoutError:
            left = len(self._data.sessions())
            _log.warning("%d sessions did not end in time for the grace of %g s: they are cut", left, grace)
            self._data.cut()
        if self.exit_code == 0:
            await asyncio.to_thread(memory_report.spend, self._settings.state_dir)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def _subscribe(self, request: data_pb2.Open) -> Opening:
        opening = await self._subscriptions.open(request)
        strict = self._strict is not None and request.view.on_error in ("", "fail")
        return self._strict.watch(opening) if self._strict is not None and strict else opening

    def _operations(self) -> ServerOperations:
        return ServerOperations(
            self._settings,
            self._addresses,
            version("penstock"),
            self._library,
            self._discoverer,
            self._chunks,
            self._data,
            self._subscriptions,
            self._mixers,
            self._runs,
            self._counters,
            self._lag,
            self._bad_rows,
            self._watch,
            self._guard,
            self._tuner,
            self._warming,
            lambda: dict(self._up),
        )


async def serve(settings: Settings, passing: Passing = lambda point: None) -> int:
    """Serve until SIGTERM or Ctrl-C; a second one ends at once. With --strict also until a stream meets a bad row."""
    server = Server(settings, passing)
    ending = server.ending
    asked = 0

    def asked_to_end() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            # Crash-only: everything that matters is in files that survive it.
            sys.stderr.write("penstock: ended at once, as asked twice\n")
            os._exit(130)
        ending.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_end)
    starting = loop.create_task(server.start())
    try:
        waiting = loop.create_task(ending.wait())
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            print(f"penstock ready grpc={server.addresses.grpc} http={server.addresses.http}", flush=True)
            await waiting
            _log.info("draining")
            await server.drain(server.ending_why)
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await server.stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    return server.exit_code


def _executor(kind: str, workers: int) -> Executor:
    if kind == "threads":
        return ThreadExecutor(workers)
    return ProcessExecutor(workers) if kind == "processes" else MixedExecutor(workers)


def _stores(settings: Settings) -> Stores:
    return Stores(
        schemes=settings.schemes,
        s3_endpoint=settings.s3_endpoint,
        s3_region=settings.s3_region,
        azure_account=settings.azure_account,
        anonymous=settings.object_anonymous,
        connect_timeout=settings.object_connect_timeout,
        read_timeout=settings.object_read_timeout,
        retry=Retry(settings.object_retries, settings.object_retry_base, settings.object_retry_cap),
        ranges=settings.object_ranges,
        range_bytes=settings.object_range_bytes,
    )


def _payload_port(settings: Settings) -> PayloadPort | None:
    if settings.payload == "off":
        return None
    advertised = host_and_port(settings.payload_advertise) if settings.payload_advertise is not None else None
    host = host_and_port(settings.grpc)[0]
    return PayloadPort(host, 0 if settings.payload == "auto" else settings.payload, advertised)


def _with_port(address: str, port: int) -> str:
    host = host_and_port(address)[0]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
