"""The task types of datasets, so that both ends spell them alike: one spelling each, a closed list."""

from typing import Final, Literal, get_args

Task = Literal[
    "binary",
    "multiclass",
    "multilabel",
    "regression",
    "ranking",
    "forecasting",
    "clustering",
    "sequence-labelling",
    "language-modelling",
    "sft",
    "preference",
    "rl",
    "other",
]
TASKS: Final[tuple[str, ...]] = get_args(Task)
