"""Row boundaries of JSON documents: an array of objects, or objects one after another, over any number of lines.

The block is rewritten in place, byte for byte, into one object per line (line ends within an object are white space to
JSON, commas and brackets between objects become white space too), so that it can go on as JSON lines.
"""

from typing import NamedTuple

import numpy as np

from penstock_service.source.text.blocks import I64, LINE_END, U8

_QUOTE, _BACKSLASH, _OPEN, _CLOSE, _SPACE = 34, 92, 123, 125, 32
_BETWEEN = np.zeros(256, np.bool_)
_BETWEEN[[9, 10, 13, 32, ord(","), ord("["), ord("]")]] = True


class Objects(NamedTuple):
    """Complete top-level objects of a block."""

    starts: I64
    stops: I64
    tail: int  # where the incomplete object at the end begins, or the length of the block
    stray: int  # position of the first byte between objects that does not belong there, or -1


def find_objects(data: U8) -> Objects:
    """Top-level objects of `data`, which begins outside of any."""
    braces = np.flatnonzero((data == _OPEN) | (data == _CLOSE))
    quotes = _unescaped_quotes(data)
    braces = braces[np.searchsorted(quotes, braces) % 2 == 0]
    steps = np.where(data[braces] == _OPEN, 1, -1)
    depth = np.cumsum(steps)
    starts = braces[(steps == 1) & (depth == 1)]
    stops = braces[(steps == -1) & (depth == 0)] + 1
    if len(depth) and depth.min() < 0:  # a closing brace too many: what stands before it is fine
        wrong = int(braces[int(np.argmax(depth < 0))])
        stops = stops[stops <= wrong]
        return Objects(starts[: len(stops)], stops, wrong, wrong)
    tail = int(starts[len(stops)]) if len(starts) > len(stops) else len(data)
    starts = starts[: len(stops)]
    return Objects(starts, stops, tail, _stray(data, starts, stops, tail))


def one_per_line(data: U8, found: Objects) -> None:
    """Rewrites `data`, which ends with the last object: objects then hold no line end, and nothing else is between."""
    edges = np.zeros(len(data) + 1, np.int8)
    edges[found.starts] = 1
    edges[found.stops] -= 1
    inside = np.cumsum(edges[:-1], dtype=np.int8).view(np.bool_)
    data[inside & (data == LINE_END)] = _SPACE
    data[~inside] = LINE_END


def _unescaped_quotes(data: U8) -> I64:
    quotes = np.flatnonzero(data == _QUOTE)
    slashes = np.flatnonzero(data == _BACKSLASH)
    if not len(slashes) or not len(quotes):
        return quotes
    # how long the run of backslashes is that ends at each backslash
    breaks = np.flatnonzero(np.diff(slashes) != 1) + 1
    first_of_run = np.zeros(len(slashes), np.int64)
    first_of_run[breaks] = breaks
    first_of_run = np.maximum.accumulate(first_of_run)
    run = np.arange(len(slashes)) - first_of_run + 1
    before = np.searchsorted(slashes, quotes) - 1
    escaped = (before >= 0) & (slashes[before] == quotes - 1) & (run[before] % 2 == 1)
    unescaped: I64 = quotes[~escaped]
    return unescaped


def _stray(data: U8, starts: I64, stops: I64, tail: int) -> int:
    """The first byte outside of objects, before `tail`, that is neither white space nor a comma nor a bracket."""
    edges = np.zeros(len(data) + 1, np.int8)
    edges[starts] = 1
    edges[stops] -= 1
    outside = np.cumsum(edges[:-1], dtype=np.int8) == 0
    outside[tail:] = False
    strays = np.flatnonzero(outside & ~_BETWEEN[data])
    return int(strays[0]) if len(strays) else -1
