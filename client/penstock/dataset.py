"""A dataset to be indexed: rows by their number in stored order, a version that stays what it is."""

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal, Self, get_args

import numpy as np
import pyarrow as pa

from penstock.batch import Batch
from penstock.errors import InvalidRequest
from penstock.facts import facts_of
from penstock.registered import DatasetInfo
from penstock.rows import Page, StoredRows
from penstock.tensors import BundleConverter, Nulls, plan_columns
from penstock_proto.v1 import marks

DatasetOutput = Literal["torch", "mlx", "numpy", "arrow", "rows"]
_NAMED = 6  # columns in a repr


@dataclass(frozen=True)
class Form:
    """What rows are handed out as."""

    output: DatasetOutput = "torch"
    ragged: bool = False
    nulls: Nulls = "error"
    fill: Mapping[str, Any] = field(default_factory=dict)
    sparse: Mapping[str, int] = field(default_factory=dict)

    def converter(self, schema: pa.Schema) -> BundleConverter:
        """Raises ConversionError for what has no form as a tensor, InvalidRequest for an output that there is not."""
        if self.output not in get_args(DatasetOutput):
            raise InvalidRequest(f"output={self.output!r}: must be one of {', '.join(get_args(DatasetOutput))}")
        output = "arrow" if self.output == "rows" else self.output
        return plan_columns(schema, output, ragged=self.ragged, nulls=self.nulls, fill=self.fill, sparse=self.sparse)


@dataclass(frozen=True)
class _Part:
    info: DatasetInfo
    stored: StoredRows


class Dataset:
    """Rows in stored order. Made by `Client.dataset`, and by adding two of them.

    `ds[i]` is one row as a dict, `ds[a:b]` and `ds.take([...])` are several: see `output` of `Client.dataset`. Each
    access asks the server for the rows it names and nothing else; what is read one row at a time is quicker read
    through `iter(ds)`, `ds[a:b]` or a DataLoader with `batch_size=`. It is a map-style dataset for torch, with workers
    too: it pickles without its connection and opens one of its own after a fork.
    """

    def __init__(self, parts: Sequence[_Part], form: Form) -> None:
        self._parts = tuple(parts)
        self._form = form
        self._ends = list(accumulate(part.stored.rows for part in parts))
        self._converter = form.converter(self.schema)

    @classmethod
    def of(cls, info: DatasetInfo, stored: StoredRows, form: Form) -> Self:
        """One registered dataset."""
        return cls((_Part(info, stored),), form)

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the rows before they become tensors."""
        return self._parts[0].stored.schema

    @cached_property
    def metadata(self) -> DatasetInfo:
        """The registry's facts; for a sum of datasets those of all: numbers added, names joined by "+"."""
        return facts_of([part.info for part in self._parts])

    @property
    def sources(self) -> tuple[str, ...]:
        """NAME@VERSION of each dataset in it, in order."""
        return tuple(part.stored.dataset for part in self._parts)

    def __len__(self) -> int:
        return self._ends[-1]

    def __repr__(self) -> str:
        columns = [f"{column.name}: {column.type}" for column in self.schema]
        more = f", ... {len(columns) - _NAMED} more" if len(columns) > _NAMED else ""
        return (
            f"<penstock.Dataset {' + '.join(self.sources)}: {len(self)} rows of "
            f"{', '.join(columns[:_NAMED])}{more}; output={self._form.output!r}>"
        )

    # -- rows ---------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        """One row (an integer, negative from the end), or several (a slice).

        Raises:
            IndexError: with the index and the number of rows.
            DataError: this row cannot be read; those around it can.
        """
        if isinstance(index, slice):
            return self._several(range(*index.indices(len(self))))
        try:
            position = operator.index(index)
        except TypeError:
            raise TypeError(
                f"a Dataset is indexed by an integer or a slice, not by {type(index).__name__} ({index!r}): a row is "
                "a dict of columns, ds[0]['x']; columns are chosen with client.dataset(..., columns=[...])"
            ) from None
        position = self._position(position)
        return self._rows(self._read(range(position, position + 1)))[0]

    def take(self, indices: Iterable[Any]) -> Any:
        """The rows at these integers (negative from the end), in this order, repeated where they repeat.

        One call, whatever the indices; see `__getitem__` for what it raises and what it gives for a slice.
        """
        return self._several([self._position(operator.index(i)) for i in indices])

    def __getitems__(self, indices: Iterable[Any]) -> list[Any]:
        """What torch's DataLoader calls for a batch: a list of rows, for its `collate_fn`."""
        return self._rows(self._read([self._position(operator.index(i)) for i in indices]))

    def __iter__(self) -> Iterator[Any]:
        """Row after row; pages are fetched as they are needed."""
        for page in self._pages(range(len(self))):
            yield from self._rows(page)

    def __add__(self, other: "Dataset") -> "Dataset":
        """This one's rows, then the other's.

        Raises:
            InvalidRequest: they have other columns, or are handed out as something else.
        """
        if not isinstance(other, Dataset):
            return NotImplemented
        if self._form != other._form:
            raise InvalidRequest(f"datasets to be added must be handed out alike: {self._form} and {other._form}")
        schema = _joined(self, other)
        parts = [_Part(p.info, replace(p.stored, schema=schema)) for p in (*self._parts, *other._parts)]
        return Dataset(parts, self._form)

    # -- reading ------------------------------------------------------------------------------------------------

    def _position(self, index: int) -> int:
        length = len(self)
        if not -length <= index < length:
            allowed = f"0 to {length - 1}, or -{length} to -1" if length else "none"
            raise IndexError(
                f"index {index} of {' + '.join(self.sources)}: it has {length} rows, so indices are {allowed}"
            )
        return index + length if index < 0 else index

    def _pages(self, positions: range | Sequence[int]) -> Iterator[Page]:
        """The rows at `positions`, which are those of a part in runs."""
        while len(positions):
            part = int(np.searchsorted(self._ends, positions[0], side="right"))
            first = self._ends[part] - self._parts[part].stored.rows
            run = _run(positions, first, self._ends[part])
            here, positions = positions[:run], positions[run:]
            if isinstance(here, range):
                here = range(here.start - first, here.start - first + here.step * len(here), here.step)
            else:
                here = [position - first for position in here]
            yield from self._parts[part].stored.read(here)

    def _read(self, positions: range | Sequence[int]) -> Page:
        """All of them as one page."""
        pages = list(self._pages(positions))
        if len(pages) == 1:
            return pages[0]
        if not pages:
            columns = [pa.nulls(0, column.type) for column in self.schema]
            return Page(pa.RecordBatch.from_arrays(columns, schema=self.schema), None)
        return Page(pa.concat_batches([page.batch for page in pages]), None)

    def _several(self, positions: range | Sequence[int]) -> Any:
        page = self._read(positions)
        if self._form.output == "rows":
            return page.batch.to_pylist()
        if self._form.output == "arrow":
            return page.batch
        return Batch(self._converter.open(page.batch, page.memory).rows(0, page.batch.num_rows))

    def _rows(self, page: Page) -> list[Any]:
        return self._converter.each(self._converter.open(page.batch, page.memory), 0, page.batch.num_rows)

    def __getstate__(self) -> dict[str, Any]:
        return {"parts": self._parts, "form": self._form}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["parts"], state["form"])  # type: ignore[misc]


def _run(positions: range | Sequence[int], first: int, end: int) -> int:
    """How many of the first positions lie from `first` up to `end`."""
    if isinstance(positions, range):
        if positions.step > 0:
            return len(range(positions.start, min(positions.stop, end), positions.step))
        return len(range(positions.start, max(positions.stop, first - 1), positions.step))
    return next((i for i, position in enumerate(positions) if not first <= position < end), len(positions))


def _joined(a: Dataset, b: Dataset) -> pa.Schema:
    """The schema of both, nullable where one of them is; raises InvalidRequest where columns or types differ."""
    pairs = list(zip(a.schema, b.schema, strict=False))
    same = a.schema.names == b.schema.names and all(_meaning(one) == _meaning(other) for one, other in pairs)
    if not same:
        raise InvalidRequest(_difference(a, b))
    return pa.schema([one.with_nullable(one.nullable or other.nullable) for one, other in pairs], a.schema.metadata)


def _meaning(column: pa.Field) -> tuple[pa.DataType, dict[bytes, bytes] | None]:
    return column.type, marks.kept(column.metadata)


def _said(column: pa.Field) -> str:
    kind, said = _meaning(column)
    return f"{kind} marked {', '.join(f'{k.decode()}={v.decode()}' for k, v in said.items())}" if said else str(kind)


def _difference(a: Dataset, b: Dataset) -> str:
    """Which columns of two datasets differ."""
    words = []
    for name in dict.fromkeys([*a.schema.names, *b.schema.names]):
        kinds = [_said(d.schema.field(name)) if name in d.schema.names else "missing" for d in (a, b)]
        if kinds[0] != kinds[1]:
            words.append(f"{name!r} ({kinds[0]} and {kinds[1]})")
    what = ", ".join(words) if words else f"their order ({a.schema.names} and {b.schema.names})"
    return (
        f"datasets to be added must have the same columns: {'+'.join(a.sources)} and {'+'.join(b.sources)} differ in "
        f"{what}; choose those that agree with columns=[...]"
    )
