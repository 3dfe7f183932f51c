from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock_service.chunks.agenda import Agenda, Unit
from penstock_service.core.channel import Bound

OWNER = ("d", "1", "/")
A, B, C = ((OWNER, n) for n in (0, 10, 20))


def agenda(limit: int = 100, workers: int = 1) -> Agenda:
    return Agenda(Bound("read ahead", limit), workers)


def test_demands_come_before_hints_and_in_their_order() -> None:
    a = agenda(limit=1000, workers=4)
    a.hint(A, 0, 10)
    a.demand(B, 10, 10)
    a.demand(C, 20, 10)
    assert [unit.id for _ in range(3) if (unit := a.next(0))] == [B, C, A]


def test_chunks_of_one_unit_are_one_task() -> None:
    a = agenda(workers=4)
    for chunk in (0, 1, 2):
        a.demand(A, chunk, 10)
    unit = a.next(0)
    assert unit
    assert list(unit.demanded) == [0, 1, 2]
    assert a.next(0) is None


def test_a_demand_overtakes_the_hint_for_the_same_chunk() -> None:
    a = agenda(limit=1000)
    a.hint(A, 0, 10)
    a.hint(B, 10, 10)
    a.demand(B, 10, 10)
    unit = a.next(0)
    assert unit
    assert unit.id == B
    assert not unit.hinted


def test_the_bound_holds_production_back_and_says_for_how_long() -> None:
    a = agenda(limit=100, workers=2)
    a.demand(A, 0, 60)
    a.demand(B, 10, 60)
    first = a.next(0.0)
    assert first
    assert a.next(1.0) is None
    a.passed(first, 0, made=True)
    assert a.bound.used == 0
    assert a.next(3.5) is not None
    assert a.bound.wait_seconds == 2.5


def test_a_chunk_larger_than_the_bound_is_made_alone() -> None:
    a = agenda(limit=10, workers=2)
    a.demand(A, 0, 500)
    a.demand(B, 10, 1)
    assert a.next(0)
    assert a.next(0) is None


def test_a_big_unit_does_not_idle_the_other_workers() -> None:
    a = agenda(limit=100, workers=2)
    for chunk in range(1000):
        a.demand(A, chunk, 10)
    a.demand(B, 10, 10)
    assert a.next(0)
    assert a.next(0)


def test_hints_are_taken_up_to_the_bound_and_forgotten_beyond() -> None:
    a = agenda(limit=100)
    taken = [a.hint((OWNER, n), n, 30) for n in range(5)]
    assert taken == [True, True, True, False, False]
    assert a.hints_forgotten == 2


def test_hints_of_a_version_that_nobody_uses_go() -> None:
    a = agenda()
    a.hint(A, 0, 30)
    a.hint((("other", "1", "/"), 0), 0, 30)
    a.forget(OWNER)
    unit = a.next(0)
    assert unit
    assert unit.id[0][0] == "other"
    assert a.hint(A, 0, 40)


def test_what_nobody_waits_for_any_more_is_not_made() -> None:
    a = agenda()
    a.demand(A, 0, 10)
    a.withdraw(A, 0)
    assert a.next(0) is None


def test_what_is_demanded_while_its_unit_runs_is_made_after_it() -> None:
    a = agenda()
    a.demand(A, 0, 10)
    unit = a.next(0)
    assert unit
    a.demand(A, 1, 10)
    a.passed(unit, 0, made=True)
    assert a.next(0) is None
    a.ended(unit)
    again = a.next(0)
    assert again
    assert list(again.demanded) == [1]


def test_a_failed_unit_rests_until_it_is_woken_and_its_hints_are_gone() -> None:
    a = agenda()
    a.demand(A, 0, 10)
    a.hint(A, 1, 10)
    unit = a.next(0)
    assert unit
    a.ended(unit)
    a.rest(unit)
    a.demand(A, 2, 10)
    assert a.next(0) is None
    a.wake(unit)
    again = a.next(0)
    assert again is unit
    assert list(unit.demanded) == [0, 2]
    assert not unit.hinted
    assert unit.attempt == 1


def test_a_unit_that_failed_for_good_names_who_waited() -> None:
    a = agenda()
    a.demand(A, 0, 10)
    a.hint(A, 1, 10)
    unit = a.next(0)
    assert unit
    a.ended(unit)
    assert a.fail(unit) == [0]
    assert a.next(0) is None


@dataclass
class Model:
    demanded: set[int] = field(default_factory=set)
    running: dict[int, Unit] = field(default_factory=dict)
    resting: dict[int, Unit] = field(default_factory=dict)
    again: list[int] = field(default_factory=list)


CHUNKS = st.integers(0, 11)


class AgendaMachine(RuleBasedStateMachine):
    """In any order of events no unit runs twice at a time, nothing waited for is lost, and the bound ends at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.agenda = agenda(limit=50, workers=2)
        self.model = Model()

    @rule(chunk=CHUNKS, size=st.integers(0, 40))
    def demand(self, chunk: int, size: int) -> None:
        self.agenda.demand((OWNER, chunk // 4), chunk, size)
        self.model.demanded.add(chunk)

    @rule(chunk=CHUNKS, size=st.integers(0, 40))
    def hint(self, chunk: int, size: int) -> None:
        self.agenda.hint((OWNER, chunk // 4), chunk, size)

    @rule(chunk=CHUNKS)
    def withdraw(self, chunk: int) -> None:
        self.agenda.withdraw((OWNER, chunk // 4), chunk)
        self.model.demanded.discard(chunk)

    @rule()
    def forget(self) -> None:
        self.agenda.forget(OWNER)

    @rule()
    def dispatch(self) -> None:
        unit = self.agenda.next(0)
        if unit:
            assert unit.id[1] not in self.model.running
            assert unit.id[1] not in self.model.resting
            self.model.running[unit.id[1]] = unit

    @precondition(lambda self: self.model.running)
    @rule(data=st.data(), made=st.booleans())
    def passed(self, data: st.DataObject, made: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.running)))
        chunk = data.draw(st.integers(number * 4, number * 4 + 3))
        self.agenda.passed(self.model.running[number], chunk, made=made)
        if made:
            self.model.demanded.discard(chunk)

    @precondition(lambda self: self.model.running)
    @rule(data=st.data(), how=st.sampled_from(["well", "rest", "fail"]))
    def ended(self, data: st.DataObject, how: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.running)))
        unit = self.model.running.pop(number)
        self.agenda.ended(unit)
        if how == "rest":
            self.agenda.rest(unit)
            self.model.resting[number] = unit
        elif how == "fail":
            failed = self.agenda.fail(unit)
            assert set(failed) == {c for c in self.model.demanded if c // 4 == number}
            self.model.demanded -= set(failed)

    @precondition(lambda self: self.model.resting)
    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        self.agenda.wake(self.model.resting.pop(data.draw(st.sampled_from(sorted(self.model.resting)))))

    @precondition(lambda self: self.model.running)
    @rule(data=st.data())
    def begin_again(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.running)))
        amount = self.agenda.again(self.model.running[number])
        if amount is not None:
            self.model.again.append(amount)
        assert self.agenda.running == len(self.model.running) + len(self.model.again)

    @precondition(lambda self: self.model.again)
    @rule()
    def again_ended(self) -> None:
        self.agenda.again_ended(self.model.again.pop())

    @rule(workers=st.integers(1, 5))
    def resize(self, workers: int) -> None:
        self.agenda.resize(workers)

    @invariant()
    def within_bounds(self) -> None:
        assert self.agenda._hinted_bytes >= 0
        assert 0 <= self.agenda.bound.used <= 50

    def teardown(self) -> None:
        for unit in self.model.resting.values():
            self.agenda.wake(unit)
        for unit in self.model.running.values():
            self.agenda.ended(unit)
        for amount in self.model.again:
            self.agenda.again_ended(amount)
        while more := self.agenda.next(0):
            for chunk in [*more.demanded, *more.hinted]:
                self.agenda.passed(more, chunk, made=True)
                self.model.demanded.discard(chunk)
            self.agenda.ended(more)
        assert not self.model.demanded
        assert (self.agenda.bound.used, self.agenda._hinted_bytes, self.agenda.running) == (0, 0, 0)
        assert not self.agenda._units


AgendaMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestAgendaMachine = AgendaMachine.TestCase


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 4))
def test_production_never_exceeds_the_bound_but_for_one(sizes: list[int], workers: int) -> None:
    a = agenda(limit=40, workers=workers)
    for n, size in enumerate(sizes):
        a.demand((OWNER, n), n, size)
    running: list[Unit] = []
    made = 0
    while made < len(sizes):
        while more := a.next(0):
            running.append(more)
            assert a.bound.used <= 40
        done: Unit = running.pop(0)
        a.passed(done, done.id[1], made=True)
        a.ended(done)
        made += 1
