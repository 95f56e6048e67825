"""RepositoryModelLoad and RepositoryModelUnload: clients change what is served."""

from collections.abc import Callable

from inferry_proto import open_inference_pb2 as pb
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.errors import InvalidRequestError, NotAllowedError
from inferry_server.rpc.call import Call, UnaryHandler, fail
from inferry_server.wire.messages import parse

Done = Callable[[Exception | None], None]
Change = Callable[[str, Done], Callable[[], None]]
"""Begins a change of a model and returns what drops it, for when nobody waits for it any more."""


class RepositoryService:
    """Passes requests on to whoever loads models. Thread-safe; never waits for a model.

    Args:
        load: loads a model as it now lies in the repository.
        unload: stops serving it.
        allowed: whether the settings allow either.
    """

    def __init__(self, load: Change, unload: Change, *, allowed: bool) -> None:
        self._load = load
        self._unload = unload
        self._allowed = allowed

    def unary_handlers(self) -> dict[str, UnaryHandler]:
        """Handlers by path."""
        return {
            OPEN_INFERENCE["RepositoryModelLoad"].path: self.load,
            OPEN_INFERENCE["RepositoryModelUnload"].path: self.unload,
        }

    def load(self, call: Call, message: bytes) -> None:
        """Reply when the model is served, or tell why it is not; until then the version that it replaces is served."""
        request = parse(pb.RepositoryModelLoadRequest, message)
        self._check_allowed()
        if request.parameters:
            raise InvalidRequestError(
                f"load parameters {', '.join(map(repr, sorted(request.parameters)))} are not offered by this server; "
                "it loads what lies in its repository"
            )
        call.on_cancel(self._load(request.model_name, _done(call, pb.RepositoryModelLoadResponse())))

    def unload(self, call: Call, message: bytes) -> None:
        """Reply when requests no longer reach the model. There is nothing to do for an unknown one."""
        request = parse(pb.RepositoryModelUnloadRequest, message)
        self._check_allowed()
        call.on_cancel(self._unload(request.model_name, _done(call, pb.RepositoryModelUnloadResponse())))

    def _check_allowed(self) -> None:
        if not self._allowed:  # guard: control-loading-outside
            raise NotAllowedError("loading and unloading from outside is off; setting model_control=explicit allows it")


def _done(call: Call, response: pb.RepositoryModelLoadResponse | pb.RepositoryModelUnloadResponse) -> Done:
    def done(error: Exception | None) -> None:
        if error is None:
            call.reply(response.SerializeToString())
        else:
            fail(call, error)

    return done
