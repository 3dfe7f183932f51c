"""Who is missing and who is behind, from snapshots of sessions and a clock that the test turns."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.app.ranks import Ranks
from penstock_service.core.job import JobStreamStatus, RankStatus
from penstock_service.core.status import SessionStatus

A_SESSION = SessionStatus(
    session="",
    job="run",
    name="train",
    datasets=("web@1",),
    rank=0,
    world_size=2,
    replica=0,
    client="penstock, pid 1 on here",
    transport="grpc",
    state="waiting for credit",
    epoch=0,
    step=0,
    steps_sent=0,
    rows_sent=0,
    bytes_sent=0,
    credit_steps=1,
    credit_bytes=1,
    seconds_waiting_for_credit=0,
    seconds_waiting_for_rows=0,
    seconds_connected=0.0,
    epoch_steps=100,
)


class World:
    """Sessions that a test moves about; the clock is its own."""

    def __init__(self, **more: object) -> None:
        self.ranks = Ranks(missing_after=30.0, lagging_after=30.0)
        self.now = 1000.0
        self.more = more
        self.came: dict[tuple[int, int], float] = {}
        self.at: dict[tuple[int, int], tuple[int, int]] = {}
        self.moved: dict[tuple[int, int], float] = {}
        self.rows: dict[tuple[int, int], int] = {}

    def come(self, *ranks: int, replica: int = 0) -> None:
        for rank in ranks:
            self.came[rank, replica] = self.moved[rank, replica] = self.now
            self.at.setdefault((rank, replica), (0, 0))
            self.rows[rank, replica] = 0

    def go(self, rank: int, replica: int = 0) -> None:
        del self.came[rank, replica]

    def move(self, rank: int, epoch: int, step: int, rows: int = 0, replica: int = 0) -> None:
        self.at[rank, replica] = (epoch, step)
        self.moved[rank, replica] = self.now
        self.rows[rank, replica] += rows

    def look(self, seconds: float = 0.0) -> JobStreamStatus:
        """After so many seconds, with a look every five."""
        while seconds > 5:
            self.ranks.observe(self._sessions(), self.now)
            self.now, seconds = self.now + 5, seconds - 5
        self.now += seconds
        (job,) = self.ranks.observe(self._sessions(), self.now)
        (stream,) = job.streams
        return stream

    def news(self) -> list[str]:
        return self.ranks.news(self.ranks.observe(self._sessions(), self.now))

    def _sessions(self) -> list[SessionStatus]:
        return [
            replace(
                A_SESSION,
                session=f"{slot}{came}",
                rank=slot[0],
                replica=slot[1],
                seconds_connected=self.now - came,
                taken_epoch=self.at[slot][0],
                taken_step=self.at[slot][1],
                seconds_since_moved=self.now - self.moved[slot],
                rows_sent=self.rows[slot],
                **self.more,  # type: ignore[arg-type]
            )
            for slot, came in self.came.items()
        ]


def rank(stream: JobStreamStatus, number: int) -> RankStatus:
    (found,) = [r for r in stream.ranks if r.rank == number]
    return found


def test_a_rank_that_never_comes_is_expected_and_then_missing_and_told_once() -> None:
    world = World(world_size=3)
    world.come(0, 2)
    early = world.look(20)
    assert (early.missing, rank(early, 1).state, rank(early, 1).connected) == ((), "expected", False)
    assert world.news() == []
    late = world.look(11)
    assert (late.missing, rank(late, 1).state, rank(late, 1).seconds) == ((1,), "missing", 31)
    assert world.news() == ["job run, stream train: rank 1 of 3 has not been there for more than 30 s"]
    world.look(60)
    assert world.news() == []
    world.come(1)
    there = world.look(1)
    assert (there.missing, rank(there, 1).connected) == ((), True)
    assert world.news() == ["job run, stream train: no rank is missing now"]


def test_a_rank_that_left_is_missing_since_then_with_where_it_was() -> None:
    world = World()
    world.come(0, 1)
    world.move(1, 0, 7)
    world.look(100)
    world.go(1)
    world.look(1)
    assert world.look(29).missing == ()
    gone = world.look(5)
    assert gone.missing == (1,)
    assert (rank(gone, 1).step, rank(gone, 1).client) == (7, "penstock, pid 1 on here")


def test_replicas_count_apart() -> None:
    world = World()
    world.come(0, 1)
    world.come(0, replica=1)
    stream = world.look(40)
    assert [(r.rank, r.replica, r.missing) for r in stream.ranks] == [
        (0, 0, False),
        (1, 0, False),
        (0, 1, False),
        (1, 1, True),
    ]
    assert stream.missing == (1,)


def test_a_rank_that_stops_while_another_goes_on_is_stalled() -> None:
    world = World()
    world.come(0, 1)
    for step in range(10):
        world.move(0, 0, step)
        world.move(1, 0, step)
        world.look(5)
    # In lock step the others get one batch more and wait: that is enough to tell.
    world.move(0, 0, 10)
    assert rank(world.look(29), 1).lagging is False
    stream = world.look(3)
    late = rank(stream, 1)
    assert (stream.lagging, late.lagging, late.stalled, late.steps_behind) == ((1,), True, True, 1)
    assert late.seconds_behind == pytest.approx(32, abs=5)
    assert rank(stream, 0).lagging is False
    (line,) = world.news()
    assert line.startswith("job run, stream train: rank 1 does not get on: 3")
    assert "s behind the front, steps behind: 1, waiting for credit (penstock, pid 1 on here)" in line
    world.move(1, 0, 10)
    assert world.look(1).lagging == ()
    assert world.news() == ["job run, stream train: no rank is lagging now"]


def test_ranks_that_pause_together_are_not_stalled() -> None:
    world = World()
    world.come(0, 1)
    world.move(0, 0, 5)
    world.move(1, 0, 5)
    assert world.look(600).lagging == ()


def test_a_rank_that_is_slower_lags_without_being_stalled() -> None:
    world = World()
    world.come(0, 1)
    for second in range(50):
        world.move(0, 0, second * 2)
        world.move(1, 0, second // 2)
        stream = world.look(1)
    late = rank(stream, 1)
    assert (late.lagging, late.stalled, late.steps_behind) == (True, False, 98 - 24)
    assert late.seconds_behind == pytest.approx(50 - 12, abs=6)


def test_the_end_of_an_epoch_is_the_beginning_of_the_next() -> None:
    world = World()
    world.come(0, 1)
    world.move(0, 1, 0)
    world.move(1, 0, 100)
    stream = world.look(300)
    assert rank(stream, 1).steps_behind == 0
    assert stream.lagging == ()
    world.move(0, 1, 3)
    assert rank(world.look(1), 1).steps_behind == 3


def test_steps_over_the_end_of_an_epoch_of_unknown_length_are_not_guessed() -> None:
    world = World(epoch_steps=None)
    world.come(0, 1)
    world.move(0, 1, 3)
    world.move(1, 0, 50)
    stream = world.look(40)
    assert (rank(stream, 1).steps_behind, rank(stream, 1).lagging) == (None, True)


def test_a_job_that_goes_back_to_a_checkpoint_has_no_laggards() -> None:
    world = World()
    world.come(0, 1)
    for step in range(60):
        world.move(0, 0, step)
        world.move(1, 0, step)
        world.look(5)
    world.move(0, 0, 10)
    assert world.look(1).lagging == ()  # rank 1 follows a moment later
    world.move(1, 0, 10)
    assert world.look(1).lagging == ()
    world.move(0, 0, 11)
    world.move(1, 0, 11)
    assert world.look(100).lagging == ()


def test_rows_per_second_are_those_of_the_last_half_minute() -> None:
    world = World()
    world.come(0, 1)
    for step in range(100):
        world.move(0, 0, step, rows=50 if step > 50 else 500)
        stream = world.look(1)
    assert rank(stream, 0).rows_per_s == pytest.approx(50, rel=0.1)
    assert stream.rows_per_s == pytest.approx(50, rel=0.1)


def test_a_job_is_forgotten_with_its_last_session() -> None:
    world = World(world_size=4)
    world.come(0)
    assert world.look(100).missing == (1, 2, 3)
    world.go(0)
    assert world.ranks.observe([], world.now) == ()
    assert world.ranks.news(()) == []
    world.come(0)
    assert world.look(1).missing == ()


def test_a_world_of_any_size_is_looked_at_in_bounded_time() -> None:
    world = World(world_size=2**32 - 1)
    world.come(0, 1_000_000)
    stream = world.look(31)
    assert len(stream.ranks) == 4096 + 1
    assert stream.ranks[-1].connected
    (line,) = world.news()
    assert "ranks 1, 2, 3, " in line
    assert "and 4075 more of 4294967295 have not been there" in line


Moves = list[tuple[int, int, float]]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0.1, 9.0)), max_size=80))
def test_the_front_rank_never_lags_and_nobody_is_further_behind_than_it_is_there(moves: Moves) -> None:
    world = World(world_size=4)
    world.come(0, 1, 2, 3)
    began, steps = world.now, [0, 0, 0, 0]
    for number, by, seconds in moves:
        steps[number] += by
        world.move(number, 0, steps[number])
        stream = world.look(seconds)
        assert stream.step == max(steps)
        for found in stream.ranks:
            assert found.steps_behind == max(steps) - steps[found.rank]
            assert 0 <= found.seconds_behind <= world.now - began
            assert (found.steps_behind > 0) or not found.lagging
            assert found.lagging or not found.stalled
