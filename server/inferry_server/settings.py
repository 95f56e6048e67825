"""Every setting of the server: its default, the reason for it, and the range it may have."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from inferry_server.addresses import Address, parse_address
from inferry_server.errors import StartError
from inferry_server.logs import LOG_FORMATS, LOG_LEVELS

ENVIRONMENT_PREFIX = "INFERRY_"
MODEL_CONTROLS = ("none", "poll", "explicit")
PROVIDERS = ("auto", "cpu", "cuda")


def _setting(default: Any, description: str, *, choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"description": description, "choices": choices})


_DAY_S = 86_400.0
_LARGEST_INT32 = 2**31 - 1  # gRPC's and ONNX Runtime's integers
_RANGES: dict[str, tuple[float, float]] = {
    "poll_interval_s": (0.01, _DAY_S),
    "intra_op_num_threads": (0, 1024),
    "instance_count": (1, 256),
    "max_batch_size": (1, 65_536),
    "max_request_rows": (1, _LARGEST_INT32),
    "max_queue_size": (1, _LARGEST_INT32),
    "max_queue_bytes": (1, 1 << 50),
    "max_queue_delay_us": (0, 60e6),
    "latency_objective_ms": (0.001, _DAY_S * 1e3),
    "max_message_bytes": (1, _LARGEST_INT32),
    "decode_threads": (0, 1024),
    "drain_delay_s": (0, _DAY_S),
    "drain_timeout_s": (0, _DAY_S),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The server's settings, checked. Flags and environment variables are named after the fields."""

    repository: Path = field(metadata={"description": "the model repository: <model>/<version>/model.onnx"})
    grpc_address: Address = _setting(
        Address("127.0.0.1", 8001), "where gRPC listens (8001: where Triton's clients look)"
    )
    metrics_address: Address = _setting(Address("127.0.0.1", 8002), "where Prometheus finds /metrics")
    model_control: str = _setting(
        "none",
        "once started: none leaves the models as they are, poll follows the repository, explicit obeys clients",
        choices=MODEL_CONTROLS,
    )
    poll_interval_s: float = _setting(5.0, "how often the repository is looked at with model_control poll")
    provider: str = _setting("auto", "what computes: auto takes CUDA where there is a driver", choices=PROVIDERS)
    intra_op_num_threads: int = _setting(0, "threads that compute a batch; 0: the cores of the container's quota")
    instance_count: int = _setting(1, "batches of one model that run at the same time, each on its share of the cores")
    max_batch_size: int = _setting(32, "rows of one batch")
    max_request_rows: int = _setting(256, "rows of one request; larger than a batch, it is cut into several")
    max_queue_size: int = _setting(
        1024, "rows that may wait for one model in each lane; 1024 small images are well under a second"
    )
    max_queue_bytes: int = _setting(256 << 20, "bytes of inputs that may wait for one model in each lane")
    max_queue_delay_us: int = _setting(
        0, "how long an idle device waits for a fuller batch; 0: a lone request is served at once"
    )
    latency_objective_ms: float | None = _setting(None, "deadline of requests that carry none; unset: they have none")
    max_message_bytes: int = _setting(64 << 20, "largest request message")
    decode_threads: int = _setting(0, "threads that decode pictures; 0: as many as compute")
    drain_delay_s: float = _setting(
        0.0, "how long to go on answering after SIGTERM while not ready, so that balancers turn away"
    )
    drain_timeout_s: float = _setting(30.0, "how long accepted requests may take to finish after that")
    system_shared_memory: bool = _setting(
        False, "let clients pass tensors in POSIX shared memory; only where all of them are trusted"
    )
    remote_logging_control: bool = _setting(False, "let clients change what is logged (LogSettings)")
    log_format: str = _setting("text", "lines for people or JSON for machines", choices=LOG_FORMATS)
    log_level: str = _setting("info", "the least severe level that is logged", choices=LOG_LEVELS)
    strict: bool = _setting(False, "exit if any model of the repository does not load")
    verbose: bool = _setting(False, "show tracebacks")

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            StartError: names the setting, the value and the accepted range.
        """
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            self._require(name, value is None or least <= value <= most, f"{least:g} to {most:g}")
        self._require("max_request_rows", self.max_request_rows >= self.max_batch_size, "at least max_batch_size")
        self._require("max_queue_size", self.max_queue_size >= self.max_request_rows, "at least max_request_rows")
        for name in ("model_control", "provider", "log_format", "log_level"):
            choices = next(f.metadata["choices"] for f in fields(self) if f.name == name)
            self._require(name, getattr(self, name) in choices, f"one of {', '.join(choices)}")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise StartError(f"setting {name} is {getattr(self, name)}; expected {expected}")


def read_settings(flags: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings from texts: a flag wins over `INFERRY_<NAME>`, which wins over the default.

    Args:
        flags: by field name, as the command line spelled them.
        environment: the process environment.

    Raises:
        StartError: no repository, or a value that cannot be read; names the setting.
    """
    values: dict[str, Any] = {}
    for setting in fields(Settings):
        variable = ENVIRONMENT_PREFIX + setting.name.upper()
        text = flags.get(setting.name, environment.get(variable))
        if text is None:
            continue
        try:
            values[setting.name] = _PARSERS[str(setting.type)](text)
        except ValueError as error:
            source = "flag" if setting.name in flags else f"environment variable {variable}"
            raise StartError(f"setting {setting.name} ({source}): {error}") from None
    if "repository" not in values:
        raise StartError("no model repository; name its folder with --repository DIR or INFERRY_REPOSITORY")
    return Settings(**values)


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"expected a whole number, not {text!r}") from None


def _parse_float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if number - number != 0:  # NaN or infinite
        raise ValueError(f"expected a number, not {text!r}")
    return number


def _parse_bool(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise ValueError(f"expected true or false, not {text!r}")
    return known[text.lower()]


_PARSERS: dict[str, Any] = {
    str(Path): Path,
    str(Address): parse_address,
    str(str): str,
    str(int): _parse_int,
    str(float): _parse_float,
    str(float | None): _parse_float,
    str(bool): _parse_bool,
}
