"""Which failures are tried again, how often, and what is said in the end."""

import threading

import pytest
from pyarrow import fs

from penstock_service.core.errors import ServiceError, SourceChanged, SourceUnreadable
from penstock_service.core.retry import Retry
from penstock_service.source.objects.address import parse_address
from penstock_service.source.objects.failures import failure, is_final, retrying
from penstock_service.source.objects.filesystems import filesystem
from penstock_service.source.stores import Stores
from tests.objectstore import QUICK

GET = "When reading: AWS Error {} during GetObject operation: text (Request ID: abc)"


@pytest.mark.parametrize(
    ("error", "final", "kind", "said"),
    [
        (OSError(GET.format("INTERNAL_FAILURE")), False, SourceUnreadable, "after 3 tries"),
        (OSError(GET.format("NETWORK_CONNECTION")), False, SourceUnreadable, "NETWORK_CONNECTION"),
        (OSError(GET.format("UNKNOWN (HTTP status 429)")), False, SourceUnreadable, "429"),
        (OSError(GET.format("UNKNOWN (HTTP status 400)")), True, SourceUnreadable, "400"),
        (OSError(GET.format("ACCESS_DENIED")), True, SourceUnreadable, "access denied"),
        (OSError(GET.format("NO_SUCH_BUCKET")), True, SourceUnreadable, "no such bucket"),
        (FileNotFoundError("gone"), True, SourceChanged, "is gone"),
    ],
)
def test_what_would_not_change_is_not_tried_again(
    error: OSError, final: bool, kind: type[ServiceError], said: str
) -> None:
    assert is_final(error) is final
    told = failure("s3://b/a", error, 3)
    assert isinstance(told, kind)
    assert said in str(told)
    assert "s3://b/a" in str(told)
    assert "Request ID" not in str(told)


def test_a_request_is_made_once_more_than_retries_and_what_it_answers_is_passed_on() -> None:
    tries = 0

    def request() -> int:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise OSError("now and then")
        return 7

    assert retrying("s3://b/a", request, Retry(3, 0.001, 0.001)) == 7
    tries = 0
    with pytest.raises(SourceUnreadable, match="after 3 tries"):
        retrying("s3://b/a", request, Retry(2, 0.001, 0.001))


def test_closing_ends_the_waiting_between_tries() -> None:
    stop = threading.Event()

    def request() -> int:
        stop.set()
        raise OSError("down")

    with pytest.raises(SourceUnreadable):
        retrying("s3://b/a", request, Retry(9, 1000, 1000), stop, draw=lambda: 0.9)


def test_a_region_that_aws_does_not_tell_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(bucket: str) -> str:
        raise OSError(f"Bucket '{bucket}' not found")

    monkeypatch.setattr(fs, "resolve_s3_region", resolve)
    stores = Stores(retry=QUICK)
    with pytest.raises(SourceUnreadable, match="s3://nowhere: there is no such bucket"):
        filesystem(parse_address("s3://nowhere/a", stores), stores)
