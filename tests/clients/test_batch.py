"""Batch jobs: what is sent, what is written, and what stops, continues or ends them."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from inferry_client import Client, errors
from inferry_client.batch.errors import JobError
from inferry_client.cli import main
from inferry_proto.preprocessing import prepare_image
from testkit import brightness_model
from testkit.batch_jobs import read_errors, read_rows, run_batch
from testkit.scripted_server import Refusal, ScriptedServer
from testkit.waiting import wait_until


def test_every_picture_gets_the_label_that_the_server_gives_it(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    paths = brightness_model.write_pictures(tmp_path / "in", 33)
    summary = run_batch(brightness_server, tmp_path / "in", tmp_path / "out", all_probabilities=True)
    assert (summary.classified, summary.bad) == (33, 0)
    rows = read_rows(tmp_path / "out")
    assert [row["id"] for row in rows] == [path.name for path in paths]
    with Client(brightness_server.address) as client:
        expected = client.classify("brightness", [path.read_bytes() for path in paths]).images
    assert [(row["label"], row["index"], row["probability"]) for row in rows] == [
        (best.label, best.index, pytest.approx(best.probability)) for (best,) in expected
    ]
    assert {(row["model"], row["model_version"]) for row in rows} == {("brightness", "3")}
    assert all(len(row["probabilities"]) == 3 for row in rows)
    assert not (tmp_path / "out" / "errors.csv").exists()


def test_pixels_are_prepared_once_and_sent_in_requests_of_the_batch_size(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    (path,) = brightness_model.write_pictures(tmp_path / "in", 1)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    (request,) = brightness_server.requests("ModelInfer")
    assert request.raw_input_contents[0] == prepare_image(path.read_bytes(), brightness_model.PREPROCESSING).tobytes()
    assert request.model_version == "3"
    brightness_model.write_pictures(tmp_path / "in", 20)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out2")
    rows = [request.inputs[0].shape[0] for request in brightness_server.requests("ModelInfer")[1:]]
    assert sorted(rows, reverse=True) == [4, 4, 4, 4, 2, 2]


def senders() -> list[str]:
    """Threads of jobs that may still have a request under way."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batch_")]


def test_an_interrupted_job_resumes_without_repeating_complete_parts(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 40)
    (tmp_path / "in" / "0001.png").write_bytes(b"no picture")
    allowed = threading.Semaphore(5)

    def fail_after_five(request: Any) -> Any:
        if allowed.acquire(blocking=False):
            return brightness_model.infer(request)
        # Not before the first part is complete, which a failure meanwhile would prevent.
        wait_until((tmp_path / "out" / "_receipts" / "part-00000.json").exists, "the first part")
        raise Refusal(grpc.StatusCode.INTERNAL, "the device is gone")

    brightness_server.scripts["ModelInfer"] = fail_after_five
    with pytest.raises(errors.ServerError, match="the device is gone"):
        run_batch(brightness_server, tmp_path / "in", tmp_path / "out", workers=1)
    before = {part.name: part.read_bytes() for part in (tmp_path / "out").glob("part-*")}
    assert set(before) == {"part-00000.parquet"}
    assert set(read_errors(tmp_path / "out")) == {"0001.png"}

    wait_until(lambda: not senders(), "the last requests of the job that ended")
    brightness_server.scripts["ModelInfer"] = brightness_model.infer
    brightness_server.received.clear()
    summary = run_batch(brightness_server, tmp_path / "in", tmp_path / "out", part_size=None)
    assert (summary.classified, summary.bad, summary.resumed) == (39, 1, 10)
    assert sum(request.inputs[0].shape[0] for request in brightness_server.requests("ModelInfer")) == 30
    assert (tmp_path / "out" / "part-00000.parquet").read_bytes() == before["part-00000.parquet"]
    assert sorted(row["id"] for row in read_rows(tmp_path / "out")) == [f"{n:04}.png" for n in range(40) if n != 1]


def test_a_complete_job_is_not_repeated(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    brightness_model.write_pictures(tmp_path / "in", 12)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    brightness_server.received.clear()
    assert run_batch(brightness_server, tmp_path / "in", tmp_path / "out").resumed == 12
    assert brightness_server.requests("ModelInfer") == []


def test_a_resumed_job_keeps_its_version_though_a_newer_one_is_served(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 3)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    brightness_server.received.clear()
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    assert [request.model_version for request in brightness_server.requests("DescribeModel")] == ["3"]


def test_a_job_whose_version_is_gone_says_so(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    brightness_model.write_pictures(tmp_path / "in", 3)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    plan = tmp_path / "out" / "_plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"model_version": "2"}))
    with pytest.raises(JobError, match=r"has no version '2'.*begun with version 2: --overwrite"):
        run_batch(brightness_server, tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", pushback_ms=1),
        Refusal(grpc.StatusCode.UNAVAILABLE, "draining"),
        Refusal(grpc.StatusCode.CANCELLED),
    ],
)
def test_a_server_that_is_full_or_stops_is_asked_again_until_it_answers(
    brightness_server: ScriptedServer, tmp_path: Path, refusal: Refusal
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 8)
    refusals = threading.Semaphore(6)

    def refuse_at_first(request: Any) -> Any:
        if refusals.acquire(blocking=False):
            raise refusal
        return brightness_model.infer(request)

    brightness_server.scripts["ModelInfer"] = refuse_at_first
    assert run_batch(brightness_server, tmp_path / "in", tmp_path / "out").classified == 8


def test_a_reply_from_another_version_stops_the_job(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    brightness_model.write_pictures(tmp_path / "in", 2)

    def newer(request: Any) -> Any:
        reply = brightness_model.infer(request)
        reply.model_version = "4"
        return reply

    brightness_server.scripts["ModelInfer"] = newer
    with pytest.raises(JobError, match="from version 4; expected \\[2, classes\\] from version 3"):
        run_batch(brightness_server, tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda reply: reply.ClearField("preprocessing"), "does not say how pictures are prepared"),
        (lambda reply: reply.signature.inputs.add(name="mask", datatype="UINT8"), "expected one input of"),
        (lambda reply: setattr(reply.signature.inputs[0], "datatype", "FP32"), "takes FP32; expected UINT8"),
        (lambda reply: reply.preprocessing.__setattr__("height", 9), r"expected one input of \[-1, 9, 8, 1\]"),
        (lambda reply: reply.signature.outputs[0].shape.append(2), "expected probabilities of shape"),
        (
            lambda reply: setattr(reply.signature.outputs[0], "datatype", "BYTES"),
            r"gives probabilities BYTES \[-1, 3\]",
        ),
    ],
)
def test_a_model_that_pictures_cannot_be_prepared_for_is_refused(
    brightness_server: ScriptedServer, tmp_path: Path, change: Any, named: str
) -> None:
    def describe(request: Any) -> Any:
        reply = brightness_model.describe(request)
        change(reply)
        return reply

    brightness_model.write_pictures(tmp_path / "in", 1)
    brightness_server.scripts["DescribeModel"] = describe
    with pytest.raises(JobError, match=named):
        run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_batch_above_the_models_limit_is_refused(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    brightness_model.write_pictures(tmp_path / "in", 1)
    with pytest.raises(JobError, match="--batch-size is 65; model 'brightness' takes 1 to 64"):
        run_batch(brightness_server, tmp_path / "in", tmp_path / "out", batch_size=65)


def test_probabilities_that_tie_take_the_lower_class_as_the_server_does(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    def even(request: Any) -> Any:
        reply = brightness_model.infer(request)
        reply.raw_output_contents[0] = np.full((request.inputs[0].shape[0], 3), 1 / 3, np.float32).tobytes()
        return reply

    brightness_model.write_pictures(tmp_path / "in", 2)
    brightness_server.scripts["ModelInfer"] = even
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    assert [row["index"] for row in read_rows(tmp_path / "out")] == [0, 0]


def test_a_model_with_fewer_labels_than_classes_leaves_some_without_a_name(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    def describe(request: Any) -> Any:
        reply = brightness_model.describe(request)
        del reply.labels[1:]
        return reply

    brightness_model.write_pictures(tmp_path / "in", 12)
    brightness_server.scripts["DescribeModel"] = describe
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    rows = read_rows(tmp_path / "out")
    assert {row["index"] for row in rows} == {0, 1, 2}
    assert all(row["label"] == ("dark" if row["index"] == 0 else "") for row in rows)


def test_pictures_without_finite_probabilities_are_listed_as_errors(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    def spoil_the_second_row(request: Any) -> Any:
        reply = brightness_model.infer(request)
        rows = np.frombuffer(reply.raw_output_contents[0], np.float32).reshape(-1, 3).copy()
        rows[1, 2] = np.nan
        reply.raw_output_contents[0] = rows.tobytes()
        return reply

    brightness_model.write_pictures(tmp_path / "in", 8)
    brightness_server.scripts["ModelInfer"] = spoil_the_second_row
    summary = run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    assert (summary.classified, summary.bad) == (6, 2)
    reason = "the model's probabilities are no finite numbers"
    assert read_errors(tmp_path / "out") == {"0001.png": reason, "0005.png": reason}
    assert len(read_rows(tmp_path / "out")) == 6


def test_the_command_sums_up_in_one_line(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 3)
    (tmp_path / "in" / "bad.png").touch()
    out = tmp_path / "out"
    command = ["batch", str(tmp_path / "in"), "--out", str(out), "--server", brightness_server.address]
    assert main([*command, "--max-errors", "1"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("classified 3 of 4 pictures with brightness version 3 in ")
    assert printed.out.endswith(f"; 1 could not be classified (1 not a picture), see {out / 'errors.csv'}\n")
    assert "4/4" in printed.err


def test_an_interrupt_keeps_what_is_complete_and_ends_quietly(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 30)
    asked, stopped = threading.Event(), threading.Event()
    allowed = threading.Semaphore(3)

    def stick_after_three(request: Any) -> Any:
        if not allowed.acquire(blocking=False):
            asked.set()
            stopped.wait(10)
        return brightness_model.infer(request)

    brightness_server.scripts["ModelInfer"] = stick_after_three
    arguments = ["batch", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--server", brightness_server.address]
    command = [sys.executable, "-m", "inferry_client", *arguments, "--batch-size=5", "--part-size=5", "--workers=1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert asked.wait(20)
        wait_until(lambda: len(list((tmp_path / "out" / "_receipts").glob("part-*.json"))) == 3, "the third part")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    stopped.set()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert out == ""
    assert len(read_rows(tmp_path / "out")) == 15
    assert not list((tmp_path / "out").glob("*.writing"))
