"""Arguments of the wrong type are refused where they are given, with what they must be; nothing is sent."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import penstock
from penstock.arguments import flag, number, texts, whole

NOBODY = penstock.connect("127.0.0.1:9")


def stream(**options: Any) -> penstock.Stream:
    dataset = options.pop("dataset", "rows")
    if "global_batch_size" not in options:
        options.setdefault("batch_size", 8)
    return NOBODY.stream(dataset, output="numpy", **options)


def at_step(step: int) -> dict[str, Any]:
    numbers = dict.fromkeys(("segment", "taken", "global_batch", "seed"), 0)
    cursor = {"v": 1, "epoch": 0, "step": step, **numbers, "digest": "0", "plan": {}, "fingerprint": {}}
    return {"penstock": 1, "epoch": 0, "cursor": cursor}


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"batch_size": 64.0}, "batch_size=64.0: must be an integer, not a float"),
        ({"batch_size": "64"}, "batch_size='64'"),
        ({"batch_size": True}, "batch_size=True"),
        ({"batch_size": 2**70}, "must be at most"),
        ({"global_batch_size": 64 / 2}, "global_batch_size=32.0"),
        ({"seed": "x"}, "seed='x'"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"seed": 2**64}, "seed=18446744073709551616: must be at most"),
        ({"prefetch": 1.5}, "prefetch=1.5"),
        ({"prefetch_bytes": 1.5}, "prefetch_bytes=1.5"),
        ({"prefetch_bytes": "64MB"}, "prefetch_bytes='64MB'"),
        ({"prefetch": 0}, "prefetch=0: must be at least 1"),
        ({"pool_bytes": 1e9}, r"pool_bytes=1000000000.0: must be an integer"),
        ({"pool_bytes": "1GiB"}, "pool_bytes='1GiB'"),
        ({"pool_rows": 1.5}, "pool_rows=1.5"),
        ({"refill_below": "x"}, "refill_below='x': must be a number"),
        ({"max_rows": 1.5}, "max_rows=1.5"),
        ({"max_rows": "x"}, "max_rows='x'"),
        ({"epoch_rows": 1.5, "until": "repeat"}, "epoch_rows=1.5"),
        ({"rank": "0", "world_size": 2}, "rank='0'"),
        ({"rank": 0, "world_size": 2.0}, "world_size=2.0"),
        ({"replica": "x"}, "replica='x'"),
        ({"columns": 5}, "columns=5: must be a list of names"),
        ({"columns": [1]}, "1 is an int"),
        ({"columns": [None]}, "None is None"),
        ({"split": 5}, "split=5: must be a string"),
        ({"split": None}, "split=None"),
        ({"tensor_pool": 5}, r"tensor_pool=5: must be a penstock\.TensorPool"),
        ({"rows": [lambda batch: batch]}, "must be a list of dicts"),
        ({"rows": "x > 0"}, "must be a list of dicts"),
        ({"rows": {"filter": "x > 0"}}, "must be a list of dicts"),
        ({"rows": [{"python": print}]}, "strings, numbers, lists and dicts only"),
        ({"dataset": {"web": "a"}}, "weight of 'web'='a': must be a number"),
        ({"dataset": {"web": float("nan")}}, "must be a number"),
        ({"dataset": 5}, "dataset=5"),
        ({"dataset": ["web", 5]}, "5 is an int"),
        ({"shuffle": "no"}, "shuffle='no': must be True or False"),
        ({"shuffle": None}, "shuffle=None"),
        ({"reshuffle": "x"}, "reshuffle='x'"),
        ({"row_ids": "x"}, "row_ids='x'"),
        ({"ragged": 2}, "ragged=2"),
        ({"pin_memory": "x"}, "pin_memory='x'"),
        ({"unified_memory": "x"}, "unified_memory='x'"),
        ({"fill": 5}, "fill=5: must be a dict by column"),
        ({"sparse": 5}, "sparse=5"),
        ({"name": 5}, "name=5: must be a string"),
        ({"target_rows_per_s": "x"}, "target_rows_per_s='x'"),
        ({"target_rows_per_s": float("nan")}, "target_rows_per_s=nan"),
        ({"max_rows_per_s": "x"}, "max_rows_per_s='x'"),
        ({"reconnect_timeout": "x"}, "reconnect_timeout='x'"),
    ],
)
def test_an_argument_of_a_stream_that_is_no_such_thing_is_refused_at_once(wish: dict[str, Any], says: str) -> None:
    with pytest.raises(penstock.InvalidRequest, match=says):
        stream(**wish)


CALLS: list[Callable[[penstock.Stream], object]] = [
    lambda s: s.set_epoch("1"),  # type: ignore[arg-type]
    lambda s: s.set_epoch(-1),
    lambda s: s.get_batch(1.5),  # type: ignore[arg-type]
    lambda s: s.get_batch(2**70),
    lambda s: s.skip(range(2**70)),
    lambda s: s.skip(range(3), epoch=0.5),  # type: ignore[arg-type]
    lambda s: s.explain(1.5),  # type: ignore[arg-type]
    lambda s: s.explain(-1),
    lambda s: s.load_state_dict({"penstock": 1, "epoch": -3, "cursor": None}),
    lambda s: s.load_state_dict({"penstock": 1, "epoch": 1.5, "cursor": None}),
]


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_an_argument_of_a_call_that_is_no_such_thing_is_refused_and_changes_nothing(number: int) -> None:
    with stream() as found:
        found.load_state_dict(at_step(7))
        before = found.state_dict()
        with pytest.raises(penstock.InvalidRequest):
            CALLS[number](found)
        assert found.state_dict() == before


def test_a_job_must_be_named_by_a_string() -> None:
    with pytest.raises(penstock.InvalidRequest, match="job=5"):
        penstock.connect("127.0.0.1:9", job=5).stream("rows", batch_size=8)  # type: ignore[arg-type]


def test_numpys_numbers_are_as_good_as_pythons() -> None:
    found = stream(
        batch_size=np.int64(8),
        seed=np.uint64(2**64 - 1),
        rank=np.int32(1),
        world_size=np.int32(2),
        shuffle=np.bool_(False),
        dataset={"web": np.float32(0.5)},
        max_rows=np.int64(100),
        columns=("id",),
    )
    assert (found.batch_size, found.global_batch_size, found.seed, found.rank) == (8, 16, 2**64 - 1, 1)
    found.set_epoch(np.int64(3))  # type: ignore[arg-type]
    assert (found.epoch, type(found.epoch)) == (3, int)
    assert found.state_dict()["epoch"] == 3


def test_names_may_come_from_anything_that_gives_them_once() -> None:
    assert stream(dataset=(name for name in ("web", "code"))).dataset == ("web", "code")


def test_checks_make_values_plain() -> None:
    values = [whole("n", np.int8(3)), number("x", np.float32(0.5)), number("x", 2), flag("f", 1), texts("c", ["a"])]
    assert [(v, type(v)) for v in values] == [(3, int), (0.5, float), (2.0, float), (True, bool), (("a",), tuple)]
