import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_proto.v1.cursor import MAX_BYTES, BadCursor, Cursor

big = st.integers(0, 2**63)


@given(big, big, big, big, big, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_cursor_survives_json(
    epoch: int, segment: int, taken: int, step: int, batch: int, seed: int, digest: int
) -> None:
    cursor = Cursor(
        *(epoch, segment, taken, step, batch, seed, digest, {"drain": 5}, {"weights": "ab"}),
        run={"id": "r"},
        skip=((epoch, 5, 9),),
        on_error="skip",
    )
    text = cursor.to_json()
    assert Cursor.from_json(text) == cursor
    assert len(text) < MAX_BYTES
    assert json.loads(text)["v"] == 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.integers(0, 30), st.data())
def test_walking_in_parts_is_walking_at_once(segments: list[int], first: int, data: st.DataObject) -> None:
    """Spans of a bundle that begins `first` units into segment 3."""
    spans = [(3 + i, units, 100 + i) for i, units in enumerate(segments)]
    start = Cursor(0, 3, first, 7, 1, 0, 0)
    units = data.draw(st.integers(0, sum(segments)))
    got = start.after(2, units, spans, first)
    before = 0
    for segment, of_segment, digest in spans:
        if units <= before + of_segment:
            expected = units - before + (first if segment == 3 else 0)
            assert (got.segment, got.taken, got.digest, got.step) == (segment, expected, digest, 9)
            break
        before += of_segment
    with pytest.raises(ValueError, match="not in a bundle"):
        start.after(1, sum(segments) + 1, spans, first)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        ('{"v": 2}', "cursor version 2; this side reads version 1"),
        ('{"v": 1, "epoch": 0}', "fields .*segment.* are missing"),
        (" " * 5000, "at most 4096 bytes"),
    ],
)
def test_what_is_no_cursor_says_why(text: str, reason: str) -> None:
    with pytest.raises(BadCursor, match=reason):
        Cursor.from_json(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("taken", -1),
        ("epoch", "1"),
        ("digest", "xyz"),
        ("plan", []),
        ("fingerprint", 3),
        ("run", 1),
        ("skip", 5),
        ("skip", [[0, 3, 1]]),
    ],
)
def test_a_field_that_is_wrong_is_named(field: str, value: object) -> None:
    whole = json.loads(Cursor(0, 0, 0, 0, 1, 0, 0).to_json())
    with pytest.raises(BadCursor, match=field):
        Cursor.from_json(json.dumps({**whole, field: value}))
