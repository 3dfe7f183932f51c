"""The ghost list against stores that are really there, and what is chosen by it."""

import random
from collections.abc import Iterable, Iterator
from itertools import groupby

import hypothesis.strategies as st
import pytest
from hypothesis import given

from penstock_service.chunks.ghosts import FACTORS, Chooser, Ghosts
from penstock_service.chunks.keys import Owner
from penstock_service.chunks.shelf import RULES, DiskShelf, Entry, Rule

Use = tuple[Owner, str, int]


def version(name: str) -> Owner:
    return (name, "1", "/")


def epoch(name: str, chunks: int, size: int = 10) -> list[Use]:
    return [(version(name), f"{name}{n}", size) for n in range(chunks)]


def use_one(ghosts: Ghosts, use: Use) -> None:
    owner, key, size = use
    ghosts.use(owner, [(key, size)])


def real(rule: Rule, limit: int, uses: Iterable[Use]) -> int:
    """Hits of a store of that size."""
    shelf, hits = DiskShelf(limit, rule), 0
    for owner, key, size in uses:
        if key in shelf.entries:
            hits += 1
        elif shelf.admit(size, owner) is not None:
            shelf.add(Entry(key, size, owner))
        shelf.use(owner)
    return hits


def followed(limit: int, uses: Iterable[Use], most: int = 1024) -> Ghosts:
    ghosts = Ghosts(limit, most=most)
    for owner, chunks in together(uses):
        ghosts.use(owner, chunks)
    return ghosts


def together(uses: Iterable[Use]) -> Iterator[tuple[Owner, list[tuple[str, int]]]]:
    """As segments use chunks: several of one version at a time, each once."""
    for owner, run in groupby(uses, key=lambda use: use[0]):
        chunks: dict[str, int] = {}
        for _, key, size in run:
            if key in chunks:
                yield owner, list(chunks.items())
                chunks = {}
            chunks[key] = size
        yield owner, list(chunks.items())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 8), st.just(10)), max_size=200))
def test_while_all_chunks_are_followed_each_ghost_is_the_store_that_it_stands_for(
    drawn: list[tuple[str, int, int]],
) -> None:
    uses = [(version(name), f"{name}{n}", size) for name, n, size in drawn]
    ghosts = followed(60, uses)
    for ghost in ghosts.statuses():
        assert ghost.hit_ratio * len(uses) == pytest.approx(
            real(next(rule for rule in RULES if rule == ghost.policy), int(60 * ghost.factor), uses)
        )
    assert len(ghosts.statuses()) == (len(RULES) * len(FACTORS) if uses else 0)


def test_a_sample_of_many_chunks_tells_the_same_as_all_of_them() -> None:
    uses = [use for _ in range(4) for name in "abcd" for use in epoch(name, 1500)]
    cap = 40_000  # of 60,000
    ghosts = followed(cap, uses, most=512)
    assert ghosts.share < 0.25
    for ghost in ghosts.statuses():
        rule = next(rule for rule in RULES if rule == ghost.policy)
        # The latest 4,096 sampled uses weigh most: less than the whole history here.
        assert ghost.hit_ratio == pytest.approx(real(rule, ghost.bytes, uses) / len(uses), abs=0.08)


def test_memory_is_bounded_however_many_chunks_there_are() -> None:
    ghosts = Ghosts(1 << 40, most=100)
    for use in epoch("huge", 20_000):
        use_one(ghosts, use)
    assert max(len(ghost.shelf.entries) for ghost in ghosts._ghosts) <= 100
    assert all(ghost.shelf.bound.used <= ghost.shelf.bound.limit for ghost in ghosts._ghosts)


def test_what_is_held_stays_in_ghosts_too() -> None:
    ghosts = Ghosts(20)
    ghosts.hold(version("a"))
    for use in [*epoch("a", 2), *epoch("b", 2), *epoch("a", 2)]:
        use_one(ghosts, use)
    assert ghosts.ratios()["lru"] == pytest.approx(2 / 6)
    ghosts.unhold(version("a"))
    for use in [*epoch("b", 2), *epoch("b", 2)]:
        use_one(ghosts, use)
    assert ghosts.ratios()["lru"] == pytest.approx(4 / 10)


def _favourite_among_strangers(rounds: int) -> list[Use]:
    """One version is read twice between scans of versions that never come again: frequency knows what to keep."""
    uses: list[Use] = []
    for n in range(rounds):
        uses += epoch("favourite", 10) * 2 + epoch(f"stranger{n}", 12)
    return uses


def test_adaptive_chooses_what_hits_most_and_says_why() -> None:
    ghosts, chooser = Ghosts(200), Chooser("lru")
    assert chooser.rule == "lru"
    changed = 0
    for use in _favourite_among_strangers(60):
        use_one(ghosts, use)
        changed += chooser.used(1, ghosts)
    assert ghosts.ratios()["lfu"] > ghosts.ratios()["fifo"]
    best = max(ghosts.ratios().values())
    assert ghosts.ratios()[chooser.rule] >= best - Chooser.MARGIN
    assert changed <= 1
    assert "%" in chooser.reason


def test_adaptive_does_not_change_for_little_or_before_enough_is_known() -> None:
    ghosts, chooser = Ghosts(200), Chooser("fifo")
    uses = _favourite_among_strangers(60)
    for use in uses[: Chooser.LEAST - 1]:
        use_one(ghosts, use)
        assert not chooser.used(1, ghosts)
    assert chooser.rule == "fifo"
    assert "until enough is known" in chooser.reason
    same, steady = Ghosts(1 << 20), Chooser("fifo")
    for use in uses:
        use_one(same, use)
        assert not steady.used(1, same)  # all fits: no rule is better
    assert steady.rule == "fifo"


def test_a_changed_habit_changes_the_choice() -> None:
    """First frequency is right; then old favourites are never read again, and it is wrong."""
    ghosts, chooser, seen = Ghosts(200), Chooser("lru"), set[Rule]()
    draw = random.Random(7)
    for n in range(400):
        if n < 100:
            uses = epoch("favourite", 10) * 2 + epoch(f"stranger{n}", 12)
        else:
            uses = epoch(f"new{n // 20}", 9) + epoch(f"new{n // 20 - draw.randrange(2)}", 9)
        for use in uses:
            use_one(ghosts, use)
        chooser.used(len(uses), ghosts)
        seen.add(chooser.rule)
        ratios = ghosts.ratios()
        if n in (99, 399):
            assert ratios[chooser.rule] >= max(ratios.values()) - 0.05
