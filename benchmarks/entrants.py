"""Who takes part in the race, under which name, in which environment."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Entrant:
    """`module` of benchmarks/peers, run in the environment that `requirements` makes; None: in this one."""

    name: str
    module: str
    requirements: Path | None
    workers: int = 0
    note: str = ""

    @property
    def data(self) -> str:
        """Name of its data: entrants of one module and environment share it."""
        return self.module if self.requirements is None else f"{self.requirements.stem}-{self.module}"

    def fingerprint(self) -> str:
        """Changes with what its data is made by."""
        made_by = [PEERS / f"{self.module}.py", PEERS.parent / "rows.py"]
        made_by += [self.requirements] if self.requirements is not None else []
        return sha256(b"".join(path.read_bytes() for path in made_by if path.exists())).hexdigest()

    @property
    def packages(self) -> tuple[str, ...]:
        """The distributions that are pinned for it."""
        if self.requirements is None:
            return ("penstock", "torch", "pyarrow", "grpcio")
        lines = (line.partition("#")[0].strip() for line in self.requirements.read_text().splitlines())
        return tuple(line.partition("==")[0].partition("[")[0] for line in lines if "==" in line)


def _peer(name: str, module: str, environment: str, workers: int = 0, note: str = "") -> Entrant:
    return Entrant(name, module, PEERS / f"{environment}.txt", workers, note)


ENTRANTS = (
    Entrant("penstock", "penstock", None, note="server and client, shared memory"),
    Entrant("penstock-tcp", "penstock_tcp", None, note="server and client, over a TCP socket"),
    Entrant("penstock-grpc", "penstock_grpc", None, note="server and client, over gRPC"),
    _peer("memmap", "memmap", "memmap", note="hand-written torch Dataset, in process"),
    _peer("memmap-2", "memmap", "memmap", 2, "the same, 2 DataLoader workers"),
    _peer("litdata", "litdata", "litdata"),
    _peer("litdata-2", "litdata", "litdata", 2, "2 workers"),
    _peer("mosaic", "mosaic", "mosaic"),
    _peer("mosaic-2", "mosaic", "mosaic", 2, "2 workers"),
    _peer("hf-map", "hf_map", "hf", note="Arrow on disk"),
    _peer("hf-map-2", "hf_map", "hf", 2, "Arrow on disk, 2 workers"),
    _peer("hf-stream", "hf_stream", "hf", note="Parquet, buffer of 1,000 rows"),
    _peer("hf-stream-2", "hf_stream", "hf", 2, "Parquet, buffer of 1,000 rows, 2 workers"),
    _peer("ray", "ray", "ray", note="Parquet, local shuffle buffer"),
    _peer("tfdata", "tfdata", "tfdata", note="tf.data service, 1 dispatcher, 1 worker, shuffle buffer"),
    _peer("webdataset", "webdataset", "webdataset", note="tar, buffer of 1,000 rows"),
    _peer("webdataset-2", "webdataset", "webdataset", 2, "tar, buffer of 1,000 rows, 2 workers"),
    _peer("grain", "grain", "grain", note="ArrayRecord, 16 threads (its default)"),
    _peer("grain-2", "grain", "grain", 2, "ArrayRecord, 2 processes"),
    _peer("spdl", "spdl", "spdl", 2, "2 threads over mapped files"),
)
