"""The language of `filter`: comparisons, `and`, `or`, `not`, `in`, arithmetic, and a few functions over columns.

Parsed with Python's own parser and turned into Arrow compute calls; nothing is ever evaluated as Python.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any, Final, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from penstock_service.core.errors import InvalidRequest

Value = Any  # an Arrow array, or a Python constant

_COMPARE: Final[dict[type[ast.cmpop], Callable[..., Value]]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_ARITHMETIC: Final[dict[type[ast.operator], Callable[..., Value]]] = {
    ast.Add: pc.add_checked,
    ast.Sub: pc.subtract_checked,
    ast.Mult: pc.multiply_checked,
    ast.Div: pc.divide,
}
_FUNCTIONS: Final[dict[str, Callable[[Value], Value]]] = {
    "length": lambda v: (
        pc.utf8_length(v) if pa.types.is_string(v.type) or pa.types.is_large_string(v.type) else pc.list_value_length(v)
    ),
    "lower": pc.utf8_lower,
    "is_null": pc.is_null,
    "is_nan": pc.is_nan,
    "abs": pc.abs,
}


class Expression:
    """A parsed expression. Columns are names; a name that is no identifier is written `column("a b")`."""

    def __init__(self, text: str) -> None:
        """Raises InvalidRequest with the place and what is allowed."""
        self.text = text
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except SyntaxError as error:
            raise InvalidRequest(f"filter {text!r}: {error.msg} at character {error.offset}") from error
        except (ValueError, RecursionError, MemoryError) as error:  # a null character; brackets in brackets in ...
            raise InvalidRequest(f"filter {text[:200]!r} cannot be parsed: {error or 'nested too deeply'}") from error
        self.columns: set[str] = set()
        try:
            self._check(self._tree)
        except RecursionError as error:
            raise InvalidRequest(f"filter {text[:200]!r} is nested too deeply: {error}") from error

    def mask(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Which rows it holds for; null (unknown) counts as no.

        Raises:
            InvalidRequest: the types do not go together, or it is no condition.
            pa.ArrowInvalid: it cannot be computed for some row (a division by zero, an overflow).
        """
        try:
            found = self._value(self._tree, batch)
        except pa.ArrowInvalid as error:
            if batch.num_rows:
                raise
            raise self._wrong(error) from error
        except (pa.ArrowNotImplementedError, pa.ArrowTypeError, TypeError, OverflowError) as error:
            raise self._wrong(error) from error
        if isinstance(found, bool):
            found = pa.array([found] * batch.num_rows, pa.bool_())
        if not isinstance(found, pa.Array) or not pa.types.is_boolean(found.type):
            raise InvalidRequest(f'filter {self.text!r} is no condition: compare something, as in "label == 3"')
        return found.fill_null(False)

    def _wrong(self, error: Exception) -> InvalidRequest:
        return InvalidRequest(f"filter {self.text!r}: {str(error).splitlines()[0]}")

    def _check(self, node: ast.expr) -> None:  # noqa: C901 - one branch per kind of node
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    self._check(value)
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                self._check(operand)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                self._check(left)
                for before, op, other in zip([left, *comparators], ops, comparators, strict=False):
                    if isinstance(op, (ast.In, ast.NotIn)):
                        self._of_columns(before)
                        self._constants(other)
                    elif type(op) in _COMPARE:
                        self._check(other)
                    else:
                        self._refuse(node)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                self._check(left)
                self._check(right)
            case ast.Call(func=ast.Name(id="column"), args=[ast.Constant(value=str(name))], keywords=[]):
                self.columns.add(name)
            case ast.Call(func=ast.Name(id=function), args=[argument], keywords=[]) if function in _FUNCTIONS:
                self._check(argument)
                self._of_columns(argument)
            case ast.Name(id=name):
                self.columns.add(name)
            case ast.Constant(value=bool() | int() | float() | str()):
                pass
            case _:
                self._refuse(node)

    def _of_columns(self, node: ast.expr) -> None:
        """What is asked of constants has one answer for all rows: it was meant of a column."""
        if not any(isinstance(part, ast.Name) for part in ast.walk(node)):
            raise InvalidRequest(
                f"filter {self.text!r}: {ast.unparse(node)} is a constant where a column is needed; write a column's"
                " name, without quotes"
            )

    def _constants(self, node: ast.expr) -> list[Any]:
        elements = node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else None
        if elements is None or not all(isinstance(element, ast.Constant) for element in elements):
            self._refuse(node)
        return [element.value for element in elements if isinstance(element, ast.Constant)]

    def _refuse(self, node: ast.expr) -> NoReturn:
        raise InvalidRequest(
            f"filter {self.text!r}: {ast.unparse(node)!r} is not understood; there are columns, constants, "
            f"comparisons, and, or, not, in (...), + - * /, and the functions column, {', '.join(_FUNCTIONS)}"
        )

    def _value(self, node: ast.expr, batch: pa.RecordBatch) -> Value:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return batch.column(name)
            case ast.Call(func=ast.Name(id="column"), args=[ast.Constant(value=name)]):
                return batch.column(name)
            case ast.Call(func=ast.Name(id=function), args=[argument]):
                return _FUNCTIONS[function](self._value(argument, batch))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return pc.invert(self._value(operand, batch))
            case ast.UnaryOp(operand=operand):
                value = self._value(operand, batch)
                return operator.neg(value) if isinstance(value, (int, float)) else pc.negate_checked(value)
            case ast.BinOp(left=left, op=op, right=right):
                return _ARITHMETIC[type(op)](self._value(left, batch), self._value(right, batch))
            case ast.BoolOp(op=op, values=values):
                join = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
                found = self._value(values[0], batch)
                for other in values[1:]:
                    found = join(found, self._value(other, batch))
                return found
            case ast.Compare():
                return self._compare(node, batch)
        raise AssertionError(f"unchecked node {ast.dump(node)}")

    def _compare(self, node: ast.Compare, batch: pa.RecordBatch) -> Value:
        left, found = self._value(node.left, batch), None
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, (ast.In, ast.NotIn)):
                right = None
                one = pc.is_in(left, value_set=pa.array(self._constants(comparator)).cast(left.type))
                one = pc.invert(one) if isinstance(op, ast.NotIn) else one
            else:
                right = self._value(comparator, batch)
                one = _COMPARE[type(op)](left, right)
            found = one if found is None else pc.and_kleene(found, one)
            left = right
        return found
