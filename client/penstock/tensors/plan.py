"""From a schema to columns: every conversion that cannot be is refused here, before a byte is asked for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.types as pt

from penstock.errors import ConversionError, InvalidRequest
from penstock.tensors.block import Block
from penstock.tensors.columns import Column, Dense, Objects, Struct
from penstock.tensors.leaf import leaf_of
from penstock.tensors.lists import Lists
from penstock.tensors.nulls import NullRule, bfloat16_bits, fill_array, fill_scalar
from penstock.tensors.output import Output
from penstock.tensors.sparse import Sparse
from penstock_proto.v1 import marks

Nulls = Literal["error", "mask"]
_WAYS_OUT = 'leave it out with columns=[...], or take output="arrow"'


@dataclass(frozen=True, slots=True)
class Planner:
    """What the user chose for all columns, and what is found out on the way through the schema."""

    output: Output
    ragged: bool
    nulls: Nulls
    fill: Mapping[str, Any]
    sparse: Mapping[str, int] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)  # names that `fill` may use
    narrowed: dict[str, str] = field(default_factory=dict)  # column to what its numbers are narrowed to

    def column(self, name: str, field: pa.Field, nullable: bool) -> Column:
        """The column for one field, called `name` in a batch. `nullable`: it is, or what holds it.

        Raises:
            ConversionError: the type has no form as a tensor.
            InvalidRequest: `fill` is no value of its type.
        """
        dtype = field.type
        kind = bare(dtype)
        said = field.metadata or {}
        if name in self.sparse or marks.SPARSE in said:
            width = self.sparse[name] if name in self.sparse else said[marks.SPARSE].decode()
            return self._sparse(name, kind, width)
        if pt.is_struct(kind):
            if kind.num_fields == 0:
                raise _refused(name, dtype, "a struct without fields has nothing to become a tensor", _WAYS_OUT)
            return Struct(
                tuple(self.column(f"{name}.{child.name}", child, nullable or child.nullable) for child in kind)
            )
        self.found.append(name)
        if _holds_objects(kind):
            fill = fill_array(name, kind, self.fill[name])[0] if name in self.fill else None
            return Objects(name, fill)
        if _is_varying_list(kind):
            block = self._block(name, kind.value_type, said)
            if block is None:
                raise _refused(name, dtype, *_why_no_items(kind.value_type))
            masked = self._masked(block, nullable=kind.value_field.nullable)
            return Lists(name, block, self._rule(name, kind, block), self.ragged, masked)
        block = self._block(name, kind, said)
        if block is None:
            raise _refused(name, dtype, *_why_no_tensor(kind))
        return Dense(name, block, self._rule(name, kind, block), self._masked(block, nullable))

    def _sparse(self, name: str, kind: pa.DataType, width: int | str) -> Column:
        if not str(width).isdecimal() or int(width) < 1:
            raise ConversionError(
                f"column {name!r} ({kind}): a sparse column's width must be a whole number of at least 1, not {width!r}"
            )
        self.found.append(name)
        parts = {child.name: child for child in kind} if pt.is_struct(kind) else {}
        blocks: dict[str, Block] = {}
        for part in ("indices", "values"):
            items = parts[part].type if part in parts and _is_varying_list(parts[part].type) else None
            block = self._block(name, items.value_type, parts[part].metadata or {}) if items is not None else None
            if block is None or block.sizes or (part == "indices" and not pt.is_integer(block.leaf.type)):
                why = "a sparse column must be struct<indices: list<integer>, values: list<number>>"
                raise _refused(name, kind, why, f"store it so, or do not call it sparse; {_WAYS_OUT}")
            blocks[part] = block
        values = blocks["values"]
        whole = self.output.csr is not None
        return Sparse(name, blocks["indices"], values, self._rule(name, kind, values), int(width), whole)

    def _block(self, name: str, dtype: pa.DataType, said: Mapping[bytes, bytes]) -> Block | None:
        sizes: list[int] = []
        shape: list[int] = []
        axes: tuple[int, ...] | None = None
        dtype = bare(dtype)
        while pt.is_fixed_size_list(dtype) or isinstance(dtype, pa.FixedShapeTensorType):
            if isinstance(dtype, pa.FixedShapeTensorType):
                first = len(shape)
                turned = dtype.permutation or range(len(dtype.shape))
                axes = (*range(first), *(first + axis for axis in turned))
                shape += dtype.shape
                dtype = dtype.storage_type
            else:
                shape.append(dtype.list_size)
            sizes.append(dtype.list_size)
            dtype = bare(dtype.value_type)
        leaf = leaf_of(name, dtype, self.output.widened, said.get(marks.DTYPE, b"").decode())
        if leaf is None:
            return None
        if leaf.tensor in self.output.narrowed:
            self.narrowed[name] = f"{leaf.tensor} to {self.output.narrowed[leaf.tensor]}"
        in_order = axes is None or list(axes) == sorted(axes)
        return Block(leaf, tuple(sizes), tuple(shape), None if in_order else axes)

    def _rule(self, name: str, dtype: pa.DataType, block: Block) -> NullRule:
        fill = fill_scalar(block.leaf, self.fill[name]) if name in self.fill else None
        nan = bfloat16_bits(float("nan")) if block.leaf.bfloat16 else None
        return NullRule(name, dtype, self.nulls, fill, nan)

    def _masked(self, block: Block, nullable: bool) -> bool:
        # Floats say it by NaN. An item of a fixed-size list may be null though the list is not, so those count.
        return self.nulls == "mask" and not block.leaf.floating and (nullable or bool(block.sizes))


def bare(dtype: pa.DataType) -> pa.DataType:
    """The type without dictionary, run-end encoding, and those extensions that mean nothing to a tensor."""
    while True:
        if isinstance(dtype, (pa.FixedShapeTensorType, pa.Bool8Type)):
            return dtype
        if isinstance(dtype, pa.BaseExtensionType):
            dtype = dtype.storage_type
        elif pt.is_dictionary(dtype) or pt.is_run_end_encoded(dtype):
            dtype = dtype.value_type
        else:
            return dtype


def check_named(option: str, names: Iterable[str], found: list[str]) -> None:
    """Raises InvalidRequest where an option names a column that is not there."""
    unknown = [name for name in names if name not in found]
    if unknown:
        named = ", ".join(map(repr, unknown))
        raise InvalidRequest(f"{option} names {named}: the stream's columns are {', '.join(found)}")


def check_keys(columns: list[Column]) -> None:
    """Raises ConversionError where two columns would have one key, as "x_mask" beside the list column "x"."""
    keys = [key for column in columns for key in column.keys]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ConversionError(
            f"two columns would be called {', '.join(map(repr, twice))} in a batch: rename one of them where it is "
            f"stored; {_WAYS_OUT}"
        )


def _is_varying_list(dtype: pa.DataType) -> bool:
    return any(test(dtype) for test in (pt.is_list, pt.is_large_list, pt.is_list_view, pt.is_large_list_view))


def _is_text(dtype: pa.DataType) -> bool:
    tests = (pt.is_string, pt.is_large_string, pt.is_string_view, pt.is_binary, pt.is_large_binary, pt.is_binary_view)
    return any(test(dtype) for test in tests) or pt.is_fixed_size_binary(dtype)


def _holds_objects(dtype: pa.DataType) -> bool:
    """Strings, binaries and maps, and lists of them: no tensor has room for those."""
    if _is_text(dtype) or pt.is_map(dtype):
        return True
    if _is_varying_list(dtype) or pt.is_fixed_size_list(dtype):
        return _holds_objects(bare(dtype.value_type))
    return pt.is_struct(dtype) and any(_holds_objects(bare(child.type)) for child in dtype)


def _why_no_items(items: pa.DataType) -> tuple[str, str]:
    if _is_varying_list(bare(items)):
        return "lists of lists of varying length have no padded form", f"flatten it where it is stored; {_WAYS_OUT}"
    return f"its items are {items}, which have no form as a tensor", _WAYS_OUT


def _why_no_tensor(dtype: pa.DataType) -> tuple[str, str]:
    if pt.is_null(dtype):
        return "every value is null, so nothing says what it holds", f"give it a type where it is stored; {_WAYS_OUT}"
    if pt.is_fixed_size_list(dtype):
        return _why_no_items(dtype.value_type)
    return "this type has no form as a tensor", _WAYS_OUT


def _refused(name: str, dtype: pa.DataType, why: str, cures: str) -> ConversionError:
    return ConversionError(f"column {name!r} ({dtype}): {why}. Cures: {cures}")
