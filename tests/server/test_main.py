"""The program as a user starts it: one line when ready, one line when it cannot start."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tritonclient.grpc as triton

from testkit import onnx_models

COMMAND = [sys.executable, "-m", "inferry_server", "--provider", "cpu"]
ANY_PORTS = ["--grpc-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its ready line."""
    with subprocess.Popen(
        [*COMMAND, *ANY_PORTS, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


def fail_to_serve(*arguments: str) -> str:
    """What is said on standard error by a server that cannot start."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


def complaint(stderr: str) -> str:
    """The last line, which says why; whatever else is there is log."""
    assert "Traceback" not in stderr
    return stderr.splitlines()[-1].removeprefix("inferry-serve: error: ")


def test_one_line_says_where_it_really_listens_and_sigterm_ends_it_well(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with serving("--repository", str(tmp_path), "--log-format", "json") as (process, line):
        assert line.startswith("inferry-serve ready: gRPC 127.0.0.1:")
        assert "models doubler/1 (CPUExecutionProvider)" in line
        address = line.split()[3].rstrip(",")
        with triton.InferenceServerClient(address) as client:
            assert client.is_server_ready()
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == 0
        assert stdout == ""
        entries = [json.loads(entry) for entry in stderr.splitlines()]
        assert [entry["message"] for entry in entries] == ["starting", "model loaded", "stopping", "stopped"]
        assert entries[0]["hot_path"] == "python"


def test_a_standard_output_that_cannot_be_written_does_not_end_the_start(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with Path("/dev/full").open("w") as full, subprocess.Popen(
        [*COMMAND, *ANY_PORTS, "--repository", str(tmp_path)], stdout=full, stderr=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said = next(line for line in process.stderr if "standard output" in line)
        process.send_signal(signal.SIGTERM)
        assert "inferry-serve ready: gRPC 127.0.0.1:" in said
        assert process.wait(30) == 0


def test_a_broken_model_is_reported_and_the_others_are_served_unless_strict(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    with serving("--repository", str(tmp_path)) as (process, line):
        assert "models doubler/1 " in line
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1].count("broken/1/model.onnx: ONNX Runtime cannot load it") == 1
    stderr = fail_to_serve("--repository", str(tmp_path), *ANY_PORTS, "--strict")
    assert stderr.count("broken/1/model.onnx: ONNX Runtime cannot load it") == 1
    message = complaint(stderr)
    assert message.startswith("not every model could be loaded (--strict): ")
    assert "broken/1/model.onnx" in message


def test_a_repository_that_is_not_there_or_serves_nothing_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert f"model repository {absent} does not exist" in complaint(fail_to_serve("--repository", str(absent)))
    assert "holds no model" in complaint(fail_to_serve("--repository", str(tmp_path)))
    (tmp_path / "empty").mkdir()
    stderr = fail_to_serve("--repository", str(tmp_path), *ANY_PORTS)
    assert f"no model of {tmp_path} could be loaded: {tmp_path / 'empty'} holds no version" in complaint(stderr)
    assert stderr.count("holds no version") == 1
    assert "no model repository; name its folder" in complaint(fail_to_serve())


@pytest.mark.parametrize("flag", ["--grpc-address", "--metrics-address"])
def test_a_port_in_use_is_named(tmp_path: Path, flag: str) -> None:
    onnx_models.save_doubler(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        message = complaint(fail_to_serve("--repository", str(tmp_path), *ANY_PORTS, flag, address))
    assert f"address {address} cannot be bound" in message
    assert "free the port or choose another" in message


def test_verbose_adds_the_traceback(tmp_path: Path) -> None:
    stderr = fail_to_serve("--repository", str(tmp_path / "absent"), "--verbose")
    assert "Traceback" in stderr
    assert "does not exist" in stderr.splitlines()[-1]


def test_a_setting_from_the_environment_is_checked_like_a_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "INFERRY_MAX_BATCH_SIZE", "zero")
    message = complaint(fail_to_serve("--repository", str(tmp_path)))
    assert message.startswith("setting max_batch_size (environment variable INFERRY_MAX_BATCH_SIZE)")


def test_print_config_says_where_every_value_comes_from_and_starts_nothing(tmp_path: Path) -> None:
    config = tmp_path / "inferry.toml"
    config.write_text('repository = "models"\nmax_batch_size = 4\n')
    done = subprocess.run(
        [*COMMAND, "--config", config, "--no-strict", "--print-config"], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert f'repository = "{tmp_path / "models"}"' in lines[0]
    assert lines[0].endswith(f"# file {config}")
    parts = [{part.strip() for part in line.split("#")} for line in lines]
    assert {'provider = "cpu"', "flag --provider"} in parts
    assert {'model_control = "none"', "default"} in parts
    assert any(line.startswith("strict = false") and line.endswith("# flag --strict") for line in lines)
    assert lines[-1] == "# hot path: python"  # of a checkout; tests/e2e/test_compiled.py has the other
    assert done.stderr == ""


def test_an_abbreviated_flag_is_refused() -> None:
    done = subprocess.run([*COMMAND, "--max-batch", "8"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unrecognized arguments: --max-batch" in done.stderr


def test_a_signal_is_heard_of_although_the_main_thread_runs_no_python() -> None:
    """One that another thread gets does not wake the main thread, like one that comes just before it waits."""
    program = """
import signal, sys, threading
from inferry_server.__main__ import _on_signals

stop, hurry, main = threading.Event(), threading.Event(), threading.get_ident()
_on_signals(stop, hurry)

def kill_when_main_waits():
    pause = threading.Event()
    while sys._current_frames()[main].f_code.co_name != "wait":
        pause.wait(0.001)
    pause.wait(0.1)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    pause.wait(60)

threading.Thread(target=kill_when_main_waits, daemon=True).start()
stop.wait()
print("heard", hurry.is_set())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "heard False\n"
