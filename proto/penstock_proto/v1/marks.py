"""What a field's metadata may say about a column where its Arrow type cannot. Kept from the file to the trainer."""

from collections.abc import Mapping
from typing import Final

PREFIX: Final = b"penstock."

DTYPE: Final = b"penstock.dtype"
"""What the bits of the numbers mean: "bfloat16" on uint16, in lists and fixed-size lists too."""

SPARSE: Final = b"penstock.sparse"
"""The width of a sparse row, on struct<indices: list<integer>, values: list<number>>."""


def kept(metadata: Mapping[bytes, bytes] | None) -> dict[bytes, bytes] | None:
    """Our marks among a field's metadata, or None where there are none."""
    found = {key: value for key, value in (metadata or {}).items() if key.startswith(PREFIX)}
    return found or None
