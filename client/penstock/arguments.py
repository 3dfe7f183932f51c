"""What users hand in, checked for its type and made plain: NumPy's numbers become Python's."""

import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from penstock.errors import InvalidRequest

_MOST: Final = (1 << 63) - 1  # that the wire carries


def whole(name: str, value: object, least: int = 0, most: int = _MOST) -> int:
    """An int, or what stands for one; raises InvalidRequest for anything else, 64.0 and True too."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise InvalidRequest(f"{name}={value!r}: must be an integer, not {_kind(value)}")
    if number < least:
        raise InvalidRequest(f"{name}={value}: must be {'0 or more' if least == 0 else f'at least {least}'}")
    if number > most:
        raise InvalidRequest(f"{name}={value}: must be at most {most}")
    return number


def whole_or_none(name: str, value: object, least: int = 0, most: int = _MOST) -> int | None:
    return None if value is None else whole(name, value, least, most)


def number(name: str, value: object) -> float:
    """A float, an int or what stands for one; raises InvalidRequest for anything else, and for nan."""
    if isinstance(value, bool) or not isinstance(value, float | int | np.floating | np.integer):
        raise InvalidRequest(f"{name}={value!r}: must be a number, not {_kind(value)}")
    if math.isnan(value):
        raise InvalidRequest(f"{name}={value}: must be a number")
    return float(value)


def flag(name: str, value: object) -> bool:
    """True or False, 1 or 0; raises InvalidRequest for anything else, whatever it would count as."""
    if not isinstance(value, bool | int | np.bool_ | np.integer) or value not in (0, 1):
        raise InvalidRequest(f"{name}={value!r}: must be True or False")
    return bool(value)


def text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{name}={value!r}: must be a string, not {_kind(value)}")
    return value


def texts(name: str, value: object) -> tuple[str, ...]:
    """Several strings."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidRequest(f"{name}={value!r}: must be a list of names, as in {name}=[{str(value)!r}]")
    found = tuple(value)
    for one in found:
        if not isinstance(one, str):
            raise InvalidRequest(f"{name}={value!r}: must be a list of names, but {one!r} is {_kind(one)}")
    return found


def mapping(name: str, value: object) -> dict[str, Any]:
    """A dict by column; None: an empty one."""
    if value is not None and not isinstance(value, Mapping):
        raise InvalidRequest(f"{name}={value!r}: must be a dict by column, not {_kind(value)}")
    return dict(value or {})


def transforms(value: object) -> str:
    """Row transforms as JSON; empty: none."""
    if not isinstance(value, Sequence) or not all(isinstance(one, Mapping) for one in value):
        raise InvalidRequest(f"rows={value!r}: must be a list of dicts, such as [{{'filter': 'x > 0'}}]")
    try:
        return json.dumps([dict(one) for one in value]) if value else ""
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"rows={value!r}: must hold strings, numbers, lists and dicts only: {error}") from None


def _kind(value: object) -> str:
    kind = type(value).__name__
    return "None" if value is None else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
