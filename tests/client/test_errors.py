import pickle

import pytest

from penstock import errors
from penstock_proto.v1 import codes

KNOWN = [
    (codes.NOT_FOUND, errors.DatasetNotFound),
    (codes.ALREADY_EXISTS, errors.AlreadyExists),
    (codes.INVALID_REQUEST, errors.InvalidRequest),
    (codes.PROTOCOL_MISMATCH, errors.ProtocolMismatch),
    (codes.CURSOR_MISMATCH, errors.CursorMismatch),
    (codes.ORDER_CHANGED, errors.OrderChanged),
    (codes.JOURNAL_CONFLICT, errors.JournalConflict),
    (codes.DATA_ERROR, errors.DataError),
    (codes.SOURCE_CHANGED, errors.SourceChanged),
    (codes.SOURCE_UNREADABLE, errors.SourceUnreadable),
    (codes.RESOURCE_EXHAUSTED, errors.ResourceExhausted),
    (codes.RANKS_DISAGREE, errors.RanksDisagree),
    (codes.FENCED, errors.Fenced),
    (codes.UNAVAILABLE, errors.ServerUnavailable),
    (codes.INTERNAL, errors.ServerError),
]


@pytest.mark.parametrize(("code", "expected"), KNOWN)
def test_a_code_on_the_wire_becomes_the_type_that_stands_for_it(code: str, expected: type[Exception]) -> None:
    error = errors.from_wire(code, "what, where, how many", retryable=False)
    assert type(error) is expected
    assert str(error) == "what, where, how many"


def test_every_code_has_a_type() -> None:
    on_the_wire = {value for name, value in vars(codes).items() if name.isupper()}
    assert on_the_wire == {code for code, _ in KNOWN}


@pytest.mark.parametrize(("retryable", "expected"), [(True, errors.RetryableError), (False, errors.ServerError)])
def test_an_unknown_code_is_believed_only_in_whether_to_try_again(retryable: bool, expected: type[Exception]) -> None:
    error = errors.from_wire("Overheated", "too hot", retryable)
    assert type(error) is expected
    assert error.retryable is retryable
    assert str(error) == "Overheated: too hot"


def test_retryable_and_permanent_are_told_apart_by_type_and_by_attribute() -> None:
    for _, kind in KNOWN:
        assert issubclass(kind, errors.RetryableError) != issubclass(kind, errors.PermanentError)
        assert kind.retryable is issubclass(kind, errors.RetryableError)
    assert errors.ServerDraining.retryable


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    public = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    drawn = {word for word in (errors.__doc__ or "").replace("─", " ").replace("│", " ").split() if word in public}
    assert drawn == public


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(errors.DataError("shard a, row 3")))  # noqa: S301 - our own bytes
    assert isinstance(error, errors.DataError)
    assert str(error) == "shard a, row 3"
