"""Memory for messages that is used again at the server."""

import gc
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.bodies import Bodies

ACTS = st.lists(st.tuples(st.booleans(), st.integers(1, 20_000)), max_size=60)


@given(ACTS, st.sampled_from([0, 10_000, 1 << 20]))
def test_what_was_not_given_back_is_nobodys_else(acts: list[tuple[bool, int]], most: int) -> None:
    bodies = Bodies(most)
    lent: list[tuple[Any, int]] = []
    for number, (take, size) in enumerate(acts):
        if take or not lent:
            body = bodies(size)
            assert len(body) == size
            body[:] = number % 251
            lent.append((body, number % 251))
        else:
            bodies.give_back(lent.pop(size % len(lent))[0])
        assert all((body == value).all() for body, value in lent)
        assert bodies.nbytes <= most


def test_sizes_that_are_nearly_the_same_share_memory() -> None:
    bodies = Bodies()
    for size in (1_000_000, 1_000_500, 990_000, 1_000_000):
        bodies.give_back(bodies(size))
    assert (bodies.allocated, bodies.reused) == (1, 3)


def test_what_is_not_ours_or_was_never_given_back_is_left_alone() -> None:
    bodies = Bodies()
    bodies.give_back(np.empty(5000, np.uint8))
    bodies.give_back(np.empty(5000, np.uint8)[:100])
    bodies.give_back(np.frombuffer(b"12345", np.uint8))
    assert bodies.nbytes == 0
    bodies(5000)
    gc.collect()
    assert not bodies._ours, "what was lost is still held"
