"""What ranks must have in common: true disagreements are refused with what differs, races are not."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.app.agreement import Agreement, Claim
from penstock_service.core.errors import RanksDisagree


def claim(
    rank: int,
    token: str,
    *,
    world: int = 2,
    seed: int = 0,
    batch: int = 10,
    start: str = "0.0.0",
    position: tuple[int, int, int] = (0, 0, 0),
    reopened: bool = False,
    replica: int = 0,
) -> Claim:
    always = (("world size", world), ("seed", seed))
    return Claim(rank, replica, token, reopened, start, position, always, (("global batch", batch),))


def joined(agreement: Agreement, *claims: Claim) -> list[int]:
    return [agreement.join("j", "s", c) for c in claims]


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (claim(1, "b", world=4), "world size: rank 1 asks for 4, rank 0 for 2"),
        (claim(1, "b", seed=3), "seed: rank 1 asks for 3, rank 0 for 0"),
        (claim(1, "b", batch=20), "global batch: rank 1 asks for 20, rank 0 for 10"),
        (claim(0, "b", replica=1, seed=3), "seed: rank 0 asks for 3, rank 0 for 0"),
        (
            claim(1, "b", start="1.2.30", position=(1, 2, 30)),
            "start: rank 1 asks for epoch 1, segment 2 after 30 units, rank 0 for epoch 0, segment 0 after 0 units",
        ),
    ],
)
def test_what_differs_is_named_with_both_ranks(second: Claim, says: str) -> None:
    agreement = Agreement()
    joined(agreement, claim(0, "a"))
    with pytest.raises(RanksDisagree) as caught:
        joined(agreement, second)
    assert caught.value.retryable
    assert says in str(caught.value)
    assert "'j'" in str(caught.value)
    # Other jobs and streams are nobody's business.
    agreement.join("j", "other", second)
    agreement.join("other", "s", second)


def test_the_batch_may_differ_at_other_positions() -> None:
    agreement = Agreement()
    joined(agreement, claim(0, "a"), claim(1, "b", batch=99, start="", position=(0, 3, 0)))


def test_a_reconnect_at_another_step_is_no_disagreement_also_after_a_restart_of_the_server() -> None:
    agreement = Agreement()
    first, second = claim(0, "a"), claim(1, "b")
    ticket, _ = joined(agreement, first, second)
    agreement.leave("j", "s", ticket)
    joined(agreement, claim(0, "a", position=(0, 5, 7), reopened=True))
    # A server that knows nothing: rank 1 was restarted alone, from its own state, before that.
    fresh = Agreement()
    joined(fresh, claim(0, "a", position=(0, 5, 7), reopened=True), claim(1, "c", start="0.4.0", reopened=True))


def test_a_size_that_changes_on_one_rank_alone_is_refused_and_a_later_agreement_is_not() -> None:
    agreement = Agreement()
    at = (0, 0, 20)
    one, two = joined(agreement, claim(0, "a"), claim(1, "b"))
    agreement.leave("j", "s", one)
    joined(agreement, claim(0, "a", batch=64, position=at, reopened=True))
    agreement.leave("j", "s", two)
    with pytest.raises(RanksDisagree, match="global batch: rank 1 asks for 96, rank 0 for 64"):
        joined(agreement, claim(1, "b", batch=96, position=at, reopened=True))
    # The client, having been refused, asks to be judged anew: it is judged the same.
    with pytest.raises(RanksDisagree):
        joined(agreement, claim(1, "b", batch=96, position=at))
    joined(agreement, claim(1, "b", batch=64, position=at))


def test_a_restarted_job_of_another_world_size_is_not_compared_with_old_sessions() -> None:
    agreement = Agreement()
    old = joined(agreement, *(claim(r, f"old{r}", world=4) for r in range(4)))
    agreement.leave("j", "s", old[0])  # some sessions of the killed job have ended already, others not yet
    agreement.leave("j", "s", old[2])
    joined(agreement, *(claim(r, f"new{r}", world=2, start="0.9.9", position=(0, 9, 9)) for r in range(2)))
    # But the new ranks must agree with each other.
    with pytest.raises(RanksDisagree, match="seed"):
        joined(Agreement(), claim(0, "x"), claim(1, "y", seed=1))
    agreement.leave("j", "s", old[1])
    with pytest.raises(RanksDisagree, match=r"world size: rank 2 asks for 3, rank [01] for 2"):
        joined(agreement, claim(2, "z", world=3))


def test_a_job_that_grows_waits_for_a_rank_that_the_old_one_had() -> None:
    agreement = Agreement()
    joined(agreement, claim(0, "old0"), claim(1, "old1"))
    late = claim(3, "new3", world=4)
    with pytest.raises(RanksDisagree, match="world size"):
        joined(agreement, late)
    joined(agreement, claim(0, "new0", world=4))
    joined(agreement, late)  # the client tries again
    joined(agreement, claim(1, "new1", world=4), claim(2, "new2", world=4))


def test_two_streams_of_one_name_in_each_process_find_their_own() -> None:
    agreement = Agreement()
    joined(agreement, claim(0, "train0"), claim(0, "val0", batch=99, seed=5))
    joined(agreement, claim(1, "train1"), claim(1, "val1", batch=99, seed=5))


def test_streams_made_anew_by_each_rank_in_its_own_time() -> None:
    agreement = Agreement()
    tickets = joined(agreement, claim(0, "a0"), claim(1, "b0"))
    agreement.leave("j", "s", tickets[0])
    # Rank 0 makes its second stream, with another seed, while rank 1 still reads the first.
    joined(agreement, claim(0, "a1", seed=1, start=""))
    agreement.leave("j", "s", tickets[1])
    joined(agreement, claim(1, "b1", seed=1, start=""))


def test_a_look_is_compared_when_the_first_step_is_taken() -> None:
    agreement = Agreement()
    looks, _ = joined(agreement, claim(0, "a", start=""), claim(1, "b", start="0.3.0", position=(0, 3, 0)))
    with pytest.raises(RanksDisagree, match="start: rank 0 asks for epoch 0, segment 0"):
        agreement.started("j", "s", looks, "0.0.0")
    agreement.leave("j", "s", looks)
    with pytest.raises(RanksDisagree, match="start"):
        joined(agreement, claim(0, "a"))
    looks = joined(agreement, claim(0, "a", start=""))[0]
    agreement.started("j", "s", looks, "0.3.0")


Ranks = list[tuple[int, int]]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=60),
    st.lists(st.booleans(), min_size=60, max_size=60),
)
def test_ranks_that_ask_for_the_same_are_never_refused_and_nothing_is_left(events: Ranks, leaves: list[bool]) -> None:
    """Any number of generations of a job, each with its own seed, come and go in any order: a generation begins with
    a rank that the one before had, its ranks agree, so nobody is refused."""
    agreement, tokens = Agreement(), count()
    live: list[int] = []
    for generation, (size, leaving) in enumerate(events):
        for rank in range(size + 1):
            mine = claim(rank, f"t{next(tokens)}", world=size + 1, seed=generation, start=f"0.{generation}.0")
            live.append(agreement.join("j", "s", mine))
        if leaves[generation % 60]:
            for _ in range(min(leaving, len(live))):
                agreement.leave("j", "s", live.pop(0))
    for ticket in live:
        agreement.leave("j", "s", ticket)
    assert agreement._rounds == {}
