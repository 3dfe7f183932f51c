"""The mixers of all streams: those with the same order share one, whoever subscribes."""

import asyncio
from collections import Counter, OrderedDict
from typing import Any, Final

from penstock_service.core.channel import Counters
from penstock_service.core.segment import ChunkSource
from penstock_service.mix.mixer import Mixer
from penstock_service.mix.stream import Stream

_IDLE_REMEMBERED: Final = 4

Key = tuple[Any, ...]  # Stream.key


class Mixers:
    """`take` and `leave` are a pair. Belongs to the event loop."""

    def __init__(self, chunks: ChunkSource, counters: Counters) -> None:
        self._chunks = chunks
        self._counters = counters
        self._mixers: OrderedDict[Key, Mixer] = OrderedDict()
        self._readers: Counter[Key] = Counter()

    async def take(self, stream: Stream) -> Mixer:
        """The mixer of this order, for one more reader."""
        key = stream.key
        if key not in self._mixers:
            order, masks = await asyncio.to_thread(lambda: (stream.order(), stream.masks()))
            self._mixers.setdefault(key, Mixer(stream.sources, order, self._chunks, self._counters, masks))
        self._mixers.move_to_end(key)
        self._readers[key] += 1
        return self._mixers[key]

    def leave(self, stream: Stream) -> None:
        """One reader has gone; mixers that nobody reads keep little, and only the latest of them."""
        key = stream.key
        self._readers[key] -= 1
        if self._readers[key] == 0:
            del self._readers[key]
            self._mixers[key].rest()
        idle = [k for k in self._mixers if k not in self._readers]
        for old in idle[: max(0, len(idle) - _IDLE_REMEMBERED)]:
            del self._mixers[old]

    @property
    def nbytes(self) -> int:
        """Bytes of indices and waiting rows, over all streams."""
        return sum(mixer.nbytes for mixer in self._mixers.values())

    async def stop(self) -> None:
        for mixer in self._mixers.values():
            await mixer.stop()
        self._mixers.clear()
