"""`inferry-serve`: flags and environment in, a running server out."""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from inferry_server import __version__
from inferry_server.errors import StartError
from inferry_server.logs import configure_logging
from inferry_server.runtime.threads import available_cores
from inferry_server.settings import ENVIRONMENT_PREFIX, Settings
from inferry_server.settings_sources import CONFIG_VARIABLE, read_sources

if TYPE_CHECKING:
    from inferry_server.app import Server

logger = logging.getLogger(__name__)

_OK, _FAILED = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, or print the settings.

    Returns:
        0 after a clean stop, 1 if the server could not start or did not finish every request.
    """
    parsed = vars(build_parser().parse_args(arguments))
    print_config = parsed.pop("print_config")
    flags = {name: str(value) for name, value in parsed.items() if value is not None}
    try:
        sources = read_sources(flags)
        if print_config:
            print(sources.describe())
            return _OK
        settings = sources.settings()
    except StartError as error:
        return _complain(error, verbose=flags.get("verbose") == str(True))
    configure_logging(log_format=settings.log_format, level=settings.log_level)
    for warning in settings.warnings(available_cores()):
        logger.warning(warning)
    try:
        return _serve(settings)
    except StartError as error:
        return _complain(error, verbose=settings.verbose)


def _serve(settings: Settings) -> int:
    try:
        from inferry_server.app import Server  # here, so that --help is instant
    except ModuleNotFoundError as error:
        raise StartError(f"{error.name} is not installed; install the server: pip install 'inferry[server]'") from error
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = Server(settings)
    server.start(stop.is_set)
    if not stop.is_set():
        print(_ready_line(server), flush=True)
        stop.wait()
    logger.info("stopping")
    finished = server.stop()
    logger.info("stopped" if finished else "stopped with requests unanswered")
    return _OK if finished else _FAILED


def _ready_line(server: "Server") -> str:
    models = ", ".join(f"{model.model}/{model.version}" for model in server.registry.served())
    providers = ", ".join(sorted({model.provider for model in server.registry.served()}))
    return (
        f"inferry-serve ready: gRPC {server.grpc_address}, metrics http://{server.metrics_address}/metrics, "
        f"models {models} ({providers})"
    )


def _complain(error: StartError, *, verbose: bool) -> int:
    if verbose:
        logger.error("the server cannot start", exc_info=error)
    print(f"inferry-serve: error: {error}", file=sys.stderr)
    return _FAILED


def build_parser() -> argparse.ArgumentParser:
    """The command line: a flag for every setting."""
    parser = argparse.ArgumentParser(
        prog="inferry-serve",
        description="Serve the models of a repository over gRPC, with dynamic batching.",
        epilog=f"Every flag can be set in the environment too, as {ENVIRONMENT_PREFIX}<FLAG>, and in the file: "
        "a flag wins over the environment, which wins over the file.",
        allow_abbrev=False,  # an abbreviation is a typing error, or will be one when a setting is added
    )
    parser.add_argument("--version", action="version", version=f"inferry-serve {__version__}")
    parser.add_argument(
        "--config", metavar="FILE", help=f"settings in TOML; else the file that {CONFIG_VARIABLE} names"
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print every setting with its value and origin, as TOML, and exit"
    )
    for setting in fields(Settings):
        flag = "--" + setting.name.replace("_", "-")
        description = setting.metadata["description"]
        if setting.type is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=description)
            continue
        choices = setting.metadata.get("choices")
        metavar = "{" + ",".join(choices) + "}" if choices else _METAVARS.get(setting.name, "N")
        default = setting.default if isinstance(setting.default, (int, float, str)) else None
        default = str(setting.default) if default is None and setting.name.endswith("address") else default
        parser.add_argument(
            flag, metavar=metavar, help=description + (f" (default: {default})" if default is not None else "")
        )
    return parser


_METAVARS = {"repository": "DIR", "grpc_address": "HOST:PORT", "metrics_address": "HOST:PORT"}

if __name__ == "__main__":
    sys.exit(main())
