"""What `doctor`, `top`, `store` and `warm` make of what a server says."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from penstock_service.admin.cli import main
from penstock_service.admin.findings import CHECKS, examine
from tests.admin.test_cli import address, never

if TYPE_CHECKING:
    from tests.admin.conftest import SmallOperations

Output = pytest.CaptureFixture[str]
__all__ = ["address"]  # a fixture: where a real HTTP side listens

WELL: dict[str, Any] = {
    "ready": {"failing": []},
    "places": [{"place": "/data", "state": "closed", "failures": 0, "error": ""}],
    "store": {
        "folder": "/store",
        "limit": 1000 << 20,
        "working_set": 900 << 20,
        "trouble": "",
        "bad_files": 0,
        "policy": "lru",
        "rule": "lru",
        "ghosts": [
            {"policy": "lru", "factor": 1.0, "bytes": 1000 << 20, "hit_ratio": 0.8},
            {"policy": "lru", "factor": 2.0, "bytes": 2000 << 20, "hit_ratio": 0.85},
            {"policy": "lfu", "factor": 1.0, "bytes": 1000 << 20, "hit_ratio": 0.85},
        ],
    },
    "sessions": [
        {
            "session": "s1",
            "job": "j",
            "name": "train",
            "rank": 1,
            "transport": "grpc",
            "transport_reason": "the client is on another host (ipv4:10.0.0.2:1)",
            "seconds_connected": 100.0,
            "seconds_waiting_for_rows": 5.0,
            "seconds_waiting_for_credit": 90.0,
        }
    ],
    "jobs": [{"job": "j", "streams": [{"name": "train", "world_size": 2, "missing": []}]}],
    "load": {"loop_lag_seconds": 0.001, "workers_restarted": 0},
}


def ill(part: str, **changed: Any) -> dict[str, Any]:
    """As WELL, but for something in one part."""
    before = WELL[part]
    if part == "jobs":
        return WELL | {"jobs": [{"job": "j", "streams": [before[0]["streams"][0] | changed]}]}
    return WELL | {part: [before[0] | changed] if isinstance(before, list) else before | changed}


def twice_as_good(policy: str, factor: float) -> list[dict[str, Any]]:
    ghosts: list[dict[str, Any]] = WELL["store"]["ghosts"]
    return [g | {"hit_ratio": 0.99} if (g["policy"], g["factor"]) == (policy, factor) else g for g in ghosts]


@pytest.mark.parametrize(
    ("facts", "severity", "what", "cure"),
    [
        (ill("ready", failing=["grpc"]), "problem", "not ready: grpc", "its log"),
        (ill("places", state="open", failures=8, error="no answer"), "problem", "/data failed 8 times", "mend"),
        (ill("store", trouble="No space left"), "problem", "/store: No space left", "free the disk"),
        (ill("store", bad_files=2), "note", "2 torn chunk files", "disk's health"),
        (ill("store", working_set=2000 << 20), "problem", "needs 2.0 GiB of chunks", "--store-bytes 2201MiB"),
        (ill("store", ghosts=twice_as_good("lru", 2.0)), "note", "twice the store would have hit 99%", "2000MiB"),
        (ill("store", ghosts=twice_as_good("lfu", 1.0)), "note", "by lfu 99%", "--store-policy lfu"),
        (
            ill("sessions", transport_reason="no shared memory: /dev/shm is full"),
            "problem",
            "over gRPC: no shared memory: /dev/shm is full",
            "--shm-size",
        ),
        (
            ill("sessions", transport="tcp", transport_reason="no shared memory: /dev/shm is full"),
            "problem",
            "over TCP: no shared memory: /dev/shm is full",
            "--shm-size",
        ),
        (
            ill("sessions", transport_reason="no payload socket: 10.0.0.2:7402 does not answer"),
            "problem",
            "which costs more: no payload socket: 10.0.0.2:7402 does not answer",
            "--payload-advertise",
        ),
        (ill("sessions", seconds_waiting_for_rows=60.0, seconds_waiting_for_credit=30.0), "problem", "60%", "warm"),
        (ill("jobs", missing=[1]), "problem", "ranks 1 of the 2 of j, train, are missing", "trainers"),
        (ill("load", loop_lag_seconds=0.3), "problem", "0.30 s late", "CPU"),
        (ill("load", workers_restarted=3), "note", "3 workers died", "log"),
    ],
)
def test_each_illness_is_found_alone_and_has_its_cure(
    facts: dict[str, Any], severity: str, what: str, cure: str
) -> None:
    [found] = examine(facts)
    assert found.severity == severity
    assert what in found.what
    assert cure in found.cure


def test_nothing_is_found_where_all_is_well() -> None:
    assert examine(WELL) == []
    assert examine(ill("sessions", seconds_connected=5.0, seconds_waiting_for_rows=5.0)) == []  # its first rows
    empty = WELL | {"sessions": [], "jobs": [], "places": [], "store": WELL["store"] | {"ghosts": []}}
    assert examine(empty) == []


def test_problems_come_before_notes() -> None:
    facts = ill("load", workers_restarted=1) | {"store": WELL["store"] | {"trouble": "full", "bad_files": 1}}
    assert [finding.severity for finding in examine(facts)] == ["problem", "note", "note"]
    assert len(CHECKS) == len(set(CHECKS))


def test_doctor_ends_with_1_where_there_is_a_problem(
    address: str, operations: "SmallOperations", capsys: Output
) -> None:
    assert main(never, ["doctor", "--http", address]) == 1
    said = capsys.readouterr().out
    assert said.startswith("problem: ")
    assert "s3://bucket failed 8 times in a row: no answer" in said  # as the small server has it
    assert main(never, ["doctor", "--http", address, "--json"]) == 1
    assert {f["severity"] for f in json.loads(capsys.readouterr().out)["findings"]} >= {"problem"}
    operations.passing["grpc"] = False  # /readyz answers 503, which is no failure of the doctor
    assert main(never, ["doctor", "--http", address]) == 1
    assert "not ready: grpc" in capsys.readouterr().out


def test_top_looks_once(address: str, capsys: Output) -> None:
    assert main(never, ["top", "--once", "--http", address]) == 0
    said = capsys.readouterr().out
    assert "900 B of 1000 B; 30 hits, 10 misses of 0.500 s each: 75.0% hit, 15.0 s of workers saved" in said
    assert "by lfu, would have hit: 0.5 x the cap 25.0%, 1 x the cap 50.0%, 2 x the cap 55.0%" in said
    assert "preload titanic@v1: 9 of 10 chunks" in said
    assert "waiting for credit" in said
    assert main(never, ["top", "--once", "--json", "--http", address]) == 0
    assert json.loads(capsys.readouterr().out)["load"]["rows_sent"] == 384


def test_top_draws_rates_until_it_is_interrupted(
    address: str, operations: "SmallOperations", monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    looks = 0

    def pause(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise KeyboardInterrupt
        operations.now = replace(operations.now, rows_sent={"titanic": 1384})

    monkeypatch.setattr("penstock_service.admin.top.time.sleep", pause)
    assert main(never, ["top", "--every", "2", "--http", address]) == 0
    assert "now 500 rows/s" in capsys.readouterr().out


def test_the_store_is_printed_for_people_and_for_programs(address: str, capsys: Output) -> None:
    assert main(never, ["store", "--http", address]) == 0
    said = capsys.readouterr().out
    for part in ("/store: 900 B of 1000 B", "by lfu, chosen by the ghost list", "titanic@v1", "2 x the cap"):
        assert part in said
    assert main(never, ["store", "--http", address, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["hit_ratio"], told["seconds_per_miss"]) == (0.75, 0.5)


@pytest.mark.parametrize(
    ("arguments", "code", "where", "text"),
    [
        (["titanic"], 0, "out", "titanic@v1: 2 chunks made in 1.0 s (200 B); 1 were there; 3 in all"),
        (["titanic", "--json"], 0, "out", '"state": "done"'),
        (["absent"], 1, "err", "there is no dataset 'absent'"),
        (["titanic", "--split", "huge"], 1, "err", "needs about 9 more bytes"),
        (["titanic", "--split", "torn"], 1, "err", "not all could be made"),
    ],
)
def test_warm_says_how_it_went(
    address: str, capsys: Output, arguments: list[str], code: int, where: str, text: str
) -> None:
    assert main(never, ["warm", *arguments, "--http", address]) == code
    assert text in getattr(capsys.readouterr(), where)
