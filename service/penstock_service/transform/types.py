"""Types by the names that people write."""

import difflib
from typing import Final

import pyarrow as pa

from penstock_service.core.errors import InvalidRequest

_ALIASES: Final = {
    "bool": pa.bool_(),
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "date": pa.date32(),
    **{f"{sign}int{bits}": getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"timestamp[{unit}]": pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")},
}

_LONGEST: Final = 2**31 - 1  # values of a fixed-size list


def type_named(name: str) -> pa.DataType:
    """`int32`, `float32`, `string`, `timestamp[ms]` ...; `list<T>` and `T[n]` (fixed-size list) around one of them.

    Raises:
        InvalidRequest: no such type, with the nearest names.
    """
    text = name.strip()
    if text.startswith("list<") and text.endswith(">"):
        return pa.list_(type_named(text[5:-1]))
    if text in _ALIASES:
        return _ALIASES[text]
    inner, bracket, size = text.rpartition("[")
    if bracket and size.endswith("]") and size[:-1].isdigit():
        if len(size) > 11 or int(size[:-1]) > _LONGEST:
            raise InvalidRequest(f"type {name!r}: a list of fixed size has at most {_LONGEST} values, not {size[:-1]}")
        return pa.list_(type_named(inner), int(size[:-1]))
    near = difflib.get_close_matches(text, _ALIASES, n=3)
    raise InvalidRequest(f"no type {name!r}; did you mean {' or '.join(near) if near else ', '.join(_ALIASES)}?")
