"""A trainer's rank beside a model of it: every step it gets is compared with what the one order says must come next."""

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from penstock.errors import RetryableError
from penstock.stream import Stream
from penstock.subscription import Delivery, Order, Share
from penstock.world import Job, World
from tests.laws.served import Golden
from tests.laws.wire import MemoryLink


@dataclass(frozen=True)
class Position:
    epoch: int
    taken: int  # rows of the epoch, over all ranks
    step: int


@dataclass(frozen=True)
class Saved:
    state: str
    at: Position


START = Saved('{"penstock": 1, "epoch": 0, "cursor": null}', Position(0, 0, 0))


@dataclass
class Expected:
    """One step of one rank: its rows, and how many of them (the first ones) are data; None: all, and no mask."""

    rows: list[int]
    valid: int | None
    taken: int


def expected(order: list[int], taken: int, batch: int, world: World, last: str) -> Expected | None:
    """What a rank must get after `taken` rows of `order`; None: the end. Written from the words of docs/client.md."""
    left, ranks, rank = len(order) - taken, world.world_size, world.rank
    rows = batch // ranks
    if left >= batch:
        begin = taken + rank * rows
        return Expected(order[begin : begin + rows], rows if last == "pad" else None, batch)
    if left == 0 or last == "drop":
        return None
    if last == "wrap":
        filled = (order[taken:] + order * batch)[:batch]
        return Expected(filled[rank * rows : (rank + 1) * rows], None, left)
    mine = order[taken + left * rank // ranks : taken + left * (rank + 1) // ranks]
    if last == "short" and left >= ranks:
        return Expected(mine, None, left)
    filling = (order[taken:] * batch)[: (rows if last == "pad" else 1) - len(mine)]
    return Expected(mine + filling, len(mine), left)


class Trainer:
    """One rank. Whatever the server and the network do, `take` gives the expected steps or a retryable error."""

    def __init__(
        self, link: MemoryLink, order: Order, share: Share, delivery: Delivery, job: str, golden: Golden, at: Saved
    ) -> None:
        self.golden = golden
        self.share = share
        self.batch = share.global_batch
        self.at = at.at
        self.began = False  # took a step of its job, with this stream or one before it
        self.received: list[tuple[Position, int, list[int]]] = []  # position, rows of the step over all ranks, data
        self.stream = Stream(link, order, share, delivery, Job(job, "drawn"), "s")
        if at is not START:
            self.stream.load_state_dict(json.loads(at.state))
        self._loaded = at is not START  # and nothing was taken since
        self._iterator: Iterator[Any] | None = None

    # -- what a training script does ----------------------------------------------------------------------------

    def take(self, steps: int) -> bool:
        """Go on in the loop for some steps, or until the epoch ends; False if the server was not to be had."""
        if self._iterator is None:
            self._iterator = self.stream.resume() if self.at.step and not self._loaded else iter(self.stream)
        for _ in range(steps):
            try:
                batch = next(self._iterator)
            except StopIteration:
                assert self._next() is None, f"the epoch ended early, at {self.at}"
                self._end_epoch()
                return True
            except (RetryableError, KeyboardInterrupt):
                return False
            self._check(batch)
        return True

    def get_batch(self, rows: int | None) -> bool:
        """One step, into the next epoch where one ends; of another size if `rows` (of this rank) says so."""
        self._leave_loop()
        self.batch = self.share.global_batch if rows is None else rows * self.share.world.world_size
        try:
            batch = self.stream.get_batch(rows)
        except (RetryableError, KeyboardInterrupt):
            self._skip_told_end()
            return False
        if self._next() is None:
            self._end_epoch()
        self._check(batch)
        return True

    def begin_again(self) -> None:
        """Leave the loop, and iterate anew: the same epoch from its start, or the next one if all steps were had."""
        self._leave_loop()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                self._iterator = iter(self.stream)
            except (RetryableError, KeyboardInterrupt):
                self._skip_told_end()
                return
        self.batch = self.share.global_batch
        if self._loaded or not self.at.step:
            assert not said
        elif said:
            assert f"left at step {self.at.step}" in str(said[0].message)
            # Where filters decide, or sizes changed within the epoch, nobody knows yet that no step follows.
            order, drops = self.golden.epoch(self.at.epoch), self.share.last == "drop"
            steps = len(order) // self.batch if drops else -(-len(order) // self.batch)
            known = self.at.step == steps and not self.golden.filtered
            assert not known, f"an epoch that was read to its last step begins again, at {self.at}"
            self.at = Position(self.at.epoch, 0, 0)
        else:
            assert self._next() is None, f"the loop went on to another epoch from {self.at}"
            self._end_epoch()

    def save(self) -> Saved:
        return Saved(json.dumps(self.stream.state_dict()), self.at)

    def load(self, saved: Saved) -> None:
        self._leave_loop()
        self.stream.load_state_dict(json.loads(saved.state))
        self.at, self._loaded = saved.at, True

    def set_epoch(self, epoch: int) -> None:
        self._leave_loop()
        try:
            self.stream.set_epoch(epoch)
        except (RetryableError, KeyboardInterrupt):
            self._skip_told_end()
            return
        if epoch != self.at.epoch:
            self.at, self._loaded = Position(epoch, 0, 0), False
        elif not self._loaded:
            # Named by the user: the loop begins it at its start without a warning.
            self._iterator = iter(self.stream)
            self.at = Position(epoch, 0, 0)
            self.batch = self.share.global_batch

    # -- the model ----------------------------------------------------------------------------------------------

    def _next(self) -> Expected | None:
        order = self.golden.epoch(self.at.epoch)
        return expected(order, self.at.taken, self.batch, self.share.world, self.share.last)

    def _check(self, batch: Any) -> None:
        must = self._next()
        assert must is not None, f"a step came after the last one, at {self.at}: {batch['id'].tolist()}"
        rows = batch["id"].tolist()
        assert rows == must.rows, f"at {self.at}: {rows} instead of {must.rows}"
        assert (batch.metadata.epoch, batch.metadata.step) == (self.at.epoch, self.at.step)
        data = must.rows if must.valid is None else must.rows[: must.valid]
        if must.valid is None:
            assert "valid" not in batch
        else:
            assert batch["valid"].tolist() == [i < must.valid for i in range(len(rows))]
        if self.share.row_ids:
            assert (batch.metadata.source * 10_000 + batch.metadata.ids).tolist() == rows
        self.began, self._loaded = True, False
        self.received.append((self.at, self.batch, data))
        self.at = Position(self.at.epoch, self.at.taken + must.taken, self.at.step + 1)
        assert self.stream.epoch == self.at.epoch

    def _end_epoch(self) -> None:
        self.at = Position(self.at.epoch + 1, 0, 0)
        self._iterator, self._loaded = None, False
        self.batch = self.share.global_batch

    def _skip_told_end(self) -> None:
        """The end of an epoch may have been told before what was raised."""
        if self.stream.epoch != self.at.epoch:
            assert self._next() is None, f"epoch {self.at.epoch} was left at {self.at}"
            self._end_epoch()

    def _leave_loop(self) -> None:
        self._iterator = None


def each(trainers: list[Trainer], do: Callable[[Trainer], Any]) -> None:
    for trainer in trainers:
        do(trainer)
