import asyncio
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_service.app.discovery import Discoverer
from penstock_service.core.declaration import Declaration
from penstock_service.core.discovery import Discovery
from penstock_service.core.errors import InvalidRequest, SourceUnreadable
from penstock_service.source.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    opened = Registry(tmp_path / "state")
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "datasets"
    made.mkdir()
    return made


def write(file: Path, rows: int = 3, text: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text or "x,y\n" + "".join(f"{i},{i}\n" for i in range(rows)))


def look(discoverer: Discoverer, **how: bool) -> dict[str, tuple[str, str]]:
    """Name, else file, to state and reason."""
    found: Discovery = asyncio.run(discoverer.look(**how))
    return {child.name or Path(child.path).name: (child.state, child.reason) for child in found.children}


def states(discoverer: Discoverer, **how: bool) -> dict[str, str]:
    return {name: state for name, (state, _) in look(discoverer, **how).items()}


def test_every_child_is_a_dataset_and_looking_again_finds_what_has_changed(registry: Registry, folder: Path) -> None:
    write(folder / "a.csv")
    write(folder / "b" / "0.csv")
    write(folder / "c.penstock.yaml", text="path: b\nname: described\ntask: sft")
    discoverer = Discoverer(folder, 0, registry)
    assert states(discoverer) == {"a": "new", "described": "new"}
    assert registry.get("described").task == "sft"
    assert states(discoverer) == {"a": "unchanged", "described": "unchanged"}
    write(folder / "a.csv", rows=5)
    write(folder / "d.csv")
    assert states(discoverer) == {"a": "new version", "described": "unchanged", "d": "new"}
    assert registry.get("a").manifest.rows == 5
    write(folder / "c.penstock.yaml", text="path: b\nname: described\ntask: rl")
    assert states(discoverer)["described"] == "unchanged"
    assert registry.get("described").task == "rl"


def test_a_child_that_cannot_be_registered_is_told_once_and_stops_no_other(
    registry: Registry, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder / "a.png")
    write(folder / "b.parquet", text="no parquet")
    write(folder / "c.penstock.yaml", text="path: z.csv\nrows: 4")
    (folder / "empty").mkdir()
    write(folder / "z.csv")
    write(folder / "zz.csv")
    discoverer = Discoverer(folder, 0, registry)
    with caplog.at_level(logging.INFO):
        found = look(discoverer)
    assert {name: state for name, (state, _) in found.items()} == {
        "a.png": "refused",
        "b": "refused",
        "c": "refused",
        "empty": "refused",
        "zz": "new",
    }
    assert "Readable are" in found["a.png"][1]
    assert "b.parquet" in found["b"][1]
    assert "rows: 4 declared, 3 found" in found["c"][1]
    assert "no files there" in found["empty"][1]
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 4
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert look(discoverer)["c"] == found["c"]
    assert caplog.records == []
    write(folder / "c.penstock.yaml", text="path: z.csv\nrows: 3")
    assert states(discoverer)["c"] == "new"


def test_what_was_refused_is_not_scanned_again_until_it_changes(
    registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "b.parquet", text="no parquet")
    discoverer = Discoverer(folder, 0, registry)
    asked = []
    register = Registry.register
    monkeypatch.setattr(Registry, "register", lambda *a, **k: asked.append(a[1]) or register(*a, **k))  # type: ignore[func-returns-value]
    for _ in range(3):
        assert states(discoverer) == {"b": "refused"}
    assert asked == ["b"]
    write(folder / "b.parquet", text="still no parquet")
    assert states(discoverer) == {"b": "refused"}
    assert asked == ["b", "b"]


def test_two_children_of_one_name_are_both_refused(registry: Registry, folder: Path) -> None:
    write(folder / "a.csv")
    write(folder / "a.tsv")
    write(folder / "b.csv")
    discoverer = Discoverer(folder, 0, registry)
    found = asyncio.run(discoverer.look())
    assert [(child.name, child.state) for child in found.children] == [("a", "refused"), ("a", "refused"), ("b", "new")]
    assert found.children[0].reason == ("a.csv and a.tsv would both be called 'a': rename one, or name it by a spec")
    write(folder / "a.penstock.yaml", text="name: other\npath: a.tsv")
    assert states(discoverer) == {"a": "new", "other": "new", "b": "unchanged"}


def test_a_name_that_other_data_holds_is_not_taken_over(registry: Registry, folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "mine.csv")
    registry.register("a", str(tmp_path / "mine.csv"))
    write(folder / "a.csv", rows=9)
    discoverer = Discoverer(folder, 0, registry)
    held = f"the name 'a' is held by {tmp_path}/mine.csv: remove that dataset, or name this by a spec"
    assert look(discoverer) == {"a": ("refused", held)}
    assert registry.get("a").manifest.rows == 3
    (tmp_path / "mine.csv").unlink()  # it moved here
    assert states(discoverer) == {"a": "new version"}


def test_a_child_that_vanished_stays_listed_and_is_told(
    registry: Registry, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder / "a.csv")
    write(folder / "b" / "0.csv")
    write(tmp_path / "elsewhere.csv")
    registry.register("elsewhere", str(tmp_path / "elsewhere.csv"))
    discoverer = Discoverer(folder, 0, registry)
    look(discoverer)
    shutil.rmtree(folder / "b")
    (tmp_path / "elsewhere.csv").unlink()  # none of this folder's
    assert look(discoverer) == {
        "a": ("unchanged", ""),
        "b": ("gone", "its data is gone: put it back, or remove the dataset"),
    }
    assert f"{folder}/b: gone: its data is gone" in caplog.text
    assert "b" in [d.name for d in registry.list()]
    write(folder / "b" / "0.csv")
    assert states(discoverer) == {"a": "unchanged", "b": "unchanged"}
    registry.remove("b")
    assert states(discoverer)["b"] == "new"


def test_a_look_from_time_to_time_leaves_alone_what_is_being_written(registry: Registry, folder: Path) -> None:
    write(folder / "a.csv")
    write(folder / "old.csv")
    write(folder / "future.csv")
    os.utime(folder / "old.csv", (1, 1))
    os.utime(folder / "future.csv", (time.time() + 1e6,) * 2)
    discoverer = Discoverer(folder, 0, registry)
    found = look(discoverer, settled=True)
    assert {name: state for name, (state, _) in found.items()} == {"a": "waiting", "old": "new", "future": "new"}
    assert "it was written to 0." in found["a"][1]
    assert states(discoverer)["a"] == "new"  # when asked to, at once


def test_it_looks_from_time_to_time_between_start_and_stop(registry: Registry, folder: Path) -> None:
    async def wait_for(name: str) -> None:
        async with asyncio.timeout(10):
            while name not in registry.newest():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def run() -> None:
        await Discoverer(folder, 0.02, registry).stop()  # without start
        discoverer = Discoverer(folder, 0.02, registry)
        discoverer.start()
        write(folder / "a.csv")
        os.utime(folder / "a.csv", (1, 1))
        await wait_for("a")
        shutil.rmtree(folder)  # an error of one look does not end them
        await asyncio.sleep(0.1)
        write(folder / "b.csv")
        os.utime(folder / "b.csv", (1, 1))
        await wait_for("b")
        await discoverer.stop()
        await discoverer.stop()
        write(folder / "c.csv")
        os.utime(folder / "c.csv", (1, 1))
        await asyncio.sleep(0.1)
        assert "c" not in registry.newest()

    asyncio.run(run())


def test_without_a_folder_or_where_it_is_gone_it_says_so(registry: Registry, folder: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"this server has no folder of datasets: start it with --discover DIR"):
        asyncio.run(Discoverer(None, 0, registry).look())
    folder.rmdir()
    with pytest.raises(SourceUnreadable, match="cannot be listed"):
        asyncio.run(Discoverer(folder, 0, registry).look())


def test_what_was_said_by_hand_stays_where_no_spec_says_otherwise(registry: Registry, folder: Path) -> None:
    write(folder / "a.csv")
    discoverer = Discoverer(folder, 0, registry)
    look(discoverer)
    registry.register("a", str(folder / "a.csv"), Declaration(task="sft"))
    assert states(discoverer) == {"a": "unchanged"}
    assert registry.get("a").task == "sft"
