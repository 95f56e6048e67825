"""TraceSetting: what is traced, asked while the server runs."""

from collections.abc import Mapping, Sequence

from inferry_proto import open_inference_pb2 as pb
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.errors import InvalidRequestError, ModelNotFoundError, NotAllowedError
from inferry_server.models.registry import ModelRegistry
from inferry_server.rpc.call import Call, UnaryHandler
from inferry_server.wire.messages import parse


class TraceSettingsService:
    """Answers at once, the same for every model. Thread-safe.

    What is traced is decided by callers (`traceparent`) and by the server's settings, so a request that would
    change anything is refused; one that states what holds, or clears a model's own setting, changes nothing.

    Args:
        registry: the models.
        exported: whether traces go anywhere.
        sample_ratio: share of the requests to trace whose callers did not decide, 0 to 1.
    """

    def __init__(self, registry: ModelRegistry, *, exported: bool, sample_ratio: float) -> None:
        self._registry = registry
        self._values: Mapping[str, Sequence[str]] = {
            "trace_mode": ["opentelemetry"],
            "trace_level": ["TIMESTAMPS" if exported else "OFF"],
            "trace_rate": [str(round(1 / sample_ratio)) if sample_ratio else "0"],  # one of so many requests
            "trace_count": ["-1"],  # there is no limit
            "log_frequency": ["0"],
            "trace_file": [""],
        }

    def unary_handlers(self) -> dict[str, UnaryHandler]:
        """Handlers by path."""
        return {OPEN_INFERENCE["TraceSetting"].path: self.trace_setting}

    def trace_setting(self, call: Call, message: bytes) -> None:
        """Tell every setting, of the server or of a model."""
        request = parse(pb.TraceSettingRequest, message)
        if request.model_name and self._registry.model(request.model_name) is None:
            raise ModelNotFoundError(request.model_name)
        for name, setting in request.settings.items():
            self._refuse_change(name, setting.value)
        response = pb.TraceSettingResponse()
        for name, value in self._values.items():
            response.settings[name].value.extend(value)
        call.reply(response.SerializeToString())

    def _refuse_change(self, name: str, wanted: Sequence[str]) -> None:
        if name not in self._values:
            raise InvalidRequestError(f"trace setting {name!r} is unknown; this server has {', '.join(self._values)}")
        if wanted and list(wanted) != self._values[name]:  # guard: trace-setting-fixed
            raise NotAllowedError(
                f"trace setting {name!r} is {', '.join(self._values[name])!r} and clients may not change it: settings "
                "trace_endpoint and trace_sample_ratio decide, and callers who send traceparent"
            )
