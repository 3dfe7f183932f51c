import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from penstock_service.chunks import sync as chunk_sync
from penstock_service.chunks.file import Place, seal, write
from penstock_service.chunks.folder import Folder
from penstock_service.chunks.identity import is_dead, own_name
from penstock_service.chunks.shelf import Entry
from penstock_service.chunks.store import Store, Want
from penstock_service.core.dataset import Slice
from tests.chunks.makers import value

ONE, TWO = ("one", "1", "/"), ("two", "1", "/")
VALUE = value((Slice("s1", "toy", "f1", 0, 0, 0, 10, 0, 0),))
MOUNT = shutil.which("mount")
SIZE = seal("a", VALUE).size


def put(store: Store, key: str, owner: tuple[str, str, str] = ONE, want: Want | None = "demand") -> Entry | None:
    """As a worker does it. None: there was no room."""
    trouble = ""
    for _ in range(2):
        sealed = seal(key, VALUE)
        place = store.place(key, sealed.size, owner, want, disk=not trouble)
        if place is None:
            return None
        try:
            write(sealed, place)
        except OSError as error:
            trouble = error.strerror or str(error)
            store.abandon(place, trouble)
        else:
            entry = store.settle(place, owner)
            store.rack.release([entry])
            store.flush()
            return entry
    raise AssertionError(trouble)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


Open = Callable[..., Store]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Stores that are stopped in the end."""
    stores: list[Store] = []
    (tmp_path / "memory").mkdir()

    def make(store_bytes: int = 1 << 20, memory_bytes: int = 1 << 20, **settings: int) -> Store:
        store = Store(tmp_path / "store", store_bytes, memory_bytes, memory_folders=[tmp_path / "memory"], **settings)
        store.start()
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.stop()
    assert names(tmp_path / "memory") == set()


def test_a_chunk_is_found_again_by_the_next_server(opened: Open) -> None:
    store = opened()
    put(store, "a")
    store.stop()
    [found, missing] = opened().find(ONE, ["a", "b"])
    assert found
    assert found.info == seal("a", VALUE).info
    assert found.rows
    assert found.rows.equals(VALUE.rows)
    assert missing is None


def test_the_cap_is_never_exceeded(opened: Open, tmp_path: Path) -> None:
    store = opened(store_bytes=3 * SIZE + 10, memory_bytes=0)
    for n in range(10):
        put(store, f"k{n}", (f"d{n}", "1", "/"))
        used = sum(p.stat().st_size for p in (tmp_path / "store").iterdir())
        assert used == store.numbers().store.used <= 3 * SIZE + 10
    assert store.numbers().evicted == 7


def test_within_one_version_what_is_there_stays(opened: Open, tmp_path: Path) -> None:
    store = opened(store_bytes=2 * SIZE, memory_bytes=0)
    assert [put(store, key) is not None for key in "abc"] == [True, True, False]
    assert names(tmp_path / "store") == {"a.arrow", "b.arrow"}


def test_chunks_found_at_start_stay_if_their_version_is_the_one_that_asks(opened: Open, tmp_path: Path) -> None:
    first = opened(store_bytes=2 * SIZE, memory_bytes=0)
    put(first, "a"), put(first, "b")
    first.stop()
    store = opened(store_bytes=2 * SIZE, memory_bytes=0)
    store.rack.know(ONE, lambda: ["a", "b", "c"])
    assert put(store, "c") is None
    store.rack.know(TWO, lambda: ["x"])
    assert put(store, "x", TWO) is not None
    assert names(tmp_path / "store") == {"b.arrow", "x.arrow"}


def test_a_leased_chunk_outlives_every_other(opened: Open, tmp_path: Path) -> None:
    store = opened(store_bytes=2 * SIZE, memory_bytes=0)
    put(store, "a")
    [leased] = store.rack.take(ONE, ["a"]) or []
    put(store, "x", TWO), put(store, "y", TWO)
    assert names(tmp_path / "store") == {"a.arrow", "x.arrow"}
    store.rack.give_back(ONE, [leased])
    assert put(store, "y", TWO) is not None
    assert names(tmp_path / "store") == {"x.arrow", "y.arrow"}
    assert store.rack.take(ONE, ["a"]) is None
    assert store.numbers().store.used == 2 * SIZE


def test_memory_that_is_shed_is_the_least_recently_used_that_nobody_leases(opened: Open) -> None:
    store = opened(store_bytes=0, memory_bytes=10 * SIZE)
    for key in "abcd":
        put(store, key, ONE if key < "c" else TWO)
    assert store.rack.in_memory() == {ONE: 2 * SIZE, TWO: 2 * SIZE}
    [leased] = store.rack.take(ONE, ["a"]) or []
    store.rack.shed_memory(SIZE + 1)
    assert store.rack.in_memory() == {ONE: SIZE, TWO: SIZE}
    assert store.numbers().memory.used == 2 * SIZE
    store.rack.shed_memory(0)
    store.rack.shed_memory(-SIZE)
    assert store.rack.take(TWO, ["d"]) is not None
    store.rack.shed_memory(100 * SIZE)
    assert store.rack.in_memory() == {ONE: SIZE, TWO: SIZE}  # both are leased
    store.rack.give_back(ONE, [leased])
    store.rack.shed_memory(100 * SIZE)
    assert store.rack.in_memory() == {TWO: SIZE}


def test_what_was_lent_stays_readable_when_the_store_stops(opened: Open) -> None:
    store = opened()
    put(store, "a")
    [leased] = store.rack.take(ONE, ["a"]) or []
    rows = leased.rows
    store.stop()
    assert rows
    assert rows.equals(VALUE.rows)


def test_only_so_many_mappings_stay_open_and_leased_ones_all(opened: Open) -> None:
    store = opened(max_open=3)
    for key in "abcdef":
        put(store, key)
    assert store.numbers().open == 3
    found = store.find(ONE, list("abcdef"))
    assert store.numbers().open == 6
    assert all(entry and entry.rows is not None for entry in found)
    store.rack.release(entry for entry in found if entry)
    put(store, "g")
    assert store.numbers().open == 3


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_when_the_disk_refuses_chunks_go_through_memory(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    whole = pa.OSFile

    def refuse(path: str, mode: str) -> object:
        if Path(path).parent == tmp_path / "store":
            raise OSError(number, os.strerror(number))
        return whole(path, mode)

    monkeypatch.setattr("pyarrow.OSFile", refuse)
    entry = put(store, "a")
    assert entry
    assert entry.memory
    assert entry.rows
    assert entry.rows.equals(VALUE.rows)
    assert store.find(ONE, ["a"]) == [entry]
    numbers = store.numbers()
    assert (numbers.store.used, numbers.memory.used) == (0, SIZE)
    assert os.strerror(number) in numbers.trouble
    assert os.strerror(number) in caplog.text
    assert names(tmp_path / "store") == set()
    [folder] = (tmp_path / "memory").iterdir()
    assert list(folder.iterdir()) == []  # only the mapping holds it


def test_what_cannot_be_synced_is_forgotten_and_made_again(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(chunk_sync, "sync", refuse)
    store = opened()
    assert put(store, "a")
    numbers = store.numbers()
    assert (numbers.store.used, names(tmp_path / "store")) == (0, set())
    assert "Input/output error" in numbers.trouble
    assert store.find(ONE, ["a"]) == [None]
    entry = put(store, "a")
    assert entry
    assert entry.memory


def test_a_chunk_is_used_before_it_is_synced_and_has_its_last_name_only_afterwards(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_sync = threading.Event()
    whole = chunk_sync.sync

    def late(descriptor: int) -> None:
        assert may_sync.wait(30)
        whole(descriptor)

    monkeypatch.setattr(chunk_sync, "sync", late)
    store = opened(store_bytes=2 * SIZE, memory_bytes=0, max_open=1)
    for key, owner in (("a", ONE), ("b", TWO)):
        sealed = seal(key, VALUE)
        place = store.place(key, sealed.size, owner, "demand")
        assert place
        write(sealed, place)
        store.rack.release([store.settle(place, owner)])
    assert all(name.endswith(".tmp") for name in names(tmp_path / "store"))
    assert len(names(tmp_path / "store")) == 2
    [leased] = store.rack.take(ONE, ["a"]) or []
    assert leased.rows
    assert leased.rows.equals(VALUE.rows)
    store.rack.give_back(ONE, [leased])
    place = store.place("c", SIZE, ("three", "1", "/"), "demand")  # what is not synced yet gives way like the rest
    assert place
    assert len(names(tmp_path / "store")) == 1
    store.abandon(place)
    may_sync.set()
    store.flush()
    assert names(tmp_path / "store") == {"a.arrow"}


def test_what_a_slow_disk_could_not_take_before_the_stop_is_not_left_behind(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing, may_sync = threading.Event(), threading.Event()

    def late(descriptor: int) -> None:
        syncing.set()
        assert may_sync.wait(30)

    monkeypatch.setattr(chunk_sync, "sync", late)
    store = opened()
    for key in "ab":
        sealed = seal(key, VALUE)
        place = store.place(key, sealed.size, ONE, "demand")
        assert place
        write(sealed, place)
        store.rack.release([store.settle(place, ONE)])
    assert syncing.wait(30)
    stopping = threading.Thread(target=store._syncer.stop, args=(0.0,))
    stopping.start()
    while not store._syncer._stopping:
        pass
    may_sync.set()
    stopping.join()
    assert names(tmp_path / "store") == {"a.arrow"}


def test_a_store_that_cannot_be_made_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file" / "store", 1 << 20, 1 << 20, memory_folders=[tmp_path])
    store.start()
    entry = put(store, "a")
    assert entry
    assert entry.memory
    assert "Not a directory" in caplog.text
    store.stop()
    store.stop()
    assert names(tmp_path) == {"file"}


def test_a_store_folder_that_is_deleted_is_made_again(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_service.chunks.store._REST_SECONDS", 0.0)
    store = opened()
    (tmp_path / "store").rmdir()
    assert put(store, "a")
    assert put(store, "b")
    assert names(tmp_path / "store") == {"b.arrow"} or names(tmp_path / "store") == {"a.arrow", "b.arrow"}
    assert store.numbers().trouble == ""


def test_memory_is_bounded_and_a_hint_displaces_nothing(opened: Open) -> None:
    store = opened(store_bytes=0, memory_bytes=2 * SIZE)
    for key in "ab":
        assert put(store, key)
    assert put(store, "c", want="hint") is None
    assert put(store, "c", want=None) is None
    store.find(ONE, ["a"])  # pinned, and used last
    assert put(store, "c")
    assert [entry is not None for entry in store.find(ONE, ["a", "b", "c"])] == [True, False, True]
    assert put(store, "d") is None
    assert store.numbers().memory.used == 2 * SIZE
    assert "all in use" in store.room()


def test_memory_of_a_version_that_nobody_uses_is_free(opened: Open) -> None:
    store = opened(store_bytes=0)
    put(store, "a"), put(store, "b", TWO)
    store.rack.drop_memory(ONE)
    assert [entry is not None for entry in store.find(ONE, ["a", "b"])] == [False, True]
    assert store.numbers().memory.used == SIZE


def test_a_torn_file_is_removed_and_counted(opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = opened()
    put(first, "a")
    first.stop()
    path = tmp_path / "store" / "a.arrow"
    path.write_bytes(path.read_bytes()[:-20])
    store = opened()
    assert store.find(ONE, ["a"]) == [None]
    assert (store.numbers().bad_files, store.numbers().store.used) == (1, 0)
    assert names(tmp_path / "store") == set()
    assert "made again" in caplog.text
    assert put(store, "a")


def test_a_file_that_vanished_is_a_miss(opened: Open, tmp_path: Path) -> None:
    first = opened()
    put(first, "a")
    first.stop()
    store = opened()
    (tmp_path / "store" / "a.arrow").unlink()
    assert store.find(ONE, ["a"]) == [None]
    assert store.numbers().store.used == 0


def test_two_servers_on_one_folder_find_what_the_other_made(opened: Open) -> None:
    here, there = opened(), opened()
    put(here, "a")
    [found] = there.find(ONE, ["a"])
    assert found
    assert there.numbers().store.used == SIZE
    there.discard("a")
    [leased] = here.rack.take(ONE, ["a"]) or []
    assert leased.rows
    assert leased.rows.equals(VALUE.rows)


def test_two_servers_keep_to_one_cap_with_what_the_other_wrote(opened: Open, tmp_path: Path) -> None:
    here, there = (opened(store_bytes=4 * SIZE, memory_bytes=0) for _ in range(2))
    for n in range(12):
        store = (here, there)[n % 2]
        put(store, f"k{n}", (f"d{n}", "1", "/"))
        assert sum(p.stat().st_size for p in (tmp_path / "store").iterdir()) <= 4 * SIZE


def test_a_lower_cap_holds_from_the_start(opened: Open, tmp_path: Path) -> None:
    first = opened()
    for key in "abcd":
        put(first, key)
        os.utime(tmp_path / "store" / f"{key}.arrow", ns=(ord(key), ord(key)))
    first.stop()
    opened(store_bytes=2 * SIZE)
    assert names(tmp_path / "store") == {"c.arrow", "d.arrow"}


def dead_name() -> str:
    """Of a process that has ended."""
    code = "from penstock_service.chunks.identity import own_name; print(own_name())"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_a_start_sweeps_what_dead_processes_left_and_nothing_else(opened: Open, tmp_path: Path) -> None:
    dead, (namespace, pid, started) = dead_name(), own_name().split("-")
    assert is_dead(dead)
    living = [own_name(), f"{int(namespace) + 1}-{pid}-{started}", "who knows"]
    reused = f"{namespace}-{pid}-{int(started) - 1}"  # our id, but not our beginning
    folder = tmp_path / "store"
    folder.mkdir()
    for name in [dead, reused, *living]:
        (folder / f"key.{name}.0.tmp").touch()
        (tmp_path / "memory" / f"penstock-chunks-{name}.ab12").mkdir()
        (tmp_path / "memory" / f"penstock-chunks-{name}.ab12" / "key.arrow").touch()
    opened()
    assert names(folder) == {f"key.{name}.0.tmp" for name in living}
    assert names(tmp_path / "memory") == {f"penstock-chunks-{name}.ab12" for name in living}
    for path in (tmp_path / "memory").iterdir():
        (path / "key.arrow").unlink()
        path.rmdir()


KILLED = """
import os, sys
from pathlib import Path
from penstock_service.chunks import sync
from penstock_service.chunks.store import Store
from tests.chunks.test_store import put

sync.sync = lambda descriptor: os.kill(os.getpid(), 9)
store = Store(Path(sys.argv[1]), 1 << 20)
store.start()
put(store, "a")
"""


def test_kill_before_the_sync_leaves_a_temporary_file_that_the_next_start_sweeps(opened: Open, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "store")], check=False, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.returncode == -9
    [left] = names(tmp_path / "store")
    assert left.endswith(".tmp")
    store = opened()
    assert names(tmp_path / "store") == set()
    assert put(store, "a")


def test_reservations_that_come_to_nothing_are_given_back(opened: Open) -> None:
    store = opened(store_bytes=2 * SIZE)
    place = store.place("a", SIZE, ONE, "demand")
    assert isinstance(place, Place)
    assert store.numbers().store.used == SIZE
    store.abandon(place)
    assert store.numbers().store.used == 0


def test_a_chunk_that_two_made_counts_once(opened: Open) -> None:
    store = opened()
    put(store, "a"), put(store, "a", TWO)
    assert (store.numbers().store.used, store.numbers().chunks) == (SIZE, 1)


def test_a_file_that_cannot_be_unlinked_stays_counted(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(store_bytes=SIZE, memory_bytes=0)
    put(store, "a")
    monkeypatch.setattr("penstock_service.chunks.sync.remove", lambda path: False)
    place = store.place("x", SIZE, TWO, "demand")
    assert isinstance(place, Place)
    monkeypatch.undo()
    store.abandon(place)
    assert store.numbers().store.used == SIZE


def test_places_are_named_after_their_process(tmp_path: Path) -> None:
    folder = Folder(tmp_path, durable=True)
    places = [folder.place("key", 1) for _ in range(2)]
    assert len({p.temp for p in places}) == 2
    assert all(own_name() in p.temp for p in places)


def test_a_file_that_still_went_through_does_not_hide_that_the_disk_is_full(opened: Open) -> None:
    store = opened()
    place = store.place("a", 1000, ONE, "demand")
    sealed = seal("b", VALUE)
    late = store.place("b", sealed.size, ONE, "demand")
    assert place
    assert late
    store.abandon(place, "No space left on device")
    write(sealed, late)
    store.rack.release([store.settle(late, ONE)])
    assert "No space left" in store.numbers().trouble
    assert not store.durable


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        not MOUNT
        or subprocess.run(
            [MOUNT, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run([shutil.which("umount") or "umount", "--lazy", str(disk)], check=True)


def test_a_disk_that_is_really_full_and_then_really_read_only(
    tiny_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_service.chunks.store._REST_SECONDS", 0.0)
    store = Store(tiny_disk / "store", 1 << 30, 1 << 20, memory_folders=[tmp_path])
    store.start()
    entries = [put(store, f"k{n}") for n in range(60)]
    assert [entry.memory for entry in entries if entry] == sorted(entry.memory for entry in entries if entry)
    assert "No space left" in store.numbers().trouble
    on_disk = [entry.key for entry in entries if entry and not entry.memory]
    assert 0 < len(on_disk) < 60
    assert names(tiny_disk / "store") == {f"{key}.arrow" for key in on_disk}
    subprocess.run([MOUNT or "mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    again = Store(tiny_disk / "store", 1 << 30, 1 << 20, memory_folders=[tmp_path])
    again.start()
    found = again.find(ONE, on_disk)
    assert all(entry and entry.rows and entry.rows.equals(VALUE.rows) for entry in found)
    entry = put(again, "new")
    assert entry
    assert entry.memory
    assert "Read-only" in again.numbers().trouble
    store.stop()
    again.stop()
