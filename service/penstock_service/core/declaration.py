"""What the owner of a dataset says of it, and whether that is true."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import pyarrow as pa

from penstock_proto.v1.tasks import TASKS
from penstock_service.core.errors import InvalidRequest
from penstock_service.core.nearest import did_you_mean

_NAMED = 12  # columns that an error lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """Each None is not said. `rows` and `features` are no news, only checked against what is found."""

    description: str | None = None
    task: str | None = None  # one of TASKS, or empty
    tags: tuple[str, ...] | None = None
    metric: str | None = None
    target: tuple[str, ...] | None = None  # columns to be predicted
    rows: int | None = None
    features: int | None = None  # columns less those of the target
    transforms: str | None = None  # row transforms of every stream of it, JSON
    required: Mapping[str, tuple[str, ...]] | None = None  # by split: columns of each file; checked, not kept

    def __post_init__(self) -> None:
        """Raises InvalidRequest."""
        check_task(self.task or "")
        for name, words in (("tags", self.tags or ()), ("target", self.target or ())):
            if any(not word.strip() for word in words):
                raise InvalidRequest(f"{name} = {list(words)}: one of them is empty")
            if twice := sorted({word for word in words if words.count(word) > 1}):
                raise InvalidRequest(f"{name} = {list(words)}: {twice[0]!r} is named twice")
        for name, number in (("rows", self.rows), ("features", self.features)):
            if number is not None and number < 0:
                raise InvalidRequest(f"{name} = {number}: a number of {name} is 0 or more")

    def over(self, other: "Declaration") -> "Declaration":
        """What is said here, else what `other` says."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return Declaration(**{**{f.name: getattr(other, f.name) for f in fields(other)}, **said})

    def check(self, dataset: str, schema: pa.Schema, rows: int) -> None:
        """Raises InvalidRequest where `dataset` was found to be another thing, with what was declared and found."""
        target = self.target or ()
        for column in target:
            if column not in schema.names:
                shown = ", ".join(schema.names[:_NAMED]) + (" ..." if len(schema.names) > _NAMED else "")
                near = did_you_mean(column, schema.names)
                raise InvalidRequest(
                    f"{dataset}: target {column!r} is none of its {len(schema.names)} columns ({shown}){near}"
                )
        differing = []
        if self.rows is not None and self.rows != rows:
            differing.append(f"rows: {self.rows} declared, {rows} found")
        found = count_features(schema, target)
        if self.features is not None and self.features != found:
            less = f" less {len(target)} of the target" if target else ", no target is named"
            differing.append(f"features: {self.features} declared, {found} found ({len(schema.names)} columns{less})")
        if differing:
            raise InvalidRequest(
                f"{dataset} is not what was declared: {'; '.join(differing)}. Correct the declaration, or the files."
            )


def count_features(schema: pa.Schema, target: tuple[str, ...]) -> int:
    """The number of features: top-level columns less those of the target."""
    return len([name for name in schema.names if name not in target])


def check_task(task: str) -> None:
    """Raises InvalidRequest with the nearest task type; empty is not told."""
    if task and task not in TASKS:
        raise InvalidRequest(
            f"task {task!r} is no task type{did_you_mean(task, TASKS) or '.'} There are: {', '.join(TASKS)}"
        )
