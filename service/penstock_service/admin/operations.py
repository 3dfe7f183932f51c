"""What the admin side may ask of the running server. `app.py` implements it; the tests have one of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.status import Numbers, SessionStatus


@dataclass(frozen=True)
class ServerInformation:
    """What the server is: as in GetServerInfo, and where it is."""

    version: str
    protocol_min: int
    protocol_max: int
    capabilities: tuple[str, ...]
    grpc: str  # the addresses it really listens on: never port 0
    http: str
    state_dir: str
    store_dir: str
    started_at: str  # ISO 8601, UTC
    pid: int


class Operations(Protocol):
    """Called on the event loop. What takes long (a scan, SQLite) is async; the rest answers at once from memory.
    Errors are `ServiceError`s.
    """

    def checks(self) -> dict[str, bool]:
        """What must be true before trainers should be sent here, by name, such as "registry", "workers", "grpc".
        While draining at least one is false."""

    async def datasets(self, text: str = "", tag: str = "") -> list[DatasetVersion]:
        """All datasets, or those whose name or description holds `text` and which carry `tag`."""

    async def register(
        self,
        name: str,
        path: str | Sequence[str],
        description: str,
        tags: tuple[str, ...],
        required: Mapping[str, Sequence[str]] | None,
    ) -> DatasetVersion:
        """Scans `path` (on this machine), or several. An empty name: made from the path. `required`: by split."""

    async def dataset(self, name: str) -> DatasetVersion:
        """`name` is NAME or NAME@VERSION."""

    async def remove(self, name: str) -> DatasetVersion:
        """Forgets the dataset; its files stay."""

    def sessions(self) -> list[SessionStatus]: ...

    def numbers(self) -> Numbers: ...

    def info(self) -> ServerInformation: ...
