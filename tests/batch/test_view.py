import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.batch.view import Last, View
from penstock_service.core.errors import InvalidRequest

worlds = st.integers(1, 9)


@given(worlds, st.integers(1, 6), st.integers(0, 50), st.integers(0, 5))
def test_the_ranks_together_have_every_unit_of_every_step_in_order(
    world: int, rows: int, taken: int, steps: int
) -> None:
    views = [View(world * rows, rank, world) for rank in range(world)]
    parts = [v.full_steps(taken, steps).reshape(steps, rows) for v in views]
    together = np.concatenate(parts, axis=1).ravel()
    assert together.tolist() == list(range(taken, taken + steps * world * rows))


@given(worlds, st.integers(1, 6), st.data())
def test_short_gives_every_unit_left_over_once_and_ranks_differ_by_a_row_at_most(
    world: int, rows: int, data: st.DataObject
) -> None:
    if world * rows == 1:
        return
    left = data.draw(st.integers(1, world * rows - 1))
    found = [View(world * rows, rank, world).last_step(left, 10**6) for rank in range(world)]
    assert all(step is not None for step in found)
    valid = [u for step in found if step for u in step.units[: len(step.units) if step.valid is None else step.valid]]
    assert valid == list(range(left))
    sizes = {len(step.units) for step in found if step}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    if left >= world:
        assert all(step.valid is None and step.padded == 0 for step in found if step)


@given(worlds, st.integers(1, 6), st.data())
def test_pad_fills_every_rank_up_and_says_what_is_data(world: int, rows: int, data: st.DataObject) -> None:
    if world * rows == 1:
        return
    left = data.draw(st.integers(1, world * rows - 1))
    found = [View(world * rows, rank, world, "pad").last_step(left, 10**6) for rank in range(world)]
    units = []
    for step in found:
        assert step is not None
        assert step.valid is not None
        assert len(step.units) == rows
        assert step.padded == world * rows - left
        assert all(0 <= u < left for u in step.units)
        units += step.units[: step.valid].tolist()
    assert units == list(range(left))


@given(worlds, st.integers(1, 6), st.integers(0, 40), st.data())
def test_wrap_goes_on_with_the_epochs_first_units(world: int, rows: int, more: int, data: st.DataObject) -> None:
    if world * rows == 1:
        return
    left = data.draw(st.integers(1, world * rows - 1))
    epoch = left + more
    found = [View(world * rows, rank, world, "wrap").last_step(left, epoch) for rank in range(world)]
    units = [u for step in found if step for u in step.units]
    assert units[:left] == list(range(left))
    assert [u - left for u in units[left:]] == [i % epoch for i in range(world * rows - left)]


@pytest.mark.parametrize(
    ("last", "steps", "has_step"), [("drop", 3, False), ("short", 4, True), ("pad", 4, True), ("wrap", 4, True)]
)
def test_steps_of_an_epoch_with_a_rest(last: Last, steps: int, has_step: bool) -> None:
    view = View(8, 0, 2, last)
    assert view.steps_of(30) == steps
    assert (view.last_step(6, 30) is not None) is has_step
    assert view.steps_of(24) == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, 0, 1), "a batch of 0 rows"),
        ((8, 2, 2), "rank=2 of world_size=2"),
        ((8, -1, 2), "ranks are 0 to 1"),
        ((8, 0, 0), "world_size=0"),
        ((10, 0, 4), "the nearest sizes that can: 8 and 12"),
        ((3, 0, 4), "the nearest sizes that can: 4"),
    ],
)
def test_views_that_cannot_be_are_refused(arguments: tuple[int, int, int], text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        View(*arguments)


def test_an_unknown_last_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'short', 'drop', 'pad' and 'wrap'"):
        View(8, 0, 2, "keep")  # type: ignore[arg-type]
