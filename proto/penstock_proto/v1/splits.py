"""Which split of a dataset is meant by a word."""

from collections.abc import Iterable
from typing import Final

TRAIN: Final = "train"
"""The split that everything belongs to which names no other, and that is meant where none is named."""

SYNONYMS: Final = ("valid", "val", "validation", "dev")
WORDS: Final = (TRAIN, *SYNONYMS, "test")


def find_split(wanted: str, names: Iterable[str]) -> str | None:
    """The split that is meant by `wanted` (empty: train), in any case; val, valid, validation and dev find each other.

    None where there is none, or where several could be meant.
    """
    wanted = wanted.lower() or TRAIN
    names = list(names)
    if wanted in names:
        return wanted
    meant = [name for name in names if wanted in SYNONYMS and name in SYNONYMS]
    return meant[0] if len(meant) == 1 else None
