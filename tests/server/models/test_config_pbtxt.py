"""Triton's config.pbtxt beside a model: what it changes, what is refused, what is reported."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf import text_format

from inferry_proto.model_config_pb2 import ModelConfig
from inferry_server.batching.policy import MOST_BATCH_ROWS, BatchingPolicy
from inferry_server.errors import ModelLoadError
from inferry_server.models.config_pbtxt import _REASONS, READ, ConfigError, read_model_settings
from inferry_server.models.loading import LoadOptions, load_version
from inferry_server.models.model_settings import InstanceKind, ModelSettings
from inferry_server.models.repository import VersionFolder
from inferry_server.models.version import ServedVersion
from inferry_server.models.version_policy import All, Latest, Specific
from inferry_server.runtime.providers import CPU
from inferry_server.telemetry.metrics import ServerMetrics
from testkit import onnx_models
from testkit.servers import running_server

POLICY = BatchingPolicy(max_batch_size=8, max_request_rows=16, max_queue_size=64, max_queue_bytes=1 << 20)


def read(folder: Path, text: str, name: str = "doubler") -> ModelSettings:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "config.pbtxt").write_text(text)
    return read_model_settings(folder / name)


def load(repository: Path, model: str, config: str, *, instance_count: int = 1) -> ServedVersion:
    (repository / model / "config.pbtxt").write_text(config)
    folder = VersionFolder(model, 1, repository / model / "1")
    served = load_version(folder, LoadOptions((CPU,), 2, instance_count, POLICY, ServerMetrics()))
    served.batcher.close(1)
    return served


def test_every_field_that_has_a_meaning_is_read(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        """
        name: "doubler"  platform: "onnxruntime_onnx"  backend: "onnxruntime"
        max_batch_size: 4
        default_model_filename: "net.onnx"
        input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "names.txt" }
        dynamic_batching { max_queue_delay_microseconds: 100 default_queue_policy { max_queue_size: 32 } }
        instance_group [ { count: 2 kind: KIND_CPU }, { count: 1 kind: KIND_CPU } ]
        version_policy { specific { versions: [ 1, 3 ] } }
        parameters { key: "latency_objective_ms" value { string_value: "50" } }
        """,
    )
    assert (settings.max_batch_size, settings.max_queue_delay_us, settings.max_queue_size) == (4, 100, 32)
    assert (settings.latency_objective_ms, settings.model_file) == (50.0, "net.onnx")
    assert settings.outputs[0].label_file == "names.txt"
    assert (settings.instance_count, settings.instance_kind) == (3, InstanceKind.CPU)
    assert settings.version_policy == Specific((1, 3))
    assert [(t.name, t.datatype and t.datatype.name, t.dims) for t in settings.inputs] == [("x", "FP32", (3,))]
    assert settings.ignored == ()


def test_without_a_file_and_with_an_empty_one_the_servers_settings_apply(tmp_path: Path) -> None:
    assert read_model_settings(tmp_path) == ModelSettings() == read(tmp_path, "")


def test_no_rows_at_all_is_told_from_nothing_said(tmp_path: Path) -> None:
    assert read(tmp_path, "max_batch_size: 0").max_batch_size == 0
    assert read(tmp_path, "# max_batch_size: 0").max_batch_size is None


@pytest.mark.parametrize(
    ("text", "policy"),
    [("latest {}", Latest(1)), ("latest { num_versions: 3 }", Latest(3)), ("all {}", All())],
)
def test_version_policies_are_read(tmp_path: Path, text: str, policy: Any) -> None:
    assert read(tmp_path, f"version_policy {{ {text} }}").version_policy == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name: "other"', "name is 'other'; expected 'doubler'"),
        ('platform: "tensorrt_plan"', "platform is 'tensorrt_plan'; expected 'onnxruntime_onnx'"),
        ('backend: "python"', "backend is 'python'; expected 'onnxruntime'"),
        ("max_batch_size: -1", "max_batch_size is -1; expected at least 0"),
        ("max_batch: 8", 'has no field named "max_batch"'),
        ("max_batch_size: many", "config.pbtxt: 1:17"),
        ("dynamic_batching {", "config.pbtxt: "),
        ('default_model_filename: "../other/1/model.onnx"', "expected the name of a file, without a path"),
        ('output { name: "y" label_filename: "/etc/passwd" }', "expected the name of a file, without a path"),
        ("version_policy { specific {} }", "expected positive version numbers"),
        ("instance_group { kind: KIND_MODEL }", "kind KIND_MODEL; expected KIND_AUTO, KIND_CPU, KIND_GPU"),
        ("instance_group [{ kind: KIND_CPU }, { kind: KIND_GPU }]", "expected one kind for all"),
        ("instance_group { count: -2 }", "count -2; expected at least 1"),
        ('parameters { key: "latency_objective_ms" value { string_value: "soon" } }', "is 'soon'; expected milli"),
        ('parameters { key: "latency_objective_ms" value { string_value: "inf" } }', "is 'inf'; expected milli"),
    ],
)
def test_a_configuration_that_cannot_be_is_named_with_what_was_expected(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        read(tmp_path, text)
    assert str(tmp_path / "doubler" / "config.pbtxt") in str(error.value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"config\.pbtxt: "):
        read_model_settings(tmp_path)


def test_fields_without_effect_are_reported_in_one_line_each_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    onnx_models.save_doubler(tmp_path)
    with caplog.at_level(logging.WARNING):
        load(
            tmp_path,
            "doubler",
            """
            dynamic_batching { preferred_batch_size: [ 4, 8 ] default_queue_policy { default_timeout_microseconds: 9 } }
            optimization { graph { level: 1 } }
            input [ { name: "x" format: FORMAT_NCHW } ]
            parameters { key: "execution_mode" value { string_value: "0" } }
            """,
        )
    (record,) = (record for record in caplog.records if "ignored" in record.getMessage())
    for field in (
        "preferred_batch_size (a free device",
        "default_timeout_microseconds (a deadline here",
        "optimization (ONNX Runtime's defaults",
        "input.format (the layout",
        "parameters[execution_mode] (unknown here)",
    ):
        assert field in record.getMessage()


def test_a_delay_that_can_have_no_effect_is_reported(tmp_path: Path) -> None:
    text = "max_batch_size: 1 dynamic_batching { max_queue_delay_microseconds: 5 }"
    assert read(tmp_path, text).ignored == ("dynamic_batching.max_queue_delay_microseconds (max_batch_size is 1)",)


def paths(message: Any, above: str = "") -> Iterator[str]:
    for field in message.fields:
        path = above + field.name
        inner = field.message_type
        if inner is not None and any(known.startswith(f"{path}.") for known in READ):
            yield from paths(inner, f"{path}.")
        else:
            yield path


@pytest.mark.parametrize("path", sorted(set(paths(ModelConfig.DESCRIPTOR)) - READ))
def test_no_field_of_tritons_is_dropped_silently(tmp_path: Path, path: str) -> None:
    config = ModelConfig()
    message: Any = config
    *above, name = path.split(".")
    for part in above:
        field = message.DESCRIPTOR.fields_by_name[part]
        message = getattr(message, part).add() if field.is_repeated else getattr(message, part)
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key = field.message_type.fields_by_name["key"]
        value = getattr(message, name)[key.default_value]
        if isinstance(value, str):
            getattr(message, name)[key.default_value] = value
    elif field.message_type is not None:
        getattr(message, name).add() if field.is_repeated else getattr(message, name).SetInParent()
    else:
        something: Any = "x" if field.cpp_type == field.CPPTYPE_STRING else 1
        getattr(message, name).append(something) if field.is_repeated else setattr(message, name, something)
    settings = read(tmp_path, text_format.MessageToString(config))
    assert any(entry.startswith(f"{path} (") for entry in settings.ignored)


def test_every_reason_is_for_a_field_that_triton_has() -> None:
    assert set(_REASONS) <= set(paths(ModelConfig.DESCRIPTOR)) - READ


def test_a_models_own_limits_go_before_the_servers(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    served = load(
        tmp_path, "doubler",
        "max_batch_size: 32 dynamic_batching { max_queue_delay_microseconds: 100 } instance_group { count: 2 }",
    )  # fmt: skip
    assert (served.policy.max_batch_size, served.max_request_rows) == (32, 32)
    assert served.policy.max_queue_delay_s == pytest.approx(100e-6)
    assert served.policy.max_queue_size == POLICY.max_queue_size
    assert served.instance_count == 2
    small = load(tmp_path, "doubler", "dynamic_batching { default_queue_policy { max_queue_size: 10 } }")
    assert (small.policy.max_queue_size, small.max_request_rows, small.policy.max_batch_size) == (10, 10, 8)
    short = load(tmp_path, "doubler", "dynamic_batching { default_queue_policy { max_queue_size: 4 } }")
    assert (short.policy.max_queue_size, short.max_request_rows, short.policy.max_batch_size) == (4, 8, 8)


def test_a_batch_larger_than_the_servers_queue_makes_the_models_queue_longer(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    served = load(tmp_path, "doubler", "max_batch_size: 500")
    assert (served.policy.max_queue_size, served.max_request_rows) == (500, 500)
    own = load(
        tmp_path, "doubler", "max_batch_size: 500 dynamic_batching { default_queue_policy { max_queue_size: 9 }}"
    )
    assert (own.policy.max_queue_size, own.max_request_rows) == (9, 500)


def test_a_batch_beyond_any_device_is_bounded_and_that_is_said(tmp_path: Path) -> None:
    settings = read(tmp_path, "max_batch_size: 2000000000")
    assert settings.max_batch_size == MOST_BATCH_ROWS
    assert "max_batch_size above 65536 (2000000000; larger batches gain nothing)" in settings.ignored


def test_a_byte_order_mark_is_no_part_of_the_configuration(tmp_path: Path) -> None:
    read(tmp_path, "")
    (tmp_path / "doubler" / "config.pbtxt").write_bytes(b"\xef\xbb\xbfmax_batch_size: 3\r\n")
    assert read_model_settings(tmp_path / "doubler").max_batch_size == 3


def test_no_batch_dimension_may_be_said_and_rows_need_one(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    assert load(tmp_path, "doubler", "max_batch_size: 0").max_request_rows == 0
    onnx_models.save_scalar_adder(tmp_path)
    with pytest.raises(ModelLoadError, match="max_batch_size is 8, but not every input and output"):
        load(tmp_path, "adder", "max_batch_size: 8")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('input { name: "z" }', "input 'z' is declared; the model has 'x'"),
        ('output { name: "z" }', "output 'z' is declared; the model has 'y'"),
        ('input { name: "x" data_type: TYPE_INT8 }', "'x' is declared as INT8; the model has FP32"),
        ('input { name: "x" dims: [ 4 ] }', r"declared with dims \[4\]; the model has for each row \[3\]"),
        ('input { name: "x" dims: [ -1, 3 ] }', r"declared with dims \[-1, 3\]; the model has for each row \[3\]"),
        ('max_batch_size: 0 input { name: "x" dims: [ 3 ] }', r"with dims \[3\]; the model has \[-1, 3\]"),
        ('output { name: "y" dims: [ -1 ] }', r"declared with dims \[-1\]"),
        ('output { name: "y" label_filename: "none.txt" }', "none.txt, which config.pbtxt names for labels, is miss"),
        ('default_model_filename: "net.onnx"', r"net\.onnx is missing"),
        ("instance_group { kind: KIND_GPU }", "asks for KIND_GPU, and this server computes on the CPU"),
    ],
)
def test_a_configuration_that_contradicts_model_or_server_is_refused(tmp_path: Path, config: str, message: str) -> None:
    onnx_models.save_doubler(tmp_path)
    with pytest.raises(ModelLoadError, match=message):
        load(tmp_path, "doubler", config)


def test_declared_lengths_narrow_what_a_model_takes(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    config = 'max_batch_size: 0 input { name: "x" data_type: TYPE_FP32 dims: [ 2, 3 ] }'
    assert load(tmp_path, "doubler", config).signature.inputs[0].shape == (2, 3)


def test_labels_and_file_are_found_under_their_own_names(tmp_path: Path) -> None:
    folder = onnx_models.save_brightness(tmp_path, manifest=False)
    (folder / "model.onnx").rename(folder / "net.onnx")
    (tmp_path / "brightness" / "names.txt").write_text("night\nday\n")
    config = 'default_model_filename: "net.onnx" output { name: "probabilities" label_filename: "names.txt" }'
    served = load(tmp_path, "brightness", config)
    assert (served.score_labels, served.model_file) == (("night", "day"), "net.onnx")


def test_model_config_states_what_is_in_effect_and_a_bad_file_costs_only_its_model(tmp_path: Path) -> None:
    for name in ("plain", "own", "bad"):
        onnx_models.save_doubler(tmp_path, name=name)
    (tmp_path / "bad" / "config.pbtxt").write_text("max_rows: 3")
    (tmp_path / "own" / "config.pbtxt").write_text(
        """
        max_batch_size: 4
        dynamic_batching { max_queue_delay_microseconds: 50 default_queue_policy { max_queue_size: 600 } }
        instance_group { count: 2 kind: KIND_CPU }
        parameters { key: "latency_objective_ms" value { string_value: "0.001" } }
        """
    )
    with running_server(tmp_path) as server, triton.InferenceServerClient(str(server.grpc_address)) as client:
        own, plain = (client.get_model_config(name).config for name in ("own", "plain"))
        assert (own.max_batch_size, plain.max_batch_size) == (256, 256)
        assert own.parameters["max_batch_rows"].string_value == "4"
        assert own.parameters["latency_objective_ms"].string_value == "0.001"
        assert own.dynamic_batching.max_queue_delay_microseconds == 50
        assert own.dynamic_batching.default_queue_policy.max_queue_size == 600
        assert (own.instance_group[0].count, plain.instance_group[0].count) == (2, 1)
        assert "latency_objective_ms" not in plain.parameters
        index = {entry.name: entry for entry in client.get_model_repository_index().models}
        assert 'bad/config.pbtxt: 1:1 : Message type "inference.ModelConfig" has no field' in index["bad"].reason
        tensor = triton.InferInput("x", [1, 3], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 3), np.float32))
        assert client.infer("plain", [tensor]).as_numpy("y").tolist() == [[2, 2, 2]]
        with pytest.raises(triton.InferenceServerException, match="deadline cannot be met"):  # of a microsecond
            client.infer("own", [tensor])


@pytest.mark.parametrize(("text", "accepted"), [("true", {"float16", "int8"}), ("int8", {"int8"}), ("false", set())])
def test_a_model_states_which_variants_may_answer(tmp_path: Path, text: str, accepted: set[str]) -> None:
    (tmp_path / "config.pbtxt").write_text(f'parameters {{ key: "accept_variant" value {{ string_value: "{text}" }} }}')
    settings = read_model_settings(tmp_path)
    assert settings.accepts_variants == accepted
    assert settings.ignored == ()


def test_a_model_that_accepts_variants_which_there_are_not_is_told_which_there_are(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text('parameters { key: "accept_variant" value { string_value: "int4" } }')
    with pytest.raises(ValueError, match="parameter accept_variant is 'int4'; expected true, false, or precisions"):
        read_model_settings(tmp_path)
