"""What the race finds out about a peer, with peers that do wrong."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import rows
from benchmarks.peers import __main__ as work

CASE = rows.Case("small", 64, 16, 16, 268)
Spoil = Callable[[rows.Columns], rows.Columns]


class Peer:
    """Delivers the rows of CASE in an order of each epoch, after `spoil` has had them."""

    def __init__(self, spoil: Spoil = lambda every: every) -> None:
        shards = [CASE.columns(shard) for shard in range(CASE.shards)]
        self.every = spoil({name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]})

    @contextlib.contextmanager
    def loader(self, folder: Path, case: rows.Case, workers: int) -> Iterator[Callable[[int], Iterator[Any]]]:
        yield self.epoch

    def epoch(self, number: int) -> Iterator[rows.Columns]:
        order = np.random.default_rng(number).permutation(len(self.every["id"]))
        for first in range(0, len(order), CASE.batch):
            yield {name: values[order[first : first + CASE.batch]] for name, values in self.every.items()}


def lost(every: rows.Columns) -> rows.Columns:
    return {name: values[:-1] for name, values in every.items()}


def doubled(every: rows.Columns) -> rows.Columns:
    return {name: np.concatenate([values, values[5:6]]) for name, values in every.items()}


def replaced(every: rows.Columns) -> rows.Columns:
    return {name: np.concatenate([values[:-1], values[:1]]) for name, values in every.items()}


def mislabelled(every: rows.Columns) -> rows.Columns:
    return every | {"label": np.roll(every["label"], 1)}


def rounded(every: rows.Columns) -> rows.Columns:
    return every | {"x": every["x"].astype(np.float16)}


def whole_epoch(spoil: Spoil) -> dict[str, Any]:
    said: list[dict[str, Any]] = []
    work.check(Peer(spoil), CASE, {"folder": "", "workers": 0}, said.append)
    return said[0]


def test_a_whole_epoch_is_told_so() -> None:
    found = whole_epoch(lambda every: every)
    assert found == {"rows": 64, "of": 64, "twice": 0, "missing": 0, "odd_batches": 0, "values": "as written"}


@pytest.mark.parametrize(
    ("spoil", "twice", "missing", "odd"),
    [(lost, 0, 1, 1), (doubled, 1, 0, 1), (replaced, 1, 1, 0), (mislabelled, 0, 0, 0), (rounded, 0, 0, 0)],
)
def test_what_is_wrong_with_an_epoch_is_told(spoil: Spoil, twice: int, missing: int, odd: int) -> None:
    found = whole_epoch(spoil)
    assert (found["twice"], found["missing"], found["odd_batches"]) == (twice, missing, odd)
    assert found["values"] == "wrong"


def test_mixed_is_the_share_of_what_chance_brings() -> None:
    case = rows.Case("tokens", 65_536, 16, 32, 8192)
    order = np.random.default_rng(0).permutation(case.rows)
    stored = np.arange(case.rows)
    windows = np.concatenate([part[np.argsort(order[:1024])] for part in stored.reshape(-1, 1024)])
    shares = [work.mixed(np.split(ids, case.rows // case.batch), case) for ids in (order, windows, stored)]
    assert shares[0] == pytest.approx(1, abs=0.02)
    assert shares[1] == pytest.approx(4 / 30, abs=0.05)  # 1,024 rows lie in 4 parts of 256
    assert shares[2] == pytest.approx(1 / 30, abs=0.01)
