from pathlib import Path

import pytest

from penstock_service.core.declaration import Declaration
from penstock_service.core.errors import InvalidRequest
from penstock_service.source.discover import discover
from penstock_service.source.spec import read_spec, spec_of

FULL = """
name: titanic
path: data/*.csv
description: who survived
task: binary
tags: [small, tabular]
metric: auc
target: survived
rows: 891
features: 11
"""


def write(file: Path, text: str = "") -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return str(file)


def test_every_key_is_read(tmp_path: Path) -> None:
    spec = read_spec(write(tmp_path / "t.penstock.yaml", FULL))
    assert (spec.name, spec.path) == ("titanic", str(tmp_path / "data" / "*.csv"))
    assert spec.said == Declaration(
        description="who survived",
        task="binary",
        tags=("small", "tabular"),
        metric="auc",
        target=("survived",),
        rows=891,
        features=11,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("taks: binary", r"is refused: unknown key 'taks'; did you mean ta(sk|gs)\?$"),
        ("zzz: 1", "unknown key 'zzz'; there are name, path, shards, description, task, tags, metric, target, rows, "),
        ("shards: 7", "shards = 7: input should be a valid string"),
        ("1: x", "unknown key '1'; there are name"),
        ("task: binaire", "no task type; did you mean binary"),
        ("rows: many", "rows = 'many': input should be a valid integer"),
        ("rows: -1", "rows = -1: input should be greater than or equal to 0"),
        ("rows: true", "rows = True: input should be a valid integer"),
        ("name: 5", "name = 5: input should be a valid string"),
        ("tags: {a: 1}", "tags = {'a': 1}: input should be a valid list"),
        ("tags: [a, a]", r"tags = \['a', 'a'\]: 'a' is named twice"),
        ("rows: x\ntsak: y", "rows = 'x': .*; unknown key 'tsak'"),
        ("- a", "holds a list; it needs `key: value` lines, such as `task: binary`"),
        ("", "holds nothing; it needs `key: value` lines"),
        ("a: [", "is not YAML: while parsing"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_file_and_the_nearest(text: str, message: str, tmp_path: Path) -> None:
    file = write(tmp_path / "t.penstock.yaml", text)
    with pytest.raises(InvalidRequest, match=message) as error:
        read_spec(file)
    assert file in str(error.value)


def test_without_a_path_it_describes_its_folder_what_is_beside_or_its_folder(tmp_path: Path) -> None:
    inside = write(tmp_path / "titanic" / "titanic.penstock.yaml", "task: binary")
    write(tmp_path / "titanic" / "titanic.csv")
    assert read_spec(inside).path == str(tmp_path / "titanic")
    assert read_spec(inside).name == "titanic"
    beside = write(tmp_path / "web.penstock.yaml", "task: sft")
    assert read_spec(beside).path == str(tmp_path)
    write(tmp_path / "web.v1.csv")
    assert read_spec(beside).path == str(tmp_path)
    write(tmp_path / "web.jsonl.gz")
    assert read_spec(beside).path == str(tmp_path / "web.jsonl.gz")
    (tmp_path / "web").mkdir()
    with pytest.raises(InvalidRequest, match=r"it could describe web, web\.jsonl\.gz; say which: `path: web`"):
        read_spec(beside)


def test_a_path_may_be_anywhere(tmp_path: Path) -> None:
    home = str(Path("~/w").expanduser())
    for path, meant in (("../x", str(tmp_path / "x")), ("/abs/y", "/abs/y"), ("s3://b/z", "s3://b/z"), ("~/w", home)):
        assert read_spec(write(tmp_path / "specs" / "t.penstock.yaml", f"path: {path}")).path == meant


def test_data_finds_its_spec_beside_or_inside(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    write(tmp_path / "b" / "0.csv")
    assert spec_of(str(tmp_path / "a.csv")) is None
    assert spec_of(str(tmp_path / "none.csv")) is None
    write(tmp_path / "a.penstock.yaml", "task: sft")
    beside = spec_of(str(tmp_path / "a.csv"))
    assert beside is not None
    assert (beside.name, beside.said.task) == ("a", "sft")
    write(tmp_path / "b" / "anything.penstock.yaml", "name: web")
    inside = spec_of(str(tmp_path / "b") + "/")
    assert inside is not None
    assert inside.name == "web"
    assert spec_of(str(tmp_path)) is None  # a.penstock.yaml is there, but about a.csv
    write(tmp_path / "b.penstock.yaml", "name: web2")
    with pytest.raises(
        InvalidRequest, match=r"is described by 2 specs: .*b\.penstock\.yaml, .*anything\.penstock\.yaml"
    ):
        spec_of(str(tmp_path / "b"))


def test_a_yaml_file_that_is_named_is_a_spec_whatever_it_is_called(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yml", "path: data\ntask: rl")
    spec = spec_of(file)
    assert spec is not None
    assert (spec.name, spec.path, spec.said.task) == ("mine", str(tmp_path / "data"), "rl")


def test_a_spec_in_a_folder_is_no_ignored_file(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    write(tmp_path / "d.penstock.yaml")
    assert discover(str(tmp_path)).notes == ()
