"""SIGTERM ends a command as its documentation says, also while it still imports what it needs."""

import signal
import subprocess
import sys

import pytest

from inferry_client import cli
from inferry_client.batch.command import stopped_by_sigterm
from inferry_client.batch.errors import StoppedError, StopSignal
from inferry_client.batch.keeping import Draining

IMPORTING = """
import sys, threading
from inferry_client import cli

def wait(name):
    print("importing", flush=True)
    threading.Event().wait(60)

cli.import_module = wait
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["batch", "in", "--out", "out"], 75, "inferry: the job was told to stop; complete parts are kept: run again"),
        (["batch", "merge", "--out", "out"], 75, "run again to go on\n"),
        (["sync", "file:///store", "copy"], 143, ""),
        (["sync", "file:///store", "copy", "--every-s", "60"], 0, ""),
        (["models"], -signal.SIGTERM, ""),
    ],
)
def test_sigterm_while_a_command_is_imported_ends_it_as_later(arguments: list[str], status: int, said: str) -> None:
    command = [sys.executable, "-c", IMPORTING, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == status
    assert said in err


def test_an_interrupt_that_an_import_makes_an_error_of_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(_: str) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(cli, "import_module", load)
    assert cli.main(["models"]) == 130
    assert capsys.readouterr().err == ""


def test_a_job_whose_handler_was_lost_on_its_way_ends_as_soon_as_it_looks() -> None:
    draining = Draining(grace_s=3600.0)
    with pytest.raises(StopSignal):
        draining.begin()
    draining.working = True
    with pytest.raises(StoppedError):
        draining.check()


def test_a_job_that_is_told_while_it_imports_is_stopped_and_has_not_failed() -> None:
    def load() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except StopSignal as error:  # as a library's extension does while it is initialized
            raise ImportError("initialization failed") from error

    with pytest.raises(StoppedError, match="before its first part"), stopped_by_sigterm(1.0):
        load()
