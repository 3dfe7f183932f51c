"""What is remembered of chunks after their bytes are gone, so that one made again is known to be the same."""

from collections.abc import Callable

from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.errors import OrderChanged


class Remembered:
    """The last `limit` chunks, by key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._infos: dict[str, ChunkInfo] = {}

    def get(self, key: str) -> ChunkInfo | None:
        return self._infos.get(key)

    def learn(self, key: str, info: ChunkInfo, where: Callable[[], str]) -> OrderChanged | None:
        """Keep it; or say that it is not what it was, and keep what it was."""
        before = self._infos.pop(key, info)
        self._infos[key] = before
        if len(self._infos) > self._limit:
            del self._infos[next(iter(self._infos))]
        if (before.stored_rows, before.errors, before.content) == (info.stored_rows, info.errors, info.content):
            return None
        return OrderChanged(
            f"{where()} is not what it was: {_words(before)} before, {_words(info)} now. The files were rewritten in"
            " place, or a transform gives another result each time (clock, randomness): the order that was promised"
            " cannot be kept"
        )


def _words(info: ChunkInfo) -> str:
    return f"{info.stored_rows} stored rows, {len(info.errors)} errors, content {info.content[:12]}"
