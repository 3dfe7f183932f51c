"""The gRPC server: data, control, health and reflection on one port, payload on another, in the event loop it is
started in.
"""

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from penstock_proto.v1 import channel, control_pb2, control_pb2_grpc, data_pb2, rows_pb2, rows_pb2_grpc
from penstock_proto.v1.malloc import keep_freed
from penstock_service.core.errors import Unavailable
from penstock_service.deliver.control import ControlService
from penstock_service.deliver.data import DataService
from penstock_service.deliver.payload import PayloadPort
from penstock_service.deliver.rows import RowsService

_SERVICES = (
    data_pb2.DESCRIPTOR.services_by_name["Data"].full_name,
    control_pb2.DESCRIPTOR.services_by_name["Control"].full_name,
    rows_pb2.DESCRIPTOR.services_by_name["Rows"].full_name,
)
_SERVING = health_pb2.HealthCheckResponse.SERVING


class GrpcServer:
    """start, drain, stop; `stop` may be called twice, or without `start`."""

    def __init__(
        self,
        address: str,
        data: DataService,
        control: ControlService,
        rows: RowsService,
        payload: PayloadPort | None = None,
    ) -> None:
        """`payload`: started before anybody can be told of it, stopped last."""
        self._payload = payload
        self._address = address
        self._data = data
        self._control = control
        self._rows = rows
        self._server: grpc.aio.Server | None = None
        self._health = HealthServicer()

    async def start(self) -> int:
        """Listen and serve; returns the port.

        Raises:
            Unavailable: the address, or that of payload, cannot be bound.
        """
        keep_freed()
        self._server = server = grpc.aio.server(options=channel.SERVER)
        server.add_generic_rpc_handlers((self._data.handler(),))
        control_pb2_grpc.add_ControlServicer_to_server(self._control, server)
        rows_pb2_grpc.add_RowsServicer_to_server(self._rows, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (*_SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), server
        )
        try:
            port = server.add_insecure_port(self._address)
        except RuntimeError as error:
            self._server = None
            raise Unavailable(
                f"cannot listen on {self._address} for gRPC: {_reason(error)}; is another server there? "
                "Stop it, or choose another --grpc address (port 0 takes a free one)"
            ) from error
        if self._payload is not None:
            await self._payload.start()
        await server.start()
        for service in ("", *_SERVICES):
            await self._health.set(service, _SERVING)
        return int(port)

    async def drain(self, reason: str) -> None:
        """Not serving any more; sessions end after the bundle in hand."""
        await self._health.enter_graceful_shutdown()
        self._data.drain(reason)

    async def stop(self, grace: float) -> None:
        """End within `grace` seconds, cancelling what is left by then."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace)
        if self._payload is not None:
            await self._payload.stop()


def _reason(error: RuntimeError) -> str:
    return "the address is in use or not of this machine" if "bind" in str(error).lower() else str(error)
