"""Penstock's client: batches for a training loop, read, mixed and prefetched by a server.

client = penstock.connect("127.0.0.1:7400")
stream = client.stream("titanic", batch_size=32, seed=7)
for batch in stream:
    ...
"""

from penstock.batch import Batch, BatchMetadata
from penstock.client import Client, connect
from penstock.dataset import Dataset
from penstock.errors import (
    AlreadyExists,
    ConversionError,
    CursorMismatch,
    DataError,
    DatasetNotFound,
    Fenced,
    InvalidRequest,
    JournalConflict,
    OrderChanged,
    PenstockError,
    PermanentError,
    ProtocolMismatch,
    RanksDisagree,
    ResourceExhausted,
    RetryableError,
    ServerDraining,
    ServerError,
    ServerUnavailable,
    SourceChanged,
    SourceUnreadable,
)
from penstock.explanation import Explanation
from penstock.registered import DatasetDiff, DatasetInfo, DiscoveredChild, ShardChange
from penstock.runs import Change, RunInfo
from penstock.stream import Stream
from penstock.tensor_pool import PoolCounters, TensorPool

__all__ = [
    "AlreadyExists",
    "Batch",
    "BatchMetadata",
    "Change",
    "Client",
    "ConversionError",
    "CursorMismatch",
    "DataError",
    "Dataset",
    "DatasetDiff",
    "DatasetInfo",
    "DatasetNotFound",
    "DiscoveredChild",
    "Explanation",
    "Fenced",
    "InvalidRequest",
    "JournalConflict",
    "OrderChanged",
    "PenstockError",
    "PermanentError",
    "PoolCounters",
    "ProtocolMismatch",
    "RanksDisagree",
    "ResourceExhausted",
    "RetryableError",
    "RunInfo",
    "ServerDraining",
    "ServerError",
    "ServerUnavailable",
    "ShardChange",
    "SourceChanged",
    "SourceUnreadable",
    "Stream",
    "TensorPool",
    "connect",
]
