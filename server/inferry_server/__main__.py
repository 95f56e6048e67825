"""`inferry-serve`: flags and environment in, a running server out."""

import argparse
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from inferry_proto.cores import available_cores
from inferry_proto.extras import how_to_install
from inferry_server import __version__
from inferry_server.errors import StartError
from inferry_server.hot_path import hot_path
from inferry_server.settings.contradictions import warnings
from inferry_server.settings.settings import ALIASES, ENVIRONMENT_PREFIX, Settings
from inferry_server.settings.sources import CONFIG_VARIABLE, read_sources
from inferry_server.telemetry.logs import choose_logging, configure_logging
from inferry_server.transport import environment

if TYPE_CHECKING:
    from inferry_server.app import Server

logger = logging.getLogger(__name__)

_OK, _FAILED = 0, 1
DEVICE_LOST = 3
"""Exit status of a server whose GPU was lost; 2 is argparse's."""


_STOP_SLACK_S = 5.0  # after both times of draining, for what has to be told to end
# How long a thread that has computed a batch may wait for one that reads or refuses requests. Python's own 5 ms
# kept a device that takes 37 ms a batch idle for some of the time under overload: 0.89 of its peak, not all of it.
_SWITCH_INTERVAL_S = 0.001


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, or print the settings.

    Returns:
        0 for settings that were printed, 1 if the server could not start. A server that has started ends the
        process itself: with 0 after a clean stop, 1 if it did not finish every request, 3 if its GPU was lost.
    """
    stop, hurry = threading.Event(), threading.Event()
    _on_signals(stop, hurry)
    parsed = vars(build_parser().parse_args(arguments))
    print_config = parsed.pop("print_config")
    flags = {name: str(value) for name, value in parsed.items() if value is not None}
    verbose = flags.get("verbose") == str(True)
    try:
        sources = read_sources(flags)
        if print_config:
            print(f"{sources.describe()}\n# hot path: {hot_path()}")
            return _OK
        settings = sources.settings()
        verbose = settings.verbose
        configure_logging(choose_logging(log_format=settings.log_format, level=settings.log_level))
        for warning in warnings(settings, available_cores()):
            logger.warning(warning)
        return _serve(settings, stop, hurry)
    except Exception as error:  # noqa: BLE001 - the last place where one can become a line
        return _complain(error, verbose=verbose)


def _on_signals(stop: threading.Event, hurry: threading.Event) -> None:
    """Set `stop` at the first SIGTERM or SIGINT, `hurry` at the next one.

    Python runs a handler on the main thread, when that runs Python: a signal that comes just before it begins
    to wait would be heard of after the wait, which is for that signal. So it is not the handlers that tell,
    but the bytes that are written to the wakeup descriptor at once, whatever the main thread does.
    """
    notes, wakeup = os.pipe()
    os.set_blocking(wakeup, False)

    def take_notes() -> None:
        for event in (stop, hurry):
            os.read(notes, 1)
            event.set()

    threading.Thread(target=take_notes, name="signals", daemon=True).start()
    signal.set_wakeup_fd(wakeup)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # there must be one, or nothing is written


def _serve(settings: Settings, stop: threading.Event, hurry: threading.Event) -> int:
    _bound_stop(stop, settings.drain_delay_s + settings.drain_timeout_s + _STOP_SLACK_S)
    environment.prepare(transport=settings.transport, verbose=settings.verbose)
    try:
        from inferry_server.app import Server  # here: it imports gRPC, and --help is instant
    except ModuleNotFoundError as error:
        raise StartError(f"{error.name} is not installed; install the server: {how_to_install('server')}") from error
    lost = threading.Event()

    def device_lost() -> None:
        lost.set()
        stop.set()

    transport_failed = threading.Event()

    def fail_transport() -> None:
        transport_failed.set()
        hurry.set()  # nobody is answered while balancers turn away
        stop.set()

    logger.info("starting", extra={"version": __version__, "hot_path": hot_path()})
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    server = Server(settings, device_lost=device_lost, transport_failed=fail_transport)
    server.start(stop.is_set)
    gc.freeze()  # what is there now stays: no collection need look at it again
    if not stop.is_set():
        _announce(_ready_line(server))
        stop.wait()
    logger.info("stopping")
    finished = server.stop(hurry)
    if lost.is_set():
        logger.error("stopped: the GPU was lost; a new process can use it again")
        logging.shutdown()
        os._exit(DEVICE_LOST)  # CUDA's own end would wait for a device that does not answer
    if transport_failed.is_set():
        logger.error("stopped: the transport failed, and requests may be unanswered")
        logging.shutdown()
        os._exit(_FAILED)  # gRPC's own end would wait for events that nobody polls
    if finished:
        logger.info("stopped")
    else:
        logger.error("stopped with requests unanswered")
    logging.shutdown()
    # Not in order: a model may still run, a picture be decoded, a load be left behind, for nobody.
    os._exit(_OK if finished else _FAILED)


def _bound_stop(stop: threading.Event, limit_s: float) -> None:
    """See that the process ends after so long, whatever it does when `stop` is set: with status 1.

    Python's fault handler has a thread that needs no interpreter: it ends a process that is stuck in any library, and
    prints where its threads are.
    """

    def bound() -> None:
        stop.wait()
        try:
            faulthandler.dump_traceback_later(limit_s, exit=True)
        except (RuntimeError, ValueError, OSError):  # standard error is closed, and cannot be written
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
            faulthandler.dump_traceback_later(limit_s, exit=True, file=nowhere)  # guard: stop-says-nothing

    threading.Thread(target=bound, name="stop-limit", daemon=True).start()


def _announce(line: str) -> None:
    """Print a line on standard output; where nothing can be written there, the log has it."""
    try:
        print(line, flush=True)
    except (OSError, ValueError) as error:
        logger.warning("standard output cannot be written (%s): %s", error, line)
        with contextlib.suppress(OSError, ValueError):  # Python writes what is left when it ends, and would fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _ready_line(server: "Server") -> str:
    models = ", ".join(f"{model.model}/{model.version}" for model in server.registry.served())
    providers = ", ".join(sorted({model.provider for model in server.registry.served()}))
    return (
        f"inferry-serve ready: gRPC {server.grpc_address}, "
        f"metrics {server.http_scheme}://{server.metrics_address}/metrics, "
        f"models {models} ({providers})"
    )


def _complain(error: Exception, *, verbose: bool) -> int:
    if verbose:
        traceback.print_exception(error)
    line = str(error) if isinstance(error, StartError) else f"{type(error).__name__}: {error} (--verbose shows where)"
    print(f"inferry-serve: error: {line}", file=sys.stderr)
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
        flags = [flag] + (["--" + ALIASES[setting.name].replace("_", "-")] if setting.name in ALIASES else [])
        parser.add_argument(
            *flags, metavar=metavar, help=description + (f" (default: {default})" if default is not None else "")
        )
    return parser


_METAVARS = {
    "repository": "DIR",
    "grpc_address": "HOST:PORT",
    "http_address": "HOST:PORT",
    "http_hosts": "NAMES",
    "trace_endpoint": "URL",
    "tls_certificate": "FILE",
    "tls_private_key": "FILE",
    "tls_client_ca": "FILE",
    "model_key": "FILE",
    "access_policy": "FILE",
}

if __name__ == "__main__":
    sys.exit(main())
