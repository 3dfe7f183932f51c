"""Files of the state folder that are damaged, or cannot be written: said as errors that name the file and the cure."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from penstock_service.core.errors import ServiceError, SourceUnreadable, Unavailable

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NOT_WRITTEN: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY)
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def state_file(file: Path, cure: str, writes: bool = False) -> Iterator[None]:
    """Around what reads `file`, or `writes` to it; `cure` says what to do where it is damaged.

    Raises:
        SourceUnreadable: it is damaged, or cannot be opened.
        Unavailable: it cannot be written.
    """
    try:
        yield
    except sqlite3.ProgrammingError:  # it is closed: the server ends
        raise
    except sqlite3.Error as error:
        # Where undoing failed too, the first error is the reason.
        first = error.__context__ if isinstance(error.__context__, sqlite3.Error) else error
        raise _said(file, first, cure, writes) from error
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise Unavailable(_full(Path(error.filename) if error.filename else file, error)) from error


def is_damaged(error: sqlite3.Error) -> bool:
    return _code(error) in _DAMAGED


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _said(file: Path, error: sqlite3.Error, cure: str, writes: bool) -> ServiceError:
    if is_damaged(error):
        return SourceUnreadable(f"{file} is damaged ({error}): stop the server and restore the file, or {cure}")
    if writes or _code(error) in _NOT_WRITTEN:
        return Unavailable(_full(file, error))
    return SourceUnreadable(f"{file} cannot be used ({error}): check the state folder, its permissions and disk")


def _full(file: Path, error: Exception) -> str:
    return (
        f"{file} could not be written ({error}); nothing has changed. "
        "Make room in the state folder (--state-dir), then ask again"
    )
