"""The chunk store of a real server: what is made ahead, what is saved, what operators are told."""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock
from tests.conftest import Serve
from tests.running import DidNotStart, Running

ROWS, SHARDS = 2000, 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return numbers(tmp_path / "numbers")


def numbers(folder: Path, first: int = 0, width: int = 32) -> Path:
    """Shards of rows that hold their own number and 32 values: each shard is a chunk of about 56 KB."""
    folder.mkdir()
    for shard in range(SHARDS):
        at = np.arange(shard * ROWS // SHARDS, (shard + 1) * ROWS // SHARDS) + first
        values = pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(at, width).astype(np.float64)), width)
        pq.write_table(pa.table({"n": at, "x": values}), folder / f"{shard:02}.parquet", compression="zstd")
    return folder


SMALL = ("--chunk-bytes", "64KiB", "--chunk-rows", ROWS // SHARDS)


def store(server: Running) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.get("/api/v1/store"))
    return found


def command(server: Running, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "penstock_service", *words, "--http", server.http],
        capture_output=True,
        text=True,
        timeout=60,
    )


def read(target: str, name: str, epochs: int = 1, **asked: Any) -> list[int]:
    with penstock.connect(target) as client, client.stream(name, batch_size=50, output="numpy", **asked) as stream:
        return sorted(int(n) for _ in range(epochs) for batch in stream for n in batch["n"])


def until(server: Running, name: str) -> dict[str, Any]:
    """The status of a preload when it is over: `warm` waits for the same chunks."""
    with penstock.connect(server.target) as client:
        client.warm(name)
    return store(server)


def test_auto_decodes_what_fits_and_a_session_finds_it(serve: Serve, folder: Path) -> None:
    server = serve(folder, "--preload", "auto", *SMALL)
    there = until(server, "numbers")
    assert there["misses"] == 0
    assert read(server.target, "numbers") == list(range(ROWS))
    after = store(server)
    assert after["misses"] == 0
    assert after["hits"] >= SHARDS  # segments of the next epochs use them too
    assert after["seconds_saved"] > 0
    assert after["hit_ratio"] == 1.0
    assert server.metric("penstock_chunks_made_ahead_total") == SHARDS


def test_auto_leaves_alone_what_does_not_fit_and_says_so(serve: Serve, folder: Path) -> None:
    server = serve(folder, "--preload", "auto", "--store-bytes", "200KiB", *SMALL)
    assert read(server.target, "numbers") == list(range(ROWS))
    assert store(server)["ahead"] == 0
    assert "not preloaded: numbers@" in server.log.read_text()


def test_lazy_makes_nothing_before_somebody_reads(serve: Serve, folder: Path) -> None:
    server = serve(folder, "--preload", "lazy", *SMALL)
    with penstock.connect(server.target) as client:
        client.register("more", str(folder))
    found = store(server)
    assert (found["used"], found["preloads"]) == (0, [])
    assert read(server.target, "numbers") == list(range(ROWS))
    found = store(server)
    assert found["misses"] == SHARDS
    assert found["seconds_per_miss"] > 0


def test_eager_is_ready_when_all_is_there(serve: Serve, folder: Path) -> None:
    server = serve(folder, "--preload", "eager", *SMALL)
    found = store(server)
    assert found["ahead"] == SHARDS
    assert [p["state"] for p in found["preloads"]] == ["done"]


def test_eager_does_not_start_where_it_does_not_fit(serve: Serve, folder: Path) -> None:
    with pytest.raises(DidNotStart) as refused:
        serve(folder, "--preload", "eager", "--store-bytes", "300KiB", *SMALL)
    assert refused.value.code == 1
    assert re.search(r"numbers@\w+ needs about [\d,]+ more bytes in the chunk store", refused.value.stderr)
    assert "raise --store-bytes by 1MiB" in refused.value.stderr


def test_warm_is_told_in_numbers_by_client_and_command(serve: Serve, folder: Path) -> None:
    server = serve(folder, *SMALL)
    seen: list[penstock.Warmed] = []
    with penstock.connect(server.target) as client:
        made = client.warm("numbers", progress=seen.append)
        assert (made.state, made.chunks, made.there, made.made) == ("done", SHARDS, 0, SHARDS)
        assert seen[-1] == made
        assert made.bytes == store(server)["used"] > ROWS * 33 * 8
        with pytest.raises(penstock.DatasetNotFound, match="numbers"):
            client.warm("number")
        with pytest.raises(penstock.DatasetNotFound, match="no split 'test'"):
            client.warm("numbers", split="test")
    again = command(server, "warm", "numbers", "--json")
    assert again.returncode == 0
    assert {k: json.loads(again.stdout)[k] for k in ("there", "made", "state")} == {
        "there": SHARDS,
        "made": 0,
        "state": "done",
    }
    assert command(server, "warm", "nothing").returncode == 1
    shown = command(server, "store")
    assert f"{made.dataset}" in shown.stdout
    assert f"{SHARDS} chunks made ahead" in shown.stdout


def test_warm_refuses_what_does_not_fit_with_the_bytes(serve: Serve, folder: Path) -> None:
    server = serve(folder, "--store-bytes", "200KiB", *SMALL)
    with penstock.connect(server.target) as client, pytest.raises(penstock.ResourceExhausted, match="more bytes"):
        client.warm("numbers")
    refused = command(server, "warm", "numbers")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "raise --store-bytes by 1MiB" in refused.stderr


def test_warm_makes_room_among_versions_that_nobody_reads(serve: Serve, folder: Path, tmp_path: Path) -> None:
    other = numbers(tmp_path / "other", first=10_000)
    server = serve(folder, other, "--store-bytes", "700KiB", *SMALL)
    with penstock.connect(server.target) as client:
        client.warm("numbers")
        assert client.warm("other").made == SHARDS
        with client.stream("other", batch_size=50, output="numpy") as stream:
            next(iter(stream))
            with pytest.raises(penstock.ResourceExhausted, match="more bytes"):
                client.warm("numbers")
    found = store(server)
    assert found["evicted"] > 0
    assert found["used"] <= found["limit"]


def test_a_stream_above_the_cap_is_warned_of_once_and_doctor_knows_the_cure(serve: Serve, folder: Path) -> None:
    server = serve(folder, "--store-bytes", "200KiB", *SMALL)
    with penstock.connect(server.target) as client:
        with client.stream("numbers", batch_size=50, output="numpy") as stream:
            next(iter(stream))
            told = command(server, "doctor")
        assert told.returncode == 1
        assert "problem: what is read now needs" in told.stdout
        enough = re.search(r"--store-bytes (\d+)MiB", told.stdout)
        assert enough
        assert store(server)["versions"][0]["needs_bytes"] <= int(enough[1]) << 20
        with client.stream("numbers", batch_size=50, output="numpy", seed=2) as stream:
            next(iter(stream))
    warned = [line for line in server.log.read_text().splitlines() if "would end that" in line]
    assert len(warned) == 1
    assert f"--store-bytes {enough[1]}MiB" in warned[0]


def test_doctor_finds_nothing_wrong_with_a_server_that_is_well(serve: Serve, folder: Path) -> None:
    server = serve(folder, *SMALL)
    read(server.target, "numbers")
    told = json.loads(command(server, "doctor", "--json").stdout)["findings"]
    assert [f for f in told if "event loop" not in f["what"]] == []  # which a busy machine makes late
    seen = json.loads(command(server, "top", "--once", "--json").stdout)
    assert seen["load"]["rows_sent"] >= ROWS  # of the next epoch too, ahead of its reader


def test_hits_of_a_later_server_know_what_they_save(serve: Serve, folder: Path) -> None:
    server = serve(folder, *SMALL)
    read(server.target, "numbers")
    took = store(server)["seconds_missed"]
    server.stop()
    server.start()
    read(server.target, "numbers")
    found = store(server)
    assert found["misses"] == 0
    assert found["seconds_saved"] >= took * (1 - 1e-3) > 0  # each was used at least once


def test_rows_that_a_stream_transforms_are_preloaded_while_it_reads(serve: Serve, folder: Path) -> None:
    server = serve(folder, "--preload", "auto", *SMALL)
    until(server, "numbers")
    wanted = [{"filter": "n < 1000"}]
    with (
        penstock.connect(server.target) as client,
        client.stream("numbers", batch_size=50, output="numpy", rows=wanted, pool_rows=100) as stream,
    ):
        next(iter(stream))
        plans = [p for p in store(server)["preloads"] if "(rows " in p["dataset"]]
    assert len(plans) == 1
    assert plans[0]["chunks"] == SHARDS


@pytest.mark.parametrize("policy", ["lru", "lfu", "fifo", "adaptive"])
def test_every_policy_keeps_to_the_cap_and_loses_no_row(
    serve: Serve, folder: Path, tmp_path: Path, policy: str
) -> None:
    others = [numbers(tmp_path / f"other{n}", first=n * 10_000) for n in (1, 2)]
    server = serve(folder, *others, "--store-bytes", "800KiB", "--store-policy", policy, *SMALL)
    for _ in range(3):
        for n, name in enumerate(("numbers", "other1", "other2")):
            assert read(server.target, name) == [n * 10_000 + row for row in range(ROWS)]
            found = store(server)
            assert found["used"] <= found["limit"]
    assert found["policy"] == policy
    assert found["evicted"] > 0
    assert {(g["policy"], g["factor"]) for g in found["ghosts"]} == {
        (rule, factor) for rule in ("lru", "lfu", "fifo") for factor in (0.5, 1.0, 2.0)
    }


def test_two_servers_on_one_folder_evict_and_one_is_killed(serve: Serve, folder: Path, tmp_path: Path) -> None:
    """Each reads three datasets that do not fit together, while the other does; one is killed in the middle."""
    others = [numbers(tmp_path / f"other{n}", first=n * 10_000) for n in (1, 2)]
    shared = tmp_path / "shared"
    limit = 800 << 10
    flags = ("--store-dir", shared, "--store-bytes", "800KiB", *SMALL)
    here = serve(folder, *others, *flags)
    there = serve(folder, *others, *flags, folder="there")
    names = ("numbers", "other1", "other2")
    wrong: list[str] = []

    def read_all(server: Running, order: tuple[str, ...], rounds: int) -> None:
        for _ in range(rounds):
            for name in order:
                n = names.index(name)
                if read(server.target, name) != [n * 10_000 + row for row in range(ROWS)]:
                    wrong.append(name)

    going = threading.Thread(target=read_all, args=(here, names, 4))
    going.start()
    read_all(there, tuple(reversed(names)), 1)
    stream = penstock.connect(there.target).stream("numbers", batch_size=50, output="numpy")
    next(iter(stream))
    there.kill()
    stream.close()
    going.join()
    assert wrong == []
    there.start()  # its leftovers are swept, and it goes on with what is there
    read_all(there, names, 1)
    assert wrong == []
    for server in (here, there):
        found = store(server)
        assert found["used"] <= limit
        assert found["evicted"] > 0
        assert found["bad_files"] == 0
        server.stop()
    assert [path.name for path in shared.glob("*.tmp")] == []
    # Each looks through the folder after a thirty-second of the cap, and may have one chunk for each worker in hand.
    assert sum(path.stat().st_size for path in shared.iterdir()) <= 2 * limit


@pytest.mark.parametrize("disk", ["200KiB", "0"])
def test_a_dataset_that_neither_disk_nor_memory_can_hold_is_read_in_its_order(
    serve: Serve, tmp_path: Path, disk: str
) -> None:
    folder, small_chunks = numbers(tmp_path / "numbers", width=256), ("--chunk-rows", "50")  # 4 MB, 40 chunks

    def order(server: Running, **asked: Any) -> list[int]:
        with penstock.connect(server.target) as client:
            with client.stream("numbers", batch_size=30, seed=1, output="numpy", **asked) as stream:
                rows = [int(n) for batch in stream for n in batch["n"]]
            assert stream.profile()["reconnects"] == 0
        return rows

    small = serve(folder, *small_chunks, "--store-bytes", disk, "--store-memory-bytes", "1MiB")
    with Running((str(folder),), tmp_path / "roomy", small_chunks) as roomy:
        for asked in ({}, {"pool_rows": 500}, {"shuffle": False}, {"row_ids": True}):
            rows = order(small, **asked)
            assert sorted(rows) == list(range(ROWS))
            assert rows == order(roomy, **asked)
