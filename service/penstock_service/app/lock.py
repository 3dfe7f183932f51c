"""The state folder belongs to one server at a time. Who holds it is written in the lock file."""

import fcntl
import json
import os
from pathlib import Path
from typing import IO, Any

from penstock_service.core.errors import Unavailable


class StateLock:
    """An exclusive lock that dies with its process, however that ends. `release` may be called twice."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "server.lock"
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Raises Unavailable, naming who holds the folder, or why it cannot be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+")
        except OSError as error:
            raise Unavailable(
                f"cannot write to the state folder {self._path.parent}: {error.strerror}; "
                "make it writable, or choose another with --state-dir"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = _holder(file.read())
            file.close()
            raise Unavailable(
                f"another Penstock server holds the state folder {self._path.parent}: {holder}. "
                "Stop it, or give this one a folder of its own with --state-dir"
            ) from error
        self._file = file
        self.note({})

    def note(self, facts: dict[str, Any]) -> None:
        """Write down who we are, for the next one that is refused."""
        if self._file is None:
            return
        self._file.seek(0)
        self._file.truncate()
        json.dump({"pid": os.getpid(), **facts}, self._file)
        self._file.flush()

    def release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _holder(text: str) -> str:
    try:
        facts = json.loads(text)
    except ValueError:
        return "it has not said who it is yet"
    return ", ".join(f"{name} {value}" for name, value in facts.items())
