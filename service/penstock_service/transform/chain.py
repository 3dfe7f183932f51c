"""A chain of row transforms: read from what users write, applied to what a chunk's reading gave."""

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from penstock_service.core.chunk import ChunkValue, RowError
from penstock_service.core.errors import InvalidRequest
from penstock_service.core.hashing import short_hash
from penstock_service.transform.columns import Cast, Select
from penstock_service.transform.filtering import Filter
from penstock_service.transform.python import PythonRows, source_of
from penstock_service.transform.step import Step

_PYTHON_KEYS: Final = ("function", "columns", "drop", "semantics")


@dataclass(frozen=True)
class Chain:
    """Row transforms in their order. Picklable; `bool(chain)` is false for none."""

    steps: tuple[Step, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)

    def then(self, other: "Chain") -> "Chain":
        return Chain((*self.steps, *other.steps))

    @property
    def fingerprint(self) -> str:
        return short_hash(*(step.fingerprint for step in self.steps)) if self.steps else ""

    @property
    def may_drop(self) -> bool:
        return any(step.may_drop for step in self.steps)

    @property
    def runs_python(self) -> bool:
        return any(step.runs_python for step in self.steps)

    def schema(self, before: pa.Schema) -> pa.Schema:
        """The schema after the whole chain. Raises InvalidRequest naming the transform that cannot work."""
        for number, step in enumerate(self.steps):
            try:
                before = step.schema(before)
            except InvalidRequest as error:
                raise InvalidRequest(f"row transform {number}: {error}") from error
        return before

    def apply(self, value: ChunkValue, where: Callable[[int], str]) -> ChunkValue:
        """The chunk's value after the chain: rows that failed join the errors, rows left out those dropped.

        Args:
            where: names a stored row of the chunk, for errors.
        """
        rows, stored = value.rows, value.stored()
        errors, dropped, more = list(value.errors), [value.dropped], [value.more]
        for number, step in enumerate(self.steps):
            try:
                done = step.apply(rows)
            except InvalidRequest as error:
                raise InvalidRequest(f"row transform {number}: {error}") from error
            if done.kept is not None:
                failed = [(int(stored[f.row]), f.reason) for f in done.failed]
                errors += [RowError(row, where(row), reason) for row, reason in failed]
                more.append(stored[done.more])
                gone = ~done.kept
                gone[[f.row for f in done.failed]] = False
                gone[done.more] = False
                dropped.append(stored[gone])
                stored = stored[done.kept]
            rows = done.rows
        every = (np.sort(np.concatenate(parts)) for parts in (dropped, more))
        return ChunkValue(value.stored_rows, rows, tuple(sorted(errors)), *every)


def parse(text: str, allowed_modules: tuple[str, ...]) -> Chain:
    """A chain from JSON: a list of one-key objects, as in `[{"filter": "x > 0"}, {"select": ["x", "y"]}]`.

    Raises:
        InvalidRequest: what is not understood, where, and the nearest that is.
    """
    try:
        found = json.loads(text) if text else []
    except ValueError as error:
        raise InvalidRequest(f"row transforms are not JSON: {error}") from error
    if not isinstance(found, list):
        raise InvalidRequest(f"row transforms must be a list, found {type(found).__name__}")
    steps = []
    for number, item in enumerate(found):
        try:
            steps.append(_step(item, allowed_modules))
        except InvalidRequest as error:
            raise InvalidRequest(f"row transform {number}: {error}") from error
    return Chain(tuple(steps))


def _step(item: Any, allowed_modules: tuple[str, ...]) -> Step:
    if not isinstance(item, Mapping) or len(item) != 1:
        raise InvalidRequest(
            f"{item!r} is not of the form {{NAME: ARGUMENTS}}; names are {', '.join(_MEMBERS)}, python"
        )
    ((name, arguments),) = item.items()
    if name == "python":
        return _python(arguments, allowed_modules)
    if name not in _MEMBERS:
        raise InvalidRequest(_unknown("transform", name, [*_MEMBERS, "python"]))
    return _MEMBERS[name](arguments)


def _select(arguments: Any) -> Step:
    if isinstance(arguments, Mapping):
        return Select(tuple((str(new), str(old)) for new, old in arguments.items()))
    if isinstance(arguments, Sequence) and not isinstance(arguments, str) and arguments:
        return Select(tuple((str(name), str(name)) for name in arguments))
    raise InvalidRequest(f"select: {arguments!r} is neither a list of columns nor a mapping of new names to old ones")


def _cast(arguments: Any) -> Step:
    if not isinstance(arguments, Mapping) or not arguments:
        raise InvalidRequest(f"cast: {arguments!r} is no mapping of columns to types")
    return Cast(tuple((str(name), str(kind)) for name, kind in arguments.items()))


def _filter(arguments: Any) -> Step:
    if not isinstance(arguments, str):
        raise InvalidRequest(f"filter: {arguments!r} is no condition; write one as a string")
    return Filter(arguments)


def _python(arguments: Any, allowed_modules: tuple[str, ...]) -> Step:
    given: Any = {"function": arguments} if isinstance(arguments, str) else arguments
    if not isinstance(given, Mapping) or "function" not in given:
        raise InvalidRequest(f"python: {arguments!r} is neither 'module:function' nor a mapping with `function`")
    for key in given:
        if key not in _PYTHON_KEYS:
            raise InvalidRequest(_unknown("key of python", key, _PYTHON_KEYS))
    added, drop, semantics = given.get("columns", {}), given.get("drop", []), given.get("semantics", 0)
    if not isinstance(added, Mapping):
        raise InvalidRequest(f'python: columns: {added!r} is no mapping of columns to types, as in {{"x": "float32"}}')
    if not isinstance(drop, Sequence) or isinstance(drop, str):
        raise InvalidRequest(f"python: drop: {drop!r} is no list of columns")
    if not isinstance(semantics, int):
        raise InvalidRequest(f"python: semantics: {semantics!r} is no whole number")
    columns = tuple((str(name), str(kind)) for name, kind in added.items())
    function = str(given["function"])
    source = source_of(function, allowed_modules)
    return PythonRows(function, columns, tuple(str(name) for name in drop), int(semantics), source)


def _unknown(what: str, name: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"no {what} {name!r}; {hint}"


_MEMBERS: Final[dict[str, Callable[[Any], Step]]] = {"select": _select, "cast": _cast, "filter": _filter}
