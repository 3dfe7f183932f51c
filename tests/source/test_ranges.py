from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.errors import InvalidRequest
from penstock_service.source.discover import discover
from penstock_service.source.ranges import parse_ranges, pick, shard_numbers, split_ranges


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"x\n{name}\n")


@given(
    st.sets(st.integers(0, 300), min_size=1),
    st.lists(st.tuples(st.integers(0, 300), st.one_of(st.none(), st.integers(0, 300))), min_size=1, max_size=4),
)
def test_the_shards_whose_number_is_in_a_range_are_picked_and_no_others(
    numbers: set[int], ranges: list[tuple[int, int | None]]
) -> None:
    names = [f"part-{n:05}-of-00300.csv" for n in sorted(numbers)]
    text = ",".join(f"{a}-{'' if b is None else b}" for a, b in ranges)
    spans = [(a, 10**9 if b is None else b) for a, b in ranges]
    wanted = [i for i, n in enumerate(sorted(numbers)) if any(a <= n <= b for a, b in spans)]
    wrong = any(
        a > b or a > max(numbers) or (b != 10**9 and b > max(numbers)) or not any(a <= n <= b for n in numbers)
        for a, b in spans
    )
    if wrong:
        with pytest.raises(InvalidRequest):
            pick("p", text, names)
    else:
        assert pick("p", text, names).indices == wanted


@pytest.mark.parametrize(
    ("names", "numbers", "by_name"),
    [
        (["part-00003-c000.csv", "part-00007-c000.csv"], [3, 7], True),
        (["v2-00003-of-00100.csv", "v2-00004-of-00100.csv"], [3, 4], True),
        (["only-12.csv"], [12], True),
        (["b.csv", "a.csv"], [1, 0], False),
        (["x10.csv", "x9.csv", "x.csv"], [1, 0, 2], False),
        (["a/1.csv", "b/1.csv"], [0, 1], False),
        (["2024-01.csv", "2024-02.csv", "2025-01.csv"], [0, 1, 2], False),
        (["s2/a.csv", "s10/a.csv"], [0, 1], False),
    ],
)
def test_a_shard_is_called_by_the_first_number_that_differs_in_all_names_else_by_its_place_in_natural_order(
    names: list[str], numbers: list[int], by_name: bool
) -> None:
    assert shard_numbers(names) == (numbers, by_name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "shards '' is empty: ranges are numbers like 0-99,120-"),
        ("1,,2", "is empty"),
        ("a-b", "holds 'a-b', which is no range"),
        ("1-2-3", "holds '1-2-3', which is no range"),
        ("-5", "holds '-5', which is no range"),
        ("5-2", "holds '5-2', which ends before it begins"),
    ],
)
def test_what_is_no_range_is_refused_with_what_would_be(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_ranges(text)
    assert message in str(caught.value)


def test_a_range_beyond_the_end_or_without_a_shard_is_refused_with_the_count() -> None:
    names = [f"{n}.csv" for n in (0, 1, 2, 7)]
    there = "p has 4 shards, by the numbers in their names 0 to 7"
    for text, said in (("0-8", "'0-8' goes beyond the last shard"), ("9-", "goes beyond"), ("3-6", "holds no shard")):
        with pytest.raises(InvalidRequest) as caught:
            pick("p", text, names)
        assert said in str(caught.value)
        assert there in str(caught.value)


def test_overlapping_ranges_read_a_shard_once_and_this_is_said() -> None:
    picked = pick("p", "0-2,2-3", [f"{n}.csv" for n in range(5)])
    assert picked.indices == [0, 1, 2, 3]
    assert picked.notes == [
        "p: 4 of 5 shards are taken, by the numbers in their names (0-2,2-3)",
        "the ranges '0-2,2-3' overlap: 1 shards are named twice and read once, 2.csv first",
    ]


def test_ranges_may_follow_a_folder_or_a_glob_and_a_name_with_a_number_sign_is_a_name(tmp_path: Path) -> None:
    touch(tmp_path, *(f"d/{n}.csv" for n in range(12)), "d#1/a.csv", "e/a#2.csv")
    assert [f.path for f in discover(f"{tmp_path}/d#0,10-").files] == ["0.csv", "10.csv", "11.csv"]
    assert [f.path for f in discover(f"{tmp_path}/d/#3").files] == ["3.csv"]
    assert [f.path for f in discover(f"{tmp_path}/d/*.csv#4-5").files] == ["4.csv", "5.csv"]
    assert [f.path for f in discover(f"{tmp_path}/d#1").files] == ["a.csv"]
    assert split_ranges(f"{tmp_path}/e/a#2.csv") == (f"{tmp_path}/e/a#2.csv", None)
    assert split_ranges("/x#y/z") == ("/x#y/z", None)
    with pytest.raises(InvalidRequest, match="'0-12' goes beyond the last shard"):
        discover(f"{tmp_path}/d#0-12")


def test_two_paths_that_reach_a_shard_read_it_once_and_this_is_said(tmp_path: Path) -> None:
    touch(tmp_path, *(f"d/{n}.csv" for n in range(6)))
    found = discover([f"{tmp_path}/d#0-3", f"{tmp_path}/d/[2-5].csv"])
    assert [f.path for f in found.files] == [f"{n}.csv" for n in range(6)]
    assert "2 files are reached twice and read once: 2.csv, 3.csv" in found.notes


def test_ranges_over_several_splits_are_refused_with_what_to_write_instead(tmp_path: Path) -> None:
    touch(tmp_path, "d/train-0.csv", "d/train-1.csv", "d/test-0.csv")
    with pytest.raises(InvalidRequest) as caught:
        discover(f"{tmp_path}/d#0-1")
    assert "here are train (2), test (1)" in str(caught.value)
    assert f"{tmp_path}/d/train*#0-1" in str(caught.value)
    assert [f.path for f in discover(f"{tmp_path}/d/train*#0-1").files] == ["train-0.csv", "train-1.csv"]
