"""Regions never reach outside the shared memory that a client named, and live as long as they are used."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_server import shared_memory
from inferry_server.codec import DecodedRequest, decode_infer_request
from inferry_server.encoding import encode_infer_response
from inferry_server.errors import InvalidRequestError, NotOfferedError, RegionNotFoundError, ServingError
from inferry_server.shared_memory import Region, SharedMemoryRegions
from inferry_server.signature import Signature, TensorSpec
from inferry_server.tensor_bytes import elements_to_bytes

SIZE = 64
UINT64_MAX = (1 << 64) - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plays /dev/shm, with one object of SIZE bytes, each of another value, and what is no object."""
    made = tmp_path_factory.mktemp("shm")
    (made / "object").write_bytes(bytes(range(SIZE)))
    (made / "link").symlink_to(made / "object")
    (made / "folder").mkdir()
    os.mkfifo(made / "pipe")
    return made


def register(folder: Path, *, offset: int = 0, byte_size: int = SIZE, key: str = "/object") -> SharedMemoryRegions:
    regions = SharedMemoryRegions(allowed=True, folder=folder)
    regions.register(Region("r", key, offset, byte_size))
    return regions


@given(st.integers(0, UINT64_MAX) | st.integers(0, 2 * SIZE), st.integers(0, UINT64_MAX) | st.integers(0, 2 * SIZE))
def test_a_region_is_mapped_only_if_all_of_it_is_inside_its_object(folder: Path, offset: int, byte_size: int) -> None:
    if byte_size >= 1 and offset + byte_size <= SIZE:
        regions = register(folder, offset=offset, byte_size=byte_size)
        found = regions.slice("r", offset=0, byte_size=byte_size).memory.tobytes()
        assert found == bytes(range(SIZE))[offset : offset + byte_size]
    else:
        with pytest.raises(
            InvalidRequestError, match=f"'/object' has 64 bytes; {byte_size} bytes from offset {offset}"
        ):
            register(folder, offset=offset, byte_size=byte_size)


int64 = st.integers(-(1 << 63), (1 << 63) - 1)


@given(int64 | st.integers(-1, SIZE), int64 | st.integers(-1, SIZE))
def test_a_tensor_lies_only_where_its_region_is(folder: Path, offset: int, byte_size: int) -> None:
    regions = register(folder, offset=8, byte_size=16)
    if min(offset, byte_size) >= 0 and offset + byte_size <= 16:
        found = regions.slice("r", offset=offset, byte_size=byte_size)
        assert found.memory.tobytes() == bytes(range(8, 24))[offset : offset + byte_size]
    else:
        with pytest.raises(
            InvalidRequestError, match=f"'r' has 16 bytes; {byte_size} bytes from offset {offset} are not"
        ):
            regions.slice("r", offset=offset, byte_size=byte_size)


@pytest.mark.parametrize(
    "key",
    ["", "/", "//object", "/../shm/object", "..", "/..", ".", "/.", "/a/b", "a/../object", "/nothing", "/object\0",
     "/" + "x" * 300, "/link", "/folder", "/pipe"],
)  # fmt: skip
def test_a_key_that_is_not_a_plain_object_in_shared_memory_is_refused(folder: Path, key: str) -> None:
    with pytest.raises(InvalidRequestError, match="region 'r': key"):
        register(folder, key=key, byte_size=1)


@pytest.mark.parametrize("key", ["/../outside", "/folder/inside", "folder/inside"])
def test_a_key_leads_to_no_file_that_is_elsewhere(tmp_path: Path, key: str) -> None:
    folder = tmp_path / "shm"
    (folder / "folder").mkdir(parents=True)
    for path in ("outside", "shm/folder/inside"):
        (tmp_path / path).write_bytes(bytes(SIZE))
    with pytest.raises(InvalidRequestError, match="not of the form /name"):
        register(folder, key=key, byte_size=1)


def test_a_key_is_taken_without_its_slash_as_well(folder: Path) -> None:
    assert register(folder, key="object").slice("r", offset=1, byte_size=1).memory.tobytes() == b"\1"


def test_registering_again_is_welcome_with_the_same_facts_only(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(bytes(SIZE))
    regions = register(tmp_path)
    regions.register(Region("r", "/object", 0, SIZE))
    with pytest.raises(InvalidRequestError, match="'r' is registered already, as 64 bytes from offset 0 of what was"):
        regions.register(Region("r", "/object", 0, SIZE - 1))
    (tmp_path / "object").rename(tmp_path / "old")  # so that its inode is not used again
    (tmp_path / "object").write_bytes(bytes(SIZE))
    with pytest.raises(InvalidRequestError, match="registered already"):
        regions.register(Region("r", "/object", 0, SIZE))
    regions.unregister("r")
    regions.register(Region("r", "/object", 0, SIZE))
    with pytest.raises(InvalidRequestError, match="needs a name"):
        regions.register(Region("", "/object", 0, SIZE))


def test_regions_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "MAX_REGIONS", 2)
    regions = register(folder)
    regions.register(Region("s", "/object", 0, 1))
    with pytest.raises(InvalidRequestError, match="'t' would be one more than the 2 that may be registered"):
        regions.register(Region("t", "/object", 0, 1))
    assert [region.name for region in regions.status("")] == ["r", "s"]


def test_regions_are_told_one_by_one_or_all_and_forgotten_likewise(folder: Path) -> None:
    regions = register(folder)
    regions.register(Region("s", "/object", 8, 1))
    assert regions.status("s") == [Region("s", "/object", 8, 1)]
    regions.unregister("s")
    regions.unregister("s")
    with pytest.raises(RegionNotFoundError, match="'s' is not registered"):
        regions.status("s")
    with pytest.raises(InvalidRequestError, match="'s' is not registered"):
        regions.slice("s", offset=0, byte_size=0)
    regions.unregister("")
    assert regions.status("") == []


def test_where_it_is_off_nothing_can_be_registered_and_cleaning_up_is_no_error(folder: Path) -> None:
    regions = SharedMemoryRegions(allowed=False, folder=folder)
    with pytest.raises(NotOfferedError, match="--system-shared-memory"):
        regions.register(Region("r", "/object", 0, 1))
    assert regions.status("") == regions.status("r") == []
    regions.unregister("r")
    regions.unregister("")
    with pytest.raises(InvalidRequestError, match="'r' is not registered and cannot be: setting system_shared_memory"):
        regions.slice("r", offset=0, byte_size=1)


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_memory_stays_mapped_until_the_last_view_of_it_is_gone(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(bytes(range(SIZE)))
    regions = register(tmp_path)
    view = np.frombuffer(regions.slice("r", offset=4, byte_size=4).memory, np.uint8)
    regions.unregister("r")
    assert view.tolist() == [4, 5, 6, 7]
    assert mapped(tmp_path / "object")
    del view
    assert not mapped(tmp_path / "object")


def test_an_object_that_was_made_smaller_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(bytes(SIZE))
    regions = register(tmp_path)
    os.truncate(tmp_path / "object", SIZE - 1)
    with pytest.raises(InvalidRequestError, match="'r' was made smaller"):
        regions.slice("r", offset=0, byte_size=1)


def test_descriptors_are_not_leaked(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(bytes(SIZE))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts them, the listing's own included
    for _ in range(20):
        register(tmp_path).unregister("")
        with pytest.raises(InvalidRequestError):
            register(tmp_path, byte_size=SIZE + 1)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_regions_may_come_and_go_on_many_threads(folder: Path) -> None:
    regions = SharedMemoryRegions(allowed=True, folder=folder)
    unexpected: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(200):
                regions.register(Region("r", "/object", 0, SIZE))
                with suppress(InvalidRequestError):  # another thread has unregistered it
                    assert regions.slice("r", offset=1, byte_size=1).memory[0] == 1
                regions.unregister("r")
        except BaseException as error:  # noqa: BLE001 - reported below
            unexpected.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not unexpected


# Requests


X = TensorSpec("x", DATATYPES["FP32"], (-1, 2))
Y = TensorSpec("y", DATATYPES["UINT8"], (-1,))
OUT = TensorSpec("out", DATATYPES["FP32"], (-1, 2))
FREE = TensorSpec("free", DATATYPES["FP32"], (-1, -1))
SIGNATURE = Signature((X, Y), (OUT, FREE))


@pytest.fixture
def regions(tmp_path: Path) -> SharedMemoryRegions:
    (tmp_path / "object").write_bytes(np.arange(16, dtype=np.float32).tobytes())
    return register(tmp_path)


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
    response = encode_infer_response(message, decoded.outputs, outputs, version="1", labels=(), batched=True)
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
            message, decoded.outputs, {"free": np.ones((2, 1), np.float32)}, version="1", labels=(), batched=True
        )
