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
from inferry_server.logs import choose_logging, configure_logging
from inferry_server.settings import ENVIRONMENT_PREFIX, Settings, read_settings

if TYPE_CHECKING:
    from inferry_server.app import Server

logger = logging.getLogger(__name__)

_OK, _FAILED = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        0 after a clean stop, 1 if the server could not start or did not finish every request.
    """
    flags = {name: value for name, value in vars(build_parser().parse_args(arguments)).items() if value is not None}
    try:
        settings = read_settings(flags)
    except StartError as error:
        return _complain(error, verbose="verbose" in flags)
    configure_logging(choose_logging(log_format=settings.log_format, level=settings.log_level))
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
        epilog=f"Every flag can be set in the environment too: {ENVIRONMENT_PREFIX}<FLAG>. A flag wins.",
    )
    parser.add_argument("--version", action="version", version=f"inferry-serve {__version__}")
    for setting in fields(Settings):
        flag = "--" + setting.name.replace("_", "-")
        description = setting.metadata["description"]
        if setting.type is bool:
            parser.add_argument(flag, action="store_const", const="true", help=description)
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
