"""Parts of one piece of work, done by the thread that has it and by those that are free."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final

_MOST: Final = 4  # threads for one bundle: memory gives no more than a few of them can take


@cache
def _helpers() -> tuple[int, ThreadPoolExecutor]:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST, cpus), ThreadPoolExecutor(max(1, cpus - 1), "gather")


def together(do: Callable[[int], None], parts: int) -> None:
    """Call `do` with each of range(parts). Nobody waits for a helper that is busy elsewhere: its share is done here.

    Raises what `do` raises, when no part is being done any more; some may not have been begun then.
    """
    if parts == 1:
        do(0)
        return
    most, helpers = _helpers()
    left = iter(range(parts))  # each number goes to one thread: `next` holds the GIL

    def work() -> None:
        for part in left:
            do(part)

    helping = [helpers.submit(work) for _ in range(min(parts, most) - 1)]
    try:
        work()
    finally:
        begun = [helper for helper in helping if not helper.cancel()]
        for helper in begun:
            helper.exception()
    for helper in begun:
        helper.result()
