"""What can go wrong, sorted by what the user can do about it.

PenstockError                       text: what, where, how many, and what to do now
├── PermanentError                  asking again gives the same answer
│   ├── DatasetNotFound             no such dataset (the text names the nearest)
│   ├── AlreadyExists
│   ├── InvalidRequest              an argument is wrong: its name, its value, what is allowed
│   ├── ProtocolMismatch            client and server speak different versions
│   ├── CursorMismatch              the state belongs to another plan: a field-by-field difference
│   ├── OrderChanged                something recomputed differs from what was sent before
│   ├── JournalConflict             the state's journal and that of its run have parted: both heads, and the cure
│   ├── DataError                   rows that cannot be parsed or do not fit the schema
│   ├── SourceChanged               the files are not those of the dataset version
│   ├── Fenced                      another process has taken this rank of the job over
│   ├── ConversionError             a column cannot become a tensor: its name, its type, the cures
│   └── ServerError                 a bug in the server, or an error this client does not know yet
└── RetryableError                  may work later, or elsewhere
    ├── ServerUnavailable           nobody listens there, or the connection was lost
    ├── ServerDraining              the server is shutting down
    ├── SourceUnreadable            reading failed; says nothing about the bytes
    ├── ResourceExhausted           the server has no room for another session now
    └── RanksDisagree               ranks of the job ask for different things: what differs, and between whom
"""

from typing import ClassVar, Final

from penstock_proto.v1 import codes


class PenstockError(Exception):
    """Everything that penstock raises on purpose. `retryable` says whether asking again can help."""

    retryable: ClassVar[bool] = False


class PermanentError(PenstockError):
    """Asking again gives the same answer."""


class RetryableError(PenstockError):
    """May work later, or at another server."""

    retryable = True


class DatasetNotFound(PermanentError):
    """No such dataset; the text names those with the nearest names."""


class AlreadyExists(PermanentError):
    """Something of that name is registered already."""


class InvalidRequest(PermanentError):
    """An argument is wrong; the text names it, its value and what is allowed."""


class ProtocolMismatch(PermanentError):
    """Client and server speak different versions of the protocol; the text gives both numbers."""


class CursorMismatch(PermanentError):
    """The state that was loaded belongs to another plan; the text gives the difference field by field."""


class OrderChanged(PermanentError):
    """Something that was computed again differs from what was sent before; the text names chunk and stage."""


class JournalConflict(PermanentError):
    """The run's journal went another way than the state that was loaded; the text names both heads and the cure."""


class DataError(PermanentError):
    """Rows that cannot be parsed or do not fit the schema; the text names file, position and reason."""


class SourceChanged(PermanentError):
    """The files are no longer those of the dataset version."""


class Fenced(PermanentError):
    """Another process has taken this rank of the job over; the text names it. This one gets no more steps."""


class ConversionError(PermanentError):
    """A column cannot become a tensor; the text names the column, its type and the cures."""


class ServerError(PermanentError):
    """A bug in the server, or an error from a newer server that this client does not know."""


class ServerUnavailable(RetryableError):
    """Nobody listens at that address, or the connection was lost and did not come back."""


class ServerDraining(RetryableError):
    """The server is shutting down and takes nobody new, or has put this stream off: come again."""

    retry_after: float = 0.0  # seconds that the server asks to wait


class SourceUnreadable(RetryableError):
    """Reading a source failed after its retries; says nothing about the bytes."""


class ResourceExhausted(RetryableError):
    """The server has no room now; the text says what is short."""


class RanksDisagree(RetryableError):
    """Ranks of the job ask for different things, or begin at different states; the text says which. Tried again for
    ten seconds, because the others may be those of a job that is just ending."""


_BY_CODE: Final[dict[str, type[PenstockError]]] = {
    codes.NOT_FOUND: DatasetNotFound,
    codes.ALREADY_EXISTS: AlreadyExists,
    codes.INVALID_REQUEST: InvalidRequest,
    codes.PROTOCOL_MISMATCH: ProtocolMismatch,
    codes.CURSOR_MISMATCH: CursorMismatch,
    codes.ORDER_CHANGED: OrderChanged,
    codes.JOURNAL_CONFLICT: JournalConflict,
    codes.DATA_ERROR: DataError,
    codes.SOURCE_CHANGED: SourceChanged,
    codes.SOURCE_UNREADABLE: SourceUnreadable,
    codes.RESOURCE_EXHAUSTED: ResourceExhausted,
    codes.RANKS_DISAGREE: RanksDisagree,
    codes.FENCED: Fenced,
    codes.UNAVAILABLE: ServerUnavailable,
    codes.INTERNAL: ServerError,
}


def from_wire(code: str, message: str, retryable: bool) -> PenstockError:
    """The error that `Error{code, message, retryable}` stands for; to be raised by the caller.

    A known code decides the type, and the type whether it is retryable. Of a code this client does not know only
    `retryable` is believed: `RetryableError` or `ServerError`, with the code in front of the text.
    """
    known = _BY_CODE.get(code)
    if known is not None:
        return known(message)
    return (RetryableError if retryable else ServerError)(f"{code or 'error without a code'}: {message}")
