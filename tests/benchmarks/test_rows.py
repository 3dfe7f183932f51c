from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import rows

TINY = {case.name: case.part(case.rows // case.batch // 2) for case in rows.RACED}


def whole(case: rows.Case) -> rows.Columns:
    shards = [case.columns(shard) for shard in range(case.shards)]
    return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}


@given(st.sampled_from(sorted(TINY)), st.integers(0, 1 << 32), st.integers(1, 63))
def test_the_checksum_does_not_see_order_but_values_and_whose_they_are(name: str, seed: int, cut: int) -> None:
    every = whole(TINY[name])
    rng = np.random.default_rng(seed)
    order = rng.permutation(TINY[name].rows)
    parts = [{k: v[order[part]] for k, v in every.items()} for part in (slice(cut), slice(cut, None))]
    assert (sum(map(rows.checksum, parts)) - rows.checksum(every)) % (1 << 64) == 0

    column = "tokens" if name == "tokens" else "x"
    a, b = rng.choice(TINY[name].rows, 2, replace=False)
    wrong = every | {column: every[column].copy()}
    wrong[column][[a, b], 1:] = wrong[column][
        [b, a], 1:
    ]  # values of two rows are swapped, not the first, a row's number
    assert (rows.checksum(wrong) - rows.checksum(every)) % (1 << 64)


@given(st.sampled_from(sorted(TINY)), st.integers(1, 64))
def test_a_part_has_fewer_rows_and_at_least_a_batch(name: str, share: int) -> None:
    case = next(one for one in rows.RACED if one.name == name)
    assert case.part(share).rows == max(case.rows // share, case.batch)


def test_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    TINY["small"].write(tmp_path / "rows")
    assert len(list((tmp_path / "rows").iterdir())) == TINY["small"].shards
    table, every = pq.read_table(tmp_path / "rows"), whole(TINY["small"])
    assert table["id"].to_numpy().tolist() == every["id"].tolist()
    assert np.array_equal(np.stack(table["x"].to_numpy()), every["x"])
