"""What a failed request to an object store means: try again, or tell the user what to do."""

import logging
import random
import re
import threading
from collections.abc import Callable
from typing import TypeVar

from penstock_service.core.errors import ServiceError, SourceGone, SourceUnreadable
from penstock_service.core.retry import Retry
from penstock_service.source.place import reason_of

log = logging.getLogger(__name__)

_DENIED = re.compile(
    r"ACCESS_DENIED|FORBIDDEN|PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|"
    r"SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|NO_CREDENTIALS|AuthenticationFailed|AuthorizationFailure|"
    r"HTTP status 40[13]"
)
_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|ContainerNotFound|Bucket '[^']*' not found")
_FINAL = re.compile(r"HTTP status 4(?!08|29)\d\d")  # 408 and 429 pass
_REQUEST_ID = re.compile(r" \(Request ID: [^)]*\)")

T = TypeVar("T")


def is_final(error: OSError) -> bool:
    """Would trying again change nothing?"""
    text = str(error)
    return isinstance(error, FileNotFoundError) or any(p.search(text) for p in (_DENIED, _NO_BUCKET, _FINAL))


def failure(where: str, error: OSError, tries: int = 1) -> ServiceError:
    """The error as the user should see it."""
    reason = _REQUEST_ID.sub("", reason_of(error))
    if isinstance(error, FileNotFoundError):
        return SourceGone(f"{where} is gone. Put it back, or register the dataset again without it.")
    if _NO_BUCKET.search(reason):
        return SourceUnreadable(f"{where}: there is no such bucket. Check its name, and the endpoint and region.")
    if _DENIED.search(reason):
        return SourceUnreadable(
            f"{where}: access denied ({reason}). The server needs credentials that may list the bucket and get its "
            "objects, from its environment, configuration files or role; public data: the setting object_anonymous."
        )
    often = f" after {tries} tries" if tries > 1 else ""
    return SourceUnreadable(
        f"{where} could not be read{often} ({reason}). "
        "Check that the store is up and its endpoint right, and try again."
    )


def retrying(
    where: str,
    request: Callable[[], T],
    retry: Retry,
    stop: threading.Event | None = None,
    draw: Callable[[], float] = random.random,
) -> T:
    """What `request` answers, after as many tries as `retry` allows. Raises what `failure` makes of the last error.

    Setting `stop` ends the waiting between tries.
    """
    stop = stop or threading.Event()
    attempt = 0
    while True:
        try:
            return request()
        except OSError as error:
            delay = None if is_final(error) else retry.delay(attempt, draw())
            attempt += 1
            if delay is None:
                raise failure(where, error, attempt) from error
            log.debug("%s: %s; try %d follows in %.2f s", where, reason_of(error), attempt + 1, delay)
            if stop.wait(delay):
                raise failure(where, error, attempt) from error
