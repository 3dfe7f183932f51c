"""Policies on a segment: which units stay, what stands for the bad ones, and how cursors count under each."""

import asyncio
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.batch.nearest import Neighbours, Stretch, nearest
from penstock_service.batch.policy import Policy, raw_units, units_left
from penstock_service.core.chunk import ChunkInfo, RowError, pack_rows
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import InvalidRequest, SourceUnreadable
from penstock_service.core.segment import ChunkSource, Fault, SourceChunks
from tests.laws.test_feeds import dataset

MASKS = st.lists(st.booleans(), max_size=40)


@given(MASKS, st.data())
def test_counting_under_another_policy_and_back_ends_behind_the_same_good_unit(
    bad: list[bool], data: st.DataObject
) -> None:
    left_out = np.flatnonzero(np.array(bad, np.bool_))
    kept = [i for i, b in enumerate(bad) if not b]
    taken = data.draw(st.integers(0, len(kept)))
    raw = raw_units(taken, left_out)
    assert raw == (kept[taken - 1] + 1 if taken else 0)
    assert units_left(raw, left_out) == taken
    begin = data.draw(st.integers(0, len(bad)))
    assert units_left(begin, left_out) == sum(not b for b in bad[:begin])


def test_a_policy_that_is_none_says_what_is_allowed() -> None:
    with pytest.raises(InvalidRequest, match=r"on_error='ignore': allowed are 'fail', 'skip', 'substitute' and"):
        Policy("ignore")  # type: ignore[arg-type]


# -- the nearest good row ----------------------------------------------------------------------------------------------

FATES = st.lists(
    st.lists(st.lists(st.sampled_from(["good", "bad", "dropped"]), min_size=1, max_size=5), min_size=1, max_size=4),
    min_size=1,
    max_size=3,
)
"""Shards of chunks of rows."""


class Told:
    """What is known of the chunks of one dataset."""

    def __init__(self, infos: Sequence[Fault]) -> None:
        self.infos_ = infos

    async def infos(self, of: DatasetVersion, chunks: Sequence[int]) -> list[Fault]:
        (info,) = (self.infos_[c] for c in chunks)
        if not isinstance(info, ChunkInfo):
            raise info
        return [info]


def known(fates: Sequence[str]) -> ChunkInfo:
    dropped = np.array([i for i, f in enumerate(fates) if f == "dropped"], np.int64)
    errors = tuple(RowError(i, "", "") for i, f in enumerate(fates) if f == "bad")
    return ChunkInfo(len(fates), errors, 0, "", pack_rows(dropped, len(fates)))


@given(FATES, st.data())
def test_the_nearest_good_row_of_the_shard_stands_for_a_bad_one_however_the_shard_is_cut(
    shards: list[list[list[str]]], data: st.DataObject
) -> None:
    source = dataset(0, [[len(c) for c in shard] for shard in shards])
    chunks = [c for shard in shards for c in shard]
    unreadable = data.draw(st.sets(st.integers(0, len(chunks) - 1)))
    fates = [["bad"] * len(c) if i in unreadable else c for i, c in enumerate(chunks)]
    told = [SourceUnreadable("no") if i in unreadable else known(c) for i, c in enumerate(chunks)]
    flat = [f for c in fates for f in c]
    starts = source.manifest.chunk_start
    shard_start = source.manifest.shard_start
    part = SourceChunks(0, source, 0, np.arange(len(chunks)))

    async def check() -> None:
        finder = Neighbours(cast(ChunkSource, Told(told)), part, {})
        for c, of_chunk in enumerate(fates):
            bad = np.array([i for i, f in enumerate(of_chunk) if f == "bad"], np.int64)
            if not len(bad):
                continue
            found, rows = await finder.find(c, bad)
            for stored, chunk, row in zip(bad.tolist(), found.tolist(), rows.tolist(), strict=True):
                at = int(starts[c]) + stored
                s = int(np.searchsorted(shard_start, at, side="right")) - 1
                good = [p for p in range(shard_start[s], shard_start[s + 1]) if flat[p] == "good"]
                if not good:
                    assert (chunk, row) == (-1, -1)
                    continue
                best = min(good, key=lambda p: (abs(p - at), p))
                present = [p for p in range(starts[chunk], starts[chunk + 1]) if flat[p] == "good"]
                assert present[row] == best

    asyncio.run(check())


def test_a_nearer_row_behind_the_edge_of_what_is_known_is_looked_for() -> None:
    bad, shard = np.array([10, 19]), (np.array([0, 0]), np.array([100, 100]))
    found = nearest(bad, *shard, Stretch(10, 20, np.array([15])))
    assert found.good.tolist() == [15, 15]
    assert found.look_below.tolist() == [True, False]
    assert found.look_above.tolist() == [False, True]
