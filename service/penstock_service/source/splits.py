"""Which split a file belongs to, told by its name and its folders' names."""

import re
from collections.abc import Iterable

from penstock_proto.v1.splits import TRAIN, WORDS

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
