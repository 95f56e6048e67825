"""Requests whose tensors lie in shared memory: inputs are read there, outputs written, faults named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_server.errors import InvalidRequestError, ServingError
from inferry_server.signature import Signature, TensorSpec
from inferry_server.wire.decode import DecodedRequest, decode_infer_request
from inferry_server.wire.elements import elements_to_bytes
from inferry_server.wire.encode import encode_infer_response
from inferry_server.wire.shared_memory import Region, SharedMemoryRegions

SIZE = 64
X = TensorSpec("x", DATATYPES["FP32"], (-1, 2))
Y = TensorSpec("y", DATATYPES["UINT8"], (-1,))
OUT = TensorSpec("out", DATATYPES["FP32"], (-1, 2))
FREE = TensorSpec("free", DATATYPES["FP32"], (-1, -1))
SIGNATURE = Signature((X, Y), (OUT, FREE))


@pytest.fixture
def regions(tmp_path: Path) -> SharedMemoryRegions:
    """One region, `r`: all of an object of SIZE bytes that a test may change."""
    (tmp_path / "object").write_bytes(np.arange(SIZE // 4, dtype=np.float32).tobytes())
    made = SharedMemoryRegions(allowed=True, folder=tmp_path)
    made.register(Region("r", "/object", 0, SIZE))
    return made


def request(**x_parameters: int | str) -> ModelInferRequest:
    """Two rows: `x` in shared memory (16 bytes of region `r`, unless said otherwise), `y` raw."""
    made = ModelInferRequest(model_name="m")
    x = made.inputs.add(name="x", datatype="FP32", shape=[2, 2])
    made.inputs.add(name="y", datatype="UINT8", shape=[2])
    made.raw_input_contents.append(b"\1\2")
    set_region(x.parameters, **x_parameters)
    return made


def set_region(parameters: object, **values: int | str) -> None:
    for name, value in {"region": "r", "byte_size": 16, **values}.items():
        parameter = parameters[f"shared_memory_{name}"]  # type: ignore[index]
        setattr(parameter, "string_param" if isinstance(value, str) else "int64_param", value)


def decode(
    message: ModelInferRequest, regions: SharedMemoryRegions, signature: Signature = SIGNATURE
) -> DecodedRequest:
    return decode_infer_request(message, signature, model="m", max_request_rows=8, regions=regions)


@pytest.mark.parametrize("first", ["x", "y"])
def test_raw_contents_belong_to_the_inputs_outside_shared_memory(regions: SharedMemoryRegions, first: str) -> None:
    message = request(offset=8)
    if first == "y":
        message.inputs.reverse()
    inputs = decode(message, regions).inputs
    np.testing.assert_array_equal(inputs["x"], [[2, 3], [4, 5]])
    np.testing.assert_array_equal(inputs["y"], [1, 2])


def test_an_input_in_shared_memory_is_not_copied(regions: SharedMemoryRegions, tmp_path: Path) -> None:
    x = decode(request(), regions).inputs["x"]
    with (tmp_path / "object").open("r+b") as file:
        file.write(np.float32(99).tobytes())
    assert x[0, 0] == 99
    assert not x.flags.writeable


def test_a_tensor_may_lie_at_an_odd_offset(regions: SharedMemoryRegions, tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"\0\0\0" + np.arange(8, dtype=np.float32).tobytes() + bytes(29))
    x = decode(request(offset=3), regions).inputs["x"]
    np.testing.assert_array_equal(x, [[0, 1], [2, 3]])
    assert x.flags.aligned


def test_texts_and_empty_tensors_come_from_shared_memory_too(regions: SharedMemoryRegions, tmp_path: Path) -> None:
    data = elements_to_bytes(np.array([b"a", "ü".encode()], dtype=object))
    (tmp_path / "object").write_bytes(data.ljust(SIZE, b"\0"))
    spec = TensorSpec("t", DATATYPES["BYTES"], (-1,))
    message = ModelInferRequest(model_name="m")
    set_region(message.inputs.add(name="t", datatype="BYTES", shape=[2]).parameters, byte_size=len(data))
    assert decode(message, regions, Signature((spec,), (spec,))).inputs["t"].tolist() == ["a", "ü"]
    message.inputs[0].parameters["shared_memory_byte_size"].int64_param += 1
    with pytest.raises(InvalidRequestError, match=r"input 't' in shared memory region 'r': .* 1 bytes more"):
        decode(message, regions, Signature((spec,), (spec,)))
    empty = TensorSpec("e", DATATYPES["FP32"], (-1, -1))
    message = ModelInferRequest(model_name="m")
    set_region(message.inputs.add(name="e", datatype="FP32", shape=[2, 0]).parameters, byte_size=0, offset=SIZE)
    assert decode(message, regions, Signature((empty,), (empty,))).inputs["e"].shape == (2, 0)


def add_raw(message: ModelInferRequest) -> None:
    message.raw_input_contents.append(bytes(16))


def add_contents(message: ModelInferRequest) -> None:
    message.inputs[0].contents.fp32_contents.append(1)


def drop_raw(message: ModelInferRequest) -> None:
    del message.raw_input_contents[:]


def drop_size(message: ModelInferRequest) -> None:
    del message.inputs[0].parameters["shared_memory_byte_size"]


def mistype(name: str) -> Callable[[ModelInferRequest], None]:
    def apply(message: ModelInferRequest) -> None:
        message.inputs[0].parameters[f"shared_memory_{name}"].double_param = 1

    return apply


def send_output(name: str = "out", **values: int | str) -> Callable[[ModelInferRequest], None]:
    return lambda message: set_region(message.outputs.add(name=name).parameters, **values)


def classify(message: ModelInferRequest) -> None:
    send_output()(message)
    message.outputs[0].parameters["classification"].int64_param = 1


def nothing(message: ModelInferRequest) -> None:
    pass


@pytest.mark.parametrize(
    ("parameters", "fault", "expected"),
    [
        ({"region": "s"}, nothing, "input 'x': shared memory region 's' is not registered"),
        ({"offset": 60}, nothing, "input 'x': shared memory region 'r' has 64 bytes; 16 bytes from offset 60"),
        ({"offset": (1 << 63) - 1}, nothing, "16 bytes from offset 9223372036854775807 are not all inside"),
        ({"offset": -4}, nothing, "16 bytes from offset -4"),
        ({"byte_size": -1}, nothing, "-1 bytes from offset 0"),
        ({"byte_size": 12}, nothing, r"'x' has 12 bytes in shared memory region 'r'; shape \[2, 2\] of FP32 takes 16"),
        ({"byte_size": 64}, nothing, "'x' has 64 bytes in shared memory region 'r'"),
        ({"region": 1}, nothing, "input 'x': parameter 'shared_memory_region' must be string_param, not int64_param"),
        ({"byte_size": "16"}, nothing, "'shared_memory_byte_size' must be int64_param, not string_param"),
        ({}, mistype("offset"), "'shared_memory_offset' must be int64_param, not double_param"),
        ({}, drop_size, "'shared_memory_byte_size' must be int64_param, not missing"),
        ({}, add_raw, r"2 raw_input_contents came for 1 inputs outside shared memory \('y'\); expected one for each"),
        ({}, add_contents, "input 'x' has contents and is in shared memory"),
        ({}, drop_raw, "input 'y' has no data"),
        ({}, send_output(region="s"), "requested output 'out': shared memory region 's' is not registered"),
        ({}, send_output(offset=49), "requested output 'out': shared memory region 'r' has 64 bytes; 16 bytes from"),
        ({}, send_output(byte_size="x"), "output 'out': parameter 'shared_memory_byte_size' must be int64_param"),
        ({}, send_output(byte_size=15), r"'out' of model 'm' takes 16 bytes for shape \[2, 2\]; .*'r' .* with 15"),
        ({}, classify, "requested output 'out': a classification cannot go to shared memory"),
    ],
)
def test_each_fault_is_named(
    regions: SharedMemoryRegions,
    parameters: dict[str, int | str],
    fault: Callable[[ModelInferRequest], None],
    expected: str,
) -> None:
    message = request(**parameters)
    fault(message)
    with pytest.raises(InvalidRequestError, match=expected):
        decode(message, regions)


def test_outputs_go_where_they_were_asked_to_and_the_others_keep_their_place(
    regions: SharedMemoryRegions, tmp_path: Path
) -> None:
    message = request()
    send_output("out", offset=24, byte_size=20)(message)
    message.outputs.add(name="free")
    decoded = decode(message, regions)
    outputs = {"out": np.array([[5, 6], [7, 8]], np.float32), "free": np.ones((2, 1), np.float32)}
    response = encode_infer_response(message, decoded.outputs, outputs, version="1", labels={}, batched=True)
    assert list(response.raw_output_contents) == [b"", outputs["free"].tobytes()]
    stored = (tmp_path / "object").read_bytes()
    assert stored[24:40] == outputs["out"].tobytes()
    assert stored[40:44] == np.float32(10).tobytes()  # as it was
    told = response.outputs[0].parameters
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("FP32", [2, 2])
    assert told["shared_memory_region"].string_param == "r"
    assert (told["shared_memory_byte_size"].int64_param, told["shared_memory_offset"].int64_param) == (16, 24)
    assert not response.outputs[1].parameters


def test_an_output_whose_size_only_computing_tells_may_still_be_too_large(regions: SharedMemoryRegions) -> None:
    message = request()
    send_output("free", byte_size=7)(message)
    decoded = decode(message, regions)
    with pytest.raises(ServingError, match="output 'free' has 8 bytes; shared memory region 'r' was given with 7"):
        encode_infer_response(
            message, decoded.outputs, {"free": np.ones((2, 1), np.float32)}, version="1", labels={}, batched=True
        )
