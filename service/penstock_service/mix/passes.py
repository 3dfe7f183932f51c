"""In which order one pass reads a source: its shards by a keyed hash of their number, each from its first row on."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from penstock_service.core.hashing import hash_rows, key_of

I64 = npt.NDArray[np.int64]

_SHARD_ORDER = 0x5348_4152_44  # which hash this is; part of what the golden vectors pin


class PassOrder:
    """Reading order of one source's shards, for one seed; remembers the last few passes."""

    def __init__(self, source: int, shard_start: I64, seed: int) -> None:
        self._source = source
        self._seed = seed
        self._start = shard_start
        self.rows = int(shard_start[-1])
        self._of_pass = lru_cache(maxsize=4)(self._read_order)

    def positions(self, epoch: int, start: int, stop: int) -> list[tuple[int, I64]]:
        """Stored positions of rows `start` up to `stop` of the reading order over all passes: (pass, int64 [n]).

        The arrays are the caller's.
        """
        found = []
        while start < stop:
            number, first = divmod(start, self.rows)
            last = min(self.rows, first + stop - start)
            found.append((number, self._in_pass(epoch, number, first, last)))
            start += last - first
        return found

    def shards(self, epoch: int, start: int, stop: int) -> list[int]:
        """The shards that those rows lie in, ascending."""
        found: set[int] = set()
        while start < stop:
            number, first = divmod(start, self.rows)
            last = min(self.rows, first + stop - start)
            prefix, _, order = self._of_pass(epoch, number)
            lo = int(np.searchsorted(prefix, first, side="right")) - 1
            hi = int(np.searchsorted(prefix, last, side="left"))
            found.update(order[lo:hi].tolist())
            start += last - first
        return sorted(found)

    def _in_pass(self, epoch: int, number: int, first: int, last: int) -> I64:
        prefix, shift, _ = self._of_pass(epoch, number)
        lo = int(np.searchsorted(prefix, first, side="right")) - 1
        if last <= prefix[lo + 1]:  # all in one shard: often, where many sources share a chunk set
            return np.arange(first + shift[lo], last + shift[lo], dtype=np.int64)
        hi = int(np.searchsorted(prefix, last, side="left"))
        edges = np.clip(prefix[lo : hi + 1], first, last)
        out = np.arange(first, last, dtype=np.int64)
        out += np.repeat(shift[lo:hi], np.diff(edges))
        return out

    def _read_order(self, epoch: int, number: int) -> tuple[I64, I64, I64]:
        """Rows before each shard in reading order, [shards + 1], what to add to get stored positions, and the order."""
        shards = len(self._start) - 1
        key = key_of(_SHARD_ORDER, self._seed, epoch, number, self._source)
        order = np.argsort(hash_rows(key, np.arange(shards, dtype=np.uint64)), kind="stable")
        prefix = np.zeros(shards + 1, np.int64)
        np.cumsum(np.diff(self._start)[order], out=prefix[1:])
        return prefix, self._start[:-1][order] - prefix[:-1], order
