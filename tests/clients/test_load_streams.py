"""Load tests on bidirectional streams: whose a reply is, what counts as refused, and streams that break."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.cli import main
from inferry_client.connecting.channels import ChannelSettings
from inferry_client.connecting.connection import BareChannel
from inferry_client.errors import InferryError
from inferry_client.load.answers import Expectation, WrongAnswerError, expect_labels
from inferry_client.load.open_calls import StreamCaller, _OpenStream
from inferry_client.load.payloads import Payloads
from inferry_client.load.streams import StreamFormat, StreamReply
from inferry_client.messages import requests
from inferry_proto import classifier_pb2, open_inference_pb2
from inferry_proto.services import OPEN_INFERENCE
from testkit import brightness_model
from testkit.scripted_server import Refusal, ScriptedServer

INFER = Expectation(OPEN_INFERENCE["ModelInfer"].path, "m", streamed=True)
BARE = BareChannel("nowhere:1", ChannelSettings(), None, ())


def _load(server: ScriptedServer, *options: str) -> int:
    return main(["load", "--server", server.address, "--duration", "1s", "--stream", *options])


def _loads(server: ScriptedServer, target: Path, *options: str, least: int) -> tuple[int, Counter[str], str]:
    """Tests until they have so many requests together: in a second a machine that stands still sends few.

    Returns:
        The worst exit status, the sums of the counts, and what all named as errors.
    """
    counts: Counter[str] = Counter()
    errors, status = "", 0
    for _ in range(least):
        status = max(status, _load(server, *options, "--json", str(target)))
        if target.exists():  # else the trial before the test came to nothing
            figures = json.loads(target.read_text())
            counts.update({name: figures[name] for name in ("requests", "answered", "refusals", "failures")})
            errors += str(figures["errors"])
            target.unlink()
        if counts["requests"] >= least:
            return status, counts, errors
    raise AssertionError(f"{least} tests sent {counts['requests']} requests")


def _payloads(version: str = "") -> Payloads:
    calls = [requests.infer("m", {"x": np.array([[value]], np.float32)}, version=version) for value in range(3)]
    return Payloads(tuple(call.request.SerializeToString() for call in calls), INFER)


@given(st.text(max_size=8), st.integers(0, 2), st.integers(1, 10**12))
def test_a_numbered_request_is_the_request_with_an_id(version: str, index: int, number: int) -> None:
    payloads = _payloads(version)
    expected = open_inference_pb2.ModelInferRequest.FromString(payloads.requests[index])
    expected.id = str(number)
    assert StreamFormat(payloads).request(index, str(number)) == expected.SerializeToString()


def test_pictures_are_numbered_too() -> None:
    call = requests.classify("m", [b"\xff\xd8one", b"two"], version="stable", top_k=3)
    numbered = StreamFormat(Payloads((call.request.SerializeToString(),), expect_labels("m", rows=2))).request(0, "41")
    assert classifier_pb2.ClassifyRequest.FromString(numbered).id == "41"
    assert len(classifier_pb2.ClassifyRequest.FromString(numbered).images) == 2


@pytest.mark.parametrize("loop", [["--users", "3"], ["--rate", "60"]])
def test_requests_of_tensors_travel_on_streams_and_every_one_is_counted(
    brightness_server: ScriptedServer, tmp_path: Path, loop: list[str]
) -> None:
    target, html = tmp_path / "load.json", tmp_path / "load.html"
    _load(brightness_server, *loop, "--rows", "32", "--json", str(target), "--html", str(html))
    figures = json.loads(target.read_text())
    streamed = brightness_server.requests("ModelStreamInfer")
    uncounted = 1 if loop[0] == "--users" else 5  # the trial, and one on each connection of an open loop
    assert figures["answered"] == figures["requests"] == len(streamed) - uncounted > 0
    assert len(brightness_server.requests("ModelInfer")) == 1
    assert {request.inputs[0].shape[0] for request in streamed} == {32}
    assert "ModelStreamInfer brightness" in html.read_text()


def test_streamed_pictures_are_verified_and_a_wrong_label_is_a_failure(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label, level in {"dark": 0, "bright": 255}.items():
        (tmp_path / label).mkdir()
        (tmp_path / label / "one.png").write_bytes(brightness_model.picture(level))
    answer, came = brightness_server.scripts["Classify"], itertools.count()

    def mistake(request: Any) -> Any:
        reply: Any = answer(request)
        if request.id and next(came) == 1:  # the first after the trial
            reply.results[2].classifications[0].label = "grey"
        return reply

    brightness_server.scripts["Classify"] = mistake
    options = ["--users", "2", "--images", str(tmp_path), "--verify", "folders", "--rows", "3"]
    assert _load(brightness_server, *options) == 1
    printed = capsys.readouterr()
    assert " 1 failures, 0 refused, " in printed.out
    assert 'wrong answer: ["' in printed.err
    assert len(brightness_server.requests("ClassifyStream")) > 1


@pytest.mark.parametrize(("loop", "pictures"), [(["--users", "2"], True), (["--rate", "40"], False)])
def test_what_is_refused_in_a_stream_is_counted_as_such_and_the_stream_goes_on(
    brightness_server: ScriptedServer, tmp_path: Path, loop: list[str], pictures: bool
) -> None:
    name = "Classify" if pictures else "ModelInfer"
    answer, came = brightness_server.scripts[name], itertools.count()

    def sometimes(request: Any) -> Any:
        match next(came) % 8 if request.id else 1:
            case 5:
                raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
            case 6:
                raise Refusal(grpc.StatusCode.INTERNAL, "it broke")
        return answer(request)

    brightness_server.scripts[name] = sometimes
    (tmp_path / "one.png").write_bytes(brightness_model.picture(9))
    target = tmp_path / "load.json"
    images = ["--images", str(tmp_path / "one.png")] if pictures else []
    status, counts, errors = _loads(brightness_server, target, *loop, *images, least=24)
    assert status == 1
    assert counts["refusals"] > 0
    assert abs(counts["refusals"] - counts["failures"]) <= 2
    assert counts["answered"] > counts["refusals"]
    assert "the queue is full" in errors


@pytest.mark.parametrize("loop", [["--users", "2"], ["--rate", "40"]])
def test_a_stream_that_breaks_fails_what_waits_and_the_next_request_opens_another(
    brightness_server: ScriptedServer, tmp_path: Path, loop: list[str]
) -> None:
    came = itertools.count()

    def break_sometimes(request: Any) -> Any:
        if next(came) % 10 == 9:
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "going away")
        answer = brightness_model.infer(request)
        return open_inference_pb2.ModelStreamInferResponse(infer_response=answer)

    brightness_server.scripts["ModelStreamInfer"] = break_sometimes
    target = tmp_path / "load.json"
    _, counts, _ = _loads(brightness_server, target, *loop, least=30)
    assert counts["failures"] > 1
    assert counts["answered"] > counts["failures"]
    assert counts["refusals"] == 0
    assert counts["requests"] == counts["answered"] + counts["failures"]


def test_a_reply_that_does_not_come_fails_its_request_in_time(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    came = itertools.count()

    def once_silent(request: Any) -> Any:
        if request.id and next(came) % 7 == 6:
            time.sleep(1)
        return brightness_model.infer(request)

    brightness_server.scripts["ModelInfer"] = once_silent
    target = tmp_path / "load.json"
    _, counts, _ = _loads(brightness_server, target, "--users", "1", "--timeout-s", "0.3", least=8)
    assert counts["failures"] >= 1
    assert "within 0.3 s" in capsys.readouterr().err
    assert counts["answered"] > 0


def test_a_server_without_streams_is_named_before_anything_is_sent(
    brightness_server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking(_: Any) -> Any:
        raise Refusal(grpc.StatusCode.UNIMPLEMENTED, "no such method")

    brightness_server.scripts["ModelStreamInfer"] = lacking
    assert _load(brightness_server) == 1
    assert "could not answer ModelStreamInfer brightness: no such method" in capsys.readouterr().err
    assert len(brightness_server.requests("ModelStreamInfer")) == 1


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)))
def test_replies_in_any_order_reach_their_own_requests(order: list[int], given_up: set[int]) -> None:
    async def exchange() -> None:
        stream = _OpenStream()
        futures = [stream.send(str(number), b"") for number in range(6)]
        for number in given_up:
            futures[number].cancel()
        for number in order:
            stream.settle(StreamReply(str(number), open_inference_pb2.ModelInferResponse(id=str(number))))
        found: list[Any] = [await futures[number] for number in range(6) if number not in given_up]
        assert [reply.number for reply in found] == [str(number) for number in range(6) if number not in given_up]
        with pytest.raises(WrongAnswerError, match="which does not wait"):
            stream.settle(StreamReply("0", open_inference_pb2.ModelInferResponse()))

    asyncio.run(exchange())


class _Rpc:
    """A stream that replies what a function makes of each request; None ends it."""

    def __init__(self, incoming: AsyncIterator[bytes], reply: Callable[[Any], Any]) -> None:
        self._incoming = incoming
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for request in self._incoming:
            made = self._reply(open_inference_pb2.ModelInferRequest.FromString(request))
            if made is None:
                return
            yield made.SerializeToString()

    def cancel(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(("last", "words"), [(None, "the stream ended before the reply"), ("77", "does not wait")])
def test_what_waits_on_a_stream_that_ends_or_errs_gets_the_reason(last: str | None, words: str) -> None:
    """The first reply has no id and belongs to the oldest; the second ends the stream, or answers nobody."""

    def reply(request: Any) -> Any:
        if request.id == "1":
            return open_inference_pb2.ModelStreamInferResponse()
        answer = open_inference_pb2.ModelInferResponse(id=last or "")
        return last and open_inference_pb2.ModelStreamInferResponse(infer_response=answer)

    class Channel:
        def stream_stream(self, _: str) -> Any:
            return lambda incoming, metadata: _Rpc(incoming, reply)  # noqa: ARG005

    async def ask() -> list[Any]:
        caller = StreamCaller(Channel(), BARE, _payloads(), timeout_s=30)  # type: ignore[arg-type]
        return await asyncio.gather(*(caller.ask(0) for _ in range(3)), return_exceptions=True)

    first, *others = asyncio.run(ask())
    assert isinstance(first, StreamReply)
    assert [isinstance(other, InferryError) and words in str(other) for other in others] == [True, True]
