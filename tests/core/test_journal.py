"""Laws of the journal's chain: what a cursor and a server know of one run is put together, or refused by name."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_proto.v1.cursor import MAX_BYTES, Cursor
from penstock_service.core.errors import InvalidRequest, JournalConflict
from penstock_service.core.journal import (
    CARRIED_BYTES,
    Carried,
    Entry,
    Journal,
    Place,
    branched,
    mixtures,
    reconcile,
)
from penstock_service.core.run import MOST_RANGES, row_ranges

places = st.builds(Place, st.integers(0, 3), st.integers(0, 9))
names = st.text(min_size=1, max_size=5)
ranges = st.lists(st.tuples(st.integers(0, 99), st.integers(1, 9)).map(lambda r: [r[0], r[0] + r[1]]), min_size=1)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    place = draw(places)
    if draw(st.booleans()):
        return Entry("mixture", place, {"weights": draw(st.dictionaries(names, st.integers(0, 9), min_size=1))})
    what = {"rows": draw(st.dictionaries(names, ranges, min_size=1, max_size=3)), "reason": draw(st.text(max_size=9))}
    return Entry(draw(st.sampled_from(["quarantine", "unreadable"])), place, what)


@st.composite
def journals(draw: st.DrawFn) -> Journal:
    return Journal("r", tuple(sorted(draw(st.lists(entries(), max_size=5)), key=lambda e: e.place)))


def carried(journal: Journal) -> Carried:
    """As it arrives: through a cursor's JSON."""
    cursor = Cursor(0, 0, 0, 0, 1, 0, 0, run=journal.carried())
    found = Carried.of(Cursor.from_json(cursor.to_json()).run)
    assert found is not None
    return found


def bare(journal: Journal) -> Carried:
    """As one whose entries were too long for the cursor."""
    return replace(carried(journal), entries=None if journal.entries else ())


@given(journals())
def test_a_journal_survives_the_cursor_and_the_cursor_stays_small(journal: Journal) -> None:
    cursor = Cursor(
        *(2**63, 2**63, 2**63, 2**63, 2**63, 2**63, 2**64 - 1),
        plan={"pool_rows": 2**63, "drain": 2**63, "cycles": 256, "start": "ramp"},
        fingerprint={f"transform{i}": "0123456789abcdef" for i in range(10)},
        run=journal.carried(),
    )
    assert len(cursor.to_json()) < MAX_BYTES
    found = Carried.of(Cursor.from_json(cursor.to_json()).run)
    assert found is not None
    assert (found.n, found.head) == (len(journal.entries), journal.head)
    size = len(json.dumps([e.to_json() for e in journal.entries], separators=(",", ":")))
    assert found.entries == (journal.entries if size <= CARRIED_BYTES or not journal.entries else None)


def test_entries_that_are_too_long_stay_at_home_and_the_cursor_says_how_many_there_are() -> None:
    many = {"rows": {"web": [[i, i + 1] for i in range(0, 2 * MOST_RANGES, 2)]}, "reason": "by hand"}
    journal = Journal("r", (Entry("quarantine", Place(0, 4), many),))
    run = journal.carried()
    assert run == {"id": "r", "n": 1, "head": journal.head}
    assert len(Cursor(0, 0, 0, 0, 1, 0, 0, run=run).to_json()) < 400
    with pytest.raises(JournalConflict, match=r"too long for the state.*restore the state folder") as caught:
        reconcile(bare(journal), None, Place(0, 0))
    assert journal.head in str(caught.value)
    with pytest.raises(JournalConflict, match="too long"):
        branched(bare(journal), None, "new")
    assert reconcile(bare(journal), journal, Place(0, 0)) == journal
    assert branched(bare(journal), journal, "new") == Journal("new", journal.entries)


@given(journals(), st.data())
def test_whoever_knows_less_learns_from_the_other(journal: Journal, data: st.DataObject) -> None:
    n = data.draw(st.integers(0, len(journal.entries)))
    less = journal.first(n, "r")
    before = journal.entries[n].place if n < len(journal.entries) else Place(9, 0)
    assert reconcile(carried(less), journal, before) == journal
    assert reconcile(bare(less), journal, before) == journal
    # A lost state folder, and one restored from before:
    if carried(journal).entries is not None:
        assert reconcile(carried(journal), less, Place(9, 0)) == journal
        assert reconcile(carried(journal), None, Place(9, 0)) == journal
    elif less != journal:
        with pytest.raises(JournalConflict, match="too long for the state"):
            reconcile(carried(journal), less, Place(9, 0))


@given(journals(), entries(), st.data())
def test_entries_behind_the_cursor_that_it_does_not_know_are_refused(
    journal: Journal, entry: Entry, data: st.DataObject
) -> None:
    later = Journal("r", (*journal.entries, entry))
    at = Place(entry.place.epoch, entry.place.segment + data.draw(st.integers(1, 9)))
    with pytest.raises(JournalConflict) as caught:
        reconcile(carried(journal), later, at)
    said = str(caught.value)
    assert journal.head in said
    assert later.head in said
    assert str(entry.place) in said
    assert "branch=True" in said
    assert branched(carried(journal), later, "new") == Journal("new", journal.entries)


@given(journals(), entries(), entries())
def test_journals_that_parted_are_refused_with_both_heads(common: Journal, mine: Entry, theirs: Entry) -> None:
    if mine == theirs:
        return
    ours, other = Journal("r", (*common.entries, mine)), Journal("r", (*common.entries, theirs))
    for known in (other, Journal("r", (*other.entries, mine))):
        with pytest.raises(JournalConflict) as caught:
            reconcile(carried(ours), known, Place(0, 0))
        assert ours.head in str(caught.value)
        assert known.head in str(caught.value)
        assert "branch=True" in str(caught.value)


@given(journals(), entries(), st.data())
def test_the_head_knows_every_entry_and_their_order(journal: Journal, entry: Entry, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(journal.entries)))
    other = Journal("r", (*journal.entries[:at], entry, *journal.entries[at:]))
    assert other.head != journal.head
    if len(journal.entries) > at and journal.entries[at] != entry:
        swapped = Journal("r", (*journal.entries[: at + 1], entry, *journal.entries[at + 1 :]))
        assert swapped.head != other.head
    assert other.first(at, "another").head == journal.first(at, "r").head


def test_the_chain_is_pinned() -> None:
    """Heads are in cursors of years ago."""
    journal = Journal("r", (Entry("mixture", Place(1, 7), {"weights": {"web": 1, "code": 3}}),))
    rows = {"rows": {"web": [[3, 9]]}, "reason": "torn"}
    assert Journal("r").head == "79dade832b506b2a"
    assert journal.head == "78186a6634d7ac36"
    assert journal.append(Entry("quarantine", Place(1, 7), rows)).head == "77ffae3af349b044"


def test_a_mixture_behind_another_entry_is_refused_with_the_cure() -> None:
    journal = Journal("r").append(Entry("mixture", Place(1, 7), {"weights": {"web": 1}}))
    with pytest.raises(InvalidRequest, match=r"rolled back.*mixture entry from segment 7 of epoch 1.*branch=True"):
        journal.append(Entry("mixture", Place(1, 6), {"weights": {"web": 2}}))
    # Rows may be left out at any place that nobody has read.
    earlier = journal.append(Entry("quarantine", Place(0, 2), {"rows": {"web": [[1, 2]]}, "reason": ""}))
    assert [e.place for e in earlier.entries] == [Place(1, 7), Place(0, 2)]
    again = journal.append(Entry("mixture", Place(1, 7), {"weights": {"web": 5}}))
    assert mixtures(again.entries) == [(Place(1, 7), {"web": 5})]


@pytest.mark.parametrize(
    "run",
    [
        {"id": "r"},
        {"id": "r", "n": 1, "head": "0", "entries": []},
        {"id": "", "n": 0, "head": "79dade832b506b2a"},
        {"id": "r", "n": 1, "head": "0", "entries": [{"kind": "gift", "epoch": 0, "segment": 1}]},
        {"id": "r", "n": 1, "head": "0", "entries": [{"kind": "mixture", "epoch": 0, "segment": 1}]},
        {"id": "r", "n": 1, "head": "0", "entries": [{"kind": "mixture", "epoch": 0, "segment": -1}]},
        {
            "id": "r",
            "n": 1,
            "head": "0",
            "entries": [{"kind": "quarantine", "epoch": 0, "segment": 1, "rows": {"a": 5}}],
        },
        {"id": "r", "n": 1, "head": "0", "entries": 7},
    ],
)
def test_a_damaged_journal_is_refused(run: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="the journal in the state is damaged"):
        Carried.of(run)


def test_a_cursor_without_a_run_is_of_none() -> None:
    assert Carried.of({}) is None


def test_rows_are_named_by_number_and_range() -> None:
    assert row_ranges([7, "3-4", "8", " 5 "], 9, "web") == [[3, 6], [7, 9]]
    for bad in (["x"], [-1], ["4-"], ["5-4"], [9], ["0-9"]):
        with pytest.raises(InvalidRequest, match=r"row .* of web"):
            row_ranges(bad, 9, "web")
    with pytest.raises(InvalidRequest, match="no row of web was named"):
        row_ranges([], 9, "web")
    with pytest.raises(InvalidRequest, match="20000 separate ranges"):
        row_ranges(range(0, 40_000, 2), 40_000, "web")
