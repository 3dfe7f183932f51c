"""Arrow to tensors: planned once from the schema, then one conversion per bundle and a view per step."""

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import pyarrow as pa

from penstock.errors import ConversionError, InvalidRequest
from penstock.tensors.bundle import OpenArrow, OpenBundle, OpenTensors
from penstock.tensors.columns import Column
from penstock.tensors.copies import Copies
from penstock.tensors.leaf import Array, Lender, unit_of
from penstock.tensors.output import Output, OutputName, load_output
from penstock.tensors.plan import Nulls, Planner, bare, check_keys, check_named

__all__ = ["BundleConverter", "Nulls", "OpenBundle", "OutputName", "plan_columns", "units"]

_log: Final = logging.getLogger("penstock")


class BundleConverter:
    """Opens bundles of one schema. Made by `plan_columns`; may be used for any number of bundles."""

    def __init__(self, schema: pa.Schema, output: Output | None, columns: tuple[Column, ...]) -> None:
        self._schema = schema
        self._output = output  # None: output="arrow"
        self._columns = columns
        self.copies = Copies()
        self._whole = frozenset(key for column in columns for key in column.unstacked)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of every step, in order; for output="arrow" the names of the columns."""
        if self._output is None:
            return tuple(self._schema.names)
        return tuple(key for column in self._columns for key in column.keys)

    def each(self, bundle: OpenBundle, start: int, stop: int) -> list[dict[str, Any]]:
        """Rows `start` to `stop` one by one: tensors without the leading dimension, Python values of Arrow.

        A list is as long as its own row; the arrays of a ragged or sparse column are those of a step of this row.
        """
        if self._output is None:
            rows: list[dict[str, Any]] = bundle.rows(start, stop).to_pylist()
            return rows
        kept = self._whole
        steps = (bundle.rows(i, i + 1) for i in range(start, stop))
        return [{key: value if key in kept else value[0] for key, value in step.items()} for step in steps]

    def open(self, batch: pa.RecordBatch, writable: Array | None) -> OpenBundle:
        """Converts the whole bundle. It is taken over: its bytes may be written, by NaN for null or by the user.

        Args:
            batch: of the schema that was planned.
            writable: uint8 `[bytes]`, the memory `batch` was read from (`pa.ipc.read_record_batch` of a
                `pa.py_buffer(writable)`). Tensors are views of it and keep it alive, so that a finalizer on it fires
                when the last of them is gone; for that it must not itself be a slice of another NumPy array (NumPy
                lets views of views refer to the first one): take `np.frombuffer(memory, offset=..., count=...)`. None,
                or memory the batch does not lie in: torch and NumPy get copies, never anything read-only.

        Raises:
            ConversionError: nulls without a cure, or uint64 beyond int64, with column and count; another schema.
        """
        if not batch.schema.equals(self._schema):
            raise ConversionError(
                f"the bundle's columns are not those that were announced: {batch.schema.to_string()} instead of "
                f"{self._schema.to_string()}"
            )
        if self._output is None:
            return OpenArrow(batch)
        lender = Lender.of(writable, self.copies)
        adopt = self._output.adopt
        adopted = adopt(writable) if adopt is not None and writable is not None else None
        bundle = OpenTensors(self._output, self.copies, adopted)
        for column, array in zip(self._columns, batch.columns, strict=True):
            column.open(array, lender, bundle)
        return bundle


def plan_columns(
    schema: pa.Schema,
    output: str,
    *,
    ragged: bool = False,
    nulls: Nulls = "error",
    fill: Mapping[str, Any] | None = None,
    sparse: Mapping[str, int] | None = None,
    unified: bool | None = None,
) -> BundleConverter:
    """Decides what each column becomes; imports torch or mlx where that output is asked for.

    Args:
        schema: of the bundles to come.
        output: "torch", "mlx", "numpy" or "arrow".
        ragged: lists of varying length as `<column>` values and `<column>_offsets`, instead of padded with zeros to
            the longest row of the step with `<column>_mask`.
        nulls: "error", or "mask": 0 for null and `<column>_valid` (bool, the column's shape) for every nullable column
            of integers, bools or times; floats have NaN for null either way. Null lists count as empty, null items
            of padded lists are false in their mask.
        fill: column (`a.b` for the field of a struct) to what stands for null, or for null items of lists.
        sparse: column to width, for struct<indices, values> columns whose field does not say it itself.
        unified: for MLX: may arrays share the received memory; None: where they can.

    Raises:
        ConversionError: columns that cannot become tensors: all of them, each with its type and the cures.
        InvalidRequest: an argument is wrong, or torch or mlx cannot be imported.
    """
    if nulls not in ("error", "mask"):
        raise InvalidRequest(f'nulls={nulls!r}: must be "error" or "mask"')
    if output == "arrow":
        if ragged or fill or sparse or nulls != "error":
            raise InvalidRequest(
                'output="arrow" hands out what is stored: ragged=, nulls=, fill= and sparse= are for tensors'
            )
        return BundleConverter(schema, None, ())
    planner = Planner(load_output(output, unified), ragged, nulls, fill or {}, sparse or {})
    columns: list[Column] = []
    refused: list[str] = []
    for field in schema:
        try:
            columns.append(planner.column(field.name, field, field.nullable))
        except ConversionError as error:
            refused.append(str(error))
    if refused:
        raise ConversionError("\n".join(refused))
    check_named("fill", planner.fill, planner.found)
    check_named("sparse", planner.sparse, planner.found)
    check_keys(columns)
    if planner.narrowed:
        changes = ", ".join(f"{name} ({change})" for name, change in planner.narrowed.items())
        _say_once(f'output="{output}" narrows {changes}')
    return BundleConverter(schema, planner.output, tuple(columns))


def units(schema: pa.Schema) -> dict[str, str]:
    """Column to unit ("D", "s", "ms", "us", "ns") for dates, times, timestamps and durations, which become int64.

    Dates and timestamps count from 1970-01-01 (UTC where the type names a time zone), times from midnight. Fields of
    structs are `a.b`; the items of lists count as the column.
    """
    found: dict[str, str] = {}
    waiting = [(field.name, field.type) for field in reversed(list(schema))]
    while waiting:
        name, dtype = waiting.pop()
        dtype = bare(dtype)
        if pa.types.is_struct(dtype):
            waiting += [(f"{name}.{child.name}", child.type) for child in reversed(list(dtype))]
        elif hasattr(dtype, "value_type"):
            waiting.append((name, dtype.value_type))
        else:
            unit = unit_of(dtype)
            if unit is not None:
                found[name] = unit
    return found


@cache
def _say_once(text: str) -> None:
    """Once per process: a stream that is opened again says nothing new."""
    _log.warning("%s", text)
