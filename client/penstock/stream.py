"""A stream as a training script sees it: iterate for an epoch, save and load its state, ask it who is slow."""

import json
import sys
import warnings
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Self

import pyarrow as pa

from penstock.arguments import whole
from penstock.epoch import Epoch
from penstock.errors import DatasetNotFound, InvalidRequest
from penstock.identity import Identity
from penstock.inspection import Inspection
from penstock.link import Link
from penstock.profile import Clock, Profile
from penstock.puller import Puller
from penstock.runs import Change, change_mixture, reads
from penstock.subscription import Delivery, Order, Share
from penstock.world import Job
from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.cursor import BadCursor, Cursor, read_skip
from penstock_proto.v1.skips import skipped_below

STATE_VERSION = 1
_ANEW: Final = "the stream was iterated anew, reset or moved meanwhile; a stream has one live iterator at a time"


class EpochSampler:
    """What trainers look for to tell a loader the epoch: `loader.sampler.set_epoch(n)`."""

    def __init__(self, stream: "Stream") -> None:
        self._stream = weakref.proxy(stream)

    def set_epoch(self, epoch: int) -> None:
        self._stream.set_epoch(epoch)


class Stream(Inspection):
    """One rank's view of a dataset or a mixture. Made by `Client.stream`; nothing is sent before it is used.

    `iter(stream)` begins epoch `stream.epoch` at its start, or at a loaded state (once). One iterator lives at a time.
    A batch is a `Batch`: a dict of tensors (`output="arrow"`: a `pyarrow.RecordBatch`).
    """

    def __init__(self, link: Link, order: Order, share: Share, delivery: Delivery, job: Job, name: str):
        self._link, self._order, self._share, self._delivery = link, order, share, delivery
        self._job, self._name = job, name
        self._restart()

    def _restart(self) -> None:
        self._clock = Clock()
        who = Identity(self._job, self._name, self.rank, self._share.replica)
        self._puller = Puller(self._link, self._order, self._share, self._delivery, who, self._clock)
        self._loaded = False  # nothing was taken yet from where a state led
        self._again = False  # the epoch we are in was asked for by name: the next iterator begins it
        self._live: weakref.ref[Epoch] | None = None  # the iterator holds the stream, not the other way round
        # Holds the puller, not the stream: a stream that nobody can reach any more closes its connection.
        self._finalizer = weakref.finalize(self, self._puller.close, join=False)
        self.sampler = EpochSampler(self)

    # -- what is streamed ---------------------------------------------------------------------------------------

    @property
    def dataset(self) -> tuple[str, ...]:
        """Names of the datasets."""
        return tuple(name for name, _ in self._order.sources())

    @property
    def batch_size(self) -> int:
        """Rows of a full step at this rank."""
        return self._share.global_batch // self._share.world.world_size

    @property
    def global_batch_size(self) -> int:
        """Rows of a full step over all ranks."""
        return self._share.global_batch

    @property
    def drop_last(self) -> bool:
        return self._share.last == "drop"

    @property
    def rank(self) -> int:
        return self._share.world.rank

    @property
    def world_size(self) -> int:
        return self._share.world.world_size

    @property
    def seed(self) -> int:
        """The seed of the order. Where the server was to draw one (`seed=None`) this connects."""
        if self._order.seed is not None:
            return self._order.seed
        return int(self._puller.ensure_open().seed)

    @property
    def sources(self) -> tuple[str, ...]:
        """NAME@VERSION of the datasets; `batch.metadata.source` counts them. Connects."""
        return tuple(self._puller.ensure_open().datasets)

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the batches before they become tensors. Connects."""
        return self._puller.schema

    @property
    def plan(self) -> Mapping[str, Any]:
        """Plan constants: the pool as it is (`pool_rows`, `drain`, `cycles`, `start`). Connects."""
        plan: dict[str, Any] = json.loads(self._puller.ensure_open().plan)
        return plan

    @property
    def num_rows(self) -> int | None:
        """Rows of an epoch over all ranks; None where it cannot be known beforehand. Connects."""
        opened = self._puller.ensure_open()
        return int(opened.rows) if opened.HasField("rows") else None

    def __len__(self) -> int:
        """Steps that the whole of the epoch `stream.epoch` gives: those skipped in it do not count. Connects.

        Raises:
            TypeError: the number cannot be known beforehand.
        """
        rows = self.num_rows
        if rows is None:
            policy = self._share.on_error
            why = "filters, rows in quarantine or a changed mixture decide it"
            if policy.leaves_out:
                why = f"on_error={policy.policy!r} leaves out bad rows, and nobody has counted them"
            raise TypeError(f"the number of steps is not known before the epoch has been read: {why}")
        steps = rows // self.global_batch_size if self.drop_last else -(-rows // self.global_batch_size)
        return steps - skipped_below(self._puller.skipped, self.epoch, steps)

    # -- iterating ----------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch that is being read or comes next; advances when one was delivered to its end."""
        return self._puller.epoch

    def set_epoch(self, epoch: int) -> None:
        """The next iterator begins this epoch. Naming the epoch that a loaded state is in keeps the state."""
        epoch = whole("epoch", epoch)
        self._again = epoch == self._puller.epoch
        if epoch == self._puller.epoch + 1 and self._puller.past_end():
            self._end_live()  # what the server sent ahead is of that epoch
        if epoch != self._puller.epoch:
            self._loaded = False
            self._end_live()
            self._puller.seek(epoch)

    def __iter__(self) -> Iterator[Any]:
        self._refuse_in_worker()
        self._end_live()
        again, self._again = self._again, False
        if not self._loaded and self._puller.step and again:
            self._puller.seek(self.epoch)
        elif not self._loaded and self._puller.step and not self._puller.past_end():
            warnings.warn(
                f"epoch {self.epoch} begins again at its start; it was left at step {self._puller.step}. "
                "To go on there instead, iterate over stream.resume() or call stream.get_batch()",
                stacklevel=2,
            )
            self._puller.seek(self.epoch)
        return self._begin()

    def resume(self) -> Iterator[Any]:
        """The rest of the epoch, from where the last iterator was left."""
        self._refuse_in_worker()
        self._end_live()
        self._again = False
        return self._begin()

    def get_iterator(self) -> Iterator[Any]:
        """The same as `iter(stream)`."""
        return iter(self)

    def get_num_batches(self) -> int:
        """The same as `len(stream)`; a TypeError says why, where it cannot be known."""
        return len(self)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the epoch one by one, from its start: a dict of what each column has. For looking at data.

        Those of this stream's run, without the steps that are skipped. Read over a connection of its own: the stream
        stays where it is.
        """
        self._puller.ensure_open()  # the seed that was drawn, and the run
        cursor = self._puller.cursor()
        at_start = cursor.start_of(self.epoch) if cursor is not None else None
        delivery = replace(self._delivery, layout="rows", device=None, pin_memory=False)
        name = f"{self._name}/rows"
        with Stream(self._link, self._order, self._share, delivery, self._job, name) as own:
            own._puller.load(self.epoch, at_start, self._puller.skipped, self._puller.force, branch=False)
            for rows in own:
                yield from rows

    def get_batch(self, n: int | None = None) -> Any:
        """The next step from wherever the stream is, into the next epoch where one ends (`batch.metadata.epoch`).

        Args:
            n: rows at this rank, for this step and its successors got with the same `n`; default: `batch_size`. All
                ranks must ask alike.
        """
        self._refuse_in_worker()
        size = self._share.global_batch if n is None else whole("n", n, 1) * self.world_size
        self._end_live()
        self._again = False
        self._puller.resize(size)
        while isinstance(step := self._puller.next(), pb.EpochEnd):
            self._took()
        self._took()
        return step

    def reset(self) -> None:
        """Back to the start of epoch 0; forgets a loaded state."""
        self._end_live()
        self._loaded = False
        self._puller.seek(0)

    def _begin(self) -> Epoch:
        self._puller.resize(self._share.global_batch)
        live = Epoch(self._puller, self._took)
        self._live = weakref.ref(live)
        return live

    def _took(self) -> None:
        self._loaded = False

    def _end_live(self, why: str = _ANEW) -> None:
        live = self._live() if self._live is not None else None
        if live is not None:
            live.end(why)
        self._live = None

    def _refuse_in_worker(self) -> None:
        data = sys.modules.get("torch.utils.data")
        if data is not None and data.get_worker_info() is not None:
            raise InvalidRequest(
                "a Penstock stream inside a DataLoader worker: use num_workers=0: the server prefetches"
            )
        if self._puller.closed:
            raise InvalidRequest("this stream is closed; open another one with client.stream(...)")

    def as_dataset(self) -> Any:
        """This stream as a `torch.utils.data.IterableDataset`, for `DataLoader(ds, batch_size=None)` with no workers.

        An item is a whole batch. Inside DataLoader workers it refuses to be iterated: the server prefetches.

        Raises:
            InvalidRequest: torch cannot be imported.
        """
        try:
            # Here and not above: the client does not need torch, and its class must be a subclass of torch's.
            from penstock.torch_dataset import StreamDataset
        except ImportError as error:
            raise InvalidRequest(
                f'as_dataset() needs torch, which cannot be imported here ({error}): pip install "penstock[torch]"'
            ) from error
        return StreamDataset(self)

    # -- state --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The position after what was received: small, JSON, to be kept in the trainer's own checkpoint."""
        cursor = self._puller.cursor()
        state: dict[str, Any] = {
            "penstock": STATE_VERSION,
            "epoch": self.epoch,
            "cursor": json.loads(cursor.to_json()) if cursor is not None else None,
        }
        if cursor is None and self._puller.skipped:
            state["skip"] = [list(part) for part in self._puller.skipped]
        return state

    def load_state_dict(self, state: Mapping[str, Any], *, force: bool = False, branch: bool = False) -> None:
        """Go on where `state_dict` was taken, on any world size and batch size: the next iterator begins there.

        Steps to be skipped are those of the state; skip further ones afterwards.

        Args:
            force: go on at the position of a state of another stream too (other weights, a newer dataset version). It
                is read against this stream, and nothing is promised: rows may be missed or come again. What differs is
                logged as a warning.
            branch: in a run of its own, without what was changed after the state was taken (all ranks alike). Without
                it, later changes of the mixture and quarantined rows are met again at the same rows.

        Raises:
            InvalidRequest: not a state of a Penstock stream. A state of another stream is refused by the server, with
                what differs, when the next iterator begins (`CursorMismatch`).
        """
        found = state.get("penstock") if isinstance(state, Mapping) else None
        if found != STATE_VERSION:
            raise InvalidRequest(
                f"not a state of this version of penstock: 'penstock' is {found!r}, not {STATE_VERSION}"
            )
        try:
            cursor = None if state["cursor"] is None else Cursor.from_json(json.dumps(state["cursor"]))
            epoch = whole("epoch", state["epoch"])
            skip = cursor.skip if cursor is not None else read_skip(state.get("skip", []))
        except (BadCursor, InvalidRequest, KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(f"the state is damaged: {error}") from error
        self._end_live()
        self._puller.load(epoch, cursor, skip, force, branch and cursor is not None)
        self._loaded, self._again = True, False

    # -- the run ------------------------------------------------------------------------------------------------

    @property
    def run(self) -> str:
        """The id of the run: this job's reading of this stream, over all resumes. Connects."""
        self._puller.ensure_open()
        return self._puller.run

    def set_mixture(self, weights: Mapping[str, float]) -> Change:
        """Change the mixture while it is read, on all ranks: see `Client.set_mixture`. Call it on one rank. Connects.

        Raises:
            InvalidRequest: with what is wrong, and which ranks are not connected.
        """
        try:
            began = change_mixture(self._link, self.run, weights)
        except (DatasetNotFound, InvalidRequest):
            if reads(self._link, self.run, self.rank):
                raise
            self._puller.reopen()  # the server began anew, and this stream had not heard of it yet
            began = change_mixture(self._link, self.run, weights)
        self._puller.take_run(began.carried)
        return Change.of(began)

    # -- the rest -----------------------------------------------------------------------------------------------

    def profile(self) -> Profile:
        """Who is slow: a mapping with numbers, whose `str` is one sentence."""
        return Profile(self._clock)

    def close(self) -> None:
        """End the stream's connection; may be called twice. Its state can still be saved."""
        self._end_live("the stream was closed meanwhile; its state can still be saved")
        self._puller.close()
        self._finalizer.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        world = self._share.world
        return (
            f"<penstock.Stream {'+'.join(self.dataset)} from {self._link.target}: {self.batch_size} rows a step, "
            f"rank {world.rank} of {world.world_size}, epoch {self.epoch}>"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Pickles without its connection: the copy begins where this one is."""
        kept = ("_link", "_order", "_share", "_delivery", "_job", "_name")
        return {
            **{name: self.__dict__[name] for name in kept},
            "_state": self.state_dict(),
            "_wish": {"force": self._puller.force, "branch": self._puller.branch},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        position, wish = state.pop("_state"), state.pop("_wish")
        self.__dict__.update(state)
        self._restart()
        self.load_state_dict(position, **wish)
