"""What is remembered of chunks after their bytes are gone, so that one made again is known to be the same."""

from collections.abc import Callable, Iterable
from typing import Final

from penstock_service.chunks.shelf import Entry
from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.errors import OrderChanged

_INFO_BYTES: Final = 500  # key, info and its numbers
_ERROR_BYTES: Final = 200
_LIMIT_BYTES: Final = 128 << 20


class Remembered:
    """The last `limit` chunks, by key, or as many as `limit_bytes` have room for. `changed` is called with the key of
    one that is not what it was."""

    def __init__(self, limit: int, changed: Callable[[str], object], limit_bytes: int = _LIMIT_BYTES) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._changed = changed
        self._infos: dict[str, ChunkInfo] = {}
        self._doubted: set[str] = set()
        self.nbytes = 0  # about

    def get(self, key: str) -> ChunkInfo | None:
        return self._infos.get(key)

    def sure(self, key: str) -> ChunkInfo | None:
        """The same, unless the chunk could not be had since: whoever counts on it must see it first."""
        return None if key in self._doubted else self._infos.get(key)

    def doubt(self, keys: Iterable[str]) -> None:
        """These could not be made again. What is known of them is kept to be compared."""
        self._doubted.update(key for key in keys if key in self._infos)

    def learn(self, entry: Entry, where: Callable[[], str]) -> ChunkInfo:
        """Keep what is known of an open chunk. Raises OrderChanged, and keeps what was known, if that was another."""
        now = entry.info
        if now is None:
            raise ValueError(f"{entry.key} is not open")
        self._doubted.discard(entry.key)
        if entry.key not in self._infos:
            self.nbytes += _size(now)
        before = self._infos.pop(entry.key, now)
        self._infos[entry.key] = before
        while len(self._infos) > self._limit or (self.nbytes > self._limit_bytes and len(self._infos) > 1):
            oldest = next(iter(self._infos))
            self.nbytes -= _size(self._infos.pop(oldest))
            self._doubted.discard(oldest)
        if before == now:
            return now
        self._changed(entry.key)
        raise OrderChanged(
            f"{where()} is not what it was: {_words(before)} before, {_words(now)} now. The files were rewritten in"
            " place, or a transform gives another result each time (clock, randomness): the order that was promised"
            " cannot be kept"
        )


def _size(info: ChunkInfo) -> int:
    """About how many bytes of memory it takes."""
    errors = sum(_ERROR_BYTES + len(error.where) + len(error.reason) for error in info.errors)
    return _INFO_BYTES + len(info.dropped) + len(info.more) + errors


def _words(info: ChunkInfo) -> str:
    return f"{info.stored_rows} stored rows, {info.bad_rows} errors, content {info.content[:12]}"
