import argparse
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import inferry_client.load
from inferry_client.cli import main
from inferry_client.console.option_types import duration_s
from inferry_client.load.answers import expect_labels
from inferry_client.load.errors import LoadError
from inferry_client.load.locust_run import processes_for_users, wait_for_all
from inferry_client.load.payloads import (
    Payloads,
    picture_calls,
    picture_files,
    random_calls,
    read_payloads,
    write_payloads,
)
from inferry_client.load.run_time import RunTime
from inferry_client.results import ModelMetadata, TensorSpec
from inferry_proto import open_inference_pb2
from testkit import brightness_model
from testkit.scripted_server import Refusal, ScriptedServer
from testkit.waiting import SOON_S, wait_until

USERS = 32


def _load(server: ScriptedServer, *options: str) -> int:
    return main(["load", "--server", server.address, "--duration", "1s", *options])


def _meeting(server: ScriptedServer, count: int) -> threading.Barrier:
    """Opens only while so many first requests are in the server at once."""
    together, first = threading.Barrier(count), threading.Semaphore(count)
    alone = iter([True])  # the request that the command makes before Locust's

    def meet(request: Any) -> Any:
        if not next(alone, False) and first.acquire(blocking=False):
            together.wait(timeout=SOON_S)
        return brightness_model.infer(request)

    server.scripts["ModelInfer"] = meet
    return together


def test_users_overlap_and_every_request_is_counted(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    together = _meeting(brightness_server, USERS)
    figures_file, html = tmp_path / "load.json", tmp_path / "load.html"
    status = _load(brightness_server, "--users", str(USERS), "--json", str(figures_file), "--html", str(html))
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert not together.broken
    figures = json.loads(figures_file.read_text())
    assert {"requests", "failures", "requests_per_second", "p50_ms", "p99_ms"} <= set(figures)
    assert figures["requests"] == len(brightness_server.requests("ModelInfer")) - 1 >= USERS
    assert figures["failures"] == figures["refusals"] == 0
    assert figures["answered"] == figures["requests"]
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert figures["requests_per_second"] > 0
    assert "ModelInfer brightness" in html.read_text()
    assert sum(second["answered"] for second in figures["series"]) == figures["requests"]
    assert printed.out.startswith(f"{figures['requests']} requests, 0 failures, ")
    assert len({request.raw_input_contents[0] for request in brightness_server.requests("ModelInfer")}) > 1


def test_users_of_several_processes_are_one_test(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    figures_file = tmp_path / "load.json"
    began = time.monotonic()
    assert _load(brightness_server, "--users", "4", "--processes", "2", "--json", str(figures_file)) == 0
    took_s = time.monotonic() - began
    figures = json.loads(figures_file.read_text())
    assert figures["requests"] == figures["answered"] == len(brightness_server.requests("ModelInfer")) - 1
    assert 1 <= len(figures["series"]) <= took_s + 1  # one clock for all of them


def test_the_duration_counts_from_when_users_send_in_every_process(brightness_server: ScriptedServer) -> None:
    together = _meeting(brightness_server, 2)
    # The second user, in the second process, is spawned when a duration from the first one's start is over.
    spawned = ("--users", "2", "--spawn-rate", "0.5", "--processes", "2")
    assert _load(brightness_server, *spawned, "--timeout-s", str(SOON_S)) == 0
    assert not together.broken


@given(st.lists(st.sampled_from("abc")))
def test_a_test_begins_once_with_the_first_request_of_its_last_process(sent: list[str]) -> None:
    first: list[int] = []
    begun: list[int] = []
    run_time = RunTime(lambda: first.append(number), lambda: begun.append(number))
    for number, process in enumerate(sent):  # noqa: B007 - the lists take it
        run_time.sends(process, "abc", users=3)
    last = max(sent.index(each) for each in "abc") if set(sent) == set("abc") else None
    assert first == ([0] if sent else [])
    assert begun == ([] if last is None else [last])


def test_a_process_without_users_and_one_that_died_are_not_waited_for() -> None:
    begun: list[str] = []
    few_users = RunTime(lambda: None, lambda: begun.append("few users"))
    few_users.sends("b", "abc", users=2)
    assert begun == []
    few_users.sends("a", "abc", users=2)
    assert begun == ["few users"]
    one_dies = RunTime(lambda: None, lambda: begun.append("one died"))
    assert not one_dies.look("ab", 8)
    one_dies.sends("a", "ab", users=8)
    assert not one_dies.look("ab", 8)
    assert one_dies.look("a", 8)
    assert one_dies.look("a", 8)
    assert begun == ["few users", "one died"]


def test_a_process_that_fails_is_not_waited_for_until_the_others_end() -> None:
    wait, fail = ([sys.executable, "-c", code] for code in ("input()", "raise SystemExit(7)"))
    with subprocess.Popen(wait, stdin=subprocess.PIPE) as waiting, subprocess.Popen(fail) as failing:
        assert wait_for_all([waiting, failing], SOON_S) == 7
        assert waiting.poll() is None


@pytest.mark.parametrize(
    ("users", "cores", "processes"), [(1, 1, 1), (32, 8, 1), (65, 8, 2), (10_000, 8, 7), (300, 2, 1)]
)
def test_processes_grow_with_the_users_and_leave_a_core(users: int, cores: int, processes: int) -> None:
    assert processes_for_users(users, cores) == processes


def test_refusals_are_counted_apart_not_retried_and_improve_nothing(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes: Counter[bool] = Counter()
    lock = threading.Lock()

    def full_every_second_time(request: Any) -> Any:
        with lock:
            refuse = sum(outcomes.values()) % 2 == 1
            outcomes[refuse] += 1
        if refuse:
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", pushback_ms=1)
        return brightness_model.infer(request)

    brightness_server.scripts["ModelInfer"] = full_every_second_time
    assert _load(brightness_server, "--users", "4", "--json", "load.json") == 1
    figures = json.loads(Path("load.json").read_text())
    assert figures["refusals"] == outcomes[True] > 0
    assert figures["failures"] == 0
    assert figures["answered"] == outcomes[False] - 1
    assert figures["requests"] == outcomes.total() - 1
    assert "the queue is full" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["load.json"]  # no report that nobody asked for


def test_pictures_are_sent_encoded_and_broken_ones_left_out_by_name(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = brightness_model.write_pictures(tmp_path, 3)
    broken, missing = tmp_path / "0000.jpg", tmp_path / "0001b.png"
    broken.write_bytes(b"no picture")
    missing.symlink_to("nowhere")
    assert _load(brightness_server, "--users", "2", "--images", str(tmp_path)) == 0
    sent = [request.images[0].encoded for request in brightness_server.requests("Classify")]
    assert {b"no picture"} < set(sent) <= {path.read_bytes() for path in paths} | {b"no picture"}
    assert sent.count(b"no picture") == 1  # asked once, before the test
    printed = capsys.readouterr()
    assert " 0 failures, " in printed.out
    about_broken, about_missing = [line for line in printed.err.splitlines() if "left out" in line]
    assert about_broken.startswith(f"inferry: left out: {broken}: not a picture: ")
    assert about_missing == f"inferry: left out: {missing}: No such file or directory"


def test_a_folder_of_broken_pictures_only_is_refused(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png", "c.jpg"):
        (tmp_path / name).touch()
    assert _load(brightness_server, "--images", str(tmp_path)) == 1
    err = capsys.readouterr().err
    assert f"no picture can be sent: {tmp_path / 'a.png'}: " in err
    assert err.endswith(" (and 2 more)\n")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--model", "cats"], "could not describe model 'cats'"),
        (["--images", "missing.png"], "no picture can be sent: missing.png: No such file or directory\n"),
        (["--images", __file__], f"no picture can be sent: {__file__}: not a picture"),
        (["--html", "missing/load.html"], "missing is no folder, so load.html cannot be written there"),
        (["--html", "."], "is a folder; expected a file to write"),
        (["--json", "/"], "/ is a folder; expected a file to write"),
        (["--json", "/proc/load.json"], "/proc/load.json cannot be written: "),
        (["--json", "same", "--html", "same"], "same; expected two files"),
    ],
)
def test_what_is_wrong_shows_before_locust_starts(
    brightness_server: ScriptedServer,
    options: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _load(brightness_server, *options) == (2 if "same" in options else 1)
    err = capsys.readouterr().err
    assert named in err
    assert err.count("\n") == 1
    assert brightness_server.requests("ModelInfer") == []
    assert list(tmp_path.iterdir()) == []


def test_random_requests_have_the_models_shapes_and_differ() -> None:
    specs = (TensorSpec("image", "UINT8", (-1, 4, 5, 3)), TensorSpec("scale", "FP32", (-1, 1)))
    calls = random_calls(ModelMetadata("m", ("1",), "", specs, ()), version="stable")
    request: Any = calls[0].request
    assert [list(tensor.shape) for tensor in request.inputs] == [[1, 4, 5, 3], [1, 1]]
    assert request.model_version == "stable"
    assert 0 <= np.frombuffer(request.raw_input_contents[1], np.float32)[0] < 1
    assert len({bytes(call.request.raw_input_contents[0]) for call in calls}) == len(calls)  # type: ignore[attr-defined]


@pytest.mark.parametrize("spec", [TensorSpec("image", "UINT8", (-1, -1, -1, 3)), TensorSpec("t", "BYTES", (-1, 1))])
def test_a_model_that_random_contents_cannot_fill_is_named(spec: TensorSpec) -> None:
    with pytest.raises(LoadError, match="random contents cannot fill"):
        random_calls(ModelMetadata("m", ("1",), "", (spec,), ()), version="")


def test_payloads_come_back_as_they_were(tmp_path: Path) -> None:
    paths = brightness_model.write_pictures(tmp_path / "in", 12)
    calls = picture_calls(picture_files(tmp_path / "in"), model="m", version="")
    requests = tuple(call.request.SerializeToString() for call in calls)
    payloads = Payloads(requests, expect_labels("m", rows=1))
    write_payloads(payloads, tmp_path)
    assert read_payloads(tmp_path) == payloads
    assert len(calls) == len(paths)


def test_requests_of_several_pictures_have_all_of_them(tmp_path: Path) -> None:
    brightness_model.write_pictures(tmp_path, 3)
    calls = picture_calls(picture_files(tmp_path), model="m", version="", rows=5)
    sent = [[image.encoded for image in call.request.images] for call in calls]  # type: ignore[attr-defined]
    assert [len(group) for group in sent] == [5, 5, 5]
    assert len({group[0] for group in sent}) == 3


def test_replies_that_are_no_answers_are_failures(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = iter([True])  # the request that the command makes before Locust's

    def empty(request: Any) -> Any:
        return brightness_model.infer(request) if next(right, False) else open_inference_pb2.ModelInferResponse()

    brightness_server.scripts["ModelInfer"] = empty
    target = tmp_path / "load.json"
    assert _load(brightness_server, "--users", "2", "--json", str(target)) == 1
    figures = json.loads(target.read_text())
    assert figures["failures"] == figures["requests"] > 0
    assert (figures["answered"], figures["requests_per_second"], figures["p99_ms"]) == (0, 0, 0)
    assert "wrong answer: from model ''; expected 'brightness'" in capsys.readouterr().err


def test_a_server_whose_replies_are_empty_is_found_out_before_the_test(
    brightness_server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    brightness_server.scripts["ModelInfer"] = lambda _: open_inference_pb2.ModelInferResponse()
    assert _load(brightness_server) == 1
    assert "wrong answer" in capsys.readouterr().err
    assert len(brightness_server.requests("ModelInfer")) == 1


@pytest.mark.parametrize("alone", ["locustfile.py", "own"])
def test_locust_runs_the_packaged_locustfile_and_five_lines_of_ones_own(
    brightness_server: ScriptedServer, alone: str, tmp_path: Path
) -> None:
    locustfile = Path(inferry_client.load.__file__).with_name("locustfile.py")
    if alone == "own":
        locustfile = tmp_path / "mine.py"
        brightness_model.write_pictures(tmp_path / "in", 2)
        locustfile.write_text(
            "from inferry_client.load.user import ModelUser\n\nclass MyUser(ModelUser):\n"
            f"    model = 'brightness'\n    images = {str(tmp_path / 'in')!r}\n"
        )
    command = [sys.executable, "-m", "locust", "--headless", "--locustfile", str(locustfile), "--users", "2"]
    command += ["--host", brightness_server.address, "--only-summary"]
    if alone != "own":
        command += ["--run-time", "1s"]  # from the first request, however late it comes
    rpc, enough = ("Classify", 10) if alone == "own" else ("ModelInfer", 0)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as running:
        try:
            wait_until(lambda: len(brightness_server.requests(rpc)) > enough, "requests", look_again_s=0.01)
        finally:
            if alone == "own" or not brightness_server.requests(rpc):
                running.terminate()
        said = running.communicate(timeout=SOON_S)[1]
    assert running.returncode == 0, said


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("90", 90), ("5m", 300), ("1h1m1s", 3661)])
def test_durations_are_read(text: str, seconds: int) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "0s", "-1s", "1.5s", "5 m", "1s1m", "9" * 5000, "169h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a duration"):
        duration_s(text)
