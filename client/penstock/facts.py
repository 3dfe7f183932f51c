"""What is known of several datasets at once."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

from penstock.registered import DatasetInfo

_JOINED: Final = ("name", "version", "path")
_SUMMED: Final = ("rows", "bytes", "shards")


def facts_of(infos: Sequence[DatasetInfo]) -> DatasetInfo:
    """The facts of several datasets one after another: names joined by "+", numbers added, tags united.

    What they agree on stays; what they do not agree on is empty.
    """
    if len(infos) == 1:
        return infos[0]
    names = [field.name for field in fields(DatasetInfo)]
    return DatasetInfo(**{name: _joined(name, [getattr(info, name) for info in infos]) for name in names})


def _joined(name: str, values: list[Any]) -> Any:
    first = values[0]
    if name in _JOINED:
        return "+".join(values)
    if name in _SUMMED:
        return sum(values)
    if all(value == first for value in values):
        return first
    if isinstance(first, tuple):
        return tuple(dict.fromkeys(item for value in values for item in value))
    return type(first)() if isinstance(first, (str, int, float)) else None
