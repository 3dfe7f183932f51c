"""Row boundaries of line-based text: every line, or every line that is not blank."""

import numpy as np

from penstock_service.source.text.blocks import I64, LINE_END, U8, Cut

_RETURN = 13
_SPACES = np.zeros(256, np.bool_)
_SPACES[[9, 10, 13, 32]] = True


def cut_lines(data: U8, last: bool) -> Cut:
    """Every line is a row, blank ones too."""
    ends = np.flatnonzero(data == LINE_END) + 1
    if not len(ends):
        return Cut(np.empty(0, np.int64), 0)
    return Cut(np.concatenate(([0], ends[:-1])), int(ends[-1]))


def cut_filled_lines(data: U8, last: bool) -> Cut:
    """Every line that holds more than white space is a row."""
    starts, end = cut_lines(data, last)
    maybe_blank = _SPACES[data[starts]]
    if maybe_blank.any():
        filled = np.add.reduceat(~_SPACES[data[:end]], starts, dtype=np.int64) > 0
        starts = starts[filled]
    return Cut(starts, end)


def first_and_last_bytes(data: U8, starts: I64) -> tuple[U8, U8]:
    """The first and the last byte of each row that are not white space; each row has some, `data` ends with them."""
    first = data[starts]
    ends = np.append(starts[1:], len(data)) - 1  # the line end
    ends -= data[ends - 1] == _RETURN
    final = data[ends - 1]
    if _SPACES[first].any() or _SPACES[final].any():
        filled = np.flatnonzero(~_SPACES[data])
        first = data[filled[np.searchsorted(filled, starts)]]
        final = data[filled[np.searchsorted(filled, ends) - 1]]
    return first, final
