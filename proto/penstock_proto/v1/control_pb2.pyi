from penstock_proto.v1 import data_pb2 as _data_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("version", "protocol_min", "protocol_max", "capabilities")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MIN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MAX_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    version: str
    protocol_min: int
    protocol_max: int
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[str] = ..., protocol_min: _Optional[int] = ..., protocol_max: _Optional[int] = ..., capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class Dataset(_message.Message):
    __slots__ = ("name", "version", "path", "rows", "size", "shards", "schema", "description", "tags", "registered_at", "formats", "task", "metric", "target", "features", "splits")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_AT_FIELD_NUMBER: _ClassVar[int]
    FORMATS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    path: str
    rows: int
    size: int
    shards: int
    schema: bytes
    description: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    registered_at: str
    formats: _containers.RepeatedScalarFieldContainer[str]
    task: str
    metric: str
    target: _containers.RepeatedScalarFieldContainer[str]
    features: int
    splits: _containers.RepeatedCompositeFieldContainer[Split]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., path: _Optional[str] = ..., rows: _Optional[int] = ..., size: _Optional[int] = ..., shards: _Optional[int] = ..., schema: _Optional[bytes] = ..., description: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., registered_at: _Optional[str] = ..., formats: _Optional[_Iterable[str]] = ..., task: _Optional[str] = ..., metric: _Optional[str] = ..., target: _Optional[_Iterable[str]] = ..., features: _Optional[int] = ..., splits: _Optional[_Iterable[_Union[Split, _Mapping]]] = ...) -> None: ...

class Split(_message.Message):
    __slots__ = ("name", "rows", "size", "shards", "schema")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    name: str
    rows: int
    size: int
    shards: int
    schema: bytes
    def __init__(self, name: _Optional[str] = ..., rows: _Optional[int] = ..., size: _Optional[int] = ..., shards: _Optional[int] = ..., schema: _Optional[bytes] = ...) -> None: ...

class RegisterDatasetRequest(_message.Message):
    __slots__ = ("name", "path", "description", "tags", "task", "metric", "target", "rows", "features", "paths", "required")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    PATHS_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    name: str
    path: str
    description: str
    tags: Words
    task: str
    metric: str
    target: Words
    rows: int
    features: int
    paths: _containers.RepeatedScalarFieldContainer[str]
    required: _containers.RepeatedCompositeFieldContainer[Columns]
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ..., description: _Optional[str] = ..., tags: _Optional[_Union[Words, _Mapping]] = ..., task: _Optional[str] = ..., metric: _Optional[str] = ..., target: _Optional[_Union[Words, _Mapping]] = ..., rows: _Optional[int] = ..., features: _Optional[int] = ..., paths: _Optional[_Iterable[str]] = ..., required: _Optional[_Iterable[_Union[Columns, _Mapping]]] = ...) -> None: ...

class Columns(_message.Message):
    __slots__ = ("split", "columns")
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    split: str
    columns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, split: _Optional[str] = ..., columns: _Optional[_Iterable[str]] = ...) -> None: ...

class Words(_message.Message):
    __slots__ = ("words",)
    WORDS_FIELD_NUMBER: _ClassVar[int]
    words: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, words: _Optional[_Iterable[str]] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("datasets",)
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[Dataset]
    def __init__(self, datasets: _Optional[_Iterable[_Union[Dataset, _Mapping]]] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class SearchDatasetsRequest(_message.Message):
    __slots__ = ("text", "tag", "task")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    text: str
    tag: str
    task: str
    def __init__(self, text: _Optional[str] = ..., tag: _Optional[str] = ..., task: _Optional[str] = ...) -> None: ...

class ListVersionsRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RemoveDatasetRequest(_message.Message):
    __slots__ = ("name", "force")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    force: bool
    def __init__(self, name: _Optional[str] = ..., force: bool = ...) -> None: ...

class RemoveDatasetResponse(_message.Message):
    __slots__ = ("removed",)
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    removed: Dataset
    def __init__(self, removed: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class DiffDatasetsRequest(_message.Message):
    __slots__ = ("a", "b")
    A_FIELD_NUMBER: _ClassVar[int]
    B_FIELD_NUMBER: _ClassVar[int]
    a: str
    b: str
    def __init__(self, a: _Optional[str] = ..., b: _Optional[str] = ...) -> None: ...

class DatasetDiff(_message.Message):
    __slots__ = ("a", "b", "added", "gone", "changed", "added_count", "gone_count", "changed_count", "same_count")
    A_FIELD_NUMBER: _ClassVar[int]
    B_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    ADDED_COUNT_FIELD_NUMBER: _ClassVar[int]
    GONE_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHANGED_COUNT_FIELD_NUMBER: _ClassVar[int]
    SAME_COUNT_FIELD_NUMBER: _ClassVar[int]
    a: str
    b: str
    added: _containers.RepeatedCompositeFieldContainer[ShardChange]
    gone: _containers.RepeatedCompositeFieldContainer[ShardChange]
    changed: _containers.RepeatedCompositeFieldContainer[ShardChange]
    added_count: int
    gone_count: int
    changed_count: int
    same_count: int
    def __init__(self, a: _Optional[str] = ..., b: _Optional[str] = ..., added: _Optional[_Iterable[_Union[ShardChange, _Mapping]]] = ..., gone: _Optional[_Iterable[_Union[ShardChange, _Mapping]]] = ..., changed: _Optional[_Iterable[_Union[ShardChange, _Mapping]]] = ..., added_count: _Optional[int] = ..., gone_count: _Optional[int] = ..., changed_count: _Optional[int] = ..., same_count: _Optional[int] = ...) -> None: ...

class ShardChange(_message.Message):
    __slots__ = ("path", "rows_before", "rows", "size_before", "size")
    PATH_FIELD_NUMBER: _ClassVar[int]
    ROWS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    path: str
    rows_before: int
    rows: int
    size_before: int
    size: int
    def __init__(self, path: _Optional[str] = ..., rows_before: _Optional[int] = ..., rows: _Optional[int] = ..., size_before: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class DiscoverDatasetsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DiscoverDatasetsResponse(_message.Message):
    __slots__ = ("folder", "children")
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    folder: str
    children: _containers.RepeatedCompositeFieldContainer[Child]
    def __init__(self, folder: _Optional[str] = ..., children: _Optional[_Iterable[_Union[Child, _Mapping]]] = ...) -> None: ...

class Child(_message.Message):
    __slots__ = ("name", "path", "state", "version", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    path: str
    state: str
    version: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ..., state: _Optional[str] = ..., version: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("id", "job", "stream", "datasets", "world_size", "ranks", "epoch", "segment", "head", "entries")
    ID_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    id: str
    job: str
    stream: str
    datasets: _containers.RepeatedScalarFieldContainer[str]
    world_size: int
    ranks: _containers.RepeatedScalarFieldContainer[int]
    epoch: int
    segment: int
    head: str
    entries: str
    def __init__(self, id: _Optional[str] = ..., job: _Optional[str] = ..., stream: _Optional[str] = ..., datasets: _Optional[_Iterable[str]] = ..., world_size: _Optional[int] = ..., ranks: _Optional[_Iterable[int]] = ..., epoch: _Optional[int] = ..., segment: _Optional[int] = ..., head: _Optional[str] = ..., entries: _Optional[str] = ...) -> None: ...

class SetMixtureRequest(_message.Message):
    __slots__ = ("run", "weights")
    class WeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUN_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    run: str
    weights: _containers.ScalarMap[str, float]
    def __init__(self, run: _Optional[str] = ..., weights: _Optional[_Mapping[str, float]] = ...) -> None: ...

class QuarantineRequest(_message.Message):
    __slots__ = ("run", "dataset", "rows", "reason")
    RUN_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run: str
    dataset: str
    rows: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    def __init__(self, run: _Optional[str] = ..., dataset: _Optional[str] = ..., rows: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ...) -> None: ...

class Began(_message.Message):
    __slots__ = ("run", "n", "head", "epoch", "segment", "step", "exact", "complete_epoch", "complete_segment", "complete_step", "carried")
    RUN_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_SEGMENT_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_STEP_FIELD_NUMBER: _ClassVar[int]
    CARRIED_FIELD_NUMBER: _ClassVar[int]
    run: str
    n: int
    head: str
    epoch: int
    segment: int
    step: int
    exact: bool
    complete_epoch: int
    complete_segment: int
    complete_step: int
    carried: str
    def __init__(self, run: _Optional[str] = ..., n: _Optional[int] = ..., head: _Optional[str] = ..., epoch: _Optional[int] = ..., segment: _Optional[int] = ..., step: _Optional[int] = ..., exact: bool = ..., complete_epoch: _Optional[int] = ..., complete_segment: _Optional[int] = ..., complete_step: _Optional[int] = ..., carried: _Optional[str] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("open", "step", "epoch", "all_ranks")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ALL_RANKS_FIELD_NUMBER: _ClassVar[int]
    open: _data_pb2.Open
    step: int
    epoch: int
    all_ranks: bool
    def __init__(self, open: _Optional[_Union[_data_pb2.Open, _Mapping]] = ..., step: _Optional[int] = ..., epoch: _Optional[int] = ..., all_ranks: bool = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: bytes
    def __init__(self, rows: _Optional[bytes] = ...) -> None: ...

class WarmRequest(_message.Message):
    __slots__ = ("name", "split")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    split: str
    def __init__(self, name: _Optional[str] = ..., split: _Optional[str] = ...) -> None: ...

class Warming(_message.Message):
    __slots__ = ("dataset", "state", "chunks", "there", "made", "size", "seconds", "reason")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    THERE_FIELD_NUMBER: _ClassVar[int]
    MADE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    state: str
    chunks: int
    there: int
    made: int
    size: int
    seconds: float
    reason: str
    def __init__(self, dataset: _Optional[str] = ..., state: _Optional[str] = ..., chunks: _Optional[int] = ..., there: _Optional[int] = ..., made: _Optional[int] = ..., size: _Optional[int] = ..., seconds: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...
