"""A bucket and prefix as a place. One request (HEAD) tells an object's state and tag, and opens it."""

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event, Lock
from typing import NamedTuple

import pyarrow as pa

from penstock_service.core.errors import SourceChanged
from penstock_service.source.objects.address import Address
from penstock_service.source.objects.failures import failure, retrying
from penstock_service.source.objects.filesystems import filesystem
from penstock_service.source.objects.listing import files_under
from penstock_service.source.objects.parts import plan
from penstock_service.source.objects.reader import RangeReader
from penstock_service.source.place import Expected, FileState
from penstock_service.source.stores import Stores

_OPENED = 256  # objects whose heads are remembered
_ALONE = 8  # so many objects are asked for one by one; for more it is quicker to list


class _Opened(NamedTuple):
    """An object as its head was when it was looked at. Holds no connection; may be read by many threads."""

    file: pa.NativeFile
    state: FileState
    tag: str


@dataclass(frozen=True)
class ObjectPlace:
    """Objects under a prefix."""

    address: Address
    stores: Stores
    _opened: OrderedDict[str, _Opened] = field(default_factory=OrderedDict, compare=False, repr=False)
    _lock: Lock = field(default_factory=Lock, compare=False, repr=False)

    @property
    def root(self) -> str:
        return self.address.uri

    @property
    def parallel(self) -> int:
        return self.stores.ranges

    def full(self, path: str) -> str:
        return self.address.under(path).uri

    def state(self, path: str) -> FileState | None:
        opened = self._look(path)
        with self._lock:
            self._opened.pop(path, None)
            if opened is not None:
                self._opened[path] = opened
            while len(self._opened) > _OPENED:
                self._opened.popitem(last=False)
        return opened.state if opened else None

    def states(self, paths: Sequence[str]) -> list[FileState | None]:
        """Of few objects each is asked for, of many the folder that holds them all is listed."""
        if len(paths) <= _ALONE:
            with ThreadPoolExecutor(max(len(paths), 1), thread_name_prefix="states") as pool:
                return list(pool.map(self.state, paths))
        shared = _shared_folder(paths)
        listed = files_under(self.address.under(shared) if shared else self.address, self.stores)
        before = f"{shared}/" if shared else ""
        return [listed.get(path.removeprefix(before)) for path in paths]

    def tag(self, path: str) -> str:
        return self._known(path).tag

    def open(self, path: str, expected: Expected = ()) -> pa.NativeFile:
        opened = self._known(path)
        full, retry = self.full(path), self.stores.retry

        def fetch(offset: int, length: int, stop: Event) -> bytes:
            def read() -> bytes:
                data: bytes = opened.file.read_at(length, offset)
                if len(data) != length:
                    raise OSError(f"{len(data)} of {length} bytes came from byte {offset} on")
                return data

            try:
                return retrying(full, read, retry, stop)
            except Exception:
                # pyarrow does not tell apart an object that went away, or shrank, from a failed read
                if not stop.is_set():
                    self._check_still(path, opened.state)
                raise

        parts = plan(expected, opened.state.size, self.stores.range_bytes)
        return pa.PythonFile(RangeReader(fetch, opened.state.size, parts, self.stores.ranges), mode="r")

    def _known(self, path: str) -> _Opened:
        with self._lock:
            opened = self._opened.get(path)
        if opened is None:
            self.state(path)
            with self._lock:
                opened = self._opened.get(path)
        if opened is None:
            raise failure(self.full(path), FileNotFoundError())
        return opened

    def _look(self, path: str) -> _Opened | None:
        address = self.address.under(path)
        system = filesystem(address, self.stores)

        def head() -> _Opened | None:
            try:
                file = system.open_input_file(address.inner)
            except FileNotFoundError:
                return None
            said = {key.lower(): value for key, value in (file.metadata() or {}).items()}
            modified = _modified(said.get("last-modified", b""))
            if modified is None:  # not all stores tell it with the head
                modified = system.get_file_info(address.inner).mtime_ns or 0
            return _Opened(file, FileState(file.size(), modified), said.get("etag", b"").decode())

        return retrying(address.uri, head, self.stores.retry)

    def _check_still(self, path: str, state: FileState) -> None:
        now = self._look(path)
        if now is None:
            raise failure(self.full(path), FileNotFoundError())
        if now.state != state:
            raise SourceChanged(
                f"{self.full(path)} was written anew while it was read ({state.size} bytes before, {now.state.size} "
                "now). Register its dataset again to use it as it is now."
            )


def _shared_folder(paths: Sequence[str]) -> str:
    first, last = (p.split("/")[:-1] for p in (min(paths), max(paths)))
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return "/".join(first[:same])


def _modified(text: bytes) -> int | None:
    """Nanoseconds since 1970, in whole seconds, as listings have it."""
    try:
        return int(datetime.fromisoformat(text.decode()).timestamp()) * 10**9
    except ValueError:
        return None
