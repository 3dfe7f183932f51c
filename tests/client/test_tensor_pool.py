"""Memory that is used again: never under a tensor that lives, never beyond the cap, and counted."""

import contextlib
import gc
import pickle
import subprocess
import sys
import threading
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from penstock import InvalidRequest, TensorPool
from penstock.blocks import Blocks, rounded_up
from penstock.tensors.copies import PAGE

KIB = 1 << 10
DTYPES: list[Any] = [torch.float32, torch.bfloat16, torch.int64, torch.bool, np.uint8, "float64", np.dtype("int16")]
ACTS = st.one_of(
    st.tuples(st.just("allocate"), st.sampled_from([1, 16, 1000, 5 * KIB, 70 * KIB]), st.sampled_from(DTYPES)),
    st.tuples(st.just("drop"), st.integers(0, 99), st.none()),
    st.tuples(st.just("view"), st.integers(0, 99), st.none()),  # a view is kept instead of the tensor it is of
    st.tuples(st.just("cache"), st.integers(0, 99), st.sampled_from(["a", "b", "c"])),
    st.tuples(st.just("clear"), st.none(), st.none()),
)


def fill(tensor: Any, number: int) -> None:
    tensor[...] = number % 2 if tensor.dtype == torch.bool else number % 100


def holds(tensor: Any, number: int) -> bool:
    return bool((tensor == (number % 2 if tensor.dtype == torch.bool else number % 100)).all())


@given(st.lists(ACTS, max_size=60), st.sampled_from([4 * KIB, 100 * KIB, 10 << 20]))
def test_no_memory_is_handed_out_while_a_tensor_on_it_lives(acts: list[Any], most: int) -> None:
    pool = TensorPool(most)
    living: list[tuple[Any, int]] = []
    named: dict[str, tuple[Any, int]] = {}
    for number, (act, what, how) in enumerate(acts):
        if act == "allocate":
            tensor = pool.allocate((what, 3), how)
            assert tuple(tensor.shape) == (what, 3)
            fill(tensor, number)
            living.append((tensor, number))
            del tensor
        elif act == "clear":
            pool.clear()
            named.clear()
        elif living:
            tensor, of = living.pop(what % len(living))
            if act == "view":
                living.append((tensor[len(tensor) // 2 :], of))
            elif act == "cache":
                with contextlib.suppress(InvalidRequest):  # larger than the whole pool
                    pool.cache(how, tensor)
                named.pop(how, None)
                if pool.get(how) is not None:
                    named[how] = (tensor, of)
            del tensor
        assert all(holds(tensor, of) for tensor, of in (*living, *named.values()))
        counters = pool.counters
        assert 0 <= counters.idle_bytes <= counters.bytes <= most


def test_memory_is_used_again_and_counted() -> None:
    pool = TensorPool()
    assert pool.max_bytes == 512 << 20
    first = pool.allocate((32, 64), torch.float32)
    address = first.data_ptr()
    half = first[16:]
    del first
    other = pool.allocate((32, 64), torch.float32)
    assert other.data_ptr() != address, "half of it is still in use"
    del half
    third = pool.allocate((64, 32), torch.int32)
    assert third.data_ptr() == address
    assert (pool.counters.reused, pool.counters.allocated, pool.counters.plain) == (1, 2, 0)
    assert (third.dtype, third.shape, third.is_contiguous()) == (torch.int32, (64, 32), True)


def test_beyond_the_cap_memory_is_ordinary_and_counted() -> None:
    pool = TensorPool(max_bytes=1 << 20)
    kept = [pool.allocate(64 * KIB, np.uint8) for _ in range(20)]
    assert (pool.counters.allocated, pool.counters.plain, pool.counters.bytes) == (16, 4, 1 << 20)
    kept.clear()
    again = pool.allocate(1 << 20, "uint8")  # what is idle makes room
    assert (pool.counters.plain, pool.counters.bytes, len(again)) == (4, 1 << 20, 1 << 20)


def test_what_is_kept_by_name_is_bounded_least_recently_used_first() -> None:
    pool = TensorPool(max_bytes=3000)
    for name in "abc":
        assert pool.cache(name, np.full(1000, ord(name), np.uint8))
    assert pool.get("a") is not None
    assert pool.cache("d", torch.zeros(250))
    assert [pool.get(name) is not None for name in "abcd"] == [True, False, True, True]
    assert (pool.counters.hits, pool.counters.misses, pool.counters.evicted) == (4, 1, 1)
    assert pool.counters.bytes == 3000
    assert pool.cache("a", mx.zeros(10))  # in place of the old one
    assert pool.counters.bytes == 2040
    pool.clear()
    assert (pool.get("a"), pool.counters.bytes) == (None, 0)


def test_a_pooled_tensor_kept_by_name_counts_once_and_its_memory_stays_its_own() -> None:
    pool = TensorPool(max_bytes=1 << 20)
    tensor = pool.allocate((KIB,), torch.float32)
    tensor.fill_(7)
    before = pool.counters.bytes
    assert pool.cache("weights", tensor.view(32, 32))
    assert pool.counters.bytes == before
    del tensor
    found: Any = pool.get("weights")
    assert pool.allocate((KIB,), torch.float32).data_ptr() != found.data_ptr()
    assert bool((found == 7).all())


def test_what_the_program_holds_leaves_no_room_and_says_so() -> None:
    pool = TensorPool(max_bytes=64 * KIB)
    held = pool.allocate(64 * KIB, np.uint8)
    assert not pool.cache("x", np.zeros(100))
    assert pool.get("x") is None
    del held
    assert pool.cache("x", np.zeros(100))


def test_mlx_arrays_come_from_mlx() -> None:
    pool = TensorPool()
    array = pool.allocate((3, 4), mx.bfloat16)
    assert (array.shape, array.dtype) == ((3, 4), mx.bfloat16)
    assert pool.counters.plain == 1


@pytest.mark.parametrize("shape", [(0, 5), (), 3])
@pytest.mark.parametrize("dtype", [torch.float16, "int32"])
def test_shapes_of_every_kind(shape: Any, dtype: Any) -> None:
    tensor = TensorPool().allocate(shape, dtype)
    assert tuple(tensor.shape) == ((3,) if shape == 3 else shape)


def test_wrong_arguments_are_named() -> None:
    pool = TensorPool(1000)
    with pytest.raises(InvalidRequest, match="max_bytes=0: must be at least 1"):
        TensorPool(0)
    with pytest.raises(InvalidRequest, match=r"shape=\(2, -1\): dimensions must be 0 or more"):
        pool.allocate((2, -1), "int8")
    with pytest.raises(InvalidRequest, match="dtype='floaty'"):
        pool.allocate(1, "floaty")
    with pytest.raises(InvalidRequest, match="Python objects"):
        pool.allocate(1, object)
    with pytest.raises(InvalidRequest, match=r"8000 bytes, the pool 1000: make it with TensorPool\(max_bytes=8000\)"):
        pool.cache("x", np.zeros(1000))
    with pytest.raises(InvalidRequest, match="not list"):
        pool.cache("x", [1, 2])


def test_what_nobody_takes_for_long_is_let_go() -> None:
    pool = TensorPool()
    del_me = pool.allocate(100_000, np.uint8)
    del del_me
    assert pool.counters.idle_bytes > 0
    for _ in range(300):
        pool.allocate(10, np.uint8)
    assert pool.counters.bytes < 1000


@given(st.integers(1, 1 << 40))
def test_a_common_size_holds_it_and_wastes_little(size: int) -> None:
    rounded = rounded_up(size)
    assert size <= rounded <= max(64, size + size // 8 + (PAGE if size > 48 * KIB else 64))
    assert rounded_up(rounded) == rounded
    assert rounded < 64 * KIB or rounded % PAGE == 0


def test_a_pickled_pool_is_a_new_one() -> None:
    pool = TensorPool(12345)
    pool.cache("x", np.zeros(3))
    copy = pickle.loads(pickle.dumps(pool))  # noqa: S301 - our own
    assert (copy.max_bytes, copy.counters.bytes, copy.get("x")) == (12345, 0, None)


def test_many_threads_never_share_memory() -> None:
    pool, wrong = TensorPool(8 << 20), []

    def work(number: int) -> None:
        kept: list[Any] = []
        for turn in range(300):
            tensor = pool.allocate(1000 + 64 * (turn % 5), np.int64)
            tensor[:] = number * 1000 + turn
            kept.append((tensor, number * 1000 + turn))
            if len(kept) > 7:
                old, value = kept.pop(0)
                wrong.extend([value] if not (old == value).all() else [])
                del old

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert pool.counters.reused > pool.counters.allocated


def test_a_block_that_cannot_be_made_is_not_counted() -> None:
    def none_left(size: int) -> Any:
        raise MemoryError(size)

    blocks = Blocks(1 << 20, none_left)
    with pytest.raises(MemoryError):
        blocks.take(100)
    assert blocks.here().held == 0


FORK = """
import os, numpy as np, penstock
pool = penstock.TensorPool()
kept = pool.allocate(1 << 20, np.uint8); kept[:] = 1
idle = pool.allocate(1 << 20, np.uint8); del idle
pool.cache("x", np.zeros(3))
with pool._blocks.here().lock, pool._lock:  # as another thread may at that moment
    child = os.fork()
    if child == 0:
        mine = pool.allocate(1 << 20, np.uint8); mine[:] = 2
        kept[:] = 3
        good = pool.counters.allocated == 1 and pool.get("x") is None
        del kept, mine
        good = good and pool.allocate(1 << 20, np.uint8) is not None and pool.counters.reused == 1
        os._exit(0 if good else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert (kept == 1).all(), "the child wrote into our memory"
assert pool.get("x") is not None
"""


def test_after_a_fork_each_has_memory_of_its_own() -> None:
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=60)


def test_memory_goes_with_the_pool() -> None:
    pool = TensorPool()
    tensor = pool.allocate(1 << 20, np.uint8)
    tensor[:] = 5
    del pool
    gc.collect()
    assert (tensor == 5).all()
