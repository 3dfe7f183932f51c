import operator

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.errors import InvalidRequest
from penstock_service.transform.expression import Expression

BATCH = pa.record_batch(
    {
        "x": pa.array([1, 2, 3, None, 5]),
        "y": pa.array([1.5, float("nan"), -2.0, 4.0, 0.0]),
        "s": ["a", "bb", "", None, "A"],
        "l": [[1], [], [1, 2], None, [3]],
        "odd name": [True, False, True, True, None],
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("x > 2", [2, 4]),
        ("2 < x <= 5", [2, 4]),
        ("x == 1 or x == 5", [0, 4]),
        ("not x > 2", [0, 1]),
        ("x in (1, 3, 7)", [0, 2]),
        ("x not in [1, 3]", [1, 3, 4]),
        ("s == 'bb'", [1]),
        ("length(s) == 1", [0, 4]),
        ("length(l) > 0", [0, 2, 4]),
        ("lower(s) == 'a'", [0, 4]),
        ("is_null(x)", [3]),
        ("not is_null(s) and y >= 0", [0, 4]),
        ("is_nan(y)", [1]),
        ("abs(y) == 2", [2]),
        ("x * 2 + 1 == 7", [2]),
        ("x / 2 > 1.9", [4]),
        ("-x < -2", [2, 4]),
        ("column('odd name')", [0, 2, 3]),
        ("True", [0, 1, 2, 3, 4]),
        ("False", []),
    ],
)
def test_conditions_mean_what_they_say_and_null_is_no(text: str, rows: list[int]) -> None:
    found = Expression(text).mask(BATCH).to_pylist()
    assert [i for i, holds in enumerate(found) if holds] == rows


@given(
    st.lists(st.integers(-5, 5), max_size=20), st.integers(-5, 5), st.sampled_from(["<", "<=", "==", "!=", ">", ">="])
)
def test_comparisons_are_pythons(values: list[int], bound: int, sign: str) -> None:
    python = {"<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">": operator.gt}
    compare = python.get(sign, operator.ge)
    mask = Expression(f"x {sign} {bound}").mask(pa.record_batch({"x": pa.array(values, pa.int64())}))
    assert mask.to_pylist() == [compare(v, bound) for v in values]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x >", "at character"),
        ("__import__('os').system('true')", "is not understood"),
        ("x.y > 1", "is not understood"),
        ("(lambda: 1)()", "is not understood"),
        ("x if y else s", "is not understood"),
        ("x in y", "is not understood"),
        ("x ** 2 > 1", "is not understood"),
        ("open('f')", "is not understood"),
        ("length('abc') > 2", "'abc' is a constant where a column is needed"),
        ("1 in (1, 2)", "1 is a constant where a column is needed"),
        ("0 < 1 in (1, 2)", "1 is a constant where a column is needed"),
        (f"x > {'-' * 5000}1", "cannot be parsed"),
        ("x > '\0'", "null bytes"),
    ],
)
def test_what_is_no_condition_is_refused_when_written(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        Expression(text)


@pytest.mark.parametrize(("text", "says"), [("x + 1", "is no condition"), ("s > 3", "filter"), ("x and y", "filter")])
def test_types_that_do_not_go_together_are_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        Expression(text).mask(BATCH)
