"""The mixers of all streams: those with the same order share one, whoever subscribes."""

import asyncio
from collections import Counter, OrderedDict
from typing import Any, Final

from penstock_service.core.channel import Counters
from penstock_service.core.holding import Holding
from penstock_service.core.quality import Quality
from penstock_service.core.segment import ChunkSource
from penstock_service.core.status import StreamStatus
from penstock_service.mix.mixer import Mixer
from penstock_service.mix.stream import Stream

_IDLE_REMEMBERED: Final = 4
_LOOKED_AT: Final = 4  # streams whose counts are kept for the next look

Key = tuple[Any, ...]  # Stream.key


class Mixers:
    """`take` and `leave` are a pair. Belongs to the event loop."""

    def __init__(self, chunks: ChunkSource, counters: Counters) -> None:
        self._chunks = chunks
        self._counters = counters
        self._mixers: OrderedDict[Key, Mixer] = OrderedDict()
        self._streams: dict[Key, Stream] = {}  # of those mixers
        self._looked_at: OrderedDict[Key, Mixer] = OrderedDict()
        self._readers: Counter[Key] = Counter()
        self._saving = False

    def save(self, on: bool) -> None:
        """Whether memory is short: nothing is built ahead then, and as little as can be remembered."""
        if on != self._saving:
            self._saving = on
            for mixer in self._mixers.values():
                mixer.save(on)
        if on:
            self._looked_at.clear()

    def reads(self, stream: Stream) -> bool:
        """Does somebody read this order now?"""
        return stream.key in self._readers

    async def take(self, stream: Stream) -> Mixer:
        """The mixer of this order, for one more reader."""
        key = stream.key
        if key not in self._mixers:
            made = await asyncio.to_thread(self._made, stream)
            made = self._mixers.setdefault(key, made)
            made.save(self._saving)
            self._streams[key] = stream
        self._mixers.move_to_end(key)
        self._readers[key] += 1
        return self._mixers[key]

    def leave(self, stream: Stream) -> None:
        """One reader has gone; mixers that nobody reads keep little, and only the latest of them."""
        key = stream.key
        self._readers[key] -= 1
        if self._readers[key] == 0:
            del self._readers[key]
            if key in self._mixers:  # not where the server has stopped meanwhile
                self._mixers[key].rest()
        idle = [k for k in self._mixers if k not in self._readers]
        for old in idle[: max(0, len(idle) - _IDLE_REMEMBERED)]:
            del self._mixers[old], self._streams[old]

    async def aside(self, stream: Stream) -> Mixer:
        """A mixer for looks alone: sessions find what they remember as it was. Only its counts outlive a look."""
        mixer = self._looked_at.pop(stream.key, None)
        if mixer is None:
            order, masks = await asyncio.to_thread(lambda: (stream.order(), stream.masks()))
            mixer = Mixer(stream.sources, order, self._chunks, Counters(), ahead=False, masks=masks)
        self._looked_at[stream.key] = mixer
        if len(self._looked_at) > _LOOKED_AT:
            self._looked_at.popitem(last=False)
        return mixer

    def _made(self, stream: Stream) -> Mixer:
        order = stream.order()
        meter, masks = stream.meter(order), stream.masks()
        return Mixer(stream.sources, order, self._chunks, self._counters, meter, masks=masks)

    def streams(self) -> list[StreamStatus]:
        """Those that are read, and the latest of those that were."""
        found = []
        for key, mixer in self._mixers.items():
            stream = self._streams[key]
            qualities = tuple(mixer.meter.qualities()) if mixer.meter is not None else ()
            epoch = qualities[-1].epoch if qualities else 0
            found.append(
                StreamStatus(
                    datasets=tuple(source.reference for source in stream.sources),
                    seed=stream.seed,
                    shuffle=stream.shuffle,
                    pool_rows=stream.plan.pool_rows,
                    drain=stream.plan.drain,
                    cycles=stream.plan.cycles,
                    rows=mixer.rows(epoch),
                    segments=mixer.segments(epoch),
                    sessions=self._readers[key],
                    mixing_bytes=mixer.nbytes,
                    qualities=qualities,
                )
            )
        return found

    def mixed(self) -> dict[str, Quality]:
        """How well the last finished epoch of each stream was mixed, by the names of its datasets."""
        found = {}
        for key, mixer in self._mixers.items():
            quality = mixer.meter.last_finished() if mixer.meter is not None else None
            if quality is not None:
                found["+".join(source.label for source in self._streams[key].sources)] = quality
        return found

    def holdings(self) -> list[Holding]:
        found = []
        for key, mixer in self._mixers.items():
            names = "+".join(source.reference for source in self._streams[key].sources)
            found += [Holding("pools", mixer.pool_bytes, names), Holding("segments", mixer.segment_bytes, names)]
        looked_at = sum(mixer.nbytes for mixer in self._looked_at.values())
        return [*found, Holding("pools", looked_at)]

    @property
    def nbytes(self) -> int:
        """Bytes of indices and waiting rows, over all streams."""
        return sum(mixer.nbytes for mixer in self._mixers.values())

    async def stop(self) -> None:
        for mixer in (*self._mixers.values(), *self._looked_at.values()):
            await mixer.stop()
        self._mixers.clear()
        self._looked_at.clear()
