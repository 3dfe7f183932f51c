"""Row boundaries of CSV: line ends outside quotes, found as Arrow's CSV parser finds them.

A quote opens a quoted field only at the field's start; in a quoted field two quotes are one character, and after the
closing quote the rest of the field is taken as it stands. So `5" pipe` is no quoted field, and neither parity of quotes
nor a search for line ends alone is right.
"""

import numpy as np

from penstock_service.source.text.blocks import I64, LINE_END, U8, Cut

_QUOTE = 34
_RETURN = 13


def cut_records(data: U8, delimiter: int) -> tuple[Cut, bool]:
    """Boundaries, and whether `data` ends inside quotes. Empty lines are no rows."""
    breaks = np.flatnonzero((data == LINE_END) | (data == _RETURN))
    quotes = np.flatnonzero(data == _QUOTE)
    inside = False
    if len(quotes):
        marks = _marks(data, quotes, delimiter)
        breaks = breaks[np.searchsorted(marks, breaks) % 2 == 0]
        inside = len(marks) % 2 == 1
    if not len(breaks):
        return Cut(np.empty(0, np.int64), 0), inside
    starts = np.concatenate(([0], breaks[:-1] + 1))
    return Cut(starts[breaks > starts], int(breaks[-1]) + 1), inside


def _marks(data: U8, quotes: I64, delimiter: int) -> I64:
    """The quotes that open or close a quoted field (two that stand for one character close it and open it again)."""
    opening = quotes[::2]
    before = data[opening - 1]  # of a quote at 0 this is the last byte; it is allowed below
    at_start = (before == delimiter) | (before == LINE_END) | (before == _RETURN) | (opening == 0)
    doubled = np.zeros(len(opening), np.bool_)
    doubled[1:] = opening[1:] == quotes[1:-1:2][: len(opening) - 1] + 1
    if (at_start | doubled).all():
        return quotes
    return _marks_one_by_one(data, quotes, delimiter)


def _marks_one_by_one(data: U8, quotes: I64, delimiter: int) -> I64:
    """The same where a quote stands within an unquoted field: only then is what a quote means known from its left."""
    starts = (delimiter, LINE_END, _RETURN)
    marks: list[int] = []
    at = quotes.tolist()
    before = data[quotes - 1].tolist()
    i = 0
    while i < len(at):
        if len(marks) % 2 == 0:
            if at[i] == 0 or before[i] in starts:
                marks.append(at[i])
        elif i + 1 < len(at) and at[i + 1] == at[i] + 1:
            i += 1  # a doubled quote: still inside
        else:
            marks.append(at[i])
        i += 1
    return np.array(marks, np.int64)
