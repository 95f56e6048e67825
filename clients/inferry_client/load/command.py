"""`inferry load`: Locust, headless, in a process of its own."""

import math
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from inferry_client.client import Client
from inferry_client.load.errors import LoadError
from inferry_client.load.payloads import Payloads, choose_payloads, write_payloads
from inferry_client.load.summary import LoadSummary, describe, read_summary, report
from inferry_client.load.targets import check_target, write_target
from inferry_client.output import say

_GRACE_S = 60.0  # for Locust to start, and to write its report


@dataclass(frozen=True)
class LoadSettings:
    """How a load test runs.

    Attributes:
        address: of the server.
        users: each sends its next request when the last is answered.
        duration_s: from the start of the first user.
        spawn_rate: users started a second.
        timeout_s: of every request; also how long the last ones may take after the duration.
        html: where Locust writes its report; None writes none.
        show_log: print what Locust says.
    """

    address: str
    users: int
    duration_s: int
    spawn_rate: float
    timeout_s: float
    html: Path | None = None
    show_log: bool = False


def run(args: Namespace) -> int:
    """Run a load test and print what it measured; the exit status is 0 only if nothing failed."""
    if not _is_installed("locust"):
        raise ModuleNotFoundError("no module named 'locust'", name="locust")
    html, json_file = check_target(args.html), check_target(args.json)
    if html and html == json_file:
        raise LoadError(f"--html and --json both name {html}; expected two files")
    settings = LoadSettings(
        address=args.server,
        users=args.users,
        duration_s=args.duration,
        spawn_rate=args.spawn_rate or args.users,
        timeout_s=args.timeout_s,
        html=html,
        show_log=args.verbose,
    )
    with Client(args.server, timeout_s=args.timeout_s) as client:
        payloads = choose_payloads(client, args.model, version=args.version, images=args.images, rows=args.rows)
    model = payloads.expectation.model
    print(f"{args.users} users for {args.duration} s, model {model} at {args.server}", file=sys.stderr)
    summary = run_locust(payloads, settings)
    say(describe(summary))
    if json_file:
        write_target(json_file, report(summary))
    for error in summary.errors:
        print(f"inferry: error: {error}", file=sys.stderr)
    return 0 if summary.passed else 1


def run_locust(payloads: Payloads, settings: LoadSettings) -> LoadSummary:
    """Let Locust's users send the requests.

    Raises:
        LoadError: Locust did not come to an end with a summary.
    """
    with tempfile.TemporaryDirectory(prefix="inferry-load-") as temporary:
        folder = Path(temporary)
        write_payloads(payloads, folder)
        summary_file, log_file = folder / "summary.json", folder / "locust.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LOCUST_")} | {
            "INFERRY_LOAD_FOLDER": str(folder),
            "INFERRY_LOAD_TIMEOUT_S": str(settings.timeout_s),
        }
        with log_file.open("w") as log:
            status = _wait(
                subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                    _locust_command(settings),
                    env=environment,
                    cwd=folder,  # where no configuration of Locust's lies
                    stdin=subprocess.DEVNULL,
                    stdout=None if settings.show_log else log,
                    stderr=None if settings.show_log else log,
                ),
                timeout_s=settings.duration_s + settings.users / settings.spawn_rate + settings.timeout_s + _GRACE_S,
            )
        if status != 0 or not summary_file.exists():
            said = log_file.read_text(errors="replace").strip().splitlines() or ["nothing"]
            raise LoadError(f"Locust ended with status {status}, saying {said[-1]!r}; --verbose shows all it says")
        return read_summary(summary_file.read_text(encoding="utf-8"))


def _locust_command(settings: LoadSettings) -> list[str]:
    locustfile = Path(__file__).with_name("locustfile.py")
    command = [sys.executable, "-m", "locust", "--headless", "--locustfile", str(locustfile)]
    command += ["--host", settings.address, "--users", str(settings.users), "--spawn-rate", str(settings.spawn_rate)]
    command += ["--run-time", f"{settings.duration_s}s", "--stop-timeout", str(math.ceil(settings.timeout_s))]
    command += ["--only-summary", "--loglevel", "WARNING", "--exit-code-on-error", "0"]
    return [*command, "--html", str(settings.html)] if settings.html else command


def _wait(process: "subprocess.Popen[bytes]", *, timeout_s: float) -> int:
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise LoadError(f"Locust did not end within {timeout_s:g} s and was stopped") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _is_installed(module: str) -> bool:
    """Without importing it: Locust would patch this process too."""
    try:
        return find_spec(module) is not None
    except ValueError:  # it was tried and found missing
        return False
