from collections import Counter
from collections.abc import Iterable

import hypothesis.strategies as st
from hypothesis import given

from penstock_service.chunks.keys import Owner
from penstock_service.chunks.shelf import RULES, DiskShelf, Entry, MemoryShelf, Rule

OLD, NEW, OTHER = (("toy", version, "/") for version in ("1", "2", "3"))


def put(shelf: DiskShelf, key: str, owner: Owner | None, size: int = 10) -> Entry:
    entry = Entry(key, size, owner)
    shelf.found(entry)
    return entry


def keys(entries: Iterable[Entry] | None) -> list[str] | None:
    return None if entries is None else [e.key for e in entries]


def test_there_is_room_until_the_cap() -> None:
    shelf = DiskShelf(30)
    assert [keys(shelf.admit(10, NEW)) for _ in range(4)] == [[], [], [], None]
    assert shelf.bound.used == 30


def test_a_version_keeps_what_it_has() -> None:
    shelf = DiskShelf(20)
    put(shelf, "a", NEW), put(shelf, "b", NEW)
    assert shelf.admit(10, NEW) is None
    assert set(shelf.entries) == {"a", "b"}


def test_the_version_used_longest_ago_gives_way_first() -> None:
    shelf = DiskShelf(40)
    for key, owner in (("a", OLD), ("b", OTHER), ("c", OLD), ("d", OTHER)):
        put(shelf, key, owner)
    shelf.hold(OLD)
    shelf.unhold(OLD)  # used after OTHER
    assert keys(shelf.admit(15, NEW)) == ["b", "d"]
    assert keys(shelf.admit(15, NEW)) == ["a"]
    assert shelf.evicted == 3


def test_a_version_in_use_does_not_give_way() -> None:
    shelf = DiskShelf(20)
    put(shelf, "a", OLD), put(shelf, "b", OLD)
    shelf.hold(OLD)
    assert shelf.admit(10, NEW) is None
    shelf.unhold(OLD)
    assert keys(shelf.admit(10, NEW)) == ["a"]


def test_a_leased_chunk_does_not_give_way() -> None:
    shelf = DiskShelf(20)
    put(shelf, "a", OLD).pins = 1
    put(shelf, "b", OLD)
    assert keys(shelf.admit(10, NEW)) == ["b"]
    assert shelf.admit(10, NEW) is None


def test_what_is_refused_changes_nothing() -> None:
    shelf = DiskShelf(20)
    put(shelf, "a", OLD), put(shelf, "b", NEW)
    assert shelf.admit(15, NEW) is None
    assert shelf.admit(25, NEW) is None
    assert (set(shelf.entries), shelf.bound.used, shelf.evicted) == ({"a", "b"}, 20, 0)


def test_chunks_found_at_start_go_before_others_unless_a_version_in_use_claims_them() -> None:
    shelf = DiskShelf(30)
    for key, owner in (("found", None), ("mine", None), ("old", OLD)):
        put(shelf, key, owner)
    shelf.know(NEW, lambda: ["mine"])
    shelf.know(OTHER, list)  # not in use
    [(owner, theirs)] = shelf.unclaimed(NEW)
    assert (owner, list(theirs())) == (NEW, ["mine"])
    shelf.give(shelf.entries["mine"], NEW)
    assert shelf.unclaimed(NEW) == []
    assert keys(shelf.admit(20, NEW)) == ["found", "old"]


def test_another_servers_chunks_are_claimed_when_they_are_found() -> None:
    shelf = DiskShelf(30)
    shelf.know(NEW, list)
    put(shelf, "a", None)
    assert len(shelf.unclaimed(NEW)) == 1
    put(shelf, "b", None)
    assert len(shelf.unclaimed(NEW)) == 1


def test_a_lower_cap_removes_what_was_used_longest_ago() -> None:
    shelf = DiskShelf(20)
    for key in "abcd":
        put(shelf, key, None)
    assert keys(shelf.shrink()) == ["a", "b"]
    assert shelf.bound.used == 20


def test_in_memory_a_demand_displaces_what_is_not_leased_and_a_hint_nothing() -> None:
    shelf = MemoryShelf(20)
    for key in "ab":
        assert shelf.admit(10, demanded=True) == []
        shelf.add(Entry(key, 10, NEW, memory=True))
    assert shelf.admit(10, demanded=False) is None
    shelf.entries["a"].pins = 1
    assert keys(shelf.admit(10, demanded=True)) == ["b"]
    assert shelf.admit(10, demanded=True) is None
    assert shelf.bound.used == 20


@given(
    st.lists(
        st.tuples(st.sampled_from([OLD, NEW, OTHER]), st.integers(1, 12), st.booleans(), st.booleans()), max_size=60
    )
)
def test_the_cap_holds_whatever_comes(steps: list[tuple[Owner, int, bool, bool]]) -> None:
    shelf = DiskShelf(40)
    for n, (owner, size, held, pinned) in enumerate(steps):
        if held:
            shelf.hold(owner)
        pinned_before = {e.key for e in shelf.entries.values() if e.pins}
        victims = shelf.admit(size, owner)
        assert not pinned_before & {v.key for v in victims or ()}
        assert all(v.owner != owner for v in victims or ())
        if victims is not None:
            entry = Entry(str(n), size, owner, pins=int(pinned))
            shelf.add(entry)
        if held and n % 3:
            shelf.unhold(owner)
        assert shelf.bound.used == sum(e.size for e in shelf.entries.values()) <= 40


def test_each_rule_lets_another_version_go_first() -> None:
    firsts: dict[Rule, str] = {"lru": "a", "lfu": "b", "fifo": "c"}
    for rule, first in firsts.items():
        shelf = DiskShelf(30, rule)
        put(shelf, "c", OTHER), put(shelf, "b", NEW), put(shelf, "a", OLD)
        for owner, times in ((OLD, 5), (NEW, 1), (OTHER, 3)):
            shelf.use(owner, times)
        shelf.use(NEW, 0)
        shelf.use(OTHER, 0)
        assert keys(shelf.admit(10, ("asking", "1", "/"))) == [first]


VERSIONS = [OLD, NEW, OTHER, ("toy", "4", "/")]


@given(
    st.sampled_from(RULES),
    st.lists(
        st.one_of(
            st.tuples(st.just("make"), st.sampled_from(VERSIONS), st.integers(1, 15)),
            st.tuples(st.sampled_from(["use", "hold", "unhold"]), st.sampled_from(VERSIONS), st.integers(1, 5)),
            st.tuples(st.sampled_from(["lease", "release"]), st.sampled_from(VERSIONS), st.integers(0, 50)),
            st.tuples(st.just("rule"), st.sampled_from(VERSIONS), st.integers(0, 2)),
        ),
        max_size=120,
    ),
)
def test_under_every_rule_the_cap_holds_and_what_is_held_or_leased_stays(
    rule: Rule, steps: list[tuple[str, Owner, int]]
) -> None:
    """Rules may change at any moment, as `adaptive` changes them."""
    shelf, held = DiskShelf(60, rule), Counter[Owner]()
    leased: list[Entry] = []
    for n, (what, owner, number) in enumerate(steps):
        match what:
            case "make":
                before = {key: entry.owner for key, entry in shelf.entries.items()}
                victims = shelf.admit(number, owner)
                for victim in victims or ():
                    assert victim.key in before
                    assert victim.owner != owner
                    assert victim.owner is not None
                    assert not held[victim.owner]
                    assert not victim.pins
                if victims is None:
                    assert {key: entry.owner for key, entry in shelf.entries.items()} == before
                else:
                    shelf.add(Entry(str(n), number, owner))
            case "use":
                shelf.use(owner, number)
            case "hold":
                shelf.hold(owner)
                held[owner] += 1
            case "unhold" if held[owner]:
                shelf.unhold(owner)
                held[owner] -= 1
            case "lease" if shelf.entries:
                leased.append(list(shelf.entries.values())[number % len(shelf.entries)])
                leased[-1].pins += 1
            case "release" if leased:
                leased.pop(number % len(leased)).pins -= 1
            case "rule":
                shelf.rule = RULES[number]
        assert all(entry.key in shelf.entries for entry in leased)
        assert shelf.bound.used == sum(entry.size for entry in shelf.entries.values()) <= 60


@given(st.sampled_from(RULES), st.integers(1, 10), st.integers(1, 20))
def test_one_version_larger_than_the_cap_keeps_what_it_has_under_every_rule(rule: Rule, fits: int, more: int) -> None:
    """A scan hits what fitted once, in every epoch: nothing thrashes."""
    shelf = DiskShelf(10 * fits, rule)
    for epoch in range(3):
        hits = 0
        for n in range(fits + more):
            if str(n) in shelf.entries:
                hits += 1
            elif shelf.admit(10, NEW) is not None:
                shelf.add(Entry(str(n), 10, NEW))
            shelf.use(NEW)
        assert hits == (fits if epoch else 0)
