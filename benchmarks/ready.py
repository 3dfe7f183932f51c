"""Servers that send the same ready bytes over and over: Penstock's own wire, a raw socket, Arrow Flight.

One kind a process; prints `ready PORT`. Nothing is read, mixed or gathered: what is left is the wire.

    python -m benchmarks.ready penstock --rows 512 --batch 32
"""

import argparse
import asyncio
import socket
from collections.abc import Iterator

import grpc.aio
import numpy as np
import pyarrow as pa
import pyarrow.flight

from penstock_proto.v1 import channel
from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.cursor import Cursor
from penstock_proto.v1.malloc import keep_freed
from penstock_service.core.bodies import Bodies
from penstock_service.core.feed import Bundle, EpochEnd, Memory, Opening, Span, ordinary
from penstock_service.core.segment import Progress
from penstock_service.deliver.data import DataService
from penstock_service.deliver.payload import PayloadPort
from penstock_service.deliver.session import Limits
from penstock_service.deliver.transport import Transports

WIDTH = 2048  # int32 a row: 8 KiB
HUGE = 1 << 40


def rows_of(rows: int) -> pa.RecordBatch:
    tokens = np.random.default_rng(0).integers(0, 50_000, rows * WIDTH, dtype=np.int32)
    return pa.record_batch({"tokens": pa.FixedSizeListArray.from_arrays(pa.array(tokens), WIDTH)})


class Ready:
    """A feed whose bundles are ready."""

    def __init__(self, batch: pa.RecordBatch, step_rows: int) -> None:
        wide = pa.Table.from_batches([batch] * 4).combine_chunks().to_batches()[0]  # as large as slots are
        self._bodies = {b.num_rows: np.frombuffer(b.serialize(), np.uint8) for b in (batch, wide)}
        self._least = (batch.num_rows, self._bodies[batch.num_rows])
        self._rows, self._step = step_rows, 0

    async def next(
        self, steps: int, size: int, progress: Progress | None = None, memory: Memory = ordinary
    ) -> Bundle | EpochEnd:
        fitting = [(r, b) for r, b in self._bodies.items() if len(b) <= size + 4096]
        rows, body = max(fitting or [self._least], key=lambda found: found[0])
        if not isinstance(memory, Bodies):  # a slot: gathering would write it once, and so do we
            made, body = body, memory(len(body))
            body[:] = made
        units, number = rows, rows // self._rows
        first, self._step = self._step, self._step + number
        return Bundle(
            *(0, first, number, 0, first * self._rows, (Span(0, units, 1),)),
            *(self._rows, self._rows, body, {"ready": units}),
        )

    async def explain(self, step: int, all_ranks: bool) -> pa.RecordBatch:
        raise NotImplementedError("ready bytes come from nowhere")


async def serve_penstock(batch: pa.RecordBatch, step_rows: int, frame_bytes: int) -> None:
    async def subscribe(request: pb.Open) -> Opening:
        rows = request.view.global_batch or step_rows
        plan: dict[str, int | str] = {"pool_rows": 1}
        cursor = Cursor(0, 0, 0, 0, rows, 0, 0, plan)
        return Opening(
            *(Ready(batch, rows), batch.schema, {}, plan, cursor, HUGE, HUGE // rows, 0, ("ready@1",), lambda: None)
        )

    keep_freed()  # as GrpcServer does
    server = grpc.aio.server(options=channel.SERVER)
    payload = PayloadPort("127.0.0.1")
    await payload.start()
    data = DataService(subscribe, Limits(frame_bytes=frame_bytes), Transports(True, 4 << 20, payload), 8, "benchmark")
    server.add_generic_rpc_handlers((data.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print("ready", port, flush=True)
    await server.wait_for_termination()


def serve_socket(batch: pa.RecordBatch) -> None:
    body = memoryview(batch.serialize())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print("ready", listener.getsockname()[1], flush=True)
        while True:
            peer, _ = listener.accept()
            with peer:
                try:
                    while True:
                        peer.sendall(body)
                except OSError:
                    pass  # it has read enough


class Flight(pa.flight.FlightServerBase):  # type: ignore[misc]  # pyarrow ships no types
    """Sends the batch until the reader has had enough."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._batch = batch

    def do_get(self, _context: object, _ticket: object) -> pa.flight.RecordBatchStream:
        def batches() -> Iterator[pa.RecordBatch]:
            while True:
                yield self._batch

        return pa.flight.GeneratorStream(self._batch.schema, batches())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("penstock", "socket", "flight"))
    parser.add_argument("--rows", type=int, default=512, help="of a message; 8 KiB each")
    parser.add_argument("--batch", type=int, default=32, help="rows of a step (penstock)")
    parser.add_argument("--frame", type=int, default=1 << 20, help="bytes of a frame (penstock)")
    options = parser.parse_args()
    batch = rows_of(options.rows)
    if options.kind == "penstock":
        asyncio.run(serve_penstock(batch, options.batch, options.frame))
    elif options.kind == "socket":
        serve_socket(batch)
    else:
        server = Flight(batch)
        print("ready", server.port, flush=True)
        server.serve()


if __name__ == "__main__":
    main()
