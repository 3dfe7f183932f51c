"""gRPC settings of both ends in one place, so that they can never disagree.

Liveness is HTTP/2 keepalive, answered by C threads even while a trainer holds the GIL. The server must allow pings as
often as the client sends them, or it closes the connection with `too_many_pings`.
Sources: grpc:doc/keepalive.md, grpc:include/grpc/impl/channel_arg_names.h.
"""

from typing import Final

Options = list[tuple[str, int]]

MAX_CONTROL_BYTES: Final = 64 << 20
"""The largest message either side takes: schemas and lists of datasets; a frame of data is far below."""

_KEEPALIVE_MS: Final = 20_000
_KEEPALIVE_TIMEOUT_MS: Final = 10_000
_PING_TIMEOUT_MS: Final = 20_000
"""What ends a silent connection: measured with grpcio 1.85, where keepalive_timeout alone left it to the 60 s that a
ping may take by default. Not less: the answer to a ping queues behind the data on a slow link."""

_BOTH: Final[Options] = [
    ("grpc.max_receive_message_length", MAX_CONTROL_BYTES),
    ("grpc.max_send_message_length", MAX_CONTROL_BYTES),
    ("grpc.http2.max_frame_size", 16 * 1024 * 1024 - 1),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.ping_timeout_ms", _PING_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]

CLIENT: Final[Options] = [
    *_BOTH,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.enable_http_proxy", 0),  # the server is a neighbour: a proxy of the outside world must not get between
]

SERVER: Final[Options] = [
    *_BOTH,
    ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),  # else a second server would silently share the port
]
