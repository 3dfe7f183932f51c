"""The spec of a dataset, a small YAML file: what it is called, where it is, what its owner says of it.

`NAME.penstock.yaml` lies beside the data or in its folder; any other .yaml file is a spec if it is named as what to
serve. Without `path` it describes, in this order: its folder, if that is called NAME; what lies beside it under NAME
(a folder `NAME`, or a file `NAME.*`); its folder.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from penstock_proto.v1.splits import TRAIN
from penstock_service.core.declaration import Declaration
from penstock_service.core.errors import InvalidRequest, SourceUnreadable
from penstock_service.core.nearest import did_you_mean
from penstock_service.source.formats import format_of, stem_of
from penstock_service.source.ranges import split_ranges

SUFFIX = ".penstock.yaml"
_YAML = (".yaml", ".yml")

Words = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Count = Annotated[int, Field(ge=0)]
Required = Annotated[
    dict[str, Words], BeforeValidator(lambda value: value if isinstance(value, dict) else {TRAIN: value})
]


class _Keys(BaseModel):
    """What a spec may hold."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = None
    path: str | None = None  # relative to the spec's folder
    shards: str | None = None  # "0-99,120-": only these of the path
    description: str | None = None
    task: str | None = None
    tags: Words | None = None
    metric: str | None = None
    target: Words | None = None
    rows: Count | None = None
    features: Count | None = None
    required: Required | None = None
    transforms: list[dict[str, Any]] | None = None  # row transforms of every stream of it


@dataclass(frozen=True, slots=True)
class Spec:
    file: str
    name: str
    path: str  # of the data: absolute, or with a scheme; with the shards, PATH#0-99
    said: Declaration

    @property
    def data(self) -> str:
        """The path without the shards."""
        return split_ranges(self.path)[0]


def is_spec(path: str) -> bool:
    """Does the user mean a spec by `path`?"""
    return path.lower().endswith(_YAML) and os.path.isfile(path)  # noqa: PTH113


def spec_of(path: str) -> Spec | None:
    """The spec that `path` is, or that describes the file or folder `path`. Raises InvalidRequest, SourceUnreadable."""
    if is_spec(path):
        return read_spec(path)
    where = Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100,PTH111  not resolved, as in discover
    if not where.exists():
        return None
    near = [where.parent / (where.name + SUFFIX), where.parent / (stem_of(where.name) + SUFFIX)]
    if where.is_dir():
        near += sorted(where.glob("*" + SUFFIX))
    specs = [read_spec(str(file)) for file in dict.fromkeys(near) if file.is_file()]
    meant = [spec for spec in specs if spec.data == str(where)]
    if len(meant) > 1:
        raise InvalidRequest(
            f"{where} is described by {len(meant)} specs: {', '.join(spec.file for spec in meant)}. "
            "Keep one, or name the one that you mean instead of the data"
        )
    return meant[0] if meant else None


def read_spec(file: str) -> Spec:
    """Raises InvalidRequest that lists all that is wrong, SourceUnreadable."""
    keys = _parsed(file)
    where = Path(os.path.abspath(os.path.expanduser(file)))  # noqa: PTH100,PTH111
    stem = where.name.removesuffix(SUFFIX) if where.name.endswith(SUFFIX) else where.stem
    try:
        said = Declaration(
            description=keys.description,
            task=keys.task,
            tags=None if keys.tags is None else tuple(keys.tags),
            metric=keys.metric,
            target=None if keys.target is None else tuple(keys.target),
            rows=keys.rows,
            features=keys.features,
            transforms=None if keys.transforms is None else json.dumps(keys.transforms),
            required=None if keys.required is None else {split: tuple(c) for split, c in keys.required.items()},
        )
    except InvalidRequest as error:
        raise InvalidRequest(f"{file}: {error}") from None
    data = _data(where, stem, keys.path) + ("" if keys.shards is None else f"#{keys.shards}")
    return Spec(str(where), keys.name or stem, data, said)


def _parsed(file: str) -> _Keys:
    try:
        values: Any = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceUnreadable(f"the spec {file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRequest(f"the spec {file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        held = "nothing" if values is None else f"a {type(values).__name__}"
        raise InvalidRequest(f"the spec {file} holds {held}; it needs `key: value` lines, such as `task: binary`")
    try:
        return _Keys.model_validate(values)
    except ValidationError as error:
        lines = [_line(problem["loc"], problem["type"], problem["msg"], values) for problem in error.errors()]
        raise InvalidRequest(f"the spec {file} is refused: {'; '.join(lines)}") from None


def _line(place: tuple[int | str, ...], kind: str, message: str, values: dict[Any, Any]) -> str:
    key = str(place[0])
    if kind == "extra_forbidden" or kind == "invalid_key":
        known = list(_Keys.model_fields)
        return f"unknown key {key!r}{did_you_mean(key, known) or '; there are ' + ', '.join(known)}"
    return f"{key} = {values.get(key)!r}: {message[0].lower()}{message[1:]}"


def _data(spec: Path, stem: str, path: str | None) -> str:
    folder = spec.parent
    if path is not None:
        return path if "://" in path else os.path.normpath(folder / os.path.expanduser(path))  # noqa: PTH111
    if folder.name == stem:
        return str(folder)
    beside = sorted(child for child in folder.iterdir() if child.name == stem and child.is_dir())
    beside += sorted(child for child in folder.iterdir() if format_of(child.name) and stem_of(child.name) == stem)
    if len(beside) > 1:
        names = ", ".join(child.name for child in beside)
        raise InvalidRequest(f"{spec}: it could describe {names}; say which: `path: {beside[0].name}`")
    return str(beside[0] if beside else folder)
