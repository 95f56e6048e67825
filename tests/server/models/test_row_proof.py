"""Requests share batches only where the version's rows were shown to be independent, or somebody vouches for them."""

import logging
from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from inferry_proto.manifest import FORMAT_VERSION, describe_file, write_manifest
from inferry_proto.manifest_pb2 import ModelManifest
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import ModelLoadError
from inferry_server.models import qualification, row_choice
from inferry_server.models.loading import LoadOptions, load_version
from inferry_server.models.model_settings import ModelSettings
from inferry_server.models.repository import VersionFolder
from inferry_server.models.row_proof import _precision
from inferry_server.models.version import ServedVersion
from inferry_server.models.version_plan import VersionPlan
from inferry_server.runtime.instances import Devices
from inferry_server.runtime.providers import CPU
from inferry_server.telemetry.metrics import ServerMetrics
from testkit import onnx_models

POLICY = BatchingPolicy(max_batch_size=16, max_request_rows=16, max_queue_size=64, max_queue_bytes=1 << 20)
PREFIX = (helper.make_node("CumSum", ["x", "axis"], ["y"]),)
ITSELF = (helper.make_node("Identity", ["x"], ["y"]),)


def load(repository: Path, model: str = "m", config: str = "") -> ServedVersion:
    if config:
        (repository / model / "config.pbtxt").write_text(config)
    folder = VersionFolder(model, 1, repository / model / "1")
    served = load_version(folder, LoadOptions((CPU,), 1, 1, POLICY, ServerMetrics()))
    served.batcher.close(1)
    return served


def save(
    repository: Path, *, nodes: tuple[NodeProto, ...] = ITSELF, taken: str | None = "N", given: str | None = "N"
) -> Path:
    axis = numpy_helper.from_array(np.int64(0), "axis")
    path = repository / "m" / "1" / "model.onnx"
    onnx_models.save_model(
        path,
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [taken, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [given, 3])],
        [axis] if nodes is PREFIX else [],
    )
    return path


def test_a_model_that_loops_as_often_as_its_inputs_say_is_loaded_and_its_rows_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qualification, "LONGEST_RUN_S", 0.2)
    number, truth, row = TensorProto.INT64, TensorProto.BOOL, ["N", 3]
    body = helper.make_graph(
        [
            helper.make_node("Greater", ["x", "turn"], ["goes on"]),
            helper.make_node("Add", ["before", "one"], ["more"]),
            helper.make_node("Where", ["goes on", "more", "before"], ["after"]),
            helper.make_node("Identity", ["yes"], ["still"]),
        ],
        "turns",
        [helper.make_tensor_value_info("turn", number, []), helper.make_tensor_value_info("yes", truth, []),
         helper.make_tensor_value_info("before", number, row)],
        [helper.make_tensor_value_info("still", truth, []), helper.make_tensor_value_info("after", number, row)],
    )  # fmt: skip
    onnx_models.save_model(
        tmp_path / "m" / "1" / "model.onnx",
        [
            helper.make_node("ReduceMax", ["x"], ["turns"], keepdims=0),
            helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body),
        ],
        [helper.make_tensor_value_info("x", number, row)],
        [helper.make_tensor_value_info("y", number, row)],
        [numpy_helper.from_array(np.int64(1), "one")],
    )
    assert load(tmp_path).max_request_rows == 16


def test_a_model_that_sums_over_time_runs_alone_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, nodes=PREFIX)
    with caplog.at_level(logging.WARNING):
        assert load(tmp_path).max_request_rows == 0
    assert "served without batching: its rows are not independent: row 1 of output 'y'" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):  # nor on anybody's word
        assert load(tmp_path, config="max_batch_size: 8").max_request_rows == 0
    assert "its rows are not independent" in caplog.text


def test_batches_are_as_large_as_were_tried_unless_somebody_vouches(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path)
    monkeypatch.setattr(row_choice, "MOST_BYTES", 5 * 3 * 4)  # five rows
    with caplog.at_level(logging.INFO):
        served = load(tmp_path)
    assert (served.policy.max_batch_size, served.max_request_rows) == (5, 16)
    assert "batches have at most 5 rows" in caplog.text
    served = load(tmp_path, config="max_batch_size: 8")
    assert served.policy.max_batch_size == 8


def test_a_published_version_whose_rows_are_not_independent_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, nodes=PREFIX)
    write_manifest(path.parent, ModelManifest(format_version=FORMAT_VERSION, files=[describe_file(path)]))
    with pytest.raises(ModelLoadError, match="the rows of a batch are not independent: row 1 of output 'y'"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("taken", "given", "batched"),
    [
        ("N", "N", True),
        ("words", "words", True),
        ("boxes", "N", False),
        ("N", None, True),
        (None, None, True),
        ("unk__7", "unk__8", True),  # as tf2onnx names what has no name
        ("batch", "Identityy_dim_0", True),  # as PyTorch does
    ],
)
def test_first_axes_with_two_names_are_no_batch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, taken: str | None, given: str | None, batched: bool
) -> None:
    save(tmp_path, taken=taken, given=given)
    with caplog.at_level(logging.WARNING):
        assert (load(tmp_path).max_request_rows > 0) is batched
    assert ("first axes have different names: 'boxes' of 'x', 'N' of 'y'" in caplog.text) is not batched
    assert load(tmp_path, config="max_batch_size: 4").max_request_rows == 16


def test_the_coarsest_number_format_of_a_graph_says_how_it_rounds(tmp_path: Path) -> None:
    half = (
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT),
    )
    quantised = (
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    )
    settings = ModelSettings()
    for nodes, expected in ((ITSELF, 2.0**-23), (half, 2.0**-10), (quantised, 2.0**-8)):
        save(tmp_path, nodes=nodes)
        served = load(tmp_path)
        plan = VersionPlan(
            VersionFolder("m", 1, tmp_path / "m" / "1"), settings, None, served.signature, True, POLICY, Devices(),
            served.reshaping,
        )  # fmt: skip
        assert _precision(plan, CPU) == expected
