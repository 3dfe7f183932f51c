import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock_service.core.errors import DataError, SourceChanged
from penstock_service.source.discover import Found, FoundFile, discover
from penstock_service.source.place import FileState
from penstock_service.source.scan import scan, version_of
from tests.source.files import SUFFIXES, WRITERS, check_manifest, read_all, scan_path

TABLE = pa.table({"n": list(range(100)), "s": [f"x{i}" for i in range(100)]})


def test_the_manifest_is_the_same_for_any_number_of_threads(tmp_path: Path) -> None:
    for i, suffix in enumerate(SUFFIXES):
        WRITERS[suffix](TABLE.slice(i), tmp_path / f"{i}{suffix}")
    one, four = (scan(discover(str(tmp_path)), threads=n) for n in (1, 4))
    check_manifest(one.manifest)
    assert one.manifest.shards.equals(four.manifest.shards)
    assert one.manifest.slices.equals(four.manifest.slices)
    assert one.schema == four.schema == TABLE.schema
    assert one.manifest.shards["path"].to_pylist() == [f.path for f in discover(str(tmp_path)).files]


def test_progress_ends_with_everything_done_and_never_goes_back(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"{i}.jsonl").write_text('{"a": 1}\n' * 1000)
    said: list[tuple[int, int, int, int]] = []
    scan(discover(str(tmp_path)), progress=lambda *numbers: said.append(numbers), threads=3)
    total = 20 * 9000
    assert said[-1] == (total, total, 20, 20)
    assert said == sorted(said)


def test_the_first_failure_ends_the_scan_and_leaves_no_thread(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    big = '{"a": 1}\n' * 3_000_000
    (tmp_path / "b.jsonl").write_text(big)
    (tmp_path / "c.jsonl").write_text(big)
    began = time.monotonic()
    with pytest.raises(DataError, match=r"a\.parquet"):
        scan(discover(str(tmp_path)), threads=3)
    assert time.monotonic() - began < 30
    assert not [t for t in threading.enumerate() if t.name.startswith("scan")]


def test_a_file_that_changes_while_it_is_scanned_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    found = Found(str(tmp_path), (FoundFile("a.csv", FileState(4, 17)),))
    with pytest.raises(SourceChanged, match=r"a\.csv was changed while it was scanned"):
        scan(found)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_version_follows_content_and_path_but_not_time_or_place(suffix: str, tmp_path: Path) -> None:
    versions = []
    for folder, name, rows in (("x", "a", 100), ("y", "a", 100), ("z", "b", 100), ("w", "a", 99)):
        (tmp_path / folder).mkdir()
        WRITERS[suffix](TABLE.slice(0, rows), tmp_path / folder / f"{name}{suffix}")
        scanned = scan_path(tmp_path / folder)
        versions.append(version_of(scanned.splits))
    assert versions[0] == versions[1]
    assert len(set(versions)) == 3


def test_the_fingerprint_of_a_big_binary_file_sees_its_footer_and_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": list(range(1_000_000))}), path, compression=None, use_dictionary=False)
    first = scan_path(tmp_path).manifest.shards["fingerprint"][0].as_py()
    data = bytearray(path.read_bytes())
    assert len(data) > 4_000_000
    data[100] ^= 1
    path.write_bytes(data)
    second = scan_path(tmp_path).manifest.shards["fingerprint"][0].as_py()
    assert first != second
    assert first.endswith(f"-{len(data):x}")


def test_thousands_of_tiny_files_become_few_chunks(tmp_path: Path) -> None:
    for i in range(2000):
        (tmp_path / f"{i:04}.json").write_text(f'{{"a": {i}}}')
    scanned = scan_path(tmp_path)
    check_manifest(scanned.manifest)
    assert (scanned.manifest.shards.num_rows, scanned.manifest.chunks) == (2000, 1)
    (value,) = read_all(tmp_path, scanned).values()
    assert value.rows.column(0).to_pylist() == list(range(2000))
