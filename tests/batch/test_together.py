"""Work in parts: each part is done once, and nothing goes on when the call is over."""

import threading

import pytest

from penstock_service.batch import together as module
from penstock_service.batch.together import together


@pytest.mark.parametrize("parts", [1, 2, 3, 50])
def test_each_part_is_done_once(parts: int) -> None:
    done: list[int] = []
    together(done.append, parts)
    assert sorted(done) == list(range(parts))


@pytest.mark.parametrize("bad", range(6))
def test_an_error_is_raised_when_no_part_is_being_done_any_more(bad: int) -> None:
    doing = [0]
    lock = threading.Lock()

    def do(part: int) -> None:
        with lock:
            doing[0] += 1
        try:
            if part == bad:
                raise ValueError(f"part {part}")
            threading.Event().wait(0.01)
        finally:
            with lock:
                doing[0] -= 1

    with pytest.raises(ValueError, match=f"part {bad}"):
        together(do, 6)
    assert doing == [0]


def test_helpers_that_are_busy_are_not_waited_for() -> None:
    most, helpers = module._helpers()
    held = threading.Event()
    busy = [helpers.submit(held.wait) for _ in range(4 * most)]
    try:
        done: list[int] = []
        together(done.append, 20)
        assert done == list(range(20))
    finally:
        held.set()
        for one in busy:
            one.result()


def test_many_callers_at_a_time_all_end() -> None:
    found: list[list[int]] = [[] for _ in range(8)]
    threads = [threading.Thread(target=together, args=(own.append, 30)) for own in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [sorted(own) for own in found] == [list(range(30))] * 8
