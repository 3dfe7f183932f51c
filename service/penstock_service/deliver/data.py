"""The data service: one bidirectional stream per session."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from penstock_proto.v1 import PROTOCOL
from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.credit import Ledger
from penstock_service.core.bodies import Bodies
from penstock_service.core.errors import Internal, InvalidRequest, ProtocolMismatch, ResourceExhausted, ServiceError
from penstock_service.core.feed import Opening
from penstock_service.core.holding import Holding
from penstock_service.core.status import SessionStatus
from penstock_service.deliver import messages
from penstock_service.deliver.fences import Comer, Fences, Key, taken_over
from penstock_service.deliver.payload import Broken
from penstock_service.deliver.session import RETRY_AFTER_MS, Limits, Session, Totals, Who
from penstock_service.deliver.transport import NAMES, Transport, Transports
from penstock_service.deliver.wire import Wished, settle

Subscribe = Callable[[pb.Open], Coroutine[Any, Any, Opening]]
Context: TypeAlias = Any  # grpc.aio.ServicerContext: grpc ships no types

_OPEN_WITHIN: Final = 30.0  # seconds

_log = logging.getLogger(__name__)


class DataService:
    """Serves `penstock.v1.Data`. `subscribe` turns an Open into an opening, or raises a ServiceError."""

    def __init__(
        self,
        subscribe: Subscribe,
        limits: Limits,
        transports: Transports,
        max_sessions: int,
        server: str,
        told: Callable[[ServiceError], object] | None = None,
        room: Callable[[pb.Open], object] = lambda request: None,
    ) -> None:
        """`told` hears of every error that a client was sent; `room` raises ResourceExhausted where there is none."""
        self.totals = Totals()
        self.bodies = Bodies()
        self._subscribe = subscribe
        self._told = told
        self._room = room
        self._limits = limits
        self._transports = transports
        self._max_sessions = max_sessions
        self._server = server
        self._sessions: dict[str, Session] = {}
        self._fences = Fences()
        self._opening = 0  # sessions that are being opened
        self._draining: str | None = None
        self._session_ended = asyncio.Event()

    def sessions(self) -> list[SessionStatus]:
        return [s.status() for s in self._sessions.values()]

    def datasets_in_use(self) -> set[str]:
        """NAME@VERSION of every dataset a session reads."""
        return {name for s in self._sessions.values() for name in s.status().datasets}

    def holdings(self) -> list[Holding]:
        return [holding for session in self._sessions.values() for holding in session.holdings()]

    def save(self, on: bool) -> None:
        """Whether memory is short: sessions that begin get the smallest slots then, those there are keep none free."""
        self._transports.saving = on
        if on:
            for session in self._sessions.values():
                session.spare()

    def put_off_stalled(self, seconds: float, reason: str) -> list[str]:
        """End sessions whose trainer has taken nothing for so long; they come again. Which those were."""
        now = time.monotonic()
        stalled = [session for session in self._sessions.values() if session.stalled_for(now) >= seconds]
        return [session.who.session for session in stalled if session.put_off(reason)]

    def drain(self, reason: str) -> None:
        """No session begins from now on; those there are finish the bundle in hand."""
        self._draining = reason
        for session in self._sessions.values():
            session.drain(reason)

    def cut(self) -> None:
        """End what is open, in the middle of a bundle too."""
        for session in self._sessions.values():
            session.must_go.set()

    async def idle(self) -> None:
        """Returns when no session is open."""
        while self._sessions:
            self._session_ended.clear()
            await self._session_ended.wait()

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler to register; replies are bytes already."""
        stream = grpc.stream_stream_rpc_method_handler(
            self._stream, request_deserializer=None, response_serializer=None
        )
        return grpc.method_handlers_generic_handler("penstock.v1.Data", {"Stream": stream})

    async def _stream(self, _: Any, context: Context) -> None:
        try:
            await self._serve(context)
        except ServiceError as problem:
            await self._tell(context, problem)
        except asyncio.CancelledError:
            raise
        except (grpc.aio.InternalError, Broken) as gone:  # what gRPC says of a write whose connection broke meanwhile
            _log.info("session ended: the client is gone (%s)", gone)
        except Exception:  # noqa: BLE001 - the client must not wait for ever on a bug of ours; the log has all of it
            _log.exception("session ended by a bug")
            await self._tell(context, Internal("the server met a bug; its log has the traceback"))

    async def _tell(self, context: Context, problem: ServiceError) -> None:
        self._count(problem)
        try:
            await context.write(messages.error(problem))
        finally:  # the client may be gone before it has heard of it, or because it has
            if self._told is not None:
                self._told(problem)

    def _end(self, session: Session, problem: ServiceError) -> None:
        self._count(problem)
        session.end(problem)

    def _count(self, problem: ServiceError) -> None:
        self.totals.errors[problem.code] = self.totals.errors.get(problem.code, 0) + 1
        _log.warning("session refused or ended: %s: %s", problem.code, problem)

    async def _serve(self, context: Context) -> None:
        if self._draining is not None:
            await context.write(messages.draining(RETRY_AFTER_MS, self._draining))
            return
        request = await self._first(context)
        self._fences.check(*_claim(request), time.monotonic())
        if len(self._sessions) + self._opening >= self._max_sessions:
            raise ResourceExhausted(
                f"this server has {self._max_sessions} sessions, its limit (--max-sessions); close one, or raise it"
            )
        self._room(request)
        self._opening += 1
        try:
            opening = await self._open(request, context)
        finally:
            self._opening -= 1
        window = request.window
        offer = self._transports.offer(request.transports, context.peer(), window.bytes, opening.step_bytes)
        try:
            here = self._transports.is_here(context.peer())
            wished = settle(request.compression, request.codecs, here, offer.slots is not None)
            session = self._admit(request, opening, context, offer, wished)
        except ServiceError:
            opening.close()
            offer.close()
            raise
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []
        try:
            await context.write(messages.opened(opening, session.who.session, offer, self._server, wished.decision))
            hearing = loop.create_task(self._hear(session, context))
            sending = loop.create_task(session.run())
            going = loop.create_task(_wait(session.must_go))
            tasks += [hearing, sending, going]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in (sending, hearing):
                if task.done():
                    task.result()
        finally:
            del self._sessions[session.who.session]
            self._fences.leave(_claim(request)[0], session.who.session, time.monotonic())
            self._session_ended.set()
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                offer.close()
                opening.close()  # last: the feed may still have been asking
            _log.info("session %s of job %s closed", session.who.session, session.who.job)

    async def _first(self, context: Context) -> pb.Open:
        try:
            async with asyncio.timeout(_OPEN_WITHIN):
                message = await _read(context)
        except TimeoutError:
            raise InvalidRequest(f"no Open came within {_OPEN_WITHIN:g} s") from None
        if message is None or message.WhichOneof("kind") != "open":
            raise InvalidRequest("the first message of a stream must be Open")
        request: pb.Open = message.open
        if request.protocol != PROTOCOL:
            raise ProtocolMismatch(
                f"the client speaks protocol {request.protocol}, this server ({self._server}) speaks {PROTOCOL}; "
                "install the same version of penstock on both sides"
            )
        return request

    async def _open(self, request: pb.Open, context: Context) -> Opening:
        """Subscribe, and tell a client that has to wait for it that we are at it."""
        opening = asyncio.get_running_loop().create_task(self._subscribe(request))
        try:
            while not opening.done():
                await asyncio.wait({opening}, timeout=0.5)
                if not opening.done():
                    await context.write(messages.filling(0, 0, "opening"))
        except BaseException:
            opening.cancel()
            opening.add_done_callback(_close_unused)  # the client went away: what was opened meanwhile is let go
            raise
        return opening.result()

    def _admit(self, request: pb.Open, opening: Opening, context: Context, offer: Transport, wished: Wished) -> Session:
        who = Who(
            session=secrets.token_hex(6),
            job=request.job,
            name=request.name,
            rank=request.view.rank,
            world_size=request.view.world_size,
            replica=request.view.replica,
            client=request.client,
        )
        self._take_over(request, who.session)
        ledger = Ledger()
        ledger.open_window(max(1, request.window.steps), max(1, request.window.bytes))
        target = request.view.target_rows_per_s
        session = Session(
            *(who, opening, ledger, self._limits, self.totals, context.write, offer, target, self.bodies, wished)
        )
        self._sessions[who.session] = session
        self.totals.sessions += 1
        if self._draining is not None:
            session.drain(self._draining)
        _log.info(
            "session %s: job %s, stream %s, rank %d of %d, %s, client %s, over %s: %s",
            *(who.session, who.job, who.name, who.rank, who.world_size, ", ".join(opening.datasets), who.client),
            *(NAMES[offer.offered], offer.reason),
        )
        return session

    def _take_over(self, request: pb.Open, session: str) -> None:
        """This session holds its rank from now on; those of an older process are fenced."""
        key, comer = _claim(request)
        taken = self._fences.take(key, comer, session, time.monotonic())
        for old in taken.fenced:
            self._end(self._sessions[old], taken_over(key, comer.client))
        for old in taken.replaced:
            self._sessions[old].must_go.set()

    async def _hear(self, session: Session, context: Context) -> None:
        """Take what the client says until it closes. What is wrong with it is told between two bundles, not within."""
        while True:
            try:
                message = await _read(context)
                if message is None or not _take(session, message):
                    return
            except ServiceError as problem:
                self._end(session, problem)


def _take(session: Session, message: pb.ClientMessage) -> bool:
    """False: the client has closed. Raises a ServiceError where what it says is wrong."""
    kind = message.WhichOneof("kind")
    if kind == "credit":
        session.credit(message.credit.steps, message.credit.bytes, message.credit.slots)
        _note_position(session, message.credit)
    elif kind == "heartbeat":
        _note_position(session, message.heartbeat)
    elif kind == "started":
        session.started(message.started.start)
    elif kind == "proof":
        session.proof(message.proof.nonce, message.proof.reason, message.proof.socket)
    elif kind == "open":
        raise InvalidRequest("a second Open on one stream: open another stream")
    return bool(kind != "close")


async def _read(context: Context) -> pb.ClientMessage | None:
    """The next message; None when the client has said all. Raises InvalidRequest on bytes that are none."""
    data = await context.read()
    if data is grpc.aio.EOF:
        return None
    try:
        return pb.ClientMessage.FromString(data)
    except DecodeError as error:
        raise InvalidRequest(f"bytes that are no ClientMessage: {error}") from error


def _claim(request: pb.Open) -> tuple[Key, Comer]:
    view = request.view
    return (
        Key(request.job, request.name, view.rank, view.replica),
        Comer(request.token, request.reopened, request.client or "a client without a name"),
    )


def _note_position(session: Session, said: pb.Credit | pb.Heartbeat) -> None:
    if said.HasField("at"):
        session.at(said.at.epoch, said.at.step)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _close_unused(opening: "asyncio.Task[Opening]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
