"""grpc.health.v1: Check and Watch, overall, for the process, and per model.

Names: empty is the whole server (ready for requests), `liveness` the process (it answers, so it
lives), a service's full name is ready when the server is, and a model's name when it can answer.
"""

import threading
from collections.abc import Callable

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from inferry_proto.services import IMAGE_CLASSIFIER_SERVICE, OPEN_INFERENCE_SERVICE
from inferry_server.errors import DecodingError, InvalidRequestError, ModelNotFoundError
from inferry_server.rpc.call import Call, StreamCall, StreamHandler, UnaryHandler

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN

LIVENESS = "liveness"
_LONGEST_REQUEST = 4096  # bytes; a watcher's name is kept as long as it watches, and no folder's is longer than 255
WHOLE_SERVER = ("", OPEN_INFERENCE_SERVICE.full_name, IMAGE_CLASSIFIER_SERVICE.full_name)


class HealthService:
    """Answers health checks from two questions; `changed` tells the watchers. Thread-safe.

    Args:
        server_ready: whether the server as a whole is ready now.
        model_ready: whether a model is ready now; None if there is no such model.
    """

    def __init__(self, server_ready: Callable[[], bool], model_ready: Callable[[str], bool | None]) -> None:
        self._server_ready = server_ready
        self._model_ready = model_ready
        self._lock = threading.Lock()
        self._watchers: set[_Watcher] = set()

    def unary_handlers(self) -> dict[str, UnaryHandler]:
        """Handlers by path."""
        return {"/grpc.health.v1.Health/Check": self.check}

    def stream_handlers(self) -> dict[str, StreamHandler]:
        """Handlers by path."""
        return {"/grpc.health.v1.Health/Watch": self.watch}

    def status(self, service: str) -> int:
        """The health of a service, in the numbers of HealthCheckResponse."""
        if service == LIVENESS:
            return int(SERVING)
        ready = self._server_ready()
        if service not in WHOLE_SERVER:
            model_ready = self._model_ready(service)
            if model_ready is None:
                return int(SERVICE_UNKNOWN)
            ready = ready and model_ready
        return int(SERVING if ready else NOT_SERVING)

    def changed(self) -> None:
        """Something may have changed: tell every watcher whose service has another status now."""
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher.refresh(self.status)

    def check(self, call: Call, message: bytes) -> None:
        """Answer once. An unknown service is NOT_FOUND."""
        service = _service_name(message)
        status = self.status(service)
        if status == SERVICE_UNKNOWN:
            raise ModelNotFoundError(service)
        call.reply(HealthCheckResponse(status=status).SerializeToString())

    def watch(self, call: StreamCall) -> "_WatchReceiver":
        """Tell the status now and at every change, until the client leaves. An unknown service may appear later."""
        return _WatchReceiver(self, call)

    def add_watcher(self, watcher: "_Watcher") -> None:
        """Tell a watcher now and from now on."""
        with self._lock:
            self._watchers.add(watcher)
        watcher.call.on_cancel(lambda: self._remove(watcher))
        watcher.refresh(self.status)

    def _remove(self, watcher: "_Watcher") -> None:
        with self._lock:
            self._watchers.discard(watcher)


class _Watcher:
    """One client that watches one service; it hears of a status only when it differs from the last."""

    def __init__(self, service: str, call: StreamCall) -> None:
        self.service = service
        self.call = call
        self._lock = threading.Lock()
        self._last: int | None = None

    def refresh(self, status_of: Callable[[str], int]) -> None:
        with self._lock:  # looked up under the lock, so that an older status cannot overtake a newer one
            status = status_of(self.service)
            if status != self._last:
                self._last = status
                self.call.send(HealthCheckResponse(status=status).SerializeToString())


class _WatchReceiver:
    """Takes the one request of a Watch."""

    def __init__(self, health: HealthService, call: StreamCall) -> None:
        self._health = health
        self._call = call
        self._watching = False

    def on_message(self, message: bytes) -> None:
        if not self._watching:
            self._watching = True
            self._health.add_watcher(_Watcher(_service_name(message), self._call))

    def on_half_close(self) -> None:
        if not self._watching:
            raise DecodingError("Watch takes one HealthCheckRequest; none came")

    def on_drain(self) -> None:
        self._call.finish()  # the last thing it heard is that the server is not ready


def _service_name(message: bytes) -> str:
    if len(message) > _LONGEST_REQUEST:  # guard: health-names
        raise InvalidRequestError(
            f"the request has {len(message)} bytes; expected the name of a service or model, at most {_LONGEST_REQUEST}"
        )
    try:
        return str(HealthCheckRequest.FromString(message).service)
    except DecodeError as error:
        raise DecodingError(f"the request is not a grpc.health.v1.HealthCheckRequest: {error}") from None
