import pyarrow as pa
import pytest

from penstock_proto.v1.tasks import TASKS
from penstock_service.core.declaration import Declaration, check_task, count_features
from penstock_service.core.errors import InvalidRequest

SCHEMA = pa.schema([("age", pa.int64()), ("fare", pa.float64()), ("survived", pa.int64())])


@pytest.mark.parametrize("task", ["", *TASKS])
def test_the_task_types_are_a_closed_list(task: str) -> None:
    check_task(task)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("Binary", "binary"),
        ("language modelling", "language-modelling"),
        ("language_modeling", "language-modelling"),
        ("SFT", "sft"),
        ("multi-class", "multiclass"),
        ("sequence labeling", "sequence-labelling"),
        ("preferences", "preference"),
    ],
)
def test_another_spelling_is_refused_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        Declaration(task=wrong)
    text = str(error.value)
    assert text.startswith(f"task {wrong!r} is no task type; did you mean {near}")
    assert text.endswith(f"? There are: {', '.join(TASKS)}")


def test_a_task_that_resembles_none_is_refused_with_all() -> None:
    with pytest.raises(InvalidRequest, match=r"^task 'zzz' is no task type\. There are: binary, multiclass, "):
        check_task("zzz")


def test_features_are_the_columns_less_the_target() -> None:
    assert count_features(SCHEMA, ()) == 3
    assert count_features(SCHEMA, ("survived",)) == 2
    assert count_features(SCHEMA, ("survived", "age")) == 1
    nested = pa.schema([("a", pa.struct([("x", pa.int8()), ("y", pa.int8())])), ("b", pa.list_(pa.int8(), 8))])
    assert count_features(nested, ()) == 2


def test_what_is_true_passes() -> None:
    Declaration().check("d", SCHEMA, 5)
    Declaration(rows=5, features=2, target=("survived",)).check("d", SCHEMA, 5)


def test_other_rows_and_features_are_refused_with_both_numbers() -> None:
    with pytest.raises(InvalidRequest) as error:
        Declaration(rows=6, features=3, target=("survived",)).check("d", SCHEMA, 5)
    assert str(error.value) == (
        "d is not what was declared: rows: 6 declared, 5 found; features: 3 declared, 2 found (3 columns less 1 of the "
        "target). Correct the declaration, or the files."
    )
    with pytest.raises(InvalidRequest, match=r"features: 2 declared, 3 found \(3 columns, no target is named\)"):
        Declaration(features=2).check("d", SCHEMA, 5)


def test_a_target_that_is_no_column_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidRequest) as error:
        Declaration(target=("Survivd",)).check("d", SCHEMA, 5)
    text = "d: target 'Survivd' is none of its 3 columns (age, fare, survived); did you mean survived?"
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"rows": -1}, "rows = -1: a number of rows is 0 or more"),
        ({"features": -1}, "features = -1: a number of features is 0 or more"),
        ({"tags": ("a", " ")}, r"tags = \['a', ' '\]: one of them is empty"),
        ({"target": ("y", "y")}, r"target = \['y', 'y'\]: 'y' is named twice"),
    ],
)
def test_what_cannot_be_meant_is_refused(said: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Declaration(**said)  # type: ignore[arg-type]


def test_what_is_said_later_wins_even_if_empty() -> None:
    spec = Declaration(description="old", task="sft", tags=("a",), rows=3)
    both = Declaration(description="", task="rl").over(spec)
    assert both == Declaration(description="", task="rl", tags=("a",), rows=3)
