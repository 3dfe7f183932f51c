"""Several jobs on one stream: chunks and segments are made once for all of them, and who lags holds nobody up."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests import datafiles
from tests.conftest import Serve
from tests.training import Trainer
from tests.transform import rows_module

JOBS = 4
WISH: dict[str, Any] = {"batch_size": 50, "seed": 7, "pool_rows": 2000, "prefetch": 4}


@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
def test_four_jobs_on_one_stream_make_each_chunk_and_each_segment_once(
    serve: Serve, tmp_path: Path, cold: bool
) -> None:
    data = datafiles.parquet(tmp_path / "rows", shards=20, rows=500)
    flags = ("--chunk-rows", 250, "--python-modules", rows_module.__name__)
    server = serve(data, *flags)
    wish = WISH | {"rows": [{"python": {"function": f"{rows_module.__name__}:double", "columns": {"twice": "int32"}}}]}
    chunks = 40
    if not cold:
        with Trainer(server.target, "rows", "before", name="s", **wish) as before:
            before.ask("rest")
        assert server.metric("penstock_chunks_made_total") == chunks
    built = server.metric("penstock_segments_built_total")
    with ExitStack() as stack:
        trainers = [
            stack.enter_context(Trainer(server.target, "rows", f"job-{n}", name="s", **wish)) for n in range(JOBS)
        ]
        first = [trainer.step() for trainer in trainers]  # all of them are there
        for trainer in trainers:
            trainer.tell("rest")
        epochs = [[step, *trainer.hear()] for step, trainer in zip(first, trainers, strict=True)]
    assert all(epoch == epochs[0] for epoch in epochs)
    assert sorted(i for step in epochs[0] for i in step) == list(range(10_000))
    assert server.metric("penstock_chunks_made_total") <= 1.1 * chunks
    segments = json.loads(server.get("/api/v1/streams"))["streams"][0]["segments"]
    # A few of the next epoch are looked ahead for; four jobs on their own would be four times as many.
    assert server.metric("penstock_segments_built_total") - built <= 1.5 * segments + 8


def test_a_job_that_lags_holds_no_other_up_and_memory_stays_bounded(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=20, rows=5000))
    with (
        Trainer(server.target, "rows", "lagging", name="s", **WISH) as lagging,
        Trainer(server.target, "rows", "quick", name="s", **WISH) as quick,
    ):
        begun = lagging.step()
        held = []
        expected = quick.ask("rest")
        for _ in range(3):
            assert expected
            assert len(quick.ask("rest")) == len(expected)
            held.append(json.loads(server.get("/api/v1/memory")))
        sessions = {s["job"]: s for s in json.loads(server.get("/api/v1/sessions"))["sessions"]}
        assert sessions["lagging"]["steps_sent"] <= 1 + WISH["prefetch"]
        # Three pools at most are remembered for readers at different places, 16 bytes for each row that waits.
        assert max(m["stages"]["pools"] for m in held) <= 4 * 16 * WISH["pool_rows"]
        began = time.monotonic()
        assert [begun, *lagging.ask("rest")] == expected
        assert time.monotonic() - began < 60
