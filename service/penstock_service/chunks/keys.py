"""What a chunk's file is called, and which chunks one reading gives.

A key stands for everything the chunk's value is a function of: the fingerprints of the shards in its slices (with their
paths, which errors name), the slices, the schema, and the version of what each format's reader means. So adding a shard
to a dataset makes nothing else again, and a moved dataset finds what was made of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.core.dataset import I64, DatasetVersion, ReadTask

Owner = tuple[str, str, str]  # label, version, root: what tells one list of shards from another in this process
UnitId = tuple[Owner, int]  # the first chunk of those that one reading gives

_BLOCK: Final = 1024  # shards whose digests are made together
_CUT: Final = ("unit", "unit_row", "rows", "offset", "length")


def owner_of(dataset: DatasetVersion) -> Owner:
    chain = f"+{dataset.chain.fingerprint}" if dataset.chain is not None else ""
    return (dataset.label, dataset.version + chain, dataset.root)


class VersionKeys:
    """Keys and read units of one dataset version. Made off the event loop: it looks through the whole manifest."""

    def __init__(self, dataset: DatasetVersion, semantics: Mapping[str, int]) -> None:
        manifest = dataset.manifest
        self.dataset: Final = dataset
        self.owner: Final = owner_of(dataset)
        self.chunks: Final = manifest.chunks
        self.bytes: Final = manifest.chunk_bytes
        self.known: dict[int, str] = {}  # keys made so far; the event loop looks here only
        self._semantics = semantics
        self._schema = (dataset.stored_schema or dataset.schema).serialize().to_pybytes()
        self._schema_digest = _schema_digest(dataset.schema)
        if dataset.chain is not None:
            self._schema_digest += dataset.chain.fingerprint.encode()
        self._shards = manifest.shards.select(["path", "format", "fingerprint"])
        self._first = manifest.chunk_first_slice
        self._shard = _column(dataset, "shard")
        self._cut = [_column(dataset, name) for name in _CUT]
        self._digests: dict[int, npt.NDArray[np.uint8]] = {}
        self._group_first, self._group_end = manifest.read_together

    def read_with(self, chunk: int) -> range:
        return range(int(self._group_first[chunk]), int(self._group_end[chunk]))

    def unit(self, chunk: int) -> UnitId:
        return (self.owner, int(self._group_first[chunk]))

    def key(self, chunk: int) -> str:
        key = self.known.get(chunk)
        if key is None:
            first, end = int(self._first[chunk]), int(self._first[chunk + 1])
            shards = self._shard[first:end]
            h = blake2b(self._schema_digest, digest_size=16)
            h.update(np.stack([shards - shards[0], *(column[first:end] for column in self._cut)]).tobytes())
            for shard in range(int(shards[0]), int(shards[-1]) + 1):
                h.update(self._digest(shard))
            key = self.known[chunk] = h.hexdigest()
        return key

    def keys(self, chunks: Sequence[int]) -> list[str]:
        return [self.key(chunk) for chunk in chunks]

    def all_keys(self) -> Iterator[str]:
        return (self.key(chunk) for chunk in range(self.chunks))

    def task(self, chunks: Sequence[int]) -> ReadTask:
        manifest = self.dataset.manifest
        slices = tuple(manifest.slices_of(c) for c in chunks)
        return ReadTask(self.dataset.root, self._schema, tuple(chunks), slices, self.dataset.chain)

    def describe(self, chunk: int) -> str:
        """Words for messages: dataset, shards and chunk."""
        paths = list(dict.fromkeys(part.path for part in self.dataset.manifest.slices_of(chunk)))
        shown = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
        return f"dataset {self.dataset.reference}, shard {shown}, chunk {chunk}"

    def _digest(self, shard: int) -> bytes:
        block, row = divmod(shard, _BLOCK)
        digests = self._digests.get(block)
        if digests is None:
            names = self._shards.slice(block * _BLOCK, _BLOCK).to_pylist()
            raw = b"".join(self._shard_digest(**name) for name in names)
            digests = self._digests[block] = np.frombuffer(raw, np.uint8).reshape(-1, 16)
        return bytes(digests[row])

    def _shard_digest(self, path: str, format: str, fingerprint: str) -> bytes:  # noqa: A002 - the column's name
        return _digest(path, format, fingerprint, str(self._semantics.get(format, 0)))


def _schema_digest(schema: pa.Schema) -> bytes:
    """By what users see of it: its serialised form may change with the version of Arrow."""
    fields = [(field.name, str(field.type), str(field.nullable)) for field in schema]
    metadata = sorted((schema.metadata or {}).items())
    return _digest(*(part for field in fields for part in field), "", *(part for item in metadata for part in item))


def _digest(*parts: str | bytes) -> bytes:
    h = blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little") + data)
    return h.digest()


def _column(dataset: DatasetVersion, name: str) -> I64:
    return np.asarray(dataset.manifest.slices[name].to_numpy(), np.int64)
