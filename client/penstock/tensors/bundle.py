"""A bundle that was converted: steps are cut from it as views."""

from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa

from penstock.tensors.copies import Copies
from penstock.tensors.leaf import Array
from penstock.tensors.output import Adoption, Output

Cut = Callable[[int, int, dict[str, Any]], None]


class OpenBundle(Protocol):
    """Rows of a bundle, ready to be cut."""

    def expect(self, rows: int) -> None:
        """Most that is asked for will be so many rows, from a multiple of it on."""
        ...

    def rows(self, start: int, stop: int) -> Any:
        """Rows `start` to `stop` (`0 <= start <= stop <= rows of the bundle`, not checked: this is the hot path).

        A dict of tensors `[stop - start, ...]` in the order of the schema; for output="arrow" a RecordBatch.
        """
        ...


class OpenArrow:
    """Output "arrow": slices of the batch as it came, nothing converted."""

    __slots__ = ("rows",)

    def expect(self, rows: int) -> None:
        pass

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.rows: Callable[[int, int], pa.RecordBatch] = lambda start, stop: batch.slice(start, stop - start)


class OpenTensors:
    """Columns add themselves while the bundle is opened; from then on it is only cut."""

    __slots__ = ("_adopted", "_cuts", "_each", "_end", "_keys", "_parts", "_plain", "copies", "output")

    def __init__(self, output: Output, copies: Copies, adopted: Adoption | None = None) -> None:
        self.output = output
        self.copies = copies
        self._adopted = adopted
        self._plain: list[tuple[str, Any]] = []  # what `[start:stop]` cuts
        self._cuts: list[Cut] = []  # every column, in order
        self._each = self._end = 0  # rows of a part, and of all
        self._keys: tuple[str, ...] = ()
        self._parts: list[tuple[Any, ...]] = []  # of each step, its columns

    def add_array(self, key: str, values: Array, bfloat16: bool = False) -> None:
        """A column whose rows are those of `values` `[rows, ...]`."""
        wrap = self.output.wrap_bfloat16 if bfloat16 else self.output.wrap
        if self.output.cuts_tensors:
            self.add_sliceable(key, wrap(values))
            return
        adopted, copies = self._adopted, self.copies

        def cut(start: int, stop: int, into: dict[str, Any]) -> None:
            part = values[start:stop]
            shared = adopted.share(part, bfloat16) if adopted is not None else None
            if shared is None:
                shared = wrap(part)
                copies.bytes += part.nbytes
            into[key] = shared

        self._cuts.append(cut)

    def add_sliceable(self, key: str, rows: Any) -> None:
        """A column that is a tensor or a list already."""

        def cut(start: int, stop: int, into: dict[str, Any]) -> None:
            into[key] = rows[start:stop]

        self._plain.append((key, rows))
        self._cuts.append(cut)

    def add_cut(self, cut: Cut) -> None:
        """A column whose steps have a shape of their own."""
        self._cuts.append(cut)

    def expect(self, rows: int) -> None:
        """See `OpenBundle.expect`. All parts of a bundle are cut at once, where that is quicker."""
        split = self.output.split
        if split is None or rows < 1 or not self._plain or len(self._plain) != len(self._cuts):
            return
        if any(isinstance(values, list) for _, values in self._plain):
            return
        self._each, self._end = rows, len(self._plain[0][1])
        self._keys = tuple(key for key, _ in self._plain)
        self._parts = list(zip(*(split(values, rows) for _, values in self._plain), strict=True))

    def rows(self, start: int, stop: int) -> dict[str, Any]:
        """See `OpenBundle.rows`."""
        if start < stop == min(start + self._each, self._end):
            part, within = divmod(start, self._each)
            if not within:
                return dict(zip(self._keys, self._parts[part], strict=True))
        if len(self._plain) == len(self._cuts):
            return {key: rows[start:stop] for key, rows in self._plain}
        step: dict[str, Any] = {}
        for cut in self._cuts:
            cut(start, stop, step)
        return step
