"""What the store is worth: hits, misses, seconds, by dataset version; and what another store would be. On the loop.

A use is one segment, or one page of rows by index, that needs a chunk. It is a miss if the chunk had to be made for it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penstock_service.chunks.ghosts import Chooser, Ghosts
from penstock_service.chunks.keys import Owner, VersionKeys
from penstock_service.chunks.rack import Rack
from penstock_service.chunks.shelf import Entry, Rule
from penstock_service.core.store import GhostStatus, Policy, StoredVersion

logger = logging.getLogger(__name__)


@dataclass
class Tally:
    """Of one dataset version, since start. Bytes are those of chunks that were made or opened here."""

    version: VersionKeys
    hits: int = 0
    misses: int = 0
    seconds_missed: float = 0.0
    seconds_saved: float = 0.0
    bytes: int = 0
    guessed: int = 0  # what the manifest said of the same

    @property
    def needs(self) -> int:
        """Bytes of the files of all its chunks: judged by those that are known."""
        total = int(self.version.bytes.sum())
        return int(total * self.bytes / self.guessed) if self.guessed else total


class Usage:
    def __init__(self, rack: Rack, limit: int, policy: Policy = "lru") -> None:
        self.policy: Policy = policy
        self.ahead = 0  # chunks made before anybody asked
        self.tallies: dict[Owner, Tally] = {}
        self._rack = rack
        self._ghosts = Ghosts(limit) if limit else None
        self.chooser = Chooser() if policy == "adaptive" else None
        self._warned: set[Owner] = set()
        rack.keep_rule(self.rule)

    @property
    def rule(self) -> Rule:
        """By which versions give way now."""
        if self.chooser is not None:
            return self.chooser.rule
        return "lru" if self.policy == "adaptive" else self.policy

    @property
    def ghosts(self) -> tuple[GhostStatus, ...]:
        return self._ghosts.statuses() if self._ghosts is not None else ()

    def hold(self, owner: Owner) -> None:
        if self._ghosts is not None:
            self._ghosts.hold(owner)

    def unhold(self, owner: Owner) -> None:
        if self._ghosts is not None:
            self._ghosts.unhold(owner)

    def use(self, version: VersionKeys, chunks: Sequence[int], keys: Sequence[str]) -> None:
        tally = self.of(version)
        hits = self._rack.use(version.owner, keys)
        tally.hits += len(hits)
        tally.seconds_saved += sum(entry.seconds for entry in hits)
        if self._ghosts is None:
            return
        ratio = tally.bytes / tally.guessed if tally.guessed else 1.0
        sizes = (version.bytes[np.asarray(chunks)] * ratio).astype(np.int64).tolist()
        self._ghosts.use(version.owner, zip(keys, sizes, strict=True))
        if self.chooser is not None and self.chooser.used(len(keys), self._ghosts):
            self._rack.keep_rule(self.chooser.rule)
            logger.info("chunk store: versions give way by %s now; %s", self.chooser.rule, self.chooser.reason)

    def made(self, version: VersionKeys, chunk: int, entry: Entry, ahead: bool) -> None:
        tally = self.of(version)
        self.learn(version, chunk, entry)
        if ahead:
            self.ahead += 1
        else:
            tally.misses += 1
            tally.seconds_missed += entry.seconds

    def learn(self, version: VersionKeys, chunk: int, entry: Entry) -> None:
        """How large a chunk really is."""
        tally = self.of(version)
        tally.bytes += entry.size
        tally.guessed += int(version.bytes[chunk])

    def of(self, version: VersionKeys) -> Tally:
        return self.tallies.setdefault(version.owner, Tally(version))

    def working_set(self) -> int:
        """Bytes that all versions in use need."""
        held = [owner for owner, (_, _, held) in self._rack.stored().items() if held and owner is not None]
        return sum(self.tallies[owner].needs for owner in held if owner in self.tallies)

    def warning(self, version: VersionKeys) -> str:
        """What to say when a version is opened that makes the working set larger than the cap; said once for each."""
        limit, needs, together = self._rack.disk.bound.limit, self.of(version).needs, self.working_set()
        if not limit or max(needs, together) <= limit or version.owner in self._warned:
            return ""
        self._warned.add(version.owner)
        enough = -(-max(needs, together) * 11 // 10 >> 20) + 1  # a tenth more: it is an estimate
        others = f", and {together:,} with what else is read now," if together > needs else ""
        return (
            f"{describe(version)} needs about {needs:,} bytes in the chunk store{others} which is capped at {limit:,}: "
            "what does not fit is made again whenever it is needed. "
            f"--store-bytes {enough}MiB would end that"
        )

    def versions(self) -> tuple[StoredVersion, ...]:
        stored = self._rack.stored()
        found = [
            StoredVersion(
                dataset=describe(tally.version),
                held=held,
                chunks=tally.version.chunks,
                stored_chunks=chunks,
                stored_bytes=size,
                needs_bytes=tally.needs,
                hits=tally.hits,
                misses=tally.misses,
                seconds_saved=tally.seconds_saved,
            )
            for owner, tally in self.tallies.items()
            for chunks, size, held in [stored.get(owner, (0, 0, False))]
        ]
        chunks, size, _ = stored.get(None, (0, 0, False))
        return (*found, *([StoredVersion("", False, 0, chunks, size, 0)] if chunks else []))


def describe(version: VersionKeys) -> str:
    """NAME@VERSION, marked where rows are transformed."""
    chain = version.dataset.chain
    return version.dataset.reference + (f" (rows {chain.fingerprint[:8]})" if chain is not None else "")
