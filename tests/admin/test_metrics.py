import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from penstock_proto.v1 import codes
from penstock_service.admin.http import make_http
from penstock_service.admin.memory import held_by, held_bytes

if TYPE_CHECKING:
    from tests.admin.conftest import SmallOperations

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def scrape(operations: "SmallOperations", path: str = "/metrics", accept: str = "") -> str:
    async def talk() -> str:
        transport = httpx.ASGITransport(make_http(operations))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7401") as client:
            answer = await client.get(path, headers={"Accept": accept})
            assert answer.status_code == 200
            return answer.text

    return asyncio.run(talk())


def series(text: str) -> dict[str, float]:
    """Every sample, by what stands before its value."""

    def found() -> Iterator[tuple[str, float]]:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
                yield f"{sample.name}{{{labels}}}" if labels else sample.name, sample.value

    return dict(found())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("penstock_rows_sent_total{dataset=titanic}", 384),
        ("penstock_bytes_sent_total{transport=grpc}", 4096),
        ("penstock_steps_sent_total", 12),
        ("penstock_bundles_sent_total", 3),
        ("penstock_sessions{transport=grpc}", 1),
        ("penstock_sessions_opened_total", 2),
        ("penstock_ranks_missing", 3),
        ("penstock_ranks_lagging", 2),
        ("penstock_steps_behind_max", 40),
        ("penstock_stage_seconds_total{stage=read}", 0.5),
        ("penstock_wait_seconds_total{reason=credit}", 1.5),
        ("penstock_chunks_made_total", 7),
        ("penstock_bad_rows_total{policy=skip}", 3),
        ("penstock_bad_rows_total{policy=fail}", 0),
        ("penstock_places_open", 1),
        ("penstock_chunk_hits_total", 9),
        ("penstock_chunk_misses_total", 7),
        ("penstock_chunks_made_ahead_total", 2),
        ("penstock_chunk_miss_seconds_total", 0.75),
        ("penstock_chunk_saved_seconds_total", 1.25),
        ("penstock_store_ghost_hit_ratio{caps=2}", 0.75),
        ("penstock_segments_built_total", 4),
        ("penstock_bound_bytes{bound=read ahead}", 128),
        ("penstock_bound_limit_bytes{bound=read ahead}", 512),
        ("penstock_bound_wait_seconds_total{bound=read ahead}", 0.75),
        ("penstock_memory_held_bytes{stage=slots}", 460 << 20),
        ("penstock_memory_held_bytes{stage=bundles}", 0),
        ("penstock_memory_measured_bytes", 850 << 20),
        ("penstock_memory_limit_bytes", 1000 << 20),
        ("penstock_memory_rung{rung=no segments ahead}", 1),
        ("penstock_memory_rung{rung=ok}", 0),
        ("penstock_workers", 2),
        ("penstock_workers_restarted_total", 1),
        ("penstock_workers_busy_seconds_total", 3.5),
        ("penstock_starved_seconds_total", 1.25),
        ("penstock_chunks_begun_again_total", 6),
        ("penstock_tuning_decisions_total{what=workers}", 2),
        ("penstock_tuning_decisions_total{what=read-ahead}", 0),
        ("penstock_errors_total{code=NotFound}", 2),
        ("penstock_data_errors_total", 1),
        ("penstock_event_loop_lag_seconds", 0.002),
        ("penstock_ready", 1),
    ],
)
def test_a_scrape_says_what_the_server_counted(operations: "SmallOperations", name: str, value: float) -> None:
    assert series(scrape(operations))[name] == value


def test_known_series_are_there_before_anything_happened(untouched: "SmallOperations") -> None:
    found = series(scrape(untouched))
    for stage in ("read", "mix", "gather", "send"):
        assert found[f"penstock_stage_seconds_total{{stage={stage}}}"] == 0
    for reason in ("credit", "rows"):
        assert found[f"penstock_wait_seconds_total{{reason={reason}}}"] == 0
    assert found[f"penstock_errors_total{{code={codes.ORDER_CHANGED}}}"] == 0


def test_ready_falls_with_any_check(operations: "SmallOperations") -> None:
    operations.passing["workers"] = False
    assert series(scrape(operations))["penstock_ready"] == 0


def test_the_document_lists_every_metric_and_no_other(operations: "SmallOperations") -> None:
    exported = {name.split("{")[0] for name in series(scrape(operations)) if name.startswith("penstock_")}
    documented = set(re.findall(r"^\| `(penstock_\w+)", DOCUMENT.read_text(), re.MULTILINE))
    assert documented == exported


def test_both_paths_answer_without_a_redirect(operations: "SmallOperations") -> None:
    assert series(scrape(operations, "/metrics/")).keys() == series(scrape(operations)).keys()


def test_prometheus_own_format_is_spoken_too(operations: "SmallOperations") -> None:
    text = scrape(operations, accept="application/openmetrics-text; version=1.0.0")
    names = {family.name for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    assert "penstock_rows_sent" in names


def test_nothing_that_other_libraries_count_gets_in(operations: "SmallOperations") -> None:
    names = {name.split("{")[0] for name in series(scrape(operations))}
    assert {n for n in names if not n.startswith(("penstock_", "process_"))} == set()
    assert not any(n.endswith("_created") for n in names)


def test_memory_is_what_the_process_holds() -> None:
    before = held_bytes()["anonymous"]
    block = bytearray(b"x") * 50_000_000
    assert held_bytes()["anonymous"] - before > 45_000_000
    del block


def test_memory_is_read_in_kilobytes(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nRssAnon:\t    5 kB\nRssFile:\t 900 kB\nRssShmem:\t 3 kB\n")
    assert held_bytes(status) == {"anonymous": 5120, "shared": 3072}


def test_memory_of_another_process_and_of_one_that_has_ended() -> None:
    script = [sys.executable, "-c", "import sys; print(); sys.stdin.read()"]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()  # it is up
        assert held_by(child.pid)["anonymous"] > 1_000_000
        child.communicate()
    assert held_by(child.pid) == {"anonymous": 0, "shared": 0}


def test_memory_without_proc_is_one_number(tmp_path: Path) -> None:
    held = held_bytes(tmp_path / "none")
    assert held["anonymous"] > 1_000_000
    assert held["shared"] == 0
