"""The keyed integer hash that decides order. Pinned by golden vectors: changing it changes every order ever made.

The function is the finaliser of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
OOPSLA 2014; public-domain C by S. Vigna, https://prng.di.unimi.it/splitmix64.c). Row `r` under key `k` hashes to
element `r` of the splitmix64 sequence seeded with `k`, which can be computed without its predecessors.

Never Python's or NumPy's random here: their streams differ between versions.
"""

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]

GOLDEN: Final = 0x9E3779B97F4A7C15
_M1: Final = 0xBF58476D1CE4E5B9
_M2: Final = 0x94D049BB133111EB
_MASK: Final = (1 << 64) - 1
_BLOCK: Final = 1 << 16  # elements hashed at a time: temporaries stay in the second-level cache


def mix64(x: int) -> int:
    """The splitmix64 finaliser of one 64-bit integer."""
    x &= _MASK
    x = ((x ^ (x >> 30)) * _M1) & _MASK
    x = ((x ^ (x >> 27)) * _M2) & _MASK
    return x ^ (x >> 31)


def key_of(*parts: int) -> int:
    """One 64-bit key of several integers; their order matters, and so does how many there are."""
    key = mix64(len(parts) + GOLDEN)
    for part in parts:
        key = mix64(key ^ mix64((part & _MASK) + GOLDEN))
    return key


def hash_rows(key: int, rows: U64) -> U64:
    """Hash each row id in `rows` (uint64, any shape [n]) under `key`; returns uint64 [n]."""
    out = np.empty_like(rows)
    first = np.uint64((GOLDEN + key) & _MASK)  # (row + 1) * GOLDEN + key, the 1 multiplied out
    for at in range(0, len(rows), _BLOCK):
        x = out[at : at + _BLOCK]
        np.multiply(rows[at : at + _BLOCK], np.uint64(GOLDEN), out=x)
        np.add(x, first, out=x)
        _finalise(x)
    return out


def rehash(values: U64, salt: int) -> U64:
    """A second, independent hash of hashes: values [n] uint64 under another `salt`."""
    out = np.empty_like(values)
    for at in range(0, len(values), _BLOCK):
        x = out[at : at + _BLOCK]
        np.bitwise_xor(values[at : at + _BLOCK], np.uint64(salt), out=x)
        _finalise(x)
    return out


def _finalise(x: U64) -> None:
    shifted = x >> np.uint64(30)
    np.bitwise_xor(x, shifted, out=x)
    np.multiply(x, np.uint64(_M1), out=x)
    np.right_shift(x, np.uint64(27), out=shifted)
    np.bitwise_xor(x, shifted, out=x)
    np.multiply(x, np.uint64(_M2), out=x)
    np.right_shift(x, np.uint64(31), out=shifted)
    np.bitwise_xor(x, shifted, out=x)


def digest_ids(ids: U64) -> int:
    """A 64-bit digest of row ids [n] in their order: what a cursor carries to tell a changed segment."""
    total = len(ids)
    for at in range(0, len(ids), _BLOCK):
        part = ids[at : at + _BLOCK]
        x = np.arange(at + 1, at + len(part) + 1, dtype=np.uint64)
        np.multiply(x, np.uint64(GOLDEN), out=x)
        np.bitwise_xor(x, part, out=x)
        _finalise(x)
        total = (total + int(x.sum(dtype=np.uint64))) & _MASK
    return mix64(total)


def short_hash(*parts: bytes | str) -> str:
    """16 hexadecimal digits that stand for `parts` (BLAKE2b, each part preceded by its length)."""
    h = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()
