"""What can go wrong, sorted by what the user can do about it.

ServiceError                    code, text, retryable
├── NotFound                    no such dataset (the text names the nearest)
├── AlreadyExists
├── InvalidRequest              the request itself is wrong: field, value, what is allowed
│   └── NoRows                  what was named exists and holds nothing to read
├── ProtocolMismatch
├── CursorMismatch              the cursor belongs to another plan: a field-by-field difference
├── OrderChanged                something recomputed differs from what was sent before
├── JournalConflict             a cursor's journal and that of its run have parted
├── DataError                   rows that cannot be parsed or do not fit the schema: a function of the bytes
├── SourceChanged               the files are not those of the dataset version
│   └── SourceGone              a file is not there
├── SourceUnreadable            reading failed; says nothing about the bytes
├── ResourceExhausted
├── RanksDisagree               ranks of a job ask for different things: what differs, and between whom
├── Fenced                      another process has taken this rank over; final
├── Unavailable                 come again later
└── Internal                    a bug of ours
    └── WorkerKilled            workers died on one chunk, again and again
"""

from typing import ClassVar, Final

from penstock_proto.v1 import codes


class ServiceError(Exception):
    """An error whose text may be shown to the user as it is: what, where, how many, what to do now."""

    code: ClassVar[str] = codes.INTERNAL
    retryable: ClassVar[bool] = False


class NotFound(ServiceError):
    code = codes.NOT_FOUND


class AlreadyExists(ServiceError):
    code = codes.ALREADY_EXISTS


class InvalidRequest(ServiceError):
    code = codes.INVALID_REQUEST


class NoRows(InvalidRequest):
    """An empty folder, files without rows: an error alone, a warning among others that hold rows."""


class ProtocolMismatch(ServiceError):
    code = codes.PROTOCOL_MISMATCH


class CursorMismatch(ServiceError):
    code = codes.CURSOR_MISMATCH


class OrderChanged(ServiceError):
    code = codes.ORDER_CHANGED


class JournalConflict(ServiceError):
    code = codes.JOURNAL_CONFLICT


class DataError(ServiceError):
    code = codes.DATA_ERROR


class SourceChanged(ServiceError):
    code = codes.SOURCE_CHANGED


class SourceGone(SourceChanged):
    """`shard` is the file's path in its dataset, where it is known."""

    shard: str = ""


class SourceUnreadable(ServiceError):
    code = codes.SOURCE_UNREADABLE
    retryable = True


class ResourceExhausted(ServiceError):
    code = codes.RESOURCE_EXHAUSTED
    retryable = True


class RanksDisagree(ServiceError):
    """Retryable: the other ranks may be those of a job that is just ending."""

    code = codes.RANKS_DISAGREE
    retryable = True


class Fenced(ServiceError):
    """`by` is the process that has the rank now."""

    code = codes.FENCED

    def __init__(self, text: str, by: str) -> None:
        super().__init__(text)
        self.by = by


class Unavailable(ServiceError):
    code = codes.UNAVAILABLE
    retryable = True


class Internal(ServiceError):
    code = codes.INTERNAL


class WorkerKilled(Internal):
    """Its bytes crash whatever makes it, or memory is short: another try would do the same."""


CHUNK_FAULTS: Final = (DataError, SourceUnreadable, SourceGone, WorkerKilled)
"""Why no row of a chunk can be had. Only a DataError is a function of the bytes, and replays by itself."""
