"""Requests that a version has no room for are answered by a variant of it, where callers accept one."""

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from inferry_client import AsyncClient, Client
from inferry_client.cli import main
from inferry_client.messages.replies import read_explained
from inferry_client.results import LateRequest
from inferry_proto.classifier_pb2 import ClassifyResponse
from inferry_proto.diagnostics_pb2 import ExplainRequest
from inferry_proto.manifest import describe_file, read_manifest, write_manifest
from inferry_proto.manifest_pb2 import VariantOf
from inferry_proto.open_inference_pb2 import ModelInferResponse, ModelStreamInferResponse
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.executing.batcher import DynamicBatcher
from testkit import onnx_models
from testkit.degrading_server import (
    BASE,
    ROOM,
    VARIANT,
    begin_shedding,
    counted,
    degrading_server,
    fill,
    full_server,
    limit,
    picture,
    pictures,
    when_ended,
    who,
)
from testkit.gated_server import gated_server
from testkit.http_client import HttpAnswer, ask_http
from testkit.metrics_page import read_metrics, wait_for_metrics
from testkit.pictures import encode_picture, grey
from testkit.policies import save_policy, token_of
from testkit.rpc import Future, begin, call, first_output, infer_request, refusal
from testkit.waiting import SOON_S, wait_until

FULL = "the queue is full"
AT_REST_S = 1.5  # after a refusal; by then a base takes again what it can compute


def degraded(metrics: dict[str, float]) -> float:
    series = f'inferry_requests_degraded_total{{model="{BASE}",variant="int8",version="1"}}'
    return metrics.get(series, 0.0)


@pytest.mark.parametrize("accept", [True, "true", "int8", "float16,int8"])
def test_a_request_that_accepts_a_variant_is_answered_by_it_and_the_answer_names_it(
    tmp_path: Path, transport: str, accept: bool | str
) -> None:
    with full_server(tmp_path, transport=transport) as (gated, channel, others):
        answer = begin(channel, "ModelInfer", pictures(2, accept=accept, request_id="mine"))
        gated.wait_for_queued_rows(VARIANT, 2)
        gated.gate.open()
        assert who(answer) == (VARIANT, "1", "int8")
        response = ModelInferResponse.FromString(answer.result(SOON_S))
        assert (response.id, len(response.outputs)) == ("mine", 1)
        assert first_output(answer).tolist() == [0.0, 1.0] * 2
        assert [who(other) for other in others] == [(BASE, "1", "")] * 2


def test_a_variant_is_told_what_it_computes_in_its_bases_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int]] = []
    monkeypatch.setattr(DynamicBatcher, "compute_instead", lambda _, base, rows: told.append((base, rows)))
    with full_server(tmp_path) as (gated, channel, _):
        answer = begin(channel, "ModelInfer", pictures(2, accept=True))
        gated.wait_for_queued_rows(VARIANT, 2)
        refusal(begin(channel, "ModelInfer", pictures()))
        gated.gate.open()
        assert who(answer) == (VARIANT, "1", "int8")
    assert told == [(BASE, 2)]


@pytest.mark.parametrize("accept", [None, False, "false", "float16"])
def test_a_request_that_accepts_none_that_there_is_is_refused_as_ever(
    tmp_path: Path, accept: bool | str | None
) -> None:
    with full_server(tmp_path) as (gated, channel, _):
        code, text = refusal(begin(channel, "ModelInfer", pictures(accept=accept)))
        assert (code, FULL in text) == ("RESOURCE_EXHAUSTED", True), text
        assert degraded(read_metrics(gated.server)) == 0


def test_a_model_may_accept_variants_for_all_requests_but_those_that_say_no(tmp_path: Path) -> None:
    setting = 'parameters { key: "accept_variant" value { string_value: "int8" } }'
    with full_server(tmp_path, setting) as (gated, channel, _):
        refused = begin(channel, "ModelInfer", pictures(accept=False))
        assert refusal(refused)[0] == "RESOURCE_EXHAUSTED"
        answer = begin(channel, "ModelInfer", pictures())
        gated.wait_for_queued_rows(VARIANT, 1)
        gated.gate.open()
        assert who(answer) == (VARIANT, "1", "int8")


def _claim_to_be_of(root: Path, folder: Path) -> None:
    """A version's manifest says that it was made of the base."""
    manifest = read_manifest(folder)
    assert manifest is not None
    own = describe_file(root / BASE / "1" / "model.onnx")
    manifest.variant_of.CopyFrom(VariantOf(model_name=BASE, model_sha256=own.sha256))
    write_manifest(folder, manifest)


def _planted(root: Path, mistake: str) -> None:
    """A version that must not answer for the base."""
    base = root / BASE / "1" / "model.onnx"
    match mistake:
        case "no manifest":
            (onnx_models.save_brightness_variant(root) / "manifest.json").unlink()
        case "other model":
            onnx_models.save_brightness(root, name="other")
            onnx_models.save_brightness_variant(root, base="other", name=VARIANT)
        case "other weights":
            onnx_models.save_brightness_variant(root)
            base.write_bytes(base.read_bytes() + b"\x32\x03new")  # the graph's comment
            (base.parent / "manifest.json").unlink()
        case "other tensors":
            onnx_models.save_brightness(root, name="other", side=8)
            folder = onnx_models.save_brightness_variant(root, base="other", name=VARIANT, side=8)
            _claim_to_be_of(root, folder)
        case "loss":
            onnx_models.save_brightness_variant(root, points_lost=0.2)


@pytest.mark.parametrize("mistake", ["no manifest", "other model", "other weights", "other tensors", "loss"])
def test_a_version_that_is_no_variant_of_the_base_never_answers_for_it(tmp_path: Path, mistake: str) -> None:
    onnx_models.save_brightness(tmp_path)
    _planted(tmp_path, mistake)
    limit(tmp_path)
    with gated_server(tmp_path, strict=True) as gated, grpc.insecure_channel(gated.address) as channel:
        _others = fill(gated, channel)
        code, text = refusal(begin(channel, "ModelInfer", pictures(accept=True)))
        assert (code, FULL in text) == ("RESOURCE_EXHAUSTED", True), text


def test_the_server_bounds_what_a_variant_may_have_lost(tmp_path: Path) -> None:
    with full_server(tmp_path, points_lost=0.2, max_variant_loss_points=0.2) as (gated, channel, _):
        answer = begin(channel, "ModelInfer", pictures(accept=True))
        gated.wait_for_queued_rows(VARIANT, 1)
        gated.gate.open()
        assert who(answer)[0] == VARIANT


def test_a_variant_that_has_no_room_either_leaves_the_base_to_refuse(tmp_path: Path) -> None:
    onnx_models.save_brightness(tmp_path)
    onnx_models.save_brightness_variant(tmp_path)
    limits = {"max_batch_size": 2 * ROOM, "max_request_rows": 2 * ROOM, "max_queue_size": 2 * ROOM}
    with full_server(tmp_path, **limits) as (gated, channel, _):
        taken = [begin(channel, "ModelInfer", pictures(ROOM, accept=True)) for _ in range(2)]
        gated.wait_for_queued_rows(VARIANT, 2 * ROOM)
        assert refusal(begin(channel, "ModelInfer", pictures(accept=True)))[0] == "RESOURCE_EXHAUSTED"
        gated.gate.open()
        assert [who(one)[0] for one in taken] == [VARIANT] * 2
        metrics = when_ended(gated, 5)
        assert degraded(metrics) == 2
        assert counted(metrics, VARIANT) == {"answered": 2}
        assert counted(metrics, BASE) == {"answered": 2, "refused shed": 1}  # it sheds since the first


def test_a_request_with_more_rows_than_the_variant_takes_is_refused_by_the_base(tmp_path: Path) -> None:
    (tmp_path / VARIANT).mkdir()
    (tmp_path / VARIANT / "config.pbtxt").write_text("instance_group [{ count: 4 }]")  # faster, two rows at a time
    with full_server(tmp_path, max_batch_size=2, max_request_rows=2) as (gated, channel, _):
        code, text = refusal(begin(channel, "ModelInfer", pictures(3, accept=True)))
        assert (code, FULL in text) == ("RESOURCE_EXHAUSTED", True), text
        gated.server.registry.find(BASE, "").batcher.shedding.end()
        taken = begin(channel, "ModelInfer", pictures(2, accept=True))
        gated.wait_for_queued_rows(VARIANT, 2)
        gated.gate.open()
        assert who(taken)[0] == VARIANT


def test_a_deadline_that_has_passed_or_a_wrong_request_is_no_matter_of_variants(tmp_path: Path) -> None:
    with full_server(tmp_path, run_s=1.0) as (_gated, channel, _):
        hopeless = pictures(accept=True)
        hopeless.parameters["timeout"].int64_param = 500_000  # a batch takes a second
        assert refusal(begin(channel, "ModelInfer", hopeless))[0] == "DEADLINE_EXCEEDED"
        wrong = infer_request(BASE, images=np.zeros((1, 3, 3, 1), np.uint8))
        wrong.parameters["accept_variant"].bool_param = True
        assert refusal(begin(channel, "ModelInfer", wrong))[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("accept", ["int4", "", "yes"])
def test_what_accepts_nothing_that_is_known_is_refused_with_what_was_expected(tmp_path: Path, accept: str) -> None:
    onnx_models.save_brightness(tmp_path)
    with gated_server(tmp_path) as gated, grpc.insecure_channel(gated.address) as channel:
        code, text = refusal(begin(channel, "ModelInfer", pictures(accept=accept)))
        assert (code, "expected true, false, or precisions" in text) == ("INVALID_ARGUMENT", True), text
        if accept:
            code, text = refusal(begin(channel, "Classify", picture(accept)))
            assert (code, "expected true, false, or precisions" in text) == ("INVALID_ARGUMENT", True), text
        number = pictures()
        number.parameters["accept_variant"].int64_param = 1
        assert refusal(begin(channel, "ModelInfer", number))[0] == "INVALID_ARGUMENT"


def test_requests_of_a_stream_are_answered_by_the_variant_in_their_order(tmp_path: Path, transport: str) -> None:
    with full_server(tmp_path, transport=transport) as (gated, channel, _):
        stream: Any = channel.stream_stream(
            OPEN_INFERENCE["ModelStreamInfer"].path,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=ModelStreamInferResponse.FromString,
        )
        asked = [pictures(accept=accept, request_id=str(n)) for n, accept in enumerate((True, None, "int8"))]
        answers = stream(iter(asked), timeout=SOON_S)
        gated.wait_for_queued_rows(VARIANT, 2)
        gated.gate.open()
        told = [(one.infer_response.id, one.infer_response.model_name, bool(one.error_message)) for one in answers]
        assert told == [("0", VARIANT, False), ("1", "", True), ("2", VARIANT, False)]


def test_pictures_are_classified_by_the_variant(tmp_path: Path) -> None:
    with full_server(tmp_path) as (gated, channel, others):
        assert refusal(begin(channel, "Classify", picture()))[0] == "RESOURCE_EXHAUSTED"
        asked = begin(channel, "Classify", picture("int8"))
        gated.wait_for_queued_rows(VARIANT, 1)
        gated.gate.open()
        answer = ClassifyResponse.FromString(asked.result(SOON_S))
        assert (answer.model_name, answer.model_version, answer.variant) == (VARIANT, "1", "int8")
        assert answer.results[0].classifications[0].label == "bright"
        for other in others:
            other.result(SOON_S)
        gated.clock.advance(AT_REST_S)
        own = call(channel, "Classify", picture("int8"))
        assert (own.model_name, own.variant) == (BASE, "")


@pytest.mark.parametrize("method", ["ModelInfer", "Classify"])
def test_for_a_second_after_a_refusal_the_base_leaves_requests_to_the_variant_and_then_takes_them_again(
    tmp_path: Path, method: str
) -> None:
    def answered_by(accept: str) -> str:
        if method == "Classify":
            return str(call(channel, method, picture(accept)).model_name)
        return who(begin(channel, method, pictures(accept=accept)))[0]

    with full_server(tmp_path) as (gated, channel, others):
        first = begin(channel, "ModelInfer", pictures(accept=True))
        gated.wait_for_queued_rows(VARIANT, 1)
        gated.gate.open()
        for one in (*others, first):
            one.result(SOON_S)
        assert [answered_by(accept) for accept in ("int8", "false", "float16")] == [VARIANT, BASE, BASE]
        gated.clock.advance(AT_REST_S)
        assert answered_by("int8") == BASE


def test_over_rest_too(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    tensor = {"name": "images", "shape": [1, 4, 4, 1], "datatype": "UINT8", "data": [255] * 16}
    body = json.dumps({"inputs": [tensor], "parameters": {"accept_variant": True}}).encode()
    with full_server(tmp_path) as (gated, _channel, _):
        answers: dict[str, HttpAnswer] = {}

        def ask(verb: str, sent: bytes) -> None:
            answers[verb] = ask_http(gated.server, f"/v2/models/{BASE}/{verb}", sent)

        asking = [
            threading.Thread(target=ask, args=asked)
            for asked in (("infer", body), ("classify?accept_variant=true", encode_picture(grey(255))))
        ]
        for thread in asking:
            thread.start()
        gated.wait_for_queued_rows(VARIANT, 2)
        gated.gate.open()
        for thread in asking:
            thread.join()
        told = answers["infer"].json
        assert (told["model_name"], told["parameters"]) == (VARIANT, {"variant": "int8"})
        told = answers["classify?accept_variant=true"].json
        assert (told["model_name"], told["variant"]) == (VARIANT, "int8")


def test_a_base_that_sheds_still_reads_what_its_variant_may_answer(tmp_path: Path) -> None:
    with degrading_server(tmp_path) as (gated, channel):
        begin_shedding(gated, BASE)
        assert "not queued" in refusal(begin(channel, "ModelInfer", pictures()))[1]
        assert "not queued" in refusal(begin(channel, "Classify", picture()))[1]
        assert who(begin(channel, "ModelInfer", pictures(accept=True)))[0] == VARIANT
        assert call(channel, "Classify", picture("true")).model_name == VARIANT
        begin_shedding(gated, VARIANT)
        assert "not queued" in refusal(begin(channel, "ModelInfer", pictures(accept=True)))[1]
        assert "not queued" in refusal(begin(channel, "Classify", picture("true")))[1]
        metrics = when_ended(gated, 6)
        assert degraded(metrics) == 2
        assert counted(metrics, BASE) == {"refused shed": 4}
        assert counted(metrics, VARIANT) == {"answered": 2}


def test_what_is_received_is_the_sum_of_outcomes_of_base_and_variant(tmp_path: Path) -> None:
    with full_server(tmp_path) as (gated, channel, others):
        taken = [begin(channel, "ModelInfer", pictures(accept=True)) for _ in range(5)]
        gated.wait_for_queued_rows(VARIANT, 5)
        gone = begin(channel, "ModelInfer", pictures(accept=True))
        gated.wait_for_queued_rows(VARIANT, 6)
        gone.cancel()
        gated.wait_for_queued_rows(VARIANT, 5)
        refused = [begin(channel, "ModelInfer", pictures()) for _ in range(3)]
        for one in refused:
            refusal(one)
        gated.gate.open()
        for one in (*others, *taken):
            one.result(SOON_S)
        metrics = when_ended(gated, 11)
        assert counted(metrics, VARIANT) == {"answered": 5, "cancelled": 1}
        assert sum(counted(metrics, BASE).values()) == 5
        assert degraded(metrics) == 6


def test_a_late_request_says_which_version_had_no_room_for_it(tmp_path: Path) -> None:
    with full_server(tmp_path) as (gated, channel, _):
        answer = begin(channel, "ModelInfer", pictures(accept=True, request_id="mine"))
        gated.wait_for_queued_rows(VARIANT, 1)
        gated.clock.advance(1.0)
        gated.gate.open()
        answer.result(SOON_S)

        def slowest() -> Sequence[LateRequest]:
            (explained,) = read_explained(call(channel, "Explain", ExplainRequest(model_name=VARIANT)))
            return explained.slowest

        wait_until(lambda: bool(slowest()), "the request to be kept, which is after its reply was sent")
        (late,) = slowest()
        assert (late.request_id, late.cause.endswith("; brightness/1 had no room for it")) == ("mine", True), late.cause


def test_a_caller_without_the_role_gets_no_variant(tmp_path: Path) -> None:
    policy = save_policy(tmp_path / "policy.toml", reader=("read",), batch=("infer",))
    with degrading_server(tmp_path / "models", access_policy=policy) as (gated, channel):
        begin_shedding(gated, BASE)
        stub: Any = channel.unary_unary(OPEN_INFERENCE["ModelInfer"].path)

        def ask(caller: str) -> Future:
            message = pictures(accept=True).SerializeToString()
            return stub.future(message, metadata=(("authorization", f"Bearer {token_of(caller)}"),))

        assert refusal(ask("reader"))[0] == "PERMISSION_DENIED"
        assert who(ask("batch"))[0] == VARIANT
        wait_for_metrics(gated.server, lambda page: degraded(page) == 1, "one to be counted")


def test_both_clients_and_the_command_tell_who_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "white.png"
    path.write_bytes(encode_picture(grey(255)))
    with degrading_server(tmp_path / "models") as (gated, _):
        begin_shedding(gated, BASE)
        with Client(gated.address) as client:
            result = client.infer(BASE, {"images": np.full((1, 4, 4, 1), 255, np.uint8)}, accept_variant=True)
            assert (result.model, result.version, result.variant) == (VARIANT, "1", "int8")
            labelled = client.classify(BASE, path, accept_variant="int8")
            assert (labelled.model, labelled.variant, labelled.images[0][0].label) == (VARIANT, "int8", "bright")

        async def ask() -> tuple[str, str]:
            async with AsyncClient(gated.address) as client:
                answered = await client.classify(BASE, path, accept_variant=["int8"])
                return answered.model, answered.variant

        assert asyncio.run(ask()) == (VARIANT, "int8")
        assert main(["classify", str(path), "--model", BASE, "--accept-variant", "--server", gated.address]) == 0
        told = capsys.readouterr()
        assert told.out.startswith("bright")
        assert told.err == f"inferry: {path} was classified by {VARIANT}\n"
