"""`POST /api/v1/explain`: a stream in JSON, and where the rows of one of its steps come from."""

import json
from typing import Any, Final

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.cursor import BadCursor, Cursor
from penstock_service.core.errors import InvalidRequest

_MOST_ROWS: Final = 10_000  # as JSON; clients get more


class Question(BaseModel):
    """A stream as a trainer opens it, and a step of it. What is left out is as `client.stream` has it by default."""

    model_config = ConfigDict(extra="forbid")

    datasets: str | list[str] | dict[str, float] = Field(description="NAME or NAME@VERSION, several, or with weights")
    step: int = Field(ge=0)
    epoch: int | None = Field(default=None, ge=0, description="default: that of the state, else 0")
    batch_size: int | None = Field(default=None, ge=1, description="rows of a step at each rank; default: the state's")
    global_batch_size: int | None = Field(default=None, ge=1, description="rows of a step over all ranks, instead")
    rank: int | None = Field(default=None, ge=0, description="default: all ranks")
    world_size: int = Field(default=1, ge=1)
    last: str = "short"
    state: dict[str, Any] | None = Field(default=None, description="what `stream.state_dict()` gave")
    seed: int | None = Field(default=None, ge=0, description="default: that of the state, else 0")
    split: str = "train"
    shuffle: bool = True
    reshuffle: bool = True
    pool_rows: int | None = None
    pool_bytes: int | None = None
    refill_below: float | None = None
    start: str = "ramp"
    until: str = "all"
    epoch_rows: int | None = None
    weight_by: str = "rows"
    rows: list[dict[str, Any]] = Field(default=[], description="row transforms")

    def message(self) -> pb.Open:
        """Raises InvalidRequest where sizes are missing, contradict each other or are too large for JSON."""
        cursor = _cursor(self.state)
        batch = self._global_batch(cursor)
        asked = batch if self.rank is None else batch // self.world_size
        if asked > _MOST_ROWS:
            raise InvalidRequest(
                f"step {self.step} has {asked} rows, and at most {_MOST_ROWS} are explained as JSON; ask for one rank, "
                "or call stream.explain() of a client"
            )
        if isinstance(self.datasets, dict):
            sources = [pb.Source(dataset=n, weight=w, split=self.split) for n, w in self.datasets.items()]
        else:
            names = [self.datasets] if isinstance(self.datasets, str) else self.datasets
            sources = [pb.Source(dataset=name, split=self.split) for name in names]
        spec = pb.StreamSpec(
            sources=sources,
            seed=0 if self.seed is None and cursor is None else self.seed,
            unshuffled=not self.shuffle,
            pool_rows=self.pool_rows,
            pool_bytes=self.pool_bytes,
            refill_below=self.refill_below,
            start=self.start,
            until=self.until,
            epoch_rows=self.epoch_rows,
            same_every_epoch=not self.reshuffle,
            weight_by=self.weight_by,
            rows=json.dumps(self.rows) if self.rows else "",
        )
        view = pb.View(global_batch=batch, rank=self.rank or 0, world_size=self.world_size, last=self.last, text=True)
        text = cursor.to_json() if cursor is not None else ""
        return pb.Open(stream=spec, view=view, cursor=text, name="explain")

    def _global_batch(self, cursor: Cursor | None) -> int:
        if self.batch_size is not None and self.global_batch_size is not None:
            raise InvalidRequest(
                f"batch_size={self.batch_size}, global_batch_size={self.global_batch_size}: give one of them"
            )
        if self.batch_size is not None:
            return self.batch_size * self.world_size
        if self.global_batch_size is not None:
            return self.global_batch_size
        if cursor is None:
            raise InvalidRequest("batch_size is missing: without a state, say how many rows a step has")
        return cursor.global_batch


class Explanation(BaseModel):
    epoch: int
    step: int
    rows: list[dict[str, Any]] = Field(
        description="rank, place (in its batch), valid (false: padding), source, dataset, version, split, shard, "
        "shard_row (as stored), row (number in the dataset), segment, unit (place in the segment), "
        "bad (why it is no row, or null)"
    )

    @classmethod
    def of(cls, question: Question, rows: pa.RecordBatch) -> "Explanation":
        cursor = _cursor(question.state)
        epoch = (0 if cursor is None else cursor.epoch) if question.epoch is None else question.epoch
        return cls(epoch=epoch, step=question.step, rows=rows.to_pylist())


def _cursor(state: dict[str, Any] | None) -> Cursor | None:
    """Of a state as `stream.state_dict()` gives it, or of the cursor in it."""
    found = state.get("cursor", None if "penstock" in state else state) if state is not None else None
    if found is None:
        return None
    try:
        return Cursor.from_json(json.dumps(found))
    except BadCursor as error:
        raise InvalidRequest(f"this is no state of a stream: {error}") from error
