"""The names of errors on the wire (`Error.code`), so that both ends spell them alike.

The client raises the type of the same name; a code it does not know becomes its most general error.
"""

from typing import Final

NOT_FOUND: Final = "NotFound"
ALREADY_EXISTS: Final = "AlreadyExists"
INVALID_REQUEST: Final = "InvalidRequest"
PROTOCOL_MISMATCH: Final = "ProtocolMismatch"
CURSOR_MISMATCH: Final = "CursorMismatch"
ORDER_CHANGED: Final = "OrderChanged"
JOURNAL_CONFLICT: Final = "JournalConflict"
DATA_ERROR: Final = "DataError"
SOURCE_CHANGED: Final = "SourceChanged"
SOURCE_UNREADABLE: Final = "SourceUnreadable"
RESOURCE_EXHAUSTED: Final = "ResourceExhausted"
RANKS_DISAGREE: Final = "RanksDisagree"
FENCED: Final = "Fenced"
UNAVAILABLE: Final = "Unavailable"
INTERNAL: Final = "Internal"
