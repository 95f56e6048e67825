"""The protocol's table of errors, row by row, and the order in which a request is checked.

A real server, real models, a bare channel. Rows about credentials are left out: the server has no
setting for authentication. Rows about the queue, and about a server that goes away, need a device that
is busy: they are in `test_error_table_busy.py`.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferry_proto import open_inference_pb2 as pb
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.services import OPEN_INFERENCE
from testkit import onnx_models
from testkit.rpc import begin, call, infer_request, refusal
from testkit.servers import running_server

MAX_MESSAGE_BYTES = 100_000

Change = Callable[[ModelInferRequest], object]


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


def pair(rows: int = 2) -> ModelInferRequest:
    """A good request for `joiner`: two inputs `[rows, 2]`, two outputs."""
    zeros = np.zeros((rows, 2), np.float32)
    return infer_request("joiner", left=zeros, right=zeros)


def doubler(**fields: Any) -> ModelInferRequest:
    request = infer_request("doubler", x=np.zeros((1, 3), np.float32))
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def but(request: ModelInferRequest, *changes: Change) -> ModelInferRequest:
    """The request with something changed."""
    for change in changes:
        change(request)
    return request


def parameter(name: str, **choice: Any) -> Change:
    def change(request: ModelInferRequest) -> None:
        for kind, value in choice.items():
            setattr(request.parameters[name], kind, value)

    return change


def datatype(position: int, name: str) -> Change:
    return lambda request: setattr(request.inputs[position], "datatype", name)


def shape(position: int, *axes: int) -> Change:
    return lambda request: request.inputs[position].shape.__setitem__(slice(None), axes)


def name(position: int, new: str) -> Change:
    return lambda request: setattr(request.inputs[position], "name", new)


def raw(position: int, data: bytes) -> Change:
    return lambda request: request.raw_input_contents.__setitem__(position, data)


def no_raw(request: ModelInferRequest) -> None:
    del request.raw_input_contents[:]


def typed(position: int, **contents: Any) -> Change:
    def change(request: ModelInferRequest) -> None:
        for field, values in contents.items():
            getattr(request.inputs[position].contents, field).extend(values)

    return change


def drop_input(request: ModelInferRequest) -> None:
    del request.inputs[1], request.raw_input_contents[1]


def add_input(new: str) -> Change:
    def change(request: ModelInferRequest) -> None:
        request.inputs.add(name=new, datatype="FP32", shape=[2, 2])
        request.raw_input_contents.append(bytes(16))

    return change


def ask_for(*outputs: str, **parameters: Any) -> Change:
    """Request outputs; parameters are those of the last one, as `name=("int64_param", value)`."""

    def change(request: ModelInferRequest) -> None:
        for output in outputs:
            tensor = request.outputs.add(name=output)
        for key, (kind, value) in parameters.items():
            setattr(tensor.parameters[key], kind, value)

    return change


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
    "unknown input": Row(INVALID, ("'z' is unknown", *TAKES), but(pair(), name(1, "z"))),
    "repeated input": Row(INVALID, ("'left'", "more than once", *TAKES), but(pair(), name(1, "left"))),
    "repeated input without a name": Row(
        INVALID, ("''", "more than once", *TAKES), but(pair(), name(0, ""), name(1, ""))
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
        INVALID, ("'priority'", "uint64"), but(pair(), parameter("priority", int64_param=1))
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


def test_what_is_no_error_is_answered(channel: grpc.Channel) -> None:
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


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a good request, and how its message is told from every other's."""

    says: str
    plant: Change
    excludes: tuple[str, ...] = ()


def widen_right(request: ModelInferRequest) -> None:
    request.inputs[1].shape[0] = 5


def too_many_rows(request: ModelInferRequest) -> None:
    for tensor in request.inputs:
        tensor.shape[0] = 257


def repeat_input(request: ModelInferRequest) -> None:
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(bytes(16))


def drop_data(request: ModelInferRequest) -> None:
    del request.raw_input_contents[-1]


# In the order of the checks. Planted from the last to the first: so each finds a request it can spoil.
ORDER: dict[str, Fault] = {
    "version": Fault("neither a positive integer", lambda r: setattr(r, "model_version", "1x"), ("unknown version",)),
    "model": Fault("model 'nothing' is not", lambda r: setattr(r, "model_name", "nothing"), ("unknown version",)),
    "unknown version": Fault("version '9' of model", lambda r: setattr(r, "model_version", "9")),
    "parameters": Fault("parameter 'priority' must", parameter("priority", int64_param=1)),
    "repeated input": Fault("input 'left' is there more than once", repeat_input),
    "repeated output": Fault("output 'total' is there more than once", ask_for("total", "total")),
    "data": Fault("raw_input_contents came for", drop_data),
    "output parameters": Fault("'classification' must", ask_for("difference", classification=("int64_param", 0))),
    "requested output": Fault("'nothing' was requested", ask_for("nothing")),
    "input count": Fault(" came; model", add_input("w")),
    "unknown input": Fault("input 'z' is unknown", name(1, "z")),
    "rows agree": Fault("all must have as many", widen_right),
    "row limit": Fault("takes up to 256", too_many_rows),
    "datatype": Fault("has datatype", datatype(1, "FP64")),
    "shape": Fault("has shape", lambda r: r.inputs[1].shape.__setitem__(1, 3)),
    "byte count": Fault("bytes; shape", lambda r: r.raw_input_contents.__setitem__(0, bytes(3))),
    "deadline": Fault("the deadline cannot be met", parameter("timeout", int64_param=1)),
}
PAIRS = [
    (first, second)
    for first, second in itertools.combinations_with_replacement(ORDER, 2)
    if second not in ORDER[first].excludes
]


def spoiled(*faults: str) -> ModelInferRequest:
    """A good request with these faults."""
    return but(pair(), *(ORDER[fault].plant for fault in reversed(ORDER) if fault in faults))


def hears_of(channel: grpc.Channel, request: ModelInferRequest) -> list[str]:
    """Which of the faults the answer names."""
    _, text = refusal(begin(channel, "ModelInfer", request))
    return [fault for fault, planted in ORDER.items() if planted.says in text]


@pytest.mark.parametrize("second", ORDER)
def test_of_two_faults_the_one_that_is_checked_first_is_heard_of(channel: grpc.Channel, second: str) -> None:
    heard = {first: hears_of(channel, spoiled(first, second)) for first, other in PAIRS if other == second}
    assert heard == {first: [first] for first in heard}
    assert second in heard  # and alone it is heard of by itself


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(faults=st.sets(st.sampled_from(list(ORDER)), min_size=1))
def test_of_any_faults_the_one_that_is_checked_first_is_heard_of(channel: grpc.Channel, faults: set[str]) -> None:
    if {"version", "model"} & faults:
        faults.discard("unknown version")
    first = next(fault for fault in ORDER if fault in faults)
    assert hears_of(channel, spoiled(*faults)) == [first]


def test_each_input_is_checked_for_one_thing_before_any_is_checked_for_the_next(channel: grpc.Channel) -> None:
    for changes, message in (
        ((raw(0, bytes(3)), shape(1, 2, 3)), "'right' of model 'joiner' has shape"),
        ((shape(0, 2, 3), datatype(1, "FP64")), "'right' of model 'joiner' has datatype"),
    ):
        assert message in refusal(begin(channel, "ModelInfer", but(pair(), *changes)))[1]


@pytest.mark.parametrize(
    ("model", "version", "code", "message"),
    [
        ("nothing", "1x", "INVALID_ARGUMENT", "'1x'"),
        ("nothing", "", "NOT_FOUND", "'nothing'"),
        ("doubler", "9", "NOT_FOUND", "'9'"),
        ("doubler", "", "INVALID_ARGUMENT", "is not a valid inference.ModelInferRequest"),
    ],
)
def test_of_an_input_that_is_no_message_a_request_hears_after_its_model(
    channel: grpc.Channel, model: str, version: str, code: str, message: str
) -> None:
    named = ModelInferRequest(model_name=model, model_version=version).SerializeToString()
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(OPEN_INFERENCE["ModelInfer"].path)
    came, text = refusal(stub.future(named + b"\x2a\x02\xff\xff"))  # an input of two bytes
    assert (came, message in text) == (code, True), text
