import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from penstock_service.admin.worker_commands import print_workers
from penstock_service.admin.workers import Workers
from penstock_service.core.status import WorkerDecision, WorkersStatus

if TYPE_CHECKING:
    from tests.admin.conftest import SmallOperations


def said(status: WorkersStatus, capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_workers(json.loads(Workers.of(status).model_dump_json()))
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_workers_are_told_with_what_was_decided_and_why(
    operations: "SmallOperations", capsys: pytest.CaptureFixture[str]
) -> None:
    ahead = WorkerDecision("2026-11-21T00:00:09+00:00", "read-ahead", 1 << 29, 1 << 28, "memory is short")
    status = operations.workers()
    assert said(replace(status, decisions=(*status.decisions, ahead)), capsys) == [
        "6 workers (auto; tuned, from 1 to 16 on 4 CPUs), 5.5 of them busy",
        "512.0 MiB of read-ahead (pinned by --read-ahead-bytes)",
        "somebody waited for chunks 25% of the last second; 3 tasks are queued",
        "1 workers were replaced, 2 late tasks begun again on another",
        "",
        "AT                         WHAT              WAS         IS  BECAUSE",
        "2026-11-21T00:00:00+00:00  workers             4          6  sessions waited for chunks",
        "2026-11-21T00:00:09+00:00  read-ahead  512.0 MiB  256.0 MiB  memory is short",
    ]


def test_pinned_workers_are_told_so(operations: "SmallOperations", capsys: pytest.CaptureFixture[str]) -> None:
    pinned = replace(operations.workers(), workers_pinned=True, read_ahead_pinned=False, decisions=())
    lines = said(pinned, capsys)
    assert lines[0] == "6 workers (auto; pinned by --workers), 5.5 of them busy"
    assert lines[1] == "512.0 MiB of read-ahead (tuned)"
    assert len(lines) == 4
