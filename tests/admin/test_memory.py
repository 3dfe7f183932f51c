"""`penstock memory` and `/api/v1/memory`: who holds how much."""

from typing import TYPE_CHECKING

import pytest

from penstock_service.admin.memory_answers import Memory
from penstock_service.admin.memory_command import print_memory

if TYPE_CHECKING:
    from tests.admin.conftest import SmallOperations

MIB = 1 << 20


def test_the_answer_has_every_stage_and_the_largest_holder_first(operations: "SmallOperations") -> None:
    found = Memory.of(operations.memory())
    assert found.stages["slots"] == 460 * MIB
    assert found.stages["read-ahead"] == 0
    assert [(h.bytes // MIB, h.session) for h in found.holders[:2]] == [(400, "s1"), (200, "")]
    assert sum(found.stages.values()) == found.measured
    assert [(p.pid, p.what) for p in found.processes] == [(42, "server"), (43, "worker")]


def test_the_table_says_what_is_held_by_whom_and_what_is_given_up(
    operations: "SmallOperations", capsys: pytest.CaptureFixture[str]
) -> None:
    print_memory(Memory.of(operations.memory()).model_dump())
    said, ahead, _, head, first, *rest = capsys.readouterr().out.splitlines()
    assert said == "850.0 MiB of 1000.0 MiB held (85%): no segments ahead"
    assert ahead == "made ahead of demand: at most 64.0 MiB of 512.0 MiB"
    assert head.split() == ["STAGE", "HELD", "OF", "LIMIT"]
    assert first.split() == ["slots", "460.0", "MiB", "46.0%"]
    assert any(line.split() == ["400.0", "MiB", "slots", "titanic@v1", "s1"] for line in rest)
    assert any(line.split() == ["43", "worker", "80.0", "MiB", "0", "B"] for line in rest)
