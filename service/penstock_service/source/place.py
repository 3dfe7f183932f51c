"""Where bytes are: the one seam between formats and storage, and the translation of its errors.

Object stores come in here: another `pyarrow.fs.FileSystem`, and another way to list files beside `discover.py`.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import pyarrow as pa
from pyarrow import fs

from penstock_service.core.errors import DataError, SourceChanged, SourceUnreadable


class FileState(NamedTuple):
    """What tells a changed file without reading it."""

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Place:
    """A folder (later: a bucket and prefix) that the relative paths of shards are under."""

    root: str

    @cached_property
    def filesystem(self) -> fs.FileSystem:
        return fs.LocalFileSystem()

    def full(self, path: str) -> str:
        """The path as the user knows it, for errors and for opening."""
        return f"{self.root.rstrip('/')}/{path}"

    def state(self, path: str) -> FileState | None:
        """Size and mtime of a file, or None where there is none."""
        return self.states([path])[0]

    def states(self, paths: Sequence[str]) -> list[FileState | None]:
        """The state of each of many files."""
        with storage_errors(self.root):
            found = self.filesystem.get_file_info([self.full(path) for path in paths])
        return [FileState(i.size, i.mtime_ns) if i.type == fs.FileType.File else None for i in found]

    def open(self, path: str) -> pa.NativeFile:
        """A file that can be read at any position. Never mapped: a source rewritten under a map is SIGBUS."""
        with storage_errors(self.full(path)):
            return self.filesystem.open_input_file(self.full(path))


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Errors of reading, sorted by what they say: nothing about the bytes, or that the bytes are bad.

    Arrow raises OSError both for a failed read (then with an errno) and for a corrupt page or frame (then without).
    """
    try:
        yield
    except FileNotFoundError as error:
        raise SourceChanged(f"{where} is gone. Put it back, or register the dataset again without it.") from error
    except PermissionError as error:
        raise SourceUnreadable(f"{where} may not be read by this user: check its permissions.") from error
    except OSError as error:
        if error.errno is not None:
            name = errno.errorcode.get(error.errno, str(error.errno))
            raise SourceUnreadable(f"{where} could not be read ({name}: {reason_of(error)}). Try again.") from error
        raise DataError(f"{where} is corrupt or truncated: {reason_of(error)}") from error
    except pa.ArrowException as error:  # ArrowInvalid, ArrowNotImplementedError ...: all about what the bytes say
        raise DataError(f"{where} cannot be read as what its name says: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """The first sentence of an Arrow error: the rest repeats it for every layer it passed."""
    return str(error).split(". Detail:", 1)[0].strip().removesuffix(".")
