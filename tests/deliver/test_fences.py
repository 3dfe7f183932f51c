"""Who holds a rank, as a pure state machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.errors import Fenced
from penstock_service.deliver.fences import FENCED, KEYS, REMEMBERED, Comer, Fences, Key, Taken

KEY = Key("job", "train", 0, 0)
OTHERS = (Key("job", "val", 0, 0), Key("job", "train", 1, 0), Key("job", "train", 0, 1), Key("other", "train", 0, 0))


def comer(process: str, thing: str = "a", reopened: bool = False) -> Comer:
    return Comer(f"{process}.{thing}", reopened, f"penstock 1.0, pid {process} on here")


def test_another_process_takes_over_and_the_older_is_refused_when_it_comes_back() -> None:
    fences = Fences()
    assert fences.take(KEY, comer("1"), "s1", 0.0) == Taken()
    assert fences.take(KEY, comer("2"), "s2", 1.0) == Taken(fenced=("s1",))
    fences.leave(KEY, "s1", 1.1)
    with pytest.raises(Fenced, match=r"rank 0 \(replica 0\) of job 'job', stream 'train'.*pid 2 on here") as caught:
        fences.check(KEY, comer("1", reopened=True), 2.0)
    assert caught.value.by == "penstock 1.0, pid 2 on here"
    # Long after the newcomer has gone, the object that was fenced stays so.
    fences.leave(KEY, "s2", 3.0)
    with pytest.raises(Fenced):
        fences.take(KEY, comer("1", reopened=True), "s3", 3.0 + 10 * REMEMBERED)


def test_a_fenced_process_may_begin_anew_when_nobody_has_the_rank() -> None:
    fences = Fences()
    fences.take(KEY, comer("1"), "s1", 0.0)
    fences.take(KEY, comer("2"), "s2", 1.0)
    with pytest.raises(Fenced):
        fences.take(KEY, comer("1", "b"), "s3", 2.0)
    fences.leave(KEY, "s2", 3.0)
    assert fences.take(KEY, comer("1", "b"), "s3", 3.5) == Taken()


def test_who_was_away_when_the_rank_was_taken_over_is_refused_too() -> None:
    fences = Fences()
    fences.take(KEY, comer("1"), "s1", 0.0)
    fences.leave(KEY, "s1", 1.0)
    assert fences.take(KEY, comer("2"), "s2", 2.0) == Taken()
    with pytest.raises(Fenced):
        fences.check(KEY, comer("1", reopened=True), 3.0)
    fences.leave(KEY, "s2", 4.0)
    with pytest.raises(Fenced):
        fences.check(KEY, comer("1", reopened=True), 4.0 + REMEMBERED / 2)
    fences.check(KEY, comer("1", reopened=True), 4.1 + REMEMBERED)


def test_a_reconnect_of_the_holder_ends_only_what_it_had_before() -> None:
    fences = Fences()
    fences.take(KEY, comer("1"), "s1", 0.0)
    assert fences.take(KEY, comer("1", reopened=True), "s2", 1.0) == Taken(replaced=("s1",))
    fences.leave(KEY, "s1", 1.1)  # late: it holds nothing any more
    assert fences.take(KEY, comer("2"), "s3", 2.0) == Taken(fenced=("s2",))


Open = tuple[int, int, int, bool]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 4), st.booleans()), max_size=40))
def test_one_process_at_a_time_and_the_first_comer_is_never_refused(opens: list[Open]) -> None:
    """Whatever comes and goes: live sessions of a key are of one process, objects of one process end nobody else, and
    nobody is refused but for another process."""
    fences = Fences()
    live: dict[str, tuple[Key, Comer]] = {}
    for at, (process, thing, what, reopened) in enumerate(opens):
        key = (KEY, *OTHERS)[what]
        if reopened and live:
            gone = next(iter(live))
            fences.leave(live.pop(gone)[0], gone, float(at))
        who = comer(str(process), str(thing), reopened)
        others = {k for k, (of, c) in live.items() if of == key and c.process != who.process}
        same = {k for k, (of, c) in live.items() if of == key and c.token == who.token}
        try:
            taken = fences.take(key, who, f"s{at}", float(at))
        except Fenced:
            assert any(int(p) != process and of == what for p, _, of, _ in opens[:at])
            continue
        assert set(taken.fenced) == others
        assert set(taken.replaced) == same
        for ended in (*taken.fenced, *taken.replaced):
            del live[ended]
        live[f"s{at}"] = (key, who)
        assert len({c.process for of, c in live.values() if of == key}) == 1


def test_clients_that_tell_no_token_are_left_alone() -> None:
    fences = Fences()
    nobody = Comer("", False, "curl")
    assert fences.take(KEY, nobody, "s1", 0.0) == Taken()
    assert fences.take(KEY, comer("1"), "s2", 0.0) == Taken()
    assert fences.take(KEY, nobody, "s3", 0.0) == Taken()


def test_what_is_remembered_is_bounded() -> None:
    fences = Fences()
    for n in range(KEYS + 100):
        key = Key("job", f"stream {n}", 0, 0)
        fences.take(key, comer("1"), f"s{n}", 0.0)
        if n != 5:
            fences.leave(key, f"s{n}", 0.0)
    assert len(fences._held) <= KEYS + 2
    assert Key("job", "stream 5", 0, 0) in fences._held  # one that is live is never forgotten
    for n in range(3 * FENCED):
        fences.take(KEY, comer(f"p{n}"), f"t{n}", 1.0)
    assert len(fences._held[KEY].fenced) == FENCED
