"""Laws of the credits: never more under way than the window, and never a deadlock, whatever the sizes."""

from hypothesis import given
from hypothesis import strategies as st

from penstock_proto.v1.credit import Ledger, Window


@given(
    st.integers(1, 50),
    st.integers(1, 5000),
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 10_000)), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
def test_everything_arrives_within_the_window(
    steps: int, size: int, bundles: list[tuple[int, int]], random: "object"
) -> None:
    ledger, window = Ledger(), Window(steps, size)
    ledger.open_window(steps, size)
    under_way: list[tuple[int, int]] = []
    waiting = list(bundles)
    delivered = 0
    while waiting or under_way:
        if waiting:
            wanted, body = min(waiting[0][0], max(1, ledger.steps)), waiting[0][1]
            if ledger.allows(body) and wanted <= ledger.steps:
                ledger.spend(wanted, body)
                waiting.pop(0)
                under_way.append((wanted, body))
                assert sum(s for s, _ in under_way) <= steps
                assert len(under_way) == 1 or sum(b for _, b in under_way) <= size + max(b for _, b in under_way)
                continue
        # The user takes a bundle; having nothing left, it flushes what it owes before it waits.
        assert under_way, "nothing is under way and nothing may go: a deadlock"
        took, body = under_way.pop(0)
        delivered += 1
        back = window.done(took, body)
        if back is None and not under_way:
            back = window.flush()
        if back is not None:
            ledger.grant(*back)
    assert delivered == len(bundles)


def test_a_bundle_larger_than_the_window_goes_when_nothing_is_under_way() -> None:
    ledger = Ledger()
    ledger.open_window(4, 100)
    assert ledger.allows(10**9)
    ledger.spend(1, 10**9)
    assert not ledger.allows(1)
    ledger.grant(1, 10**9)
    assert ledger.allows(100)


def test_credits_go_back_half_a_window_at_a_time() -> None:
    window = Window(8, 1000)
    assert [window.done(1, 10) for _ in range(4)] == [None, None, None, (4, 40)]
    assert window.done(1, 499) is None
    assert window.done(1, 1) == (2, 500)
    assert window.flush() is None
