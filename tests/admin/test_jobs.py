import json
from typing import TYPE_CHECKING

import pytest

from penstock_service.admin.job_answers import Jobs
from penstock_service.admin.job_commands import print_jobs

if TYPE_CHECKING:
    from tests.admin.conftest import SmallOperations


def test_jobs_are_a_table_that_ends_with_whom_to_look_at(
    operations: "SmallOperations", capsys: pytest.CaptureFixture[str]
) -> None:
    print_jobs(json.loads(Jobs.of(operations.jobs()).model_dump_json())["jobs"])
    head, first, second, third, *said = capsys.readouterr().out.splitlines()
    assert head.split() == ["JOB", "STREAM", "RANK", "STATE", "FOR", "EPOCH", "STEP", "ROWS/S", "BEHIND", "CLIENT"]
    assert first.split("  ")[0] == "run-17"
    assert "waiting for credit" in first
    assert "0 steps" in first
    assert "stalled, waiting for credit" in second
    assert "40 steps, 35 s" in second
    assert "missing" in third
    assert said == [
        "missing: 2 of the 3 ranks of run-17, train",
        "lagging: 1 of the 3 ranks of run-17, train",
    ]


def test_no_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    print_jobs([])
    assert capsys.readouterr().out == "no jobs: nobody is connected\n"
