"""The ghost list: what stores of other sizes, and with other rules, would have hit. No files, no threads, no clock.

Each ghost is a shelf without files, to which the same uses happen. Only chunks whose hash falls below a threshold are
followed, in shelves as much smaller (spatial sampling: Waldspurger et al., SHARDS, FAST 2015; scaled-down simulation:
the same, Miniature Simulations, ATC 2017). The threshold falls as chunks become many, so memory is bounded.
"""

from collections.abc import Iterable, Sequence
from typing import Final
from zlib import crc32

from penstock_service.chunks.keys import Owner
from penstock_service.chunks.shelf import RULES, DiskShelf, Entry, Rule
from penstock_service.core.store import GhostStatus

FACTORS: Final = (0.5, 1.0, 2.0)
_ALL: Final = 1 << 32
_WINDOW: Final = 4096  # uses after which the past counts half


class Ghost:
    """One store that is not there."""

    def __init__(self, rule: Rule, factor: float, limit: int) -> None:
        self.rule: Final = rule
        self.factor: Final = factor
        self.limit: Final = limit
        self.shelf = DiskShelf(limit, rule)
        self.hits = 0.0

    def use(self, owner: Owner, chunks: Sequence[tuple[str, int]]) -> None:
        get = self.shelf.entries.get
        for key, size in chunks:
            entry = get(key)
            if entry is None:
                if self.shelf.admit(size, owner) is not None:
                    self.shelf.add(Entry(key, size, owner))
                continue
            self.hits += 1
            self.shelf.give(entry, owner)
        self.shelf.use(owner, len(chunks))

    def thin(self, keys: Iterable[str], limit: int) -> None:
        """Follow half of the chunks: `keys` go."""
        self.shelf.thin(keys, 0.5)
        self.shelf.bound.limit = limit
        self.shelf.shrink()


class Ghosts:
    """All that are followed: each rule at half the cap, the cap and twice the cap."""

    def __init__(self, limit: int, *, most: int = 1024) -> None:
        """`most` chunks are followed in any ghost."""
        self._most = most
        self._threshold = _ALL
        self.uses = 0.0
        self._ghosts = [Ghost(rule, factor, int(limit * factor)) for rule in RULES for factor in FACTORS]

    @property
    def share(self) -> float:
        """Of all chunks that is followed."""
        return self._threshold / _ALL

    def hold(self, owner: Owner) -> None:
        for ghost in self._ghosts:
            ghost.shelf.hold(owner)

    def unhold(self, owner: Owner) -> None:
        for ghost in self._ghosts:
            ghost.shelf.unhold(owner)

    def use(self, owner: Owner, chunks: Iterable[tuple[str, int]]) -> None:
        """Chunks of one version, by key, and how large they are: each different."""
        followed = [(key, size) for key, size in chunks if crc32(key.encode()) < self._threshold]
        if not followed:
            return
        self.uses += len(followed)
        for ghost in self._ghosts:
            ghost.use(owner, followed)
        while max(len(ghost.shelf.entries) for ghost in self._ghosts) > self._most:
            self._thin()
        if self.uses > _WINDOW:
            self._halve()

    def ratios(self) -> dict[Rule, float]:
        """Hit ratio of each rule at the cap."""
        return {g.rule: g.hits / self.uses for g in self._ghosts if g.factor == 1.0} if self.uses else {}

    def statuses(self) -> tuple[GhostStatus, ...]:
        if not self.uses:
            return ()
        return tuple(GhostStatus(g.rule, g.factor, g.limit, g.hits / self.uses) for g in self._ghosts)

    def _halve(self) -> None:
        self.uses /= 2
        for ghost in self._ghosts:
            ghost.hits /= 2

    def _thin(self) -> None:
        self._threshold //= 2
        self._halve()  # a use that is followed stands for twice as many from now on
        for ghost in self._ghosts:
            above = [key for key in ghost.shelf.entries if crc32(key.encode()) >= self._threshold]
            ghost.thin(above, int(ghost.limit * self.share))


class Chooser:
    """Chooses the rule whose ghost hits most. Another must be clearly better, and not only for a moment."""

    MARGIN: Final = 0.02
    LEAST: Final = 256  # uses between two looks

    def __init__(self, rule: Rule = "lru") -> None:
        self.rule: Rule = rule
        self.reason = f"{rule} until enough is known"
        self._seen = 0

    def used(self, chunks: int, ghosts: Ghosts) -> bool:
        """So many more uses have happened. Has the choice changed?"""
        self._seen += chunks
        if self._seen < self.LEAST:
            return False
        self._seen = 0
        ratios = ghosts.ratios()
        best = max(ratios, key=lambda rule: (ratios[rule], rule == self.rule), default=self.rule)
        better = best != self.rule and ratios[best] - ratios[self.rule] > self.MARGIN
        if better:
            self.rule = best
        if ratios:
            said = ", ".join(f"{rule} {ratio:.1%}" for rule, ratio in ratios.items())
            self.reason = f"of the latest uses would have been hits: {said}"
        return better
