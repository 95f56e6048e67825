"""LogSettings: what is logged, asked and changed while the server runs."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from inferry_proto import open_inference_pb2 as pb
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.errors import InvalidRequestError, NotAllowedError
from inferry_server.rpc.call import Call, UnaryHandler
from inferry_server.telemetry.logs import LOG_FORMATS, LogChoice
from inferry_server.wire.messages import parse

# The protocol's settings that have a meaning here: our field, and what carries its value.
_SETTINGS = {
    "log_info": ("info", "bool_param"),
    "log_warning": ("warning", "bool_param"),
    "log_error": ("error", "bool_param"),
    "log_verbose_level": ("verbose_level", "uint32_param"),
    "log_format": ("log_format", "string_param"),
}

Values = Mapping[str, pb.LogSettingsRequest.SettingValue]


class LogSettingsService:
    """Answers at once. Thread-safe; a request with several settings changes all or none.

    Args:
        choice: what is logged now.
        apply: makes another choice hold, for the whole process.
        allowed: whether clients may change anything.
    """

    def __init__(self, choice: LogChoice, apply: Callable[[LogChoice], object], *, allowed: bool) -> None:
        self._choice = choice
        self._apply = apply
        self._allowed = allowed
        self._lock = threading.Lock()

    def unary_handlers(self) -> dict[str, UnaryHandler]:
        """Handlers by path."""
        return {OPEN_INFERENCE["LogSettings"].path: self.log_settings}

    def log_settings(self, call: Call, message: bytes) -> None:
        """Change what the request names, and tell every setting."""
        changes = _read_changes(parse(pb.LogSettingsRequest, message).settings)
        if changes and not self._allowed:
            raise NotAllowedError(
                "clients may not change what is logged: "
                "setting remote_logging_control (--remote-logging-control) is off"
            )
        with self._lock:
            if changes:
                self._choice = replace(self._choice, **changes)
                self._apply(self._choice)
            choice = self._choice
        response = pb.LogSettingsResponse()
        for name, (field, kind) in _SETTINGS.items():
            setattr(response.settings[name], kind, getattr(choice, field))
        call.reply(response.SerializeToString())


def _read_changes(settings: Values) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in _SETTINGS:
            raise InvalidRequestError(f"log setting {name!r} is unknown; this server has {', '.join(_SETTINGS)}")
        field, kind = _SETTINGS[name]
        came = value.WhichOneof("parameter_choice")
        if came != kind:
            raise InvalidRequestError(f"log setting {name!r} must be {kind}, not {came or 'empty'}")
        changes[field] = getattr(value, kind)
    if changes.get("log_format", LOG_FORMATS[0]) not in LOG_FORMATS:
        raise InvalidRequestError(
            f"log setting 'log_format' must be one of {', '.join(LOG_FORMATS)}, not {changes['log_format']!r}"
        )
    return changes
