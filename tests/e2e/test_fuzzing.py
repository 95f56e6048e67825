"""`make fuzz`: a short form of it, and that it finds what is wrong."""

import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from fuzz import bodies, files, pictures, requests, signatures, versions
from fuzz.__main__ import main
from fuzz.run import run_target
from fuzz.table import TARGETS
from fuzz.target import FindingError, Target
from inferry_proto import version_labels
from inferry_proto.datatypes import Arrays
from inferry_proto.manifest_pb2 import ModelManifest
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_server.models import config_pbtxt
from inferry_server.signature import Signature
from inferry_server.wire.reading import IncomingRequest, InferPlan, PlanCache

ROOT = Path(__file__).parents[2]


def findings(target: Target, *, cases: int) -> dict[int, str]:
    """The seeds that find something."""
    return run_target(target, seed=1, cases=cases, say=lambda _: None).findings


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_no_case_of_a_short_run_finds_anything(name: str) -> None:
    result = run_target(TARGETS[name], seed=1, cases=1000)
    assert result.findings == {}
    assert 0 < result.accepted < result.cases, "cases are neither all right nor all wrong"


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_makes_the_same_case_again(name: str) -> None:
    mutate = TARGETS[name].mutate
    assert [mutate(seed) for seed in range(5)] == [mutate(seed) for seed in range(5)]
    assert len({mutate(seed) for seed in range(40)}) > 20


def test_a_plan_that_ignores_how_large_the_data_is_gets_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: InferPlan, incoming: IncomingRequest) -> Arrays | None:
        self._sizes = list(incoming.raw_sizes)
        return whole(self, incoming)

    whole = InferPlan.read
    monkeypatch.setattr(InferPlan, "read", careless)
    assert findings(requests.REQUESTS, cases=400)


def test_a_plan_that_ignores_the_shapes_gets_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sizes are equal, only the shapes tell such requests apart."""

    def without_shapes(header: bytes) -> ModelInferRequest:
        request = ModelInferRequest.FromString(header)
        for tensor in request.inputs:
            tensor.ClearField("shape")
        return request

    def careless(self: PlanCache, version: str, header: bytes, signature: Signature) -> InferPlan | None:
        with suppress(DecodeError):
            for (known_version, known), plan in self._plans.items():
                if known_version == version and without_shapes(known) == without_shapes(header):
                    return plan
        return None

    monkeypatch.setattr(PlanCache, "get", careless)
    found = findings(requests.REQUESTS, cases=1000)
    assert found
    assert all("in full" in reason for reason in found.values())


def failing(*_: object) -> ModelManifest:
    raise KeyError("an error that no reader of manifests expects")


@pytest.mark.parametrize(
    ("target", "module", "name", "fault"),
    [
        (files.MANIFESTS, files, "read_manifest", failing),
        (files.LABELS, version_labels, "is_label", lambda _: True),
        (files.LABELS, version_labels, "_check", lambda _: None),
        (files.CONFIGS, config_pbtxt, "_latency_objective_ms", lambda _: math.inf),
        (files.GOLDEN, files, "largest_difference", failing),
        (signatures.SIGNATURES, signatures, "verify_version", lambda *_, **__: None),
        (bodies.BODIES, bodies, "_computed", lambda *_: np.zeros((2, 3))),
        (versions.VERSIONS, versions, "load_version", failing),
        (pictures.PICTURES, pictures, "prepare_image", lambda data, *_, **__: memoryview(data)),
    ],
)
def test_a_fault_of_each_parser_gets_found(
    monkeypatch: pytest.MonkeyPatch, target: Target, module: object, name: str, fault: Callable[..., object]
) -> None:
    monkeypatch.setattr(module, name, fault)
    assert findings(target, cases=200)


def test_an_answer_of_5xx_gets_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(_: object, body: bytes, stated: object, **_names: str) -> tuple[bytes, object]:
        raise KeyError(body)

    monkeypatch.setattr("inferry_server.http.infer_plans.InferRequests.read", careless)
    found = findings(bodies.BODIES, cases=10)
    assert len(found) == 5
    assert all("status 500" in reason for reason in found.values())


def test_a_finding_says_how_to_repeat_it_and_a_target_ends_after_a_few() -> None:
    def refuse(_case: bytes) -> bool:
        raise KeyError("surprise")

    said: list[str] = []
    result = run_target(
        replace(requests.REQUESTS, opened=lambda: nullcontext(refuse)), seed=7, cases=99, say=said.append
    )
    assert (result.cases, sorted(result.findings)) == (5, [7, 8, 9, 10, 11])
    assert 'make fuzz ARGS="--target requests --seed 7 --cases 1"' in said[0]
    assert "surprise" in said[0]


def test_a_case_that_takes_too_long_is_a_finding() -> None:
    def too_long() -> None:
        raise FindingError("60 s")

    assert run_target(requests.REQUESTS, seed=1, cases=1, say=lambda _: None, begin_case=too_long).findings == {
        1: "FindingError: 60 s"
    }


@pytest.mark.parametrize("arguments", [["--cases", "0"], ["--seed", "-1"], ["--target", "none"]])
def test_the_command_refuses_what_would_check_nothing(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert arguments[1] in capsys.readouterr().err


def test_the_command_counts_cases_of_the_targets_it_was_asked_for() -> None:
    command = [sys.executable, "-m", "fuzz", "--target", "golden", "--target", "labels", "--cases", "20", "--seed", "3"]
    ran = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": "tests:."}, capture_output=True, text=True, check=True)
    assert [line.split()[:3] for line in ran.stdout.splitlines()[:2]] == [
        ["golden", "20", "cases"],
        ["labels", "20", "cases"],
    ]
    assert "40 cases from seed 3" in ran.stdout
