"""`python`: a function of the user's over a record batch, run in worker processes."""

import importlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from penstock_service.core.chunk import cut
from penstock_service.core.errors import InvalidRequest
from penstock_service.core.hashing import short_hash
from penstock_service.core.nearest import did_you_mean
from penstock_service.transform.step import Done, Failed, by_halves
from penstock_service.transform.types import type_named


@dataclass(frozen=True)
class PythonRows:
    """Calls `module:function(batch)`, which returns a record batch with one row for each of its input, or a pair of a
    shorter one and a boolean mask of the input's rows that it stands for.

    It must depend on the rows alone: its chunks are kept and may be made anywhere, any number of times. The server
    never imports it; its module's source is part of the fingerprint, and `semantics` is for what the source imports.
    """

    function: str  # "module:function"
    columns: tuple[tuple[str, str], ...] = ()  # those it adds or changes, with the names of their types
    drop: tuple[str, ...] = ()  # columns it removes
    semantics: int = 0
    source: str = field(default="", compare=False)  # hash of the module's source, found when the chain is made
    may_drop: ClassVar[bool] = True
    runs_python: ClassVar[bool] = True

    @property
    def fingerprint(self) -> str:
        return short_hash(
            "python", self.function, json.dumps(self.columns), json.dumps(self.drop), str(self.semantics), self.source
        )

    def schema(self, before: pa.Schema) -> pa.Schema:
        after = before
        for name in self.drop:
            if name not in before.names:
                raise InvalidRequest(f"python {self.function}: drops {name!r}, but the columns are {before.names}")
            after = after.remove(after.get_field_index(name))
        for name, kind in self.columns:
            made = pa.field(name, type_named(kind))
            at = after.get_field_index(name)
            after = after.append(made) if at < 0 else after.set(at, made)
        return after

    def apply(self, batch: pa.RecordBatch) -> Done:
        call, after = self._load(), self.schema(batch.schema)
        if batch.num_rows == 0:  # nothing to ask: all were left out before, and a failure could be no row's
            return Done(_empty(after))

        def apply(part: pa.RecordBatch) -> Done:
            try:
                return self._call(call, part, after)
            except Exception as error:  # noqa: BLE001 - whatever user code raises belongs to a row: find which
                if part.num_rows == 1:
                    reason = cut(f"{self.function}: {_shown(error)}")
                    return Done(_empty(after), np.zeros(1, np.bool_), (Failed(0, reason),))
            return by_halves(part, apply)

        return apply(batch)

    def _call(self, call: Callable[[pa.RecordBatch], Any], batch: pa.RecordBatch, after: pa.Schema) -> Done:
        made, kept = call(batch), None
        if isinstance(made, tuple):
            made, mask = made
            kept = np.asarray(mask, np.bool_)
            if len(kept) != batch.num_rows:
                raise ValueError(f"its mask has {len(kept)} values for {batch.num_rows} rows")
        if not isinstance(made, pa.RecordBatch):
            raise TypeError(f"it returned {type(made).__name__} instead of a pyarrow.RecordBatch")
        expected = batch.num_rows if kept is None else int(kept.sum())
        if made.num_rows != expected:
            raise ValueError(f"it returned {made.num_rows} rows instead of {expected}")
        if made.schema.names != after.names:
            raise ValueError(f"it returned the columns {made.schema.names} instead of {after.names}: declare `columns`")
        return Done(made.cast(after), kept)

    def _load(self) -> Callable[[pa.RecordBatch], Any]:
        """Raises InvalidRequest: the module cannot be imported, or has no such function."""
        name, _, wanted = self.function.partition(":")
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:  # whatever its code raises: it belongs to no row
            raise InvalidRequest(
                f"python: module {name!r} cannot be imported where the server runs: {cut(_shown(error))}; mend it, or"
                " install what it needs there"
            ) from error
        found: Callable[[pa.RecordBatch], Any] | None = getattr(module, wanted, None)
        if not callable(found):
            there = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
            kind = "" if found is None else f": its {wanted} is of type {type(found).__name__}"
            near = did_you_mean(wanted, there)
            raise InvalidRequest(f"python: module {name!r} has no function {wanted!r}{kind}{near}")
        return found


def source_of(function: str, allowed: tuple[str, ...]) -> str:
    """Hash of the source of the module that `function` ("module:function") is in; imports its parent packages only.

    Raises:
        InvalidRequest: not of that form, a module that the operator has not allowed, or none that is there.
    """
    module, colon, name = function.partition(":")
    if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise InvalidRequest(f"python: {function!r} is not of the form module:function")
    if not any(module == prefix or module.startswith(f"{prefix}.") for prefix in allowed):
        raise InvalidRequest(
            f"python: module {module!r} is not allowed to run here; start the server with --python-modules {module}"
        )
    try:
        found = importlib.util.find_spec(module)
    except ImportError as error:
        raise InvalidRequest(f"python: {function!r}: {error}") from error
    if found is None or found.origin is None:
        raise InvalidRequest(f"python: no module {module!r} on the server's path; set PYTHONPATH, or install it there")
    return short_hash(Path(found.origin).read_bytes())


def _shown(error: BaseException) -> str:
    try:
        return repr(error)
    except Exception:  # noqa: BLE001 - the user's own __repr__
        return type(error).__name__


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in schema], schema=schema)
