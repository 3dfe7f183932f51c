"""Which split a file belongs to, told by its name and its folders' names."""

import re
from collections.abc import Iterable
from typing import Final

from penstock_service.core.dataset import TRAIN

_SYNONYMS: Final = ("valid", "val", "validation", "dev")
WORDS: Final = (TRAIN, *_SYNONYMS, "test")
_FILE = re.compile(rf"({'|'.join(sorted(WORDS, key=len, reverse=True))})(?![A-Za-z])", re.IGNORECASE | re.ASCII)


def split_of(relative: str) -> str:
    """The split of a file by its path below what the user named, the user's own word in lower case.

    A folder counts if its whole name is one of WORDS, in any case; a file if its name begins with one and no letter
    follows: `val/a.csv`, `test.csv.gz`, `train-00000-of-00010.parquet`, `dev_2.jsonl`, but neither `trainer.csv` nor
    `crash-test.csv`. The outermost folder that counts decides, the file's own name at last. All else is `train`.
    """
    *folders, name = relative.split("/")
    for folder in folders:
        if folder.lower() in WORDS:
            return folder.lower()
    found = _FILE.match(name)
    return found[1].lower() if found else TRAIN


def in_order(names: Iterable[str]) -> list[str]:
    """`train` first, then by name."""
    return sorted(set(names), key=lambda name: (name != TRAIN, name))


def find_split(wanted: str, names: Iterable[str]) -> str | None:
    """The split that is meant by `wanted` (empty: train), in any case; val, valid, validation and dev find each other.

    None where there is none, or where several could be meant.
    """
    wanted = wanted.lower() or TRAIN
    names = list(names)
    if wanted in names:
        return wanted
    meant = [name for name in names if wanted in _SYNONYMS and name in _SYNONYMS]
    return meant[0] if len(meant) == 1 else None
