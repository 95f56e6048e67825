from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExplainRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "limit")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    limit: int
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[ExplainedVersion]
    def __init__(self, versions: _Optional[_Iterable[_Union[ExplainedVersion, _Mapping]]] = ...) -> None: ...

class ExplainedVersion(_message.Message):
    __slots__ = ("model_name", "model_version", "slowest", "refused")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SLOWEST_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    slowest: _containers.RepeatedCompositeFieldContainer[LateRequest]
    refused: _containers.RepeatedCompositeFieldContainer[LateRequest]
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., slowest: _Optional[_Iterable[_Union[LateRequest, _Mapping]]] = ..., refused: _Optional[_Iterable[_Union[LateRequest, _Mapping]]] = ...) -> None: ...

class LateRequest(_message.Message):
    __slots__ = ("id", "trace_id", "cause", "reason", "ended_at_ms", "rows", "lane", "rows_ahead", "total_us", "read_us", "queue_us", "turn_us", "compute_us", "reply_us", "deadline_us", "batch")
    ID_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    ROWS_AHEAD_FIELD_NUMBER: _ClassVar[int]
    TOTAL_US_FIELD_NUMBER: _ClassVar[int]
    READ_US_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    TURN_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    REPLY_US_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_US_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    id: str
    trace_id: str
    cause: str
    reason: str
    ended_at_ms: int
    rows: int
    lane: str
    rows_ahead: int
    total_us: int
    read_us: int
    queue_us: int
    turn_us: int
    compute_us: int
    reply_us: int
    deadline_us: int
    batch: RideInBatch
    def __init__(self, id: _Optional[str] = ..., trace_id: _Optional[str] = ..., cause: _Optional[str] = ..., reason: _Optional[str] = ..., ended_at_ms: _Optional[int] = ..., rows: _Optional[int] = ..., lane: _Optional[str] = ..., rows_ahead: _Optional[int] = ..., total_us: _Optional[int] = ..., read_us: _Optional[int] = ..., queue_us: _Optional[int] = ..., turn_us: _Optional[int] = ..., compute_us: _Optional[int] = ..., reply_us: _Optional[int] = ..., deadline_us: _Optional[int] = ..., batch: _Optional[_Union[RideInBatch, _Mapping]] = ...) -> None: ...

class RideInBatch(_message.Message):
    __slots__ = ("rows", "padded_rows", "requests", "expected_us")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    PADDED_ROWS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_US_FIELD_NUMBER: _ClassVar[int]
    rows: int
    padded_rows: int
    requests: int
    expected_us: int
    def __init__(self, rows: _Optional[int] = ..., padded_rows: _Optional[int] = ..., requests: _Optional[int] = ..., expected_us: _Optional[int] = ...) -> None: ...
