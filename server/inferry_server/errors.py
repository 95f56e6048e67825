"""Everything that can go wrong with a request or a model, as one tree: below a class, further right, its kinds.

    ServingError
        InvalidRequestError
            DecodingError, UnsupportedEncodingError, PictureTooCostlyError, SignatureMismatchError
            TooManyFieldsError
                TooManyTextsError
        RequestTooLargeError, UnsupportedModelError, NotOfferedError, NotAllowedError
        UnauthenticatedError, PermissionDeniedError
        ModelNotFoundError, ModelNotReadyError, RegionNotFoundError
        OverloadedError, ShedError, DeadlineExceededError
        QueueFullError
            SharedRoomFullError, SlowBodyError
        RequestNotReceivedError, StreamIdleError, TooManyOpenCallsError, MemoryShortError, ShuttingDownError
        InferenceError
            RowCountError, OutOfMemoryError, DeviceOutOfMemoryError, DeviceLostError
        ModelLoadError
            RecordingError
        StartError

Code raises these; `rpc/statuses.py` gives each its gRPC status. An error carries data for the code that catches it,
and its message says both what was expected and what came.
"""

from collections.abc import Sequence
from typing import Literal

_LONGEST_REASON = 4096  # why a model is not served, in characters: index, log and replies carry it
_LONGEST_END = 64  # what says that there was more; such a reason may be raised again


class ServingError(Exception):
    """Anything the server answers with an error status or refuses to start for.

    Attributes:
        kind: one word for metrics and traces; there are few of them.
    """

    kind = "error"


class InvalidRequestError(ServingError):
    """The request is wrong in itself; sending it again cannot help."""

    kind = "invalid_request"


class DecodingError(InvalidRequestError):
    """Bytes that are not the message, tensor or picture they should be."""

    kind = "undecodable"


class UnsupportedEncodingError(InvalidRequestError):
    """An HTTP body that is compressed in a way that the server does not know."""

    kind = "unsupported_encoding"


class RequestTooLargeError(ServingError):
    """More bytes than a request may have; over gRPC, gRPC itself refuses them."""

    kind = "request_too_large"


class PictureTooCostlyError(InvalidRequestError):
    """A picture that would cost far more to decode than its size says, or did."""

    kind = "picture_too_costly"


class TooManyFieldsError(InvalidRequestError):
    """A message whose parsing would cost far more than its size says."""

    kind = "too_many_fields"

    def __init__(self, *, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"the message has more than {limit} fields; expected at most so many (setting max_message_fields): "
            "send tensors in raw_input_contents"
        )


class TooManyTextsError(TooManyFieldsError):
    """So many texts in a request or its reply that they would cost far more than their bytes say."""

    def __init__(self, what: str, *, limit: int, actual: int) -> None:
        super().__init__(limit=limit)
        self.args = (f"{what} has {actual} texts; expected at most {limit} (setting max_message_fields)",)


class SignatureMismatchError(InvalidRequestError):
    """Tensors that the model does not take."""

    kind = "signature_mismatch"


class UnsupportedModelError(ServingError):
    """A model that cannot do what is asked of it, whatever the request."""

    kind = "unsupported_by_model"


class NotAllowedError(ServingError):
    """Something that the server's settings do not allow; names the setting."""

    kind = "not_allowed"


class UnauthenticatedError(ServingError):
    """Who calls has not shown that the access policy knows it. The message never holds what was shown."""

    kind = "unauthenticated"


class PermissionDeniedError(ServingError):
    """A caller that the access policy knows may not do this."""

    kind = "permission_denied"

    def __init__(self, path: str, *, role: str, callers: Sequence[str]) -> None:
        self.path, self.role, self.callers = path, role, tuple(callers)
        super().__init__(f"{path} asks for the role {role}, which the caller {' and '.join(callers)} has not")


class NotOfferedError(ServingError):
    """Something that this server does only where a setting says so, and it does not."""

    kind = "not_offered"

    def __init__(self, what: str, *, setting: str) -> None:
        self.setting = setting
        super().__init__(f"this server does not offer {what}; setting {setting} (--{setting.replace('_', '-')}) is off")


class RegionNotFoundError(ServingError):
    """No shared memory region of that name is registered."""

    kind = "region_not_found"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"shared memory region {name!r} is not registered")


class ModelNotFoundError(ServingError):
    """No such model, or no such version of it."""

    kind = "model_not_found"

    def __init__(self, model: str, version: str = "") -> None:
        self.model, self.version = model, version
        what = f"version {version!r} of model {model!r}" if version else f"model {model!r}"
        super().__init__(f"{what} is not in the repository")


class ModelNotReadyError(ServingError):
    """A version that is known but cannot answer now."""

    kind = "model_not_ready"

    def __init__(self, model: str, version: str, *, state: str, reason: str) -> None:
        self.model, self.version, self.state, self.reason = model, version, state, reason
        super().__init__(f"version {version!r} of model {model!r} is {state}" + (f": {reason}" if reason else ""))


class ModelLoadError(ServingError):
    """A version that may not be served: the reason names the file or the check."""

    kind = "model_load_failed"

    def __init__(self, message: str) -> None:
        """Keep a reason that everybody can read: whoever wrote the files may have made names of megabytes."""
        rest = len(message) - _LONGEST_REASON
        if rest > _LONGEST_END:  # guard: boundary-reason
            message = f"{message[:_LONGEST_REASON]} ... ({rest} characters more)"
        super().__init__(message)


class RecordingError(ModelLoadError):
    """A version that CUDA graphs do not suit; it can be served without."""


class OverloadedError(ServingError):
    """What is queued before a request would make it late; it was not computed.

    Attributes:
        retry_after_s: when the queue should be short enough.
    """

    kind = "overloaded"

    def __init__(self, *, late_s: float, retry_after_s: float) -> None:
        self.late_s, self.retry_after_s = late_s, retry_after_s
        super().__init__(f"the queue is too long: the reply would come {late_s * 1e3:.1f} ms after the deadline")


class QueueFullError(ServingError):
    """The queue has no room for the request now; it was not computed."""

    def __init__(self, what: str, *, limit: int, actual: int, retry_after_s: float) -> None:
        self.what, self.limit, self.actual, self.retry_after_s = what, limit, actual, retry_after_s
        self.kind = f"queue_full_{what.replace(' ', '_')}"
        super().__init__(f"the queue is full: with this request it would hold {actual} {what}, the limit is {limit}")


class SharedRoomFullError(QueueFullError):
    """Requests for all models together take the room there is, and the request's lane has had its share of it."""

    def __init__(self, *, limit: int, actual: int, retry_after_s: float) -> None:
        super().__init__("total bytes", limit=limit, actual=actual, retry_after_s=retry_after_s)
        self.args = (
            f"the queues of all models are full: with this request this one would hold {actual} bytes, its share is "
            f"{limit} (setting max_total_queue_bytes)",
        )


class SlowBodyError(QueueFullError):
    """An HTTP body that came so slowly that others had more need of its room."""

    def __init__(self, *, limit: int, retry_after_s: float) -> None:
        super().__init__("body bytes", limit=limit, actual=limit, retry_after_s=retry_after_s)
        self.args = (
            f"the body came too slowly: other bodies needed its room, as all together may have {limit} bytes (four "
            "times setting max_message_bytes); send it faster, or in smaller requests",
        )


class ShedError(ServingError):
    """More requests come for a model than can be computed, and others wait; this one was not decoded.

    Attributes:
        retry_after_s: what the batch takes that has to be computed first.
    """

    kind = "shed"

    def __init__(self, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__("more requests come for this model than can be computed; this one was not queued")


class DeadlineExceededError(ServingError):
    """No answer can come before the request's deadline any more, not even from an idle server.

    Attributes:
        late_s: how late the reply would be.
        needed_s: what computing it takes, as far as is known.
        stage: how far the request had come.
    """

    def __init__(
        self, *, late_s: float, needed_s: float, stage: Literal["at_admission", "in_queue", "in_decoding"]
    ) -> None:
        self.late_s, self.needed_s, self.stage = late_s, needed_s, stage
        self.kind = f"deadline_{stage}"
        super().__init__(
            f"the deadline cannot be met: computing the request takes about {needed_s * 1e3:.1f} ms "
            f"and would end {late_s * 1e3:.1f} ms late"
        )


class ShuttingDownError(ServingError):
    """The server is going away; another replica should be asked."""

    kind = "shutting_down"

    def __init__(self) -> None:
        super().__init__("the server is shutting down; ask another replica")


class RequestNotReceivedError(ServingError):
    """A unary call whose request message did not come whole in time.

    Attributes:
        limit_s: how long it could take.
    """

    kind = "request_not_received"

    def __init__(self, *, limit_s: float) -> None:
        self.limit_s = limit_s
        super().__init__(
            f"the request message did not come whole within {limit_s:g} s (setting request_read_timeout_s)"
        )


class StreamIdleError(ServingError):
    """A stream whose client has sent no whole message for too long, though all its requests have replies.

    Attributes:
        limit_s: how long it could be silent.
    """

    kind = "stream_idle"

    def __init__(self, *, limit_s: float) -> None:
        self.limit_s = limit_s
        super().__init__(
            f"no message came whole on this stream for {limit_s:g} s (setting stream_idle_timeout_s); open another one"
        )


class TooManyOpenCallsError(ServingError):
    """A call whose client has been silent for longer than those of all others, which are too many.

    Attributes:
        limit: of calls that wait for their clients.
        retry_after_s: when to come back.
    """

    kind = "too_many_open_calls"
    retry_after_s = 1.0

    def __init__(self, *, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"more than {limit} calls wait for their clients (setting max_open_calls), and this one has for longest"
        )


class MemoryShortError(ServingError):
    """A call whose request came so slowly that the memory it took was needed.

    Attributes:
        retry_after_s: when to come back.
    """

    kind = "memory_short"
    retry_after_s = 1.0

    def __init__(self) -> None:
        super().__init__(
            "the request message came too slowly while the server is short of memory; send it faster, or a smaller one"
        )


class InferenceError(ServingError):
    """The model failed on a valid request."""

    kind = "inference_failed"


class RowCountError(InferenceError):
    """The model answered a batch with another number of rows than it was given: its requests cannot share batches."""


class OutOfMemoryError(InferenceError):
    """The machine has no memory for what the model computes."""

    kind = "out_of_memory"


class DeviceOutOfMemoryError(InferenceError):
    """The device has no memory for a batch of this size; smaller batches follow.

    Attributes:
        rows: of the batch that did not fit.
        limit: rows that batches have from now on.
        retry_after_s: when to come back.
    """

    retry_after_s = 0.01  # the next batch is smaller already

    def __init__(self, *, rows: int, limit: int, reason: str) -> None:
        self.rows, self.limit = rows, limit
        super().__init__(
            f"the device has no memory for a batch of {rows} rows; batches have at most {limit} from now on: {reason}"
        )


class DeviceLostError(InferenceError):
    """The device computes nothing any more; this server is going away, another replica should be asked."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the device is lost, ask another replica: {reason}")


class StartError(ServingError):
    """The server cannot start: a setting, an address or a repository is unusable."""

    kind = "start_failed"
