"""The controller of workers and look-ahead, against a machine that is simulated: no clock, no threads."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.tuning import PATIENCE, Decision, Limits, Measured, Tuning

MiB = 1 << 20
LIMITS = Limits(cpus=4, most_workers=16, least_read_ahead=64 * MiB, most_read_ahead=1024 * MiB)


@dataclass(frozen=True)
class Load:
    """Trainers want `wanted` chunks a second; each costs so much CPU, and so much waiting for a disk or network."""

    wanted: float
    cpu: float
    wait: float
    disk: float  # chunks a second that it gives at most
    cpus: int
    used: float = 0.0  # CPUs that others use

    def possible(self, workers: int) -> float:
        free = max(0.1, self.cpus - self.used)
        return min(workers / (self.cpu + self.wait), free / self.cpu, self.disk)

    def second(self, workers: int, at: int) -> Measured:
        made = min(self.wanted, self.possible(workers))
        hungry = self.wanted > self.possible(workers)
        # A saturated disk or CPU keeps every worker busy: they wait in its queue.
        busy = float(workers) if hungry else made * (self.cpu + self.wait)
        counted = int(made * (at + 1)) - int(made * at)
        free = self.cpus - self.used - made * self.cpu
        return Measured(1.0, 0.9 if hungry else 0.0, min(busy, workers), counted, 0, 0.0, max(0.0, free), 0.1)


loads = st.builds(
    Load,
    wanted=st.floats(0, 400),
    cpu=st.floats(0.002, 0.5),
    wait=st.floats(0, 2),
    disk=st.floats(1, 400),
    cpus=st.sampled_from([1, 2, 4, 16]),
    used=st.floats(0, 2),
)


def tuning(load: Load, workers: int | None = None, pinned: bool = False) -> Tuning:
    limits = replace(LIMITS, cpus=load.cpus, most_workers=max(16, 4 * load.cpus), workers_pinned=pinned)
    return Tuning(limits, workers or load.cpus, 512 * MiB)


def run(tuned: Tuning, load: Load, seconds: int, first: int = 0) -> list[Decision]:
    made: list[Decision] = []
    for at in range(first, first + seconds):
        made += tuned.observe(float(at), load.second(tuned.workers, at))
    return made


@given(loads)
def test_a_constant_load_is_answered_and_then_left_alone(load: Load) -> None:
    tuned = tuning(load)
    run(tuned, load, 3000)
    most = tuned.limits.most_workers
    best = min(load.wanted, load.possible(most))
    now = min(load.wanted, load.possible(tuned.workers))
    # A trial that gains less than a tenth is not kept, so several such steps of half as many more are left undone; what
    # can be counted in seconds is in whole chunks.
    worth = tuned.workers < most and now < 0.7 * best
    assert not worth or load.cpus - load.used - now * load.cpu < 0.5 or now < 4, (tuned.workers, now, best)
    later = run(tuned, load, 7200, first=3000)
    trials = [d for d in later if d.what == "workers"]
    assert len(trials) <= 12  # in two hours: trials that come ever more rarely, and what takes them back


@given(loads, loads, st.lists(st.tuples(st.booleans(), st.integers(1, 400)), max_size=12))
def test_whatever_comes_the_limits_hold_and_decisions_say_what_changed(
    one: Load, other: Load, spans: list[tuple[bool, int]]
) -> None:
    other = replace(other, cpus=one.cpus)
    tuned = tuning(one)
    at, workers = 0, tuned.workers
    for first, seconds in spans:
        for decision in run(tuned, one if first else other, seconds, first=at):
            assert (decision.what, decision.before) == ("workers", workers)
            assert decision.after != decision.before
            assert decision.reason
            workers = decision.after
            assert 1 <= workers <= tuned.limits.most_workers
        at += seconds
        assert tuned.workers == workers
        assert tuned.read_ahead == 512 * MiB


@given(loads, st.integers(1, 32), st.lists(st.floats(0, 1), min_size=300, max_size=300))
def test_a_pinned_number_stays(load: Load, workers: int, memory: list[float]) -> None:
    tuned = tuning(load, workers, pinned=True)
    tuned.limits = replace(tuned.limits, read_ahead_pinned=True)
    for at, share in enumerate(memory):
        seen = replace(load.second(workers, at), memory=share, forgotten=3, held_back=0.5)
        assert tuned.observe(float(at), seen) == []
    assert (tuned.workers, tuned.read_ahead) == (workers, 512 * MiB)


HUNGRY = Load(wanted=1000, cpu=0.02, wait=0.0, disk=1000, cpus=4)


def test_few_workers_become_as_many_as_there_are_cpus_within_seconds() -> None:
    tuned = tuning(HUNGRY, workers=1)
    decisions = run(tuned, HUNGRY, 10)
    assert [(d.before, d.after) for d in decisions] == [(1, 2), (2, 4)]
    assert decisions[0].reason == "sessions waited for chunks 90% of the time while 1.0 of 1 workers were busy"


def test_more_than_cpus_where_reads_wait_for_a_network() -> None:
    network = Load(wanted=1000, cpu=0.001, wait=0.2, disk=1000, cpus=4)
    tuned = tuning(network)
    decisions = run(tuned, network, 300)
    assert tuned.workers == 16
    assert all(d.after > d.before for d in decisions)
    assert "CPUs were free" in decisions[0].reason


def test_more_than_cpus_are_taken_back_where_the_disk_is_the_limit() -> None:
    disk = Load(wanted=1000, cpu=0.001, wait=0.02, disk=20, cpus=4)
    tuned = tuning(disk)
    up, down = run(tuned, disk, 120)
    assert (up.before, up.after, down.after) == (4, 6, 4)
    assert down.reason == "6 workers made 20.0 chunks a second, 4 made 20.0: more of them do not help"


def test_no_more_workers_than_cpus_while_cpus_are_in_use() -> None:
    assert run(tuning(HUNGRY), HUNGRY, 3600) == []


def test_workers_that_are_idle_for_long_go_and_come_back() -> None:
    idle = replace(HUNGRY, wanted=1)
    tuned = tuning(replace(idle, cpus=16))
    gone = run(tuned, idle, int(3 * PATIENCE))
    assert [(d.before, d.after) for d in gone] == [(16, 4)]
    assert "nobody waited" in gone[0].reason
    run(tuned, replace(HUNGRY, cpus=16), 10, first=int(3 * PATIENCE))
    assert tuned.workers == 16


def test_workers_that_went_too_early_go_later_the_next_time() -> None:
    idle, busy = replace(HUNGRY, wanted=1, cpus=16), replace(HUNGRY, cpus=16)
    tuned = tuning(idle)
    at, shrunk = 0, 0
    for _ in range(20):  # a trainer that pauses a little longer than patience lasts
        shrunk += len(run(tuned, idle, int(PATIENCE) + 30, first=at))
        at += int(PATIENCE) + 30
        run(tuned, busy, 30, first=at)
        at += 30
    assert shrunk == 1


def test_look_ahead_grows_where_it_leaves_workers_idle() -> None:
    tuned = tuning(HUNGRY)
    held = Measured(1.0, 0.9, 1.0, 5, 7, 0.0, 2.0, 0.1)
    decisions = [d for at in range(60) for d in tuned.observe(float(at), held)]
    assert [(d.what, d.before // MiB, d.after // MiB) for d in decisions] == [("read-ahead", 512, 1024)]
    assert "no room" in decisions[0].reason
    assert tuning(HUNGRY).observe(0.0, held) == []  # one second is no reason


def test_memory_that_runs_short_takes_look_ahead_first_and_workers_next() -> None:
    tuned = tuning(HUNGRY)
    short = Measured(1.0, 0.9, 4.0, 5, 7, 0.0, 2.0, 0.95)
    decisions = [d for at in range(60) for d in tuned.observe(float(at), short)]
    assert [d.what for d in decisions] == ["read-ahead"] * 3 + ["workers"] * 2
    assert (tuned.read_ahead, tuned.workers) == (64 * MiB, 1)
    assert decisions[0].reason == "the server holds 95% of the memory it may"
    calm = replace(short, memory=0.1, forgotten=0, busy=1.0)
    again = [d.at for at in range(60, 300) for d in tuned.observe(float(at), calm)]
    assert again
    assert again[0] >= 60 + 55  # not at once


@pytest.mark.parametrize("left", [1, 3])
def test_workers_that_cannot_begin_are_not_tried_again_at_once(left: int) -> None:
    tuned = tuning(HUNGRY, workers=1)
    assert run(tuned, HUNGRY, 2)[-1].after == 2
    tuned.refused(2.0, left)
    assert run(tuned, HUNGRY, 50, first=3) == []
    run(tuned, HUNGRY, 60, first=53)
    assert tuned.workers == 4
