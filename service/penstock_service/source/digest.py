"""Fingerprints of shards: what stands for their content.

A fingerprint ends with the size of the file as stored, so that a reader that has nothing else can tell a changed file.
"""

import hashlib
from collections.abc import Iterator

from penstock_service.core.errors import SourceChanged
from penstock_service.source.format import ShardFile
from penstock_service.source.place import storage_errors

SAMPLE_BYTES = 64 << 10
SAMPLES = 16
READ_BYTES = 1 << 20


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


def check_size(file: ShardFile, fingerprint: str) -> None:
    """Refuses a shard that is not as long as it was when it was scanned."""
    known = size_in(fingerprint)
    if file.state.size != known:
        raise SourceChanged(
            f"{file.full} has {file.state.size} bytes now and had {known} when its dataset was registered: "
            "register it again to use it as it is now."
        )


def sampled_fingerprint(file: ShardFile, tail: int) -> str:
    """The digest of `tail` bytes at the end (a footer) and of blocks spread over the file; all of a small file."""
    digest = ContentDigest()
    with storage_errors(file.full), file.place.open(file.path) as stream:
        for offset, length in _samples(file.state.size, tail):
            stream.seek(offset)
            while length > 0:
                data = stream.read(min(length, READ_BYTES))
                if not data:
                    break
                digest.update(data)
                length -= len(data)
    return digest.fingerprint(file.state.size)


def _samples(size: int, tail: int) -> Iterator[tuple[int, int]]:
    tail = min(max(tail, SAMPLE_BYTES), size)
    body = size - tail
    if body <= SAMPLES * SAMPLE_BYTES:
        yield 0, size
        return
    for i in range(SAMPLES):
        yield (body - SAMPLE_BYTES) * i // (SAMPLES - 1), SAMPLE_BYTES
    yield body, tail
