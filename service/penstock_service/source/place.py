"""Where bytes are: the one seam between formats and storage, and the translation of its errors.

`LocalPlace` is here, `objects/place.py` has the object stores, `places.py` tells which one a root stands for.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import pyarrow as pa
from pyarrow import fs

from penstock_service.core.errors import DataError, SourceGone, SourceUnreadable


class FileState(NamedTuple):
    """What tells a changed file without reading it."""

    size: int
    mtime_ns: int


class Range(NamedTuple):
    """Bytes of a file."""

    offset: int
    length: int


Expected = Sequence[Sequence[Range]]
"""What will be read of a file: groups of ranges in the order they are needed, those of a group side by side."""


class Place(Protocol):
    """A folder, or a bucket and prefix, that the relative paths of shards are under. Hashable, by where it is."""

    @property
    def root(self) -> str: ...

    def __hash__(self) -> int: ...

    @property
    def parallel(self) -> int:
        """How many files to look at at once because each has to be waited for; 1: as many as there are processors."""
        ...

    def full(self, path: str) -> str:
        """The path as the user knows it, for errors."""
        ...

    def state(self, path: str) -> FileState | None:
        """The state of a file now, or None where there is none."""
        ...

    def states(self, paths: Sequence[str]) -> list[FileState | None]:
        """The state of each of many files."""
        ...

    def tag(self, path: str) -> str:
        """What the store says that stands for the content (an ETag), as of the last `state`; "" where there is none."""
        ...

    def open(self, path: str, expected: Expected = ()) -> pa.NativeFile:
        """A file that can be read at any position, quickly at those that are `expected`. To be closed."""
        ...


@dataclass(frozen=True)
class LocalPlace:
    """A folder of this machine."""

    root: str
    parallel = 1

    def full(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}"

    def state(self, path: str) -> FileState | None:
        return self.states([path])[0]

    def states(self, paths: Sequence[str]) -> list[FileState | None]:
        with storage_errors(self.root):
            found = fs.LocalFileSystem().get_file_info([self.full(path) for path in paths])
        return [FileState(i.size, i.mtime_ns) if i.type == fs.FileType.File else None for i in found]

    def tag(self, path: str) -> str:
        return ""

    def open(self, path: str, expected: Expected = ()) -> pa.NativeFile:
        """Never mapped: a source rewritten under a map is SIGBUS."""
        with storage_errors(self.full(path)):
            return fs.LocalFileSystem().open_input_file(self.full(path))


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Errors of reading, sorted by what they say: nothing about the bytes, or that the bytes are bad.

    Arrow raises OSError both for a failed read (then with an errno) and for a corrupt page or frame (then without).
    Object stores never get here with a failed read: `objects/failures.py` has translated it before.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise SourceGone(f"{where} is gone. Put it back, or register the dataset again without it.") from error
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
