"""What `iter(stream)` gives: the batches of (the rest of) one epoch."""

from collections.abc import Callable, Iterator
from typing import Any

from penstock.errors import PenstockError
from penstock.puller import Puller
from penstock_proto.v1 import data_pb2 as pb


class Epoch(Iterator[Any]):
    """One iterator. The stream knows it by a weak reference."""

    def __init__(self, puller: Puller, took: Callable[[], object]) -> None:
        """`took`: a method of the stream, told of each step. It keeps the stream: else `for batch in
        client.stream(...)` would lose it, and its connection, at once."""
        self._puller: Puller | None = puller
        self._took = took
        self._ended = ""  # why, where it is not the epoch's end

    def end(self, why: str) -> None:
        """It has nothing more to give, as its user will be told."""
        if self._puller is not None:
            self._ended, self._puller = why, None

    def __next__(self) -> Any:
        if self._puller is None:
            if self._ended:
                raise PenstockError(f"this iterator has ended: {self._ended}")
            raise StopIteration
        step = self._puller.next()
        self._took()
        if isinstance(step, pb.EpochEnd):
            self._puller = None
            raise StopIteration
        return step
