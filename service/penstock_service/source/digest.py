"""Fingerprints of shards: what stands for their content.

Of a binary object in a store it is made of the store's ETag: that tells more than samples, and costs no reading.

A fingerprint ends with the size of the file as stored, so that a reader that has nothing else can tell a changed file.
"""

import hashlib
from collections.abc import Callable, Iterator

from penstock_service.source.format import ShardFile
from penstock_service.source.place import Range, storage_errors

SAMPLE_BYTES = 64 << 10
SAMPLES = 16
READ_BYTES = 1 << 20
_TAG = "etag-"


class ContentDigest:
    """A digest over bytes as they pass by."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def update(self, data: memoryview | bytes) -> None:
        self._hash.update(data)

    def fingerprint(self, size: int) -> str:
        return f"{self._hash.hexdigest()}-{size:x}"


def size_in(fingerprint: str) -> int:
    """The size in bytes that the shard had."""
    return int(fingerprint.rpartition("-")[2], 16)


def has_tag(fingerprint: str) -> bool:
    """Was it made of an ETag?"""
    return fingerprint.startswith(_TAG)


def same_tag(file: ShardFile, fingerprint: str) -> bool:
    """Has the object the ETag that `fingerprint` was made of?"""
    return _by_tag(file) == fingerprint


def binary_fingerprint(file: ShardFile, tail: Callable[[], int]) -> str:
    """What stands for a file that is not read as a whole: its ETag, or else a digest of samples.

    Samples are `tail` bytes at the end (a footer) and blocks spread over the file; all of a small file.
    """
    return _by_tag(file) or _by_samples(file, tail())


def _by_tag(file: ShardFile) -> str:
    tag = file.place.tag(file.path)
    return f"{_TAG}{hashlib.blake2b(tag.encode(), digest_size=16).hexdigest()}-{file.state.size:x}" if tag else ""


def _by_samples(file: ShardFile, tail: int) -> str:
    digest = ContentDigest()
    samples = list(_samples(file.state.size, tail))
    with storage_errors(file.full), file.place.open(file.path, [samples]) as stream:
        for offset, length in samples:
            stream.seek(offset)
            while length > 0:
                data = stream.read(min(length, READ_BYTES))
                if not data:
                    break
                digest.update(data)
                length -= len(data)
    return digest.fingerprint(file.state.size)


def _samples(size: int, tail: int) -> Iterator[Range]:
    tail = min(max(tail, SAMPLE_BYTES), size)
    body = size - tail
    if body <= SAMPLES * SAMPLE_BYTES:
        yield Range(0, size)
        return
    for i in range(SAMPLES):
        yield Range((body - SAMPLE_BYTES) * i // (SAMPLES - 1), SAMPLE_BYTES)
    yield Range(body, tail)
