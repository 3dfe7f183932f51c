"""Chunks that are made before anybody reads them: what an operator asked for (warm), or what there is free room for
(preload). It is done by workers that nobody else wants. Lives on the event loop.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from penstock_service.chunks.agenda import SpareWant
from penstock_service.chunks.keys import Owner, UnitId, VersionKeys
from penstock_service.chunks.store import Store
from penstock_service.chunks.usage import Usage, describe
from penstock_service.core.errors import ResourceExhausted, ServiceError
from penstock_service.core.store import AheadStatus

logger = logging.getLogger(__name__)

_REMEMBERED = 32  # plans that are over


class Some(NamedTuple):
    """Chunks of one unit, with their estimated bytes."""

    unit: UnitId
    sizes: dict[int, int]
    want: SpareWant


class Plan:
    """One dataset version that is made ahead."""

    def __init__(self, version: VersionKeys, want: SpareWant, missing: Sequence[int]) -> None:
        self.version = version
        self.want: SpareWant = want
        self.pending = set(missing)
        self.todo: deque[list[int]] = deque()
        for chunk in missing:
            if self.todo and version.unit(self.todo[-1][0]) == version.unit(chunk):
                self.todo[-1].append(chunk)
            else:
                self.todo.append([chunk])
        self.state: Literal["waiting", "making", "done", "stopped"] = "waiting"
        self.made = self.made_bytes = 0
        self.reason = ""
        self.changed = asyncio.Event()
        self._there = version.chunks - len(missing)
        self._began: float | None = None
        self._seconds = 0.0

    @property
    def over(self) -> bool:
        return self.state in ("done", "stopped")

    def begin(self) -> None:
        self.state = "making"
        if self._began is None:
            self._began = time.monotonic()

    def end(self, reason: str = "") -> None:
        self._seconds = 0.0 if self._began is None else time.monotonic() - self._began
        self.reason = self.reason or reason
        self.state = "stopped" if self.reason else "done"
        self.pending.clear()
        self.todo.clear()
        self.changed.set()

    def status(self) -> AheadStatus:
        going = 0.0 if self._began is None else time.monotonic() - self._began
        return AheadStatus(
            dataset=describe(self.version),
            why=self.want,
            state=self.state,
            chunks=self.version.chunks,
            there=self._there,
            made=self.made,
            made_bytes=self.made_bytes,
            seconds=self._seconds if self.over else going,
            reason=self.reason,
        )


class Ahead:
    """`begin` is told when there is something to do, or (with a version) nothing any more."""

    def __init__(self, store: Store, usage: Usage, begin: Callable[[Owner | None], None]) -> None:
        self._store = store
        self._usage = usage
        self._begin = begin
        self._plans: list[Plan] = []

    def add(self, version: VersionKeys, want: SpareWant, missing: Sequence[int]) -> Plan:
        """Make `missing` chunks. What does not fit: with `warm` refused, with `preload` a plan that is over.

        Raises:
            ResourceExhausted: it does not fit, with the bytes.
        """
        plan = Plan(version, want, missing)
        refused = self._refusal(plan)
        if refused and want == "warm":
            raise ResourceExhausted(refused)
        self._forget_old(version.owner)
        if refused or not missing:
            plan.end(refused)
            if refused:
                logger.info("not preloaded: %s", refused)
        self._plans.append(plan)
        self._plans.sort(key=lambda p: p.want == "preload")  # stable: what was asked for goes first
        if not plan.over:
            self._begin(None)
        return plan

    def stop(self, plan: Plan, reason: str) -> None:
        if not plan.over:
            plan.end(reason)
            self._begin(plan.version.owner)

    def drop(self, owner: Owner) -> None:
        """Nobody reads this version any more: it is preloaded no further, if it is one with transforms."""
        for plan in self._plans:
            if plan.version.owner == owner and plan.want == "preload" and plan.version.dataset.chain is not None:
                self.stop(plan, "nobody reads it any more")

    def statuses(self) -> tuple[AheadStatus, ...]:
        return tuple(plan.status() for plan in self._plans)

    # -- for production ------------------------------------------------------------------------------------------

    def next(self) -> Some | None:
        """What a worker that nobody else wants shall make."""
        for plan in self._plans:
            while plan.todo:
                chunks = [c for c in plan.todo.popleft() if c in plan.pending]
                missing = [c for c in chunks if not self._store.rack.has(plan.version.known[c])]
                for chunk in set(chunks) - set(missing):
                    self._through(plan, chunk)
                if missing:
                    plan.begin()
                    sizes = {c: int(plan.version.bytes[c]) for c in missing}
                    return Some(plan.version.unit(missing[0]), sizes, plan.want)
        return None

    def made(self, owner: Owner, chunk: int, size: int, *, new: bool) -> None:
        for plan in self._of(owner, chunk):
            plan.made += new
            plan.made_bytes += size if new else 0
            self._through(plan, chunk)

    def no_room(self, owner: Owner, chunk: int) -> None:
        for plan in self._of(owner, chunk):
            self.stop(plan, f"the store is full ({self._store.room(memory=False)})")

    def failed(self, owner: Owner, chunks: Sequence[int], error: ServiceError) -> None:
        for chunk in chunks:
            for plan in self._of(owner, chunk):
                if not plan.reason:
                    plan.reason = f"not all could be made: {error}"
                    logger.warning("%s: %s", describe(plan.version), plan.reason)
                self._through(plan, chunk)

    def _forget_old(self, owner: Owner) -> None:
        """Plans that are over: those of this version, and all but the latest."""
        over = [plan for plan in self._plans if plan.over and plan.version.owner != owner][-_REMEMBERED:]
        self._plans = [plan for plan in self._plans if not plan.over or plan in over]

    def _of(self, owner: Owner, chunk: int) -> list[Plan]:
        return [plan for plan in self._plans if plan.version.owner == owner and chunk in plan.pending]

    def _through(self, plan: Plan, chunk: int) -> None:
        plan.pending.discard(chunk)
        plan.changed.set()
        if not plan.pending and not plan.over:
            plan.end()
            done = plan.status()
            logger.info("%s: %d chunks made ahead (%s) in %.1f s", done.dataset, done.made, done.why, done.seconds)

    def _refusal(self, plan: Plan) -> str:
        """Why the chunks do not fit; empty: they do."""
        if not self._store.durable:
            return f"{describe(plan.version)} cannot be kept: {self._store.room(memory=False)}"
        tally = self._usage.of(plan.version)
        ratio = tally.bytes / tally.guessed if tally.guessed else 1.0
        needs = int(sum(int(plan.version.bytes[c]) for c in plan.pending) * ratio)
        bound = self._store.rack.disk.bound
        stays = bound.used
        if plan.want == "warm":  # what nobody reads, and is not of the same version, may give way
            stored = self._store.rack.stored()
            stays = sum(size for owner, (_, size, held) in stored.items() if held or owner == plan.version.owner)
        mine = plan.version.owner
        others = {  # what they have still to make, and this plan has not
            (other.version.owner, c): int(other.version.bytes[c])
            for other in self._plans
            if not other.over
            for c in (other.pending - plan.pending if other.version.owner == mine else other.pending)
        }
        stays += sum(others.values())
        if stays + needs <= bound.limit:
            return ""
        return (
            f"{describe(plan.version)} needs about {needs:,} more bytes in the chunk store, which has "
            f"{max(0, bound.limit - stays):,} of {bound.limit:,} left for it; raise --store-bytes by "
            f"{(stays + needs - bound.limit >> 20) + 1}MiB, or read it without: what does not fit is made again"
        )
