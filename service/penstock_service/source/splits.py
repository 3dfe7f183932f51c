"""Which split a file belongs to, told by its name and its folders' names."""

import re
from collections.abc import Iterable

from penstock_proto.v1.splits import TRAIN, WORDS

_FILE = re.compile(rf"({'|'.join(sorted(WORDS, key=len, reverse=True))})(?![A-Za-z])", re.IGNORECASE | re.ASCII)
_ANSWER = re.compile(r"[a-z]+_?submission\.", re.IGNORECASE | re.ASCII)


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


def answers(relatives: Iterable[str]) -> set[str]:
    """Files of a Kaggle folder that only show the form of an answer: `sample_submission.csv`, `gender_submission.csv`.

    Only those that lie beside both a train and a test file are meant: elsewhere such a name is as good as any.
    """
    listed = [path.rpartition("/") for path in relatives]
    beside: dict[str, set[str]] = {}
    for folder, _, name in listed:
        if found := _FILE.match(name):
            beside.setdefault(folder, set()).add(found[1].lower())
    return {
        folder + slash + name
        for folder, slash, name in listed
        if {TRAIN, "test"} <= beside.get(folder, set()) and _ANSWER.match(name)
    }


def in_order(names: Iterable[str]) -> list[str]:
    """`train` first, then by name."""
    return sorted(set(names), key=lambda name: (name != TRAIN, name))
