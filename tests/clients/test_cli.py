import contextlib
import importlib.metadata
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from inferry_client.cli import main
from inferry_proto import open_inference_pb2
from testkit import brightness_model
from testkit.scripted_server import Refusal, ScriptedServer

INFERRY = (sys.executable, "-m", "inferry_client")


@pytest.fixture
def bright(tmp_path: Path) -> str:
    path = tmp_path / "bright.jpg"
    path.write_bytes(brightness_model.picture(250, suffix=".jpg"))
    return str(path)


@pytest.fixture
def dark(tmp_path: Path) -> str:
    path = tmp_path / "dark.png"
    path.write_bytes(brightness_model.picture(2))
    return str(path)


def test_one_picture_prints_its_label_and_probability(
    brightness_server: ScriptedServer, bright: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", bright, "--model", "brightness", "--server", brightness_server.address]) == 0
    out = capsys.readouterr()
    assert out.out == "bright  99.99 %\n"
    assert out.err == ""


def test_several_pictures_print_in_their_order_with_paths(
    brightness_server: ScriptedServer, bright: str, dark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", dark, bright, dark, "--server", brightness_server.address]) == 0
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [word[:2] for word in words] == [[dark, "dark"], [bright, "bright"], [dark, "dark"]]


def test_bad_pictures_are_named_and_the_others_classified(
    brightness_server: ScriptedServer, bright: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    paths = [str(tmp_path / "missing.png"), bright, str(text)]
    assert main(["classify", *paths, "--server", brightness_server.address]) == 1
    out = capsys.readouterr()
    assert bright in out.out
    errors = out.err.splitlines()
    assert len(errors) == 2
    assert "missing.png was not classified: No such file or directory" in errors[0]
    assert "text.png was not classified: not a picture: expected JPEG" in errors[1]


def test_json_holds_results_and_errors(
    brightness_server: ScriptedServer, bright: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["classify", bright, "missing.png", "--top-k", "2", "--json", "--server", brightness_server.address]
    assert main(command) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["model"], document["model_version"]) == ("brightness", "3")
    (result,) = document["results"]
    assert result["path"] == bright
    assert [c["label"] for c in result["classifications"]] == ["bright", "grey"]
    assert [error["path"] for error in document["errors"]] == ["missing.png"]


@pytest.mark.parametrize("probability", [float("nan"), float("inf")])
def test_a_picture_whose_probability_is_no_number_is_an_error_and_never_in_the_json(
    brightness_server: ScriptedServer,
    bright: str,
    dark: str,
    probability: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def spoil_bright(request: Any) -> Any:
        reply = brightness_model.classify(request)
        for classification in reply.results[0].classifications:
            if classification.label == "bright":
                classification.probability = probability
        return reply

    brightness_server.scripts["Classify"] = spoil_bright
    assert main(["classify", bright, dark, "--json", "--server", brightness_server.address]) == 1
    printed = capsys.readouterr()
    document = json.loads(printed.out, parse_constant=pytest.fail)
    assert [result["path"] for result in document["results"]] == [dark]
    reason = f"the probability of 'bright' is {probability}, which is no number"
    assert document["errors"] == [{"path": bright, "reason": reason}]
    assert printed.err == f"inferry: error: {bright} was not classified: {reason}\n"


def test_every_picture_is_answered_by_one_version(brightness_server: ScriptedServer, bright: str, dark: str) -> None:
    main(["classify", bright, dark, "--server", brightness_server.address])
    assert {request.model_version for request in brightness_server.requests("Classify")} == {"3"}


def test_a_model_must_be_chosen_where_several_are_ready(
    brightness_server: ScriptedServer, bright: str, capsys: pytest.CaptureFixture[str]
) -> None:
    brightness_server.scripts["RepositoryIndex"] = lambda _: brightness_model.index(
        ("cats", "1", "READY", ""), ("brightness", "3", "READY", ""), ("dogs", "1", "UNAVAILABLE", "no file")
    )
    assert main(["classify", bright, "--server", brightness_server.address]) == 1
    assert "serves brightness, cats; choose one with --model" in capsys.readouterr().err


def test_a_server_without_a_ready_model_is_said_so(
    brightness_server: ScriptedServer, bright: str, capsys: pytest.CaptureFixture[str]
) -> None:
    brightness_server.scripts["RepositoryIndex"] = lambda _: brightness_model.index()
    assert main(["classify", bright, "--server", brightness_server.address]) == 1
    assert "no model is ready" in capsys.readouterr().err


def test_a_model_without_preprocessing_takes_no_pictures(
    brightness_server: ScriptedServer, bright: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def describe(request: Any) -> Any:
        reply = brightness_model.describe(request)
        reply.ClearField("preprocessing")
        return reply

    brightness_server.scripts["DescribeModel"] = describe
    assert main(["classify", bright, "--server", brightness_server.address]) == 1
    assert "does not say how pictures are prepared" in capsys.readouterr().err


def test_models_are_listed_with_state_and_reason(
    brightness_server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    brightness_server.scripts["RepositoryIndex"] = lambda _: brightness_model.index(
        ("mnist", "12", "READY", ""), ("cats", "1", "UNAVAILABLE", "wrong checksum")
    )
    assert main(["models", "--server", brightness_server.address]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "NAME   VERSION  STATE        REASON",
        "mnist  12       READY",
        "cats   1        UNAVAILABLE  wrong checksum",
    ]
    assert main(["models", "--json", "--server", brightness_server.address]) == 0
    assert json.loads(capsys.readouterr().out)[1]["reason"] == "wrong checksum"


def test_status_succeeds_only_if_the_server_is_ready(
    brightness_server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["status", "--server", brightness_server.address]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith(f"inferry 0.1.0 at {brightness_server.address}: live, ready\n")
    brightness_server.scripts["ServerReady"] = lambda _: open_inference_pb2.ServerReadyResponse(ready=False)
    assert main([*command, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ready"] is False


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["classify"], "the following arguments are required: IMAGE"),
        (["classify", "x.png", "--top-k", "0"], "--top-k: '0' came; expected a whole number"),
        (
            ["classify", "x.png", "--top-k", "99999999999"],
            "--top-k: '99999999999' came; expected a whole number from 1",
        ),
        (["classify", "x.png", "--top-k", "9" * 5000], "expected a whole number from 1 to 4294967295"),
        (["classify", "x.png", "--top-k", "٣"], "expected a whole number"),
        (["models", "--timeout-s", "nan"], "--timeout-s: 'nan' came; expected a number from 0.001 to 86400"),
        (["models", "--timeout-s", "1e300"], "--timeout-s: '1e300' came; expected a number from 0.001 to 86400"),
        (["models", "--timeout-s", "1e-300"], "--timeout-s: '1e-300' came; expected a number from"),
        (
            ["batch", "x", "--out", "y", "--workers", "1025"],
            "--workers: '1025' came; expected a whole number from 1 to",
        ),
        (["batch", "x", "--out", "y", "--batch-size", "-1"], "--batch-size: '-1' came; expected a whole number from 1"),
        (["batch", "x", "--out", "y", "--part-size", "1e3"], "--part-size: '1e3' came; expected a whole number from 1"),
        (["load", "--users", "10001"], "--users: '10001' came; expected a whole number from 1 to 10000"),
        (["load", "--spawn-rate", "1e-300"], "--spawn-rate: '1e-300' came; expected a number from 0.001 to 10000"),
        (["load", "--duration", "999999h"], "--duration: '999999h' came; expected a duration"),
        (["load", "--duration", "5 minutes"], "--duration: '5 minutes' came; expected a duration"),
        (["fly"], "invalid choice: 'fly'"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_arguments_get_one_line(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("inferry: error: ")
    assert named in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", [["models"], ["status", "--json"], ["classify", "x.png"], ["load"]])
def test_a_server_that_is_not_there_is_one_line(
    command: list[str], unused_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--server", unused_address]) == 1
    out = capsys.readouterr()
    assert out.err.startswith(f"inferry: error: no server answers at {unused_address}: Connection refused;")
    assert out.err.count("\n") == 1
    assert out.out == ""


@pytest.mark.parametrize("command", [["--verbose", "models"], ["models", "--verbose"]])
def test_verbose_shows_the_traceback_wherever_it_stands(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--server", "nowhere"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\n", "is empty; expected a token"),
        (b"a\nb", "what a header cannot carry"),
        (b"\xff\xfe", "one line of printable"),
    ],
)
def test_a_token_file_that_holds_no_token_is_named(
    content: bytes, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    assert main(["models", "--token-file", str(file)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"inferry: error: --token-file {file} ")
    assert named in said


def test_a_folder_among_pictures_is_told_where_to_go(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", str(tmp_path), "--server", brightness_server.address]) == 1
    assert "it is a folder; give its files, or classify all of it with `inferry batch`" in capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"inferry {importlib.metadata.version('inferry')}\n"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, inferry_client.cli as cli; cli.build_parser().format_help();"
        "print([m for m in ('grpc', 'numpy', 'PIL', 'tqdm', 'pyarrow', 'locust') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_client_needs_no_extra_of_batch_or_load() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('pyarrow', 'locust', 'gevent', 'tqdm', 'tensorflow',"
        " 'onnxruntime')));"
        "import inferry_client, inferry_client.commands.classify, inferry_client.commands.status;"
        "inferry_client.Client('localhost:1').close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("module", "command", "extra"), [("pyarrow", ["batch", ".", "--out", "x"], "batch"), ("locust", ["load"], "load")]
)
def test_a_missing_extra_is_named_in_one_line(module: str, command: list[str], extra: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None; from inferry_client.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"inferry: error: this command needs {module}, which is not installed: "
        f"pip install '.[{extra}]' in a checkout of Inferry\n"
    )


def test_a_closed_pipe_ends_quietly(brightness_server: ScriptedServer) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*INFERRY, "models", "--server", brightness_server.address]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("arguments", [["models"], ["status", "--json"], ["--help"]])
def test_output_that_cannot_be_written_is_one_line(brightness_server: ScriptedServer, arguments: list[str]) -> None:
    server = [] if arguments == ["--help"] else ["--server", brightness_server.address]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*INFERRY, *arguments, *server], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "inferry: error: the output cannot be written: No space left on device\n"


def test_a_closed_stdout_is_one_line(brightness_server: ScriptedServer) -> None:
    command = shlex.join([*INFERRY, "models", "--server", brightness_server.address])
    done = subprocess.run(["sh", "-c", f"{command} >&-"], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "inferry: error: the output cannot be written: stdout is closed\n"


def test_what_the_terminal_cannot_show_is_escaped(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    paths = [os.fsencode(tmp_path) + b"/" + name for name in (b"caf\xe9.png", "é.png".encode())]
    for path in paths:
        Path(os.fsdecode(path)).write_bytes(brightness_model.picture(250))
    command = [*INFERRY, "classify", *map(os.fsdecode, paths), "--server", brightness_server.address]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"caf\\udce9.png" in done.stdout
    assert b"\\xe9.png" in done.stdout


def test_names_of_others_neither_move_the_cursor_nor_begin_lines(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "a\nall is well\x1b[2Jb\u202ec\x9b"
    scripts = brightness_server.scripts
    scripts["RepositoryIndex"] = lambda _: brightness_model.index(("brightness", "3", "READY", hostile))
    scripts["ServerMetadata"] = lambda _: open_inference_pb2.ServerMetadataResponse(name=hostile, version="1")
    answer = scripts["Classify"]

    def classify(request: Any) -> Any:
        reply: Any = answer(request)
        reply.results[0].classifications[0].label = hostile
        return reply

    scripts["Classify"] = classify
    paths = [str(tmp_path / f"{number}{hostile}.png") for number in range(3)]
    for path in paths[:2]:
        Path(path).write_bytes(brightness_model.picture(2))
    commands = (["models"], ["status"], ["classify", *paths], ["classify", paths[2]], ["models", "--server", hostile])
    for command in commands:
        main([command[0], "--server", brightness_server.address, *command[1:]])
        out = capsys.readouterr()
        for line in (out.out + out.err).splitlines():
            assert line.isprintable()
            assert not line.startswith("all is well")


@pytest.mark.parametrize("words", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_that_speaks_something_else_is_one_line(words: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:

        def greet() -> None:
            with contextlib.suppress(OSError):  # until it is closed
                while True:
                    with listening.accept()[0] as connection:
                        connection.sendall(words)
                        connection.recv(1 << 16)

        pool.submit(greet)
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert main(["models", "--server", address]) == 1
        listening.shutdown(socket.SHUT_RDWR)
    printed = capsys.readouterr()
    assert printed.err == f"inferry: error: what answers at {address} does not speak gRPC; check the port\n"
    assert printed.out == ""


def test_an_interrupt_ends_quietly(brightness_server: ScriptedServer, bright: str) -> None:
    asked, stopped = threading.Event(), threading.Event()

    def stuck(request: Any) -> Any:
        asked.set()
        stopped.wait(10)
        raise Refusal(grpc.StatusCode.CANCELLED)

    brightness_server.scripts["Classify"] = stuck
    command = [*INFERRY, "classify", bright, bright, "--server", brightness_server.address]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert asked.wait(10)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    stopped.set()
    assert (process.returncode, out, err) == (130, "", "")
