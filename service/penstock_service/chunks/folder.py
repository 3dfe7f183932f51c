"""The folders that chunk files lie in: names, what is left over from dead processes, what is there."""

import itertools
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from penstock_service.chunks.file import Place
from penstock_service.chunks.identity import is_dead, own_name

logger = logging.getLogger(__name__)

_SUFFIX: Final = ".arrow"
_TEMP: Final = ".tmp"
_MEMORY: Final = "penstock-chunks-"


class Found(NamedTuple):
    key: str
    size: int
    mtime_ns: int


class Folder:
    """One folder of chunk files: `KEY.arrow`, and while being written `KEY.PROCESS.N.tmp`."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.path = path
        self.durable = durable
        self._own = own_name()
        self._number = itertools.count()

    def file(self, key: str) -> Path:
        return self.path / f"{key}{_SUFFIX}"

    def place(self, key: str, size: int) -> Place:
        # The name is the server's even if a worker process writes: the file is left over when the server is gone.
        temp = self.path / f"{key}.{self._own}.{next(self._number)}{_TEMP}"
        return Place(key, str(temp), str(self.file(key)), size, self.durable)

    def make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def sweep(self) -> int:
        """Remove what dead processes were writing; how many files that were."""
        swept = 0
        for entry in os.scandir(self.path):
            if entry.name.endswith(_TEMP) and is_dead(entry.name.split(".")[1]):
                swept += remove(Path(entry.path))
        return swept

    def scan(self) -> list[Found]:
        """The chunks that are there, those used longest ago first."""
        found = []
        for entry in os.scandir(self.path):
            if entry.name.endswith(_SUFFIX):
                try:
                    stat = entry.stat()
                except FileNotFoundError:  # another server evicted it meanwhile
                    continue
                found.append(Found(entry.name.removesuffix(_SUFFIX), stat.st_size, stat.st_mtime_ns))
        return sorted(found, key=lambda f: f.mtime_ns)


def memory_parents() -> list[Path]:
    """Where files live in memory, best first."""
    return [path for path in (Path("/dev/shm"), Path(tempfile.gettempdir())) if path.is_dir()]  # noqa: S108


def make_memory_folder(parents: Iterable[Path]) -> Folder:
    """A folder of this process alone; OSError if there is nowhere to make one."""
    refused: OSError | None = None
    for parent in parents:
        path = parent / f"{_MEMORY}{own_name()}.{secrets.token_hex(4)}"
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            refused = error
        else:
            return Folder(path, durable=False)
    raise refused or FileNotFoundError("there is no folder to hand chunks over in memory")


def sweep_memory(parents: Iterable[Path]) -> int:
    """Remove the memory folders of dead processes; how many there were."""
    swept = 0
    for parent in parents:
        for path in parent.glob(f"{_MEMORY}*"):
            if is_dead(path.name.removeprefix(_MEMORY).split(".")[0]):
                shutil.rmtree(path, ignore_errors=True)  # another user's stays, and is theirs to sweep
                swept += not path.exists()
    return swept


def remove(path: Path) -> bool:
    """Is it gone? Says so in the log if it is not."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("cannot remove %s: %s", path, error.strerror)
        return False
    return True
