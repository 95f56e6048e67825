"""What the manifests may count on: a server that runs says which paths, services, metrics and labels there are."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from inferry_server.__main__ import build_parser
from inferry_server.app import Server
from inferry_server.services.health import LIVENESS
from inferry_server.settings.settings import Settings
from inferry_server.settings.sources import read_settings
from manifests.bundle import Manifest, image_name
from testkit import onnx_models
from testkit.http_client import ask_http
from testkit.servers import running_server

IMAGE_ENVIRONMENT = {  # of the images' own; `test_server_image.py` holds the Dockerfile to it
    "INFERRY_REPOSITORY": "/models",
    "INFERRY_GRPC_ADDRESS": "0.0.0.0:8001",
    "INFERRY_HTTP_ADDRESS": "0.0.0.0:8002",
}
IMAGE_PROVIDERS = {"inferry-server-gpu": "cuda", "inferry-server-tensorrt": "tensorrt"}
_PROGRAMS = (["inferry-serve"], ["python", "-m", "inferry_server"])  # the images' entry point, and the same by module
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}


@dataclass(frozen=True)
class ServerFacts:
    """What a running server has.

    Attributes:
        paths: that its HTTP port answers with 200, of those that were asked.
        health_services: whose status `grpc.health.v1` tells of every server.
        metrics: names of the series on its page, with the labels that each may have.
    """

    paths: frozenset[str]
    health_services: frozenset[str]
    metrics: dict[str, frozenset[str]]


def server_facts(paths: Sequence[str]) -> ServerFacts:
    """Start a server, and see.

    Args:
        paths: that manifests ask for.
    """
    with TemporaryDirectory() as folder:
        onnx_models.save_doubler(Path(folder))
        with running_server(Path(folder)) as server:
            answered = frozenset(path for path in paths if ask_http(server, path).code == 200)
            return ServerFacts(answered, frozenset({"", LIVENESS}), _metrics(server))


def _metrics(server: Server) -> dict[str, frozenset[str]]:
    page = ask_http(server, "/metrics").body.decode()
    labels: dict[str, frozenset[str]] = {}
    for collector in set(server.metrics.registry._names_to_collectors.values()):
        own = getattr(collector, "_labelnames", ())  # of the Prometheus client's metrics
        for family in getattr(collector, "describe", list)():
            labels[family.name] = frozenset(own or getattr(family, "_labelnames", ()))
    found: dict[str, frozenset[str]] = {}
    for family in text_string_to_metric_families(page):
        seen = frozenset(key for sample in family.samples for key in sample.labels)
        for suffix in _SUFFIXES.get(family.type, ("",)):
            bucket = {"le"} if suffix == "_bucket" else set()
            found[family.name + suffix] = labels.get(family.name, seen) | bucket
    return found


def container_settings(container: Manifest, environment: dict[str, str]) -> Settings:
    """What a server in this container would read.

    Args:
        container: whose image, command and arguments count.
        environment: the settings that it has as variables.

    Raises:
        StartError: a variable or value that the server refuses.
        ValueError: a command that is another's, or an argument that the server does not know.
    """
    provider = IMAGE_PROVIDERS.get(image_name(container))
    image = IMAGE_ENVIRONMENT | ({} if provider is None else {"INFERRY_PROVIDER": provider})
    arguments = [*_own_arguments(container.get("command", [])), *container.get("args", [])]
    return _settings(tuple(map(str, arguments)), tuple(sorted((image | environment).items())))


@cache  # several rules ask, and most containers are those of another combination of components
def _settings(arguments: tuple[str, ...], variables: tuple[tuple[str, str], ...]) -> Settings:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            parsed = vars(build_parser().parse_args(arguments))
    except SystemExit as error:
        raise ValueError(f"inferry-serve refuses the arguments {list(arguments)}") from error
    parsed.pop("print_config", None)
    flags: dict[str, Any] = {name: str(value) for name, value in parsed.items() if value is not None}
    return read_settings(flags, environment=dict(variables))


def _own_arguments(command: list[str]) -> list[str]:
    """What stands behind the server's name in a command.

    Raises:
        ValueError: another program's.
    """
    if not command:
        return []
    for program in _PROGRAMS:
        if command[: len(program)] == program:
            return command[len(program) :]
    raise ValueError(f"its command is {command}; expected none, or inferry-serve, so that its settings can be read")
