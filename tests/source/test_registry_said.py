"""What owners say of datasets, kept with them, and databases of older releases."""

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_service.core.declaration import Declaration
from penstock_service.core.errors import DataError, InvalidRequest, NotFound
from penstock_service.source.registry import Registry

LAYOUT_1 = """
CREATE TABLE versions (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    seq INTEGER NOT NULL,            -- the newest of a name is the one that a bare name means
    path TEXT NOT NULL,              -- as the user gave it
    root TEXT NOT NULL,
    schema BLOB NOT NULL,            -- Arrow IPC schema message
    folder TEXT NOT NULL,            -- of the manifest, under the registry's own
    chunk_rows INTEGER NOT NULL,
    chunk_bytes INTEGER NOT NULL,
    description TEXT NOT NULL,
    tags TEXT NOT NULL,              -- JSON list
    notes TEXT NOT NULL,             -- JSON list
    registered_at TEXT NOT NULL,
    PRIMARY KEY (name, version)
) STRICT
"""
COLUMNS = (
    "name, version, seq, path, root, schema, folder, chunk_rows, chunk_bytes, description, tags, notes, registered_at"
)
ALL = Declaration(description="who survived", task="binary", tags=("small",), metric="auc", target=("y",))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    opened = Registry(tmp_path / "state")
    yield opened
    opened.close()


def make(tmp_path: Path, header: str = "a,b,y", rows: int = 3, name: str = "d") -> str:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    lines = [",".join(str(i) for _ in header.split(",")) for i in range(rows)]
    (folder / "0.csv").write_text("\n".join([header, *lines]) + "\n")
    return str(folder)


def folders(tmp_path: Path) -> int:
    return len(list((tmp_path / "state" / "manifests").iterdir()))


def test_all_that_is_said_is_found_again(tmp_path: Path, registry: Registry) -> None:
    registry.register("d", make(tmp_path), ALL)
    registry.close()
    again = Registry(tmp_path / "state")
    got = again.get("d")
    again.close()
    assert (got.description, got.task, got.tags) == ("who survived", "binary", ("small",))
    assert (got.metric, got.target, got.features) == ("auc", ("y",), 2)


def test_what_is_not_said_again_stays_and_what_is_said_empty_goes(tmp_path: Path, registry: Registry) -> None:
    registry.register("d", make(tmp_path), ALL)
    second = registry.register("d", make(tmp_path, rows=4), Declaration(task="ranking", metric=""))
    assert (second.description, second.task, second.tags) == ("who survived", "ranking", ("small",))
    assert (second.metric, second.target) == ("", ("y",))


def test_other_rows_than_declared_are_refused_and_leave_nothing(tmp_path: Path, registry: Registry) -> None:
    path = make(tmp_path)
    with pytest.raises(InvalidRequest) as error:
        registry.register("d", path, Declaration(rows=4, features=1, target=("y",)))
    assert str(error.value).startswith(f"d ({path}) is not what was declared: rows: 4 declared, 3 found; features: 1 d")
    assert (registry.list(), folders(tmp_path)) == ([], 0)
    registry.register("d", path, Declaration(rows=3, features=2, target=("y",)))
    with pytest.raises(InvalidRequest, match="features: 3 declared, 2 found"):
        registry.register("d", path, Declaration(features=3))  # the target stays as it was
    assert registry.get("d").features == 2


def test_a_target_of_before_that_is_no_column_any_more_is_forgotten_with_a_warning(
    tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.register("d", make(tmp_path), ALL)
    with caplog.at_level(logging.WARNING):
        assert registry.register("d", make(tmp_path, header="a,b")).target == ()
    assert "d: target y is no column any more and is forgotten" in caplog.text


def test_search_by_task_and_by_words_of_every_field(tmp_path: Path, registry: Registry) -> None:
    path = make(tmp_path)
    registry.register("titanic", path, ALL)
    registry.register("prices", path, Declaration(task="regression", metric="rmse"))

    def names(text: str = "", task: str = "", tag: str = "") -> list[str]:
        return [d.name for d in registry.search(text=text, task=task, tag=tag)]

    assert names(task="binary") == ["titanic"]
    assert names(task="sft") == []
    assert names("RMSE") == ["prices"]
    assert names("regress") == ["prices"]
    assert names("b", task="regression") == ["prices"]
    assert names("b", task="regression", tag="small") == []
    with pytest.raises(InvalidRequest, match="did you mean regression"):
        names(task="regresion")


def test_versions_are_listed_the_newest_first(tmp_path: Path, registry: Registry) -> None:
    made = [registry.register("d", make(tmp_path, rows=rows)).version for rows in (1, 2, 3)]
    assert [d.version for d in registry.versions("d")] == made[::-1]
    assert [d.manifest.rows for d in registry.versions(f"d@{made[0]}")] == [3, 2, 1]
    with pytest.raises(NotFound, match="Did you mean d"):
        registry.versions("dd")


def test_a_lost_manifest_costs_its_own_dataset_only(
    tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.register("lost", make(tmp_path))
    (only,) = (tmp_path / "state" / "manifests").iterdir()
    registry.register("kept", make(tmp_path, name="e"))
    (only / "train" / "shards.arrow").unlink()
    for found in (registry.list(), registry.search("a")):
        assert [d.name for d in found] == ["kept"]
    assert "is not listed: manifest" in caplog.text
    with pytest.raises(DataError, match="register the dataset again"):
        registry.get("lost")


def test_registering_what_has_not_changed_writes_nothing(tmp_path: Path, registry: Registry) -> None:
    path = make(tmp_path)
    registry.register("d", path, ALL)
    other = sqlite3.connect(tmp_path / "state" / "registry.sqlite")
    before = other.execute("PRAGMA data_version").fetchone()
    for said in (Declaration(), ALL):
        registry.register("d", path, said)
    assert other.execute("PRAGMA data_version").fetchone() == before
    registry.register("d", path, Declaration(metric="accuracy"))
    assert other.execute("PRAGMA data_version").fetchone() != before
    other.close()


def test_a_database_of_the_first_layout_is_migrated(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = Registry(state)
    versions = [first.register("d", make(tmp_path, rows=rows), Declaration(tags=("t",))).version for rows in (3, 4)]
    first.close()
    file = state / "registry.sqlite"
    with sqlite3.connect(file) as new:
        rows = new.execute(f"SELECT {COLUMNS} FROM versions").fetchall()  # noqa: S608
    new.close()
    file.unlink()
    with sqlite3.connect(file) as old:
        old.execute(LAYOUT_1)
        marks = ", ".join("?" * 13)
        old.executemany(f"INSERT INTO versions ({COLUMNS}) VALUES ({marks})", rows)  # noqa: S608
        old.execute("PRAGMA user_version = 1")
    old.close()

    for _ in range(2):  # the second time there is nothing to do
        registry = Registry(state)
        assert [d.version for d in registry.versions("d")] == versions[::-1]
        got = registry.get(f"d@{versions[0]}")
        assert (got.tags, got.task, got.metric, got.target, got.manifest.rows) == (("t",), "", "", (), 3)
        registry.close()
    registry = Registry(state)
    assert registry.register("d", str(tmp_path / "d"), Declaration(task="sft")).task == "sft"
    registry.close()
    with sqlite3.connect(file) as now:
        assert now.execute("PRAGMA user_version").fetchone() == (3,)
    now.close()
