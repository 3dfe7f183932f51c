from pathlib import Path

import pytest

from penstock_service.chunks.remembered import Remembered
from penstock_service.chunks.shelf import Entry
from penstock_service.core.chunk import ChunkInfo, RowError
from penstock_service.core.errors import OrderChanged


def entry(key: str, errors: int = 0, reason: str = "bad") -> Entry:
    info = ChunkInfo(1000, tuple(RowError(row, f"file, line {row}", reason) for row in range(errors)), 100, "hash")
    return Entry(key, 100, None, info=info)


def remembered(limit: int, limit_bytes: int) -> tuple[Remembered, list[str]]:
    changed: list[str] = []
    return Remembered(limit, changed.append, limit_bytes), changed


def test_the_oldest_are_forgotten_by_count_and_by_bytes() -> None:
    few, _ = remembered(2, 1 << 20)
    for key in "abc":
        few.learn(entry(key), str)
    assert [few.get(key) is not None for key in "abc"] == [False, True, True]

    small, _ = remembered(100, 20_000)
    for n in range(50):
        small.learn(entry(str(n), errors=20), str)
        assert small.nbytes <= 20_000
    assert small.get("49") is not None
    assert small.get("0") is None


def test_one_that_is_larger_than_the_bound_is_kept_while_it_is_the_last() -> None:
    small, changed = remembered(100, 1000)
    small.learn(entry("large", errors=100), str)
    with pytest.raises(OrderChanged, match="100 errors"):
        small.learn(entry("large", errors=99), lambda: str(Path("chunk 7")))
    assert changed == ["large"]
    small.learn(entry("next"), str)
    assert small.get("large") is None
