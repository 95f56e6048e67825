"""The protocol's table of errors, row by row.

A real server, real models, a bare channel. Rows about credentials are left out: the server has no
setting for authentication. Rows about the queue, and about a server that goes away, need a device that
is busy: they are in `test_error_table_busy.py`. Which of several errors is heard of: `test_check_order.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from inferry_proto import open_inference_pb2 as pb
from inferry_proto.open_inference_pb2 import ModelInferRequest
from testkit import onnx_models
from testkit.rpc import begin, call, infer_request, refusal
from testkit.servers import running_server
from testkit.spoiled_requests import Change, add_input, ask_for, but, datatype, pair, parameter, raw, rename, shape

MAX_MESSAGE_BYTES = 100_000


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    onnx_models.save_doubler(root, version=1)
    onnx_models.save_doubler(root, version=2)
    onnx_models.save_two_inputs(root)
    onnx_models.save_text_echo(root)
    onnx_models.save_scalar_adder(root)
    (root / "broken" / "1").mkdir(parents=True)
    (root / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    return root


@pytest.fixture(scope="module")
def channel(repository: Path, transport: str) -> Iterator[grpc.Channel]:
    with (
        running_server(
            repository, max_message_bytes=MAX_MESSAGE_BYTES, model_control="explicit", transport=transport
        ) as server,
        grpc.insecure_channel(str(server.grpc_address)) as opened,
    ):
        yield opened


def doubler(**fields: Any) -> ModelInferRequest:
    request = infer_request("doubler", x=np.zeros((1, 3), np.float32))
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def no_raw(request: ModelInferRequest) -> None:
    del request.raw_input_contents[:]


def typed(position: int, **contents: Any) -> Change:
    def change(request: ModelInferRequest) -> None:
        for field, values in contents.items():
            getattr(request.inputs[position].contents, field).extend(values)

    return change


def drop_input(request: ModelInferRequest) -> None:
    del request.inputs[1], request.raw_input_contents[1]


@dataclass(frozen=True)
class Row:
    """A request, its status, and what the message must name."""

    code: str
    names: tuple[str, ...]
    request: Message
    rpc: str = "ModelInfer"


INVALID = "INVALID_ARGUMENT"
TEXTS = ModelInferRequest(model_name="echo", raw_input_contents=[b"\x05\0\0\0ab"])
TEXTS.inputs.add(name="in", datatype="BYTES", shape=[1, 2])
SCALARS = infer_request("adder", a=np.array(1, np.int64), b=np.array(2, np.int64))
TAKES = ("'joiner'", "takes 'left', 'right'")

TABLE: dict[str, Row] = {
    "unknown model": Row("NOT_FOUND", ("'nothing'",), doubler(model_name="nothing")),
    "unknown model, metadata": Row("NOT_FOUND", ("'no'",), pb.ModelMetadataRequest(name="no"), "ModelMetadata"),
    "unknown model, config": Row("NOT_FOUND", ("'no'",), pb.ModelConfigRequest(name="no"), "ModelConfig"),
    "unknown model, and too few bytes": Row(
        "NOT_FOUND", ("'nothing'",), but(doubler(model_name="nothing"), raw(0, bytes(3)))
    ),
    "unknown version, and too few bytes": Row(
        "NOT_FOUND", ("'doubler'", "'9'"), but(doubler(model_version="9"), raw(0, bytes(3)))
    ),
    "wrong version, unknown model, and too few bytes": Row(
        INVALID, ("'1x'",), but(doubler(model_name="nothing", model_version="1x"), raw(0, bytes(3)))
    ),
    "empty name": Row("NOT_FOUND", ("model ''",), doubler(model_name="")),
    "empty name, metadata": Row("NOT_FOUND", ("model ''",), pb.ModelMetadataRequest(), "ModelMetadata"),
    "empty name, config": Row("NOT_FOUND", ("model ''",), pb.ModelConfigRequest(), "ModelConfig"),
    "unknown version": Row("NOT_FOUND", ("'doubler'", "'9'"), doubler(model_version="9")),
    "unknown version, metadata": Row(
        "NOT_FOUND", ("'doubler'", "'9'"), pb.ModelMetadataRequest(name="doubler", version="9"), "ModelMetadata"
    ),
    "version not ready": Row("UNAVAILABLE", ("'doubler'", "'1'", "is UNAVAILABLE"), doubler(model_version="1")),
    "version not ready, and why": Row("UNAVAILABLE", ("'broken'", "'1'", "cannot load"), doubler(model_name="broken")),
    **{
        f"version {version}": Row(
            INVALID, (f"'{version}'", "positive integer", "label"), doubler(model_version=version)
        )
        for version in ("abc", "-3", "1x", "0", "+1")
    },
    "statistics of an unknown model": Row(
        INVALID, ("'nothing'",), pb.ModelStatisticsRequest(name="nothing"), "ModelStatistics"
    ),
    "statistics of an unknown version": Row(
        INVALID, ("'doubler'", "'9'"), pb.ModelStatisticsRequest(name="doubler", version="9"), "ModelStatistics"
    ),
    "wrong datatype": Row(
        INVALID, ("'left'", "'joiner'", "'INT32'", "expected FP32"), but(pair(), datatype(0, "INT32"))
    ),
    "no datatype": Row(INVALID, ("'left'", "'joiner'", "''", "expected FP32"), but(pair(), datatype(0, ""))),
    "wrong rank": Row(INVALID, ("'left'", "'joiner'", "[2, 2, 1]", "[-1, 2]"), but(pair(), shape(0, 2, 2, 1))),
    "wrong shape": Row(INVALID, ("'right'", "'joiner'", "[2, 3]", "[-1, 2]"), but(pair(), shape(1, 2, 3))),
    "-1 in a shape": Row(INVALID, ("'left'", "'joiner'", "[2, -1]", "[-1, 2]"), but(pair(), shape(0, 2, -1))),
    "-1 rows": Row(INVALID, ("'left'", "-1 rows"), but(pair(), shape(0, -1, 2), shape(1, -1, 2))),
    "no shape": Row(INVALID, ("'left'", "'joiner'", "no shape", "[-1, 2]"), but(pair(), shape(0))),
    "missing input": Row(INVALID, ("'right' is missing", *TAKES), but(pair(), drop_input)),
    "extra input": Row(INVALID, ("'w' is one too many", *TAKES), but(pair(), add_input("w"))),
    "unknown input": Row(INVALID, ("'z' is unknown", *TAKES), but(pair(), rename(1, "z"))),
    "repeated input": Row(INVALID, ("'left'", "more than once", *TAKES), but(pair(), rename(1, "left"))),
    "repeated input without a name": Row(
        INVALID, ("''", "more than once", *TAKES), but(pair(), rename(0, ""), rename(1, ""))
    ),
    "unknown requested output": Row(INVALID, ("'nothing'", "'total', 'difference'"), but(pair(), ask_for("nothing"))),
    "repeated requested output": Row(INVALID, ("'total'", "more than once"), but(pair(), ask_for("total", "total"))),
    "raw and typed contents": Row(INVALID, ("'right'", "contents"), but(pair(), typed(1, fp32_contents=[1.0]))),
    "neither raw nor typed contents": Row(INVALID, ("'left'", "no data"), but(pair(), no_raw)),
    "typed contents of another type": Row(
        INVALID,
        ("'left'", "int_contents", "expected fp32_contents"),
        but(pair(), no_raw, typed(0, int_contents=[1] * 4), typed(1, fp32_contents=[1.0] * 4)),
    ),
    "too many raw entries": Row(
        INVALID,
        ("3 raw_input_contents", "'left', 'right'"),
        but(pair(), lambda request: request.raw_input_contents.append(b"")),
    ),
    "too few bytes": Row(INVALID, ("'left'", "15 bytes", "takes 16"), but(pair(), raw(0, bytes(15)))),
    "too many bytes": Row(INVALID, ("'right'", "17 bytes", "takes 16"), but(pair(), raw(1, bytes(17)))),
    "malformed BYTES": Row(INVALID, ("'in'", "2 of 5 bytes"), TEXTS),
    "rows differ": Row(INVALID, ("'right'", "3 rows", "has 2"), but(pair(), shape(1, 3, 2), raw(1, bytes(24)))),
    "zero rows": Row(INVALID, ("'left'", "0 rows"), pair(0)),
    "rows above the limit": Row(INVALID, ("257 rows", "'joiner'", "256"), pair(257)),
    **{
        f"classification {kind} {value}": Row(
            INVALID, ("'classification'",), but(pair(), ask_for("total", classification=(kind, value)))
        )
        for kind, value in (("int64_param", 0), ("int64_param", -1), ("string_param", "1"), ("uint64_param", 1))
    },
    "priority of the wrong type": Row(
        INVALID, ("'priority'", "uint64"), but(pair(), parameter("priority", string_param="1"))
    ),
    "timeout of the wrong type": Row(
        INVALID, ("'timeout'", "int64"), but(pair(), parameter("timeout", uint64_param=1))
    ),
    "unknown parameter of Triton's": Row(
        INVALID, ("'triton_magic'",), but(pair(), parameter("triton_magic", bool_param=True))
    ),
    "message above the size limit": Row("RESOURCE_EXHAUSTED", (str(MAX_MESSAGE_BYTES),), pair(20_000)),
    "deadline too short even for an idle server": Row(
        "DEADLINE_EXCEEDED", ("ms late",), but(pair(), parameter("timeout", int64_param=1))
    ),
    "load of an unknown model": Row(
        "NOT_FOUND", ("'nothing'",), pb.RepositoryModelLoadRequest(model_name="nothing"), "RepositoryModelLoad"
    ),
    "load of a broken model": Row(
        "INTERNAL",
        ("broken/1/model.onnx", "ONNX Runtime cannot load it"),
        pb.RepositoryModelLoadRequest(model_name="broken"),
        "RepositoryModelLoad",
    ),
    **{
        f"load of {path!r}": Row(
            INVALID, (repr(path),), pb.RepositoryModelLoadRequest(model_name=path), "RepositoryModelLoad"
        )
        for path in ("../doubler", "doubler/2", "/", ".", "..", "")
    },
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_each_error_has_its_status_and_names_what_it_must(channel: grpc.Channel, row: Row) -> None:
    code, text = refusal(begin(channel, row.rpc, row.request))
    assert code == row.code, text
    assert [part for part in row.names if part not in text] == [], text


def test_what_is_no_error_gets_a_reply(channel: grpc.Channel) -> None:
    assert not call(channel, "ModelReady", pb.ModelReadyRequest(name="nothing")).ready
    call(channel, "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="nothing"))
    assert call(channel, "ModelInfer", SCALARS).raw_output_contents == [np.int64(3).tobytes()]  # scalars have no shape
    assert call(channel, "ModelInfer", pair(256)).outputs[0].shape == [256, 2]
    no_deadline = but(pair(), parameter("timeout", int64_param=0), parameter("priority", uint64_param=2))
    assert call(channel, "ModelInfer", no_deadline).model_version == "1"


def test_loading_and_unloading_name_the_setting_that_keeps_them_off(repository: Path, transport: str) -> None:
    with (
        running_server(repository, transport=transport) as closed,
        grpc.insecure_channel(str(closed.grpc_address)) as opened,
    ):
        for rpc, request in (
            ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="doubler")),
            ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="doubler")),
        ):
            code, text = refusal(begin(opened, rpc, request))
            assert (code, "model_control=explicit" in text) == ("FAILED_PRECONDITION", True)
