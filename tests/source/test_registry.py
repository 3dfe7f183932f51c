import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_service.core.declaration import Declaration
from penstock_service.core.errors import InvalidRequest, NotFound, SourceChanged, SourceUnreadable
from penstock_service.source.format import ChunkLimits
from penstock_service.source.registry import Registry
from penstock_service.source.unchanged import check_unchanged


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    opened = Registry(tmp_path / "state")
    yield opened
    opened.close()


def make(tmp_path: Path, name: str, rows: int = 3) -> Path:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    (folder / "a.csv").write_text("x\n" + "".join(f"{i}\n" for i in range(rows)))
    return folder


def folders(tmp_path: Path) -> int:
    return len(list((tmp_path / "state" / "manifests").iterdir()))


def test_what_was_registered_is_found_again_by_another_registry(tmp_path: Path, registry: Registry) -> None:
    data = make(tmp_path, "d")
    made = registry.register("digits", str(data), Declaration(description="Some digits", tags=("small", "demo")))
    registry.close()
    again = Registry(tmp_path / "state")
    got = again.get("digits")
    again.close()
    assert (got.name, got.version, got.root, got.path) == ("digits", made.version, str(data), str(data))
    assert (got.description, got.tags, got.schema) == ("Some digits", ("small", "demo"), made.schema)
    assert got.manifest.shards.equals(made.manifest.shards)
    assert got.manifest.slices.equals(made.manifest.slices)
    assert got.manifest.rows == 3
    assert got.registered_at


def test_the_same_content_is_the_same_version_and_other_content_a_new_one(tmp_path: Path, registry: Registry) -> None:
    data = make(tmp_path, "d")
    first = registry.register("d", str(data), Declaration(description="kept", tags=("t",)))
    assert registry.register("d", str(data)).version == first.version
    make(tmp_path, "d", rows=4)
    second = registry.register("d", str(data))
    assert second.version != first.version
    assert (second.description, second.tags) == ("kept", ("t",))
    assert registry.get("d").version == second.version
    assert registry.get(f"d@{first.version}").manifest.rows == 3
    assert registry.get(f"d@{first.version[:6]}").version == first.version
    assert [d.version for d in registry.list()] == [second.version]
    make(tmp_path, "d", rows=3)
    assert registry.register("d", str(data)).version == first.version
    assert registry.get("d").version == first.version


def test_unchanged_files_are_not_scanned_again_under_any_name(tmp_path: Path, registry: Registry) -> None:
    data = make(tmp_path, "d")
    scans: list[int] = []

    def progress(done: int, total: int, shards: int, of: int) -> None:
        scans.append(shards)

    registry.register("d", str(data), progress=progress)
    assert scans
    scans.clear()
    registry.register("d", str(data), progress=progress)
    other = registry.register("e", str(data), progress=progress)
    assert not scans
    assert folders(tmp_path) == 1
    registry.remove("d")
    assert registry.get("e").version == other.version
    os.utime(data / "a.csv", (1, 1))
    assert registry.register("e", str(data), progress=progress).version == other.version
    assert scans
    assert folders(tmp_path) == 1


def test_other_chunk_limits_cut_anew_in_the_same_version(tmp_path: Path, registry: Registry) -> None:
    data = make(tmp_path, "d")
    first = registry.register("d", str(data))
    small = Registry(tmp_path / "state", ChunkLimits(rows=1))
    second = small.register("d", str(data))
    small.close()
    assert (first.manifest.chunks, second.manifest.chunks) == (1, 3)
    assert first.version == second.version
    assert first.manifest.slices.num_rows == 1  # still readable, though its folder is gone


def test_an_unknown_name_gets_the_nearest_and_the_count(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(NotFound, match="no dataset 'x': none is registered yet"):
        registry.get("x")
    data = make(tmp_path, "d")
    for name in ("titanic", "titan", "digits"):
        registry.register(name, str(data))
    with pytest.raises(
        NotFound, match=r"no dataset 'titanik' among the 3 registered\. Did you mean titanic or titan\?"
    ):
        registry.get("titanik")
    with pytest.raises(NotFound, match=r"There are digits, titan, titanic\."):
        registry.get("zzzz")
    version = registry.get("titan").version
    with pytest.raises(NotFound, match=f"'titan' has no version 'zz'. It has 1, the newest first: {version}"):
        registry.get("titan@zz")
    with pytest.raises(NotFound, match="titanik"):
        registry.remove("titanik")


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a@b", "a/b", "é", "a" * 129])
def test_names_are_checked_with_the_rule_in_the_error(name: str, tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(InvalidRequest, match="1 to 128 letters"):
        registry.register(name, str(make(tmp_path, "d")))


def test_search_looks_at_name_description_tags_and_columns(tmp_path: Path, registry: Registry) -> None:
    data = make(tmp_path, "d")
    registry.register("titanic", str(data), Declaration(description="Who Survived", tags=("tabular",)))
    registry.register("digits", str(data), Declaration(tags=("image", "tabular")))

    def names(text: str = "", tag: str = "") -> list[str]:
        return [d.name for d in registry.search(text=text, tag=tag)]

    assert names() == ["digits", "titanic"]
    assert names("survived") == ["titanic"]
    assert names("TITAN") == ["titanic"]
    assert names("x") == ["digits", "titanic"]
    assert names(tag="tabular") == ["digits", "titanic"]
    assert names("titanic", "image") == []
    assert names(tag="tab") == []


def test_removing_forgets_a_version_or_all_and_leaves_the_files(tmp_path: Path, registry: Registry) -> None:
    data = make(tmp_path, "d")
    first = registry.register("d", str(data))
    make(tmp_path, "d", rows=5)
    registry.register("d", str(data))
    assert registry.remove(f"d@{first.version}") == 1
    assert folders(tmp_path) == 1
    assert registry.get("d").manifest.rows == 5
    assert registry.remove("d") == 1
    assert registry.list() == []
    assert folders(tmp_path) == 0
    assert (data / "a.csv").exists()


def test_a_crash_between_manifest_and_row_leaves_nothing_that_is_seen(tmp_path: Path, registry: Registry) -> None:
    orphan = tmp_path / "state" / "manifests" / "crashed.tmp"
    orphan.mkdir()
    os.utime(orphan, (1, 1))
    registry.register("d", str(make(tmp_path, "d")))
    assert not orphan.exists()
    assert [d.name for d in registry.list()] == ["d"]


def test_a_lost_manifest_is_made_again_by_registering(tmp_path: Path, registry: Registry) -> None:
    data = make(tmp_path, "d")
    version = registry.register("d", str(data)).version
    for lost in ("", "splits.json", "train/shards.arrow", "train/slices.arrow", "train/scans.arrow"):
        (folder,) = (tmp_path / "state" / "manifests").iterdir()
        if (folder / lost).is_dir():
            shutil.rmtree(folder)
        else:
            (folder / lost).unlink()
        if lost == "train/scans.arrow":  # only the next scan would miss it
            (data / "b.csv").write_text("x\n")
        assert registry.register("d", str(data)).manifest.rows == 3
    assert registry.get(f"d@{version}").manifest.rows == 3


def test_many_threads_may_register_read_and_remove(tmp_path: Path, registry: Registry) -> None:
    data = [make(tmp_path, f"d{i}", rows=i + 1) for i in range(4)]
    failures: list[BaseException] = []

    def work(me: int) -> None:
        try:
            for _ in range(5):
                registry.register(f"n{me % 2}", str(data[me % 4]))
                registry.list()
                registry.search(text="n")
                registry.register(f"own{me}", str(data[0]))
                registry.remove(f"own{me}")
        except BaseException as error:  # noqa: BLE001  a thread's failure is the test's
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [d.name for d in registry.list()] == ["n0", "n1"]


def test_the_database_is_written_through_to_disk_and_knows_its_layout(tmp_path: Path, registry: Registry) -> None:
    registry.register("d", str(make(tmp_path, "d")))
    file = tmp_path / "state" / "registry.sqlite"
    other = sqlite3.connect(file)
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert other.execute("PRAGMA user_version").fetchone() == (3,)
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(SourceUnreadable, match="layout 99, this release knows 3"):
        Registry(tmp_path / "state")


def test_a_state_folder_that_holds_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "registry.sqlite").write_text("this is no database, it is a text of some length" * 20)
    with pytest.raises(SourceUnreadable, match=r"registry\.sqlite cannot be opened"):
        Registry(tmp_path / "state")
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceUnreadable, match="cannot be made"):
        Registry(tmp_path / "file")


def test_notes_of_the_scan_are_kept(tmp_path: Path, registry: Registry) -> None:
    data = make(tmp_path, "d")
    (data / "b.png").write_text("")
    registry.register("d", str(data))
    assert registry.notes("d") == ("ignored: 1 .png",)


def test_changed_files_are_listed_and_a_touched_one_is_no_change(tmp_path: Path, registry: Registry) -> None:
    data = tmp_path / "d"
    data.mkdir()
    for i in range(9):
        (data / f"{i}.csv").write_text(f"x\n{i}\n")
    dataset = registry.register("d", str(data))
    check_unchanged(dataset)
    os.utime(data / "0.csv", (1, 1))
    (data / "new.csv").write_text("x\n1\n")
    check_unchanged(dataset)
    (data / "1.csv").unlink()
    (data / "2.csv").write_text("x\n22\n")
    (data / "3.csv").write_text("x\n4\n")
    with pytest.raises(SourceChanged) as error:
        check_unchanged(dataset)
    text = str(error.value)
    assert text.startswith(f"3 of 9 files of d@{dataset.version} in {data} have changed: ")
    assert (
        "1.csv (gone), 2.csv (4 bytes when registered, 5 now), 3.csv (other content); 1 new: new.csv. Put them back"
        in text
    )
    assert f"or register d again (penstock datasets register d={data}): that makes a new version." in text
    for i in range(9):
        (data / f"{i}.csv").unlink(missing_ok=True)
    with pytest.raises(SourceChanged, match=r"9 of 9 .* 4\.csv \(gone\) and 4 more"):
        check_unchanged(dataset)


def test_a_new_file_is_scanned_alone_and_the_result_is_that_of_a_whole_scan(tmp_path: Path, registry: Registry) -> None:
    data = tmp_path / "d"
    data.mkdir()
    for i in range(5):
        (data / f"{i}.jsonl").write_text(f'{{"x": {i}}}\n' * 3)
    (data / "test.csv").write_text("y\n1\n")
    registry.register("d", str(data))
    (data / "2a.jsonl").write_text('{"x": 0.5, "z": "new"}\n')
    (data / "3.jsonl").write_text('{"x": 33}\n')
    (data / "4.jsonl").unlink()
    looked_at: list[tuple[int, int, int, int]] = []
    registry.register("d", str(data), progress=lambda *numbers: looked_at.append(numbers))
    assert looked_at[-1] == (33, 33, 2, 2)  # bytes and shards of the two files that are new or changed
    other = Registry(tmp_path / "other")
    other.register("d", str(data))
    for split in ("train", "test"):
        again, whole = registry.get("d", split), other.get("d", split)
        assert (again.version, again.schema, again.splits) == (whole.version, whole.schema, whole.splits)
        assert again.manifest.shards.equals(whole.manifest.shards)
        assert again.manifest.slices.equals(whole.manifest.slices)
    assert registry.notes("d") == other.notes("d")
    other.close()


def test_what_another_release_scanned_otherwise_is_scanned_again(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(tmp_path, "d")
    registry.register("d", str(data))
    scans: list[int] = []
    monkeypatch.setattr("penstock_service.source.manifests.SEMANTICS", {"csv": 2})
    for _ in range(2):
        registry.register("d", str(data), progress=lambda *numbers: scans.append(numbers[2]))
    assert scans.count(1) == 1  # the second time it is known
