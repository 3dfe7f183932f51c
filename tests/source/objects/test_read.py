"""Real objects on a real S3 protocol server: what is read, what changes, what fails."""

import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from penstock_service.core.dataset import DatasetVersion, ReadTask
from penstock_service.core.errors import InvalidRequest, ServiceError, SourceChanged, SourceUnreadable
from penstock_service.source.discover import discover
from penstock_service.source.format import ChunkLimits
from penstock_service.source.read import read_task
from penstock_service.source.scan import Scanned, ScannedSplit, scan, version_of
from penstock_service.source.stores import Stores
from penstock_service.source.unchanged import check_unchanged
from tests.objectstore import ObjectStore, Proxy, Request
from tests.source.files import SUFFIXES, WRITERS, tasks

LIMITS = ChunkLimits(rows=700, bytes=1 << 20)
TEXT = {s for s in SUFFIXES if not s.startswith((".parquet", ".arrow"))}


def table(rows: int = 3000) -> pa.Table:
    columns = {
        "n": range(rows),
        "x": [i / 3 + 0.1 for i in range(rows)],
        "text": [f"t{i}" * (i % 7 + 1) for i in range(rows)],
    }
    return pa.table(columns)


def folder_of(suffix: str, where: Path) -> Path:
    (where / "sub").mkdir(parents=True)
    WRITERS[suffix](table(), where / f"a{suffix}")
    WRITERS[suffix](table(100), where / "sub" / f"b c%20é#{suffix}")
    return where


def scan_at(path: str, stores: Stores) -> tuple[str, Scanned]:
    found = discover(path, stores)
    return found.root, scan(found, LIMITS, threads=2, stores=stores)


def rows_at(root: str, scanned: Scanned, stores: Stores) -> list[dict[str, object]]:
    values = {c: v for task in tasks(root, scanned) for c, v in read_task(task, stores)}
    return [row for _, value in sorted(values.items()) for row in value.rows.to_pylist()]


def version_at(path: str, stores: Stores) -> DatasetVersion:
    root, scanned = scan_at(path, stores)
    return DatasetVersion("d", version_of(scanned.splits), root, scanned.schema, scanned.manifest)


def first_task(version: DatasetVersion) -> ReadTask:
    train = ScannedSplit("train", version.schema, version.manifest, ())
    return tasks(version.root, Scanned((train,), (), ()))[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_local_folder_and_its_copy_in_s3_give_the_same_rows_in_the_same_order(
    suffix: str, tmp_path: Path, store: ObjectStore
) -> None:
    folder = folder_of(suffix, tmp_path / "data")
    uri = store.upload(folder)
    here, there = scan_at(str(folder), store.stores), scan_at(uri, store.stores)
    assert there[0] == uri
    assert there[1].manifest.slices == here[1].manifest.slices  # the same chunks of the same rows
    assert there[1].schema == here[1].schema
    columns = ["path", "format", "size", "rows"] + (["fingerprint"] if suffix in TEXT else [])
    assert there[1].manifest.shards.select(columns) == here[1].manifest.shards.select(columns)
    same = version_of(there[1].splits) == version_of(here[1].splits)
    assert same == (suffix in TEXT)  # binary objects are known by their ETag
    assert rows_at(*there, store.stores) == rows_at(*here, store.stores) == table().to_pylist() + table(100).to_pylist()


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".arrows", ".csv", ".jsonl.gz", ".csv.zst"])
@pytest.mark.parametrize("trouble", ["500", "503", "reset", "cut"])
def test_requests_that_fail_now_and_then_are_made_again_and_nothing_is_lost(
    suffix: str, trouble: str, tmp_path: Path, store: ObjectStore
) -> None:
    folder = folder_of(suffix, tmp_path / "data")
    uri = store.upload(folder)
    failing = lambda _, number: trouble if number % 3 == 0 else ""  # noqa: E731
    with Proxy(store.endpoint, trouble=failing) as proxy:
        stores = store.through(proxy, range_bytes=16 << 10)
        assert rows_at(*scan_at(uri, stores), stores) == table().to_pylist() + table(100).to_pylist()
        assert len(proxy.requests) > 6


def test_several_ranges_are_in_flight_but_never_more_than_the_setting(tmp_path: Path, store: ObjectStore) -> None:
    (tmp_path / "data").mkdir()
    WRITERS[".csv"](table(60_000), tmp_path / "data" / "a.csv")
    uri = store.upload(tmp_path / "data")
    with Proxy(store.endpoint, latency=0.02) as proxy:
        stores = store.through(proxy, range_bytes=64 << 10, ranges=4)
        scan_at(uri, stores)
    assert proxy.most_at_once() == 4


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_an_object_that_changed_is_refused_by_name_before_and_while_it_is_read(
    suffix: str, tmp_path: Path, store: ObjectStore
) -> None:
    uri = store.upload(folder_of(suffix, tmp_path / "data"))
    version = version_at(uri, store.stores)
    check_unchanged(version, store.stores)
    store.put(f"data/a{suffix}", b"n,x\n1,2\n")
    with pytest.raises(
        SourceChanged, match=rf"1 of 2 files .* have changed: a{suffix} \(\d+ bytes when registered, 8 now"
    ):
        check_unchanged(version, store.stores)
    task = first_task(version)
    with pytest.raises(SourceChanged, match=rf"{uri}/a{suffix} has 8 bytes now"):
        list(read_task(task, store.stores))


def test_the_same_size_with_other_content_is_told_by_the_etag_even_in_the_same_second(
    tmp_path: Path, store: ObjectStore
) -> None:
    uri = store.upload(folder_of(".parquet", tmp_path / "data"))
    version = version_at(uri, store.stores)
    data = bytearray((tmp_path / "data" / "a.parquet").read_bytes())
    data[100] ^= 1
    store.put("data/a.parquet", bytes(data))
    task = first_task(version)
    with pytest.raises(SourceChanged, match=r"a\.parquet holds something else .*another ETag"):
        list(read_task(task, store.stores))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_the_same_content_written_anew_is_no_change(suffix: str, tmp_path: Path, store: ObjectStore) -> None:
    folder = folder_of(suffix, tmp_path / "data")
    version = version_at(store.upload(folder), store.stores)
    time.sleep(1.1)  # modified in another second
    store.upload(folder)
    check_unchanged(version, store.stores)


def test_an_object_that_is_gone_is_named(tmp_path: Path, store: ObjectStore) -> None:
    uri = store.upload(folder_of(".csv", tmp_path / "data"))
    version = version_at(uri, store.stores)
    store.delete("data/a.csv")
    with pytest.raises(SourceChanged, match=r"have changed: a\.csv \(gone\)"):
        check_unchanged(version, store.stores)
    task = first_task(version)
    with pytest.raises(SourceChanged, match=rf"{uri}/a\.csv is gone\. Put it back"):
        list(read_task(task, store.stores))


def test_an_object_that_goes_while_it_is_read_is_named(tmp_path: Path, store: ObjectStore) -> None:
    (tmp_path / "data").mkdir()
    WRITERS[".csv"](table(60_000), tmp_path / "data" / "a.csv")
    uri = store.upload(tmp_path / "data")

    def trouble(request: Request, _: int) -> str:
        if proxy.count("GET") < 5 or not request.range:
            return ""
        if proxy.count("GET") == 5:
            store.delete("data/a.csv")
        return "500"

    with Proxy(store.endpoint, trouble=trouble) as proxy:
        stores = store.through(proxy, range_bytes=64 << 10, ranges=1)
        with pytest.raises(SourceChanged, match=r"a\.csv is gone"):
            scan_at(uri, stores)


def test_many_objects_are_checked_by_listing_and_not_one_by_one(store: ObjectStore) -> None:
    for i in range(30):
        store.put(f"data/{i:03}.csv", b"n\n1\n")
    with Proxy(store.endpoint) as proxy:
        stores = store.through(proxy)
        version = version_at(store.uri("data"), stores)
        proxy.requests.clear()
        check_unchanged(version, stores)
        assert len(proxy.requests) == 1
        assert "list-type=2" in proxy.requests[0].path


def test_a_server_that_is_down_is_said_with_place_and_cure_and_does_not_hang(store: ObjectStore) -> None:
    with Proxy(store.endpoint) as proxy:
        down = store.through(proxy)
    began = time.monotonic()
    with pytest.raises(SourceUnreadable) as caught:
        discover(store.uri("data/*.csv"), down)
    assert time.monotonic() - began < 30
    assert store.uri("data/*.csv") in str(caught.value)
    assert "after 7 tries" in str(caught.value)
    assert "Check that the store is up and its endpoint right" in str(caught.value)


def test_a_server_that_never_answers_ends_with_the_time_out(tmp_path: Path, store: ObjectStore) -> None:
    uri = store.upload(folder_of(".csv", tmp_path / "data"))
    silent = lambda request, _: "silent" if request.range else ""  # noqa: E731
    with Proxy(store.endpoint, trouble=silent) as proxy:
        stores = store.through(proxy, read_timeout=1, retry=type(store.stores.retry)(1, 0.01, 0.01))
        began = time.monotonic()
        with pytest.raises(SourceUnreadable, match="could not be read after 2 tries"):
            scan_at(uri, stores)
        assert time.monotonic() - began < 15  # with the usual time-out it is 40


def test_access_denied_says_what_is_needed_and_is_not_tried_again(tmp_path: Path, store: ObjectStore) -> None:
    uri = store.upload(folder_of(".csv", tmp_path / "data"))
    with Proxy(store.endpoint, trouble=lambda *_: "403") as proxy:
        with pytest.raises(SourceUnreadable, match=r"access denied .*may list the bucket and get its objects"):
            discover(uri, store.through(proxy))
        assert len(proxy.requests) <= 2


def test_a_bucket_or_prefix_that_is_not_there_is_said_with_what_is(store: ObjectStore) -> None:
    with pytest.raises(ServiceError, match=r"s3://no-such-bucket-here.*there is no such bucket"):
        discover("s3://no-such-bucket-here/data", store.stores)
    store.put("data/a.csv", b"n\n1\n")
    with pytest.raises(
        InvalidRequest, match=r"/dada: no such object or prefix \(s3://bucket-\w+ holds 1 names: data\)"
    ):
        discover(store.uri("dada"), store.stores)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    import threading

    yield
    left = [t.name for t in threading.enumerate() if t.name.startswith(("ranges", "states", "scan"))]
    assert left == []
