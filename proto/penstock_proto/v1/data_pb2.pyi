from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClientMessage(_message.Message):
    __slots__ = ("open", "credit", "heartbeat", "close", "proof", "started")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    open: Open
    credit: Credit
    heartbeat: Heartbeat
    close: Close
    proof: Proof
    started: Started
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., close: _Optional[_Union[Close, _Mapping]] = ..., proof: _Optional[_Union[Proof, _Mapping]] = ..., started: _Optional[_Union[Started, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("opened", "filling", "bundle", "frame", "epoch_end", "draining", "heartbeat", "error", "fenced", "journal", "compression")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    FILLING_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    EPOCH_END_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FENCED_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    filling: Filling
    bundle: Bundle
    frame: Frame
    epoch_end: EpochEnd
    draining: Draining
    heartbeat: Heartbeat
    error: Error
    fenced: Fenced
    journal: Journal
    compression: Compression
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., filling: _Optional[_Union[Filling, _Mapping]] = ..., bundle: _Optional[_Union[Bundle, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., epoch_end: _Optional[_Union[EpochEnd, _Mapping]] = ..., draining: _Optional[_Union[Draining, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., fenced: _Optional[_Union[Fenced, _Mapping]] = ..., journal: _Optional[_Union[Journal, _Mapping]] = ..., compression: _Optional[_Union[Compression, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("protocol", "stream", "view", "cursor", "epoch", "job", "name", "token", "transports", "window", "client", "start", "force", "branch", "reopened", "compression", "codecs")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TRANSPORTS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    REOPENED_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    stream: StreamSpec
    view: View
    cursor: str
    epoch: int
    job: str
    name: str
    token: str
    transports: _containers.RepeatedScalarFieldContainer[str]
    window: Credit
    client: str
    start: str
    force: bool
    branch: bool
    reopened: bool
    compression: str
    codecs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, protocol: _Optional[int] = ..., stream: _Optional[_Union[StreamSpec, _Mapping]] = ..., view: _Optional[_Union[View, _Mapping]] = ..., cursor: _Optional[str] = ..., epoch: _Optional[int] = ..., job: _Optional[str] = ..., name: _Optional[str] = ..., token: _Optional[str] = ..., transports: _Optional[_Iterable[str]] = ..., window: _Optional[_Union[Credit, _Mapping]] = ..., client: _Optional[str] = ..., start: _Optional[str] = ..., force: bool = ..., branch: bool = ..., reopened: bool = ..., compression: _Optional[str] = ..., codecs: _Optional[_Iterable[str]] = ...) -> None: ...

class StreamSpec(_message.Message):
    __slots__ = ("sources", "seed", "unshuffled", "pool_rows", "pool_bytes", "refill_below", "start", "until", "epoch_rows", "same_every_epoch", "rows", "weight_by")
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    UNSHUFFLED_FIELD_NUMBER: _ClassVar[int]
    POOL_ROWS_FIELD_NUMBER: _ClassVar[int]
    POOL_BYTES_FIELD_NUMBER: _ClassVar[int]
    REFILL_BELOW_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    SAME_EVERY_EPOCH_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BY_FIELD_NUMBER: _ClassVar[int]
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    seed: int
    unshuffled: bool
    pool_rows: int
    pool_bytes: int
    refill_below: float
    start: str
    until: str
    epoch_rows: int
    same_every_epoch: bool
    rows: str
    weight_by: str
    def __init__(self, sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., seed: _Optional[int] = ..., unshuffled: bool = ..., pool_rows: _Optional[int] = ..., pool_bytes: _Optional[int] = ..., refill_below: _Optional[float] = ..., start: _Optional[str] = ..., until: _Optional[str] = ..., epoch_rows: _Optional[int] = ..., same_every_epoch: bool = ..., rows: _Optional[str] = ..., weight_by: _Optional[str] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("dataset", "weight", "split")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    weight: float
    split: str
    def __init__(self, dataset: _Optional[str] = ..., weight: _Optional[float] = ..., split: _Optional[str] = ...) -> None: ...

class View(_message.Message):
    __slots__ = ("global_batch", "rank", "world_size", "replica", "last", "columns", "text", "row_ids", "target_rows_per_s", "on_error", "placeholder", "skip")
    GLOBAL_BATCH_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ROW_IDS_FIELD_NUMBER: _ClassVar[int]
    TARGET_ROWS_PER_S_FIELD_NUMBER: _ClassVar[int]
    ON_ERROR_FIELD_NUMBER: _ClassVar[int]
    PLACEHOLDER_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    global_batch: int
    rank: int
    world_size: int
    replica: int
    last: str
    columns: _containers.RepeatedScalarFieldContainer[str]
    text: bool
    row_ids: bool
    target_rows_per_s: float
    on_error: str
    placeholder: str
    skip: _containers.RepeatedCompositeFieldContainer[StepRange]
    def __init__(self, global_batch: _Optional[int] = ..., rank: _Optional[int] = ..., world_size: _Optional[int] = ..., replica: _Optional[int] = ..., last: _Optional[str] = ..., columns: _Optional[_Iterable[str]] = ..., text: bool = ..., row_ids: bool = ..., target_rows_per_s: _Optional[float] = ..., on_error: _Optional[str] = ..., placeholder: _Optional[str] = ..., skip: _Optional[_Iterable[_Union[StepRange, _Mapping]]] = ...) -> None: ...

class StepRange(_message.Message):
    __slots__ = ("epoch", "begin", "end")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    begin: int
    end: int
    def __init__(self, epoch: _Optional[int] = ..., begin: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("steps", "bytes", "slots", "at")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    steps: int
    bytes: int
    slots: _containers.RepeatedScalarFieldContainer[int]
    at: Position
    def __init__(self, steps: _Optional[int] = ..., bytes: _Optional[int] = ..., slots: _Optional[_Iterable[int]] = ..., at: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class Proof(_message.Message):
    __slots__ = ("nonce", "reason", "socket")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOCKET_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    reason: str
    socket: bool
    def __init__(self, nonce: _Optional[bytes] = ..., reason: _Optional[str] = ..., socket: bool = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("epoch", "step")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    step: int
    def __init__(self, epoch: _Optional[int] = ..., step: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("at", "sent")
    AT_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    at: Position
    sent: int
    def __init__(self, at: _Optional[_Union[Position, _Mapping]] = ..., sent: _Optional[int] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("start",)
    START_FIELD_NUMBER: _ClassVar[int]
    start: str
    def __init__(self, start: _Optional[str] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Opened(_message.Message):
    __slots__ = ("session", "schema", "fingerprint", "plan", "steps", "rows", "transport", "transport_reason", "server", "cursor", "datasets", "seed", "notes", "slots", "compression", "payload")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_REASON_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    session: str
    schema: bytes
    fingerprint: str
    plan: str
    steps: int
    rows: int
    transport: str
    transport_reason: str
    server: str
    cursor: str
    datasets: _containers.RepeatedScalarFieldContainer[str]
    seed: int
    notes: _containers.RepeatedScalarFieldContainer[str]
    slots: Slots
    compression: Compression
    payload: Payload
    def __init__(self, session: _Optional[str] = ..., schema: _Optional[bytes] = ..., fingerprint: _Optional[str] = ..., plan: _Optional[str] = ..., steps: _Optional[int] = ..., rows: _Optional[int] = ..., transport: _Optional[str] = ..., transport_reason: _Optional[str] = ..., server: _Optional[str] = ..., cursor: _Optional[str] = ..., datasets: _Optional[_Iterable[str]] = ..., seed: _Optional[int] = ..., notes: _Optional[_Iterable[str]] = ..., slots: _Optional[_Union[Slots, _Mapping]] = ..., compression: _Optional[_Union[Compression, _Mapping]] = ..., payload: _Optional[_Union[Payload, _Mapping]] = ...) -> None: ...

class Payload(_message.Message):
    __slots__ = ("host", "port", "nonce")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    host: str
    port: int
    nonce: bytes
    def __init__(self, host: _Optional[str] = ..., port: _Optional[int] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class Slots(_message.Message):
    __slots__ = ("path", "count", "slot_bytes")
    PATH_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SLOT_BYTES_FIELD_NUMBER: _ClassVar[int]
    path: str
    count: int
    slot_bytes: int
    def __init__(self, path: _Optional[str] = ..., count: _Optional[int] = ..., slot_bytes: _Optional[int] = ...) -> None: ...

class Filling(_message.Message):
    __slots__ = ("rows", "of", "stage")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    OF_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    rows: int
    of: int
    stage: str
    def __init__(self, rows: _Optional[int] = ..., of: _Optional[int] = ..., stage: _Optional[str] = ...) -> None: ...

class Bundle(_message.Message):
    __slots__ = ("epoch", "first_step", "steps", "body_bytes", "segment", "taken", "spans", "rows", "units", "last_rows", "last_units", "last_valid", "rows_wait_us", "gather_us", "ends_epoch", "slot", "substituted", "socket")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    LAST_ROWS_FIELD_NUMBER: _ClassVar[int]
    LAST_UNITS_FIELD_NUMBER: _ClassVar[int]
    LAST_VALID_FIELD_NUMBER: _ClassVar[int]
    ROWS_WAIT_US_FIELD_NUMBER: _ClassVar[int]
    GATHER_US_FIELD_NUMBER: _ClassVar[int]
    ENDS_EPOCH_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    SUBSTITUTED_FIELD_NUMBER: _ClassVar[int]
    SOCKET_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    first_step: int
    steps: int
    body_bytes: int
    segment: int
    taken: int
    spans: _containers.RepeatedCompositeFieldContainer[Span]
    rows: int
    units: int
    last_rows: int
    last_units: int
    last_valid: int
    rows_wait_us: int
    gather_us: int
    ends_epoch: bool
    slot: int
    substituted: _containers.RepeatedScalarFieldContainer[int]
    socket: bool
    def __init__(self, epoch: _Optional[int] = ..., first_step: _Optional[int] = ..., steps: _Optional[int] = ..., body_bytes: _Optional[int] = ..., segment: _Optional[int] = ..., taken: _Optional[int] = ..., spans: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., rows: _Optional[int] = ..., units: _Optional[int] = ..., last_rows: _Optional[int] = ..., last_units: _Optional[int] = ..., last_valid: _Optional[int] = ..., rows_wait_us: _Optional[int] = ..., gather_us: _Optional[int] = ..., ends_epoch: bool = ..., slot: _Optional[int] = ..., substituted: _Optional[_Iterable[int]] = ..., socket: bool = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("segment", "units", "digest")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    segment: int
    units: int
    digest: int
    def __init__(self, segment: _Optional[int] = ..., units: _Optional[int] = ..., digest: _Optional[int] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("data", "size", "lz4", "zstd")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    LZ4_FIELD_NUMBER: _ClassVar[int]
    ZSTD_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    size: int
    lz4: bytes
    zstd: bytes
    def __init__(self, data: _Optional[bytes] = ..., size: _Optional[int] = ..., lz4: _Optional[bytes] = ..., zstd: _Optional[bytes] = ...) -> None: ...

class Compression(_message.Message):
    __slots__ = ("codec", "reason")
    CODEC_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    codec: str
    reason: str
    def __init__(self, codec: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class EpochEnd(_message.Message):
    __slots__ = ("epoch", "steps", "dropped", "padded", "repeated_rows", "unread", "skipped_rows", "substituted_rows")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    PADDED_FIELD_NUMBER: _ClassVar[int]
    REPEATED_ROWS_FIELD_NUMBER: _ClassVar[int]
    UNREAD_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_ROWS_FIELD_NUMBER: _ClassVar[int]
    SUBSTITUTED_ROWS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    steps: int
    dropped: int
    padded: int
    repeated_rows: int
    unread: int
    skipped_rows: int
    substituted_rows: int
    def __init__(self, epoch: _Optional[int] = ..., steps: _Optional[int] = ..., dropped: _Optional[int] = ..., padded: _Optional[int] = ..., repeated_rows: _Optional[int] = ..., unread: _Optional[int] = ..., skipped_rows: _Optional[int] = ..., substituted_rows: _Optional[int] = ...) -> None: ...

class Draining(_message.Message):
    __slots__ = ("retry_after_ms", "reason")
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    retry_after_ms: int
    reason: str
    def __init__(self, retry_after_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Fenced(_message.Message):
    __slots__ = ("by", "message")
    BY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    by: str
    message: str
    def __init__(self, by: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Journal(_message.Message):
    __slots__ = ("run", "steps", "rows")
    RUN_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    run: str
    steps: int
    rows: int
    def __init__(self, run: _Optional[str] = ..., steps: _Optional[int] = ..., rows: _Optional[int] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "retryable")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    retryable: bool
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., retryable: bool = ...) -> None: ...
