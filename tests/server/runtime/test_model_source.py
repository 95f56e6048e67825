"""A model in memory computes what its files said when they were read, wherever its weights stood."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from inferry_proto.external_data import ExternalDataError, own_external_data
from inferry_server.errors import ModelLoadError
from inferry_server.runtime.model_source import read_model
from inferry_server.runtime.providers import CPU
from inferry_server.runtime.session import OnnxSession, load_session
from inferry_server.wire.encode import varint

WIDTH = 512
WEIGHTS = np.arange(WIDTH, dtype=np.float32)
X = {"x": np.ones((1, WIDTH), np.float32)}


def outside(array: np.ndarray, name: str, *, location: str = "w.bin", length: bool = True) -> onnx.TensorProto:
    """A tensor whose data lies at the beginning of a file."""
    tensor = numpy_helper.from_array(array, name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    if length:
        tensor.external_data.add(key="offset", value="0")
        tensor.external_data.add(key="length", value=str(array.nbytes))
    return tensor


def save(folder: Path, nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto],
         functions: list[onnx.FunctionProto] | None = None, data: bytes = WEIGHTS.tobytes()) -> Path:  # fmt: skip
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions or [])
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "w.bin").write_bytes(data)
    return folder / "model.onnx"


def in_the_graph(folder: Path) -> Path:
    return save(folder, [helper.make_node("Mul", ["x", "w"], ["y"])], [outside(WEIGHTS, "w")])


def without_length(folder: Path) -> Path:
    return save(folder, [helper.make_node("Mul", ["x", "w"], ["y"])], [outside(WEIGHTS, "w", length=False)])


def in_a_constant(folder: Path) -> Path:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=outside(WEIGHTS, "c")),
        helper.make_node("Mul", ["x", "w"], ["y"]),
    ]
    return save(folder, nodes, [])


def in_a_branch(folder: Path) -> Path:
    branch = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["t"])], "b", [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)], [outside(WEIGHTS, "w")],
    )  # fmt: skip
    yes = numpy_helper.from_array(np.array(True), "yes")
    return save(folder, [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)], [yes])


def in_a_function(folder: Path) -> Path:
    body = [
        helper.make_node("Constant", [], ["w"], value=outside(WEIGHTS, "c")),
        helper.make_node("Mul", ["a", "w"], ["b"]),
    ]
    function = helper.make_function("own", "F", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    return save(folder, [helper.make_node("F", ["x"], ["y"], domain="own")], [], [function])


def as_a_shape(folder: Path) -> Path:
    """`y = x w` by way of a shape that lies outside, too."""
    shape = np.array([-1, WIDTH], np.int64)
    nodes = [helper.make_node("Reshape", ["x", "s"], ["r"]), helper.make_node("Mul", ["r", "w"], ["y"])]
    tensors = [outside(shape, "s", location="s.bin"), outside(WEIGHTS, "w", location="./w.bin")]
    (folder / "s.bin").write_bytes(shape.tobytes())
    return save(folder, nodes, tensors)


def load(path: Path) -> OnnxSession:
    return load_session(path, providers=(CPU,), intra_op_num_threads=1)


PLACES = [in_the_graph, without_length, in_a_constant, in_a_branch, in_a_function, as_a_shape]


@pytest.mark.parametrize("offset", ["9" * 5000, "-1", "1e3", ""])
def test_offsets_that_are_no_numbers_are_refused_by_name(tmp_path: Path, offset: str) -> None:
    tensor = outside(WEIGHTS, "w")
    tensor.external_data[1].value = offset
    path = save(tmp_path, [helper.make_node("Mul", ["x", "w"], ["y"])], [tensor])
    with pytest.raises(ModelLoadError, match="expected a whole number"):
        read_model(path)


def test_where_a_tensor_lies_is_read_as_protobuf_reads_it() -> None:
    tensor = outside(WEIGHTS, "w").SerializeToString()
    place = tensor.index(b"\x70\x01")
    odd = tensor[:place] + b"\x70\x81\x80\x80\x80\x10" + tensor[place + 2 :]  # 2 ** 32 + 1, of which 1 is left
    assert onnx.TensorProto.FromString(odd).data_location == TensorProto.EXTERNAL
    graph = b"\x2a" + varint(len(odd)) + odd
    asked: list[str] = []

    def read(name: str) -> bytes:
        asked.append(name)
        return WEIGHTS.tobytes()

    owned = own_external_data(b"\x3a" + varint(len(graph)) + graph, read)
    assert (asked, list(owned.files)) == (["w.bin"], ["w.bin"])


@pytest.mark.parametrize("place", PLACES)
def test_weights_from_other_files_are_the_process_own_wherever_they_stand(
    tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    session = load(place(tmp_path))
    assert "w.bin" not in Path("/proc/self/maps").read_text()
    with (tmp_path / "w.bin").open("r+b") as file:
        file.write(b"\xff" * WEIGHTS.nbytes)
    np.testing.assert_array_equal(session.run(X)["y"][0], WEIGHTS)
    (tmp_path / "w.bin").write_bytes(b"")
    np.testing.assert_array_equal(session.run(X)["y"][0], WEIGHTS)


def test_nothing_is_read_from_the_folder_that_the_process_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for place in PLACES:
        path = place(tmp_path / "model")
        (tmp_path / "model" / "w.bin").rename(tmp_path / "elsewhere" / "w.bin")
        monkeypatch.chdir(tmp_path / "elsewhere")
        with pytest.raises(ModelLoadError, match=r"w\.bin is missing"):
            load(path)


def test_a_file_that_ends_early_is_named_with_both_sizes(tmp_path: Path) -> None:
    path = in_the_graph(tmp_path)
    (tmp_path / "w.bin").write_bytes(bytes(100))
    with pytest.raises(ModelLoadError, match=f"'w.bin' has 100 bytes; a tensor is said to end at {WEIGHTS.nbytes}"):
        load(path)


@pytest.mark.parametrize("name", ["model.onnx", "w.bin"])
def test_a_fifo_is_refused_and_nobody_waits_for_its_writer(tmp_path: Path, name: str) -> None:
    path = in_the_graph(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelLoadError, match=f"{name} cannot be read: it is a FIFO"):
        load(path)


def test_a_sparse_file_of_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(ModelLoadError, match="has 10737418240 bytes; expected at most 2147483647"):
        load(tmp_path / "model.onnx")


def test_weights_for_which_there_is_no_memory_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = in_the_graph(tmp_path)
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(1 << 43)
    with pytest.raises(ModelLoadError, match=r"w\.bin cannot be read: it has 8796093022208 bytes; expected at most"):
        load(path)


def test_a_model_may_be_a_folder_as_triton_has_it(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    in_the_graph(tmp_path / "model.onnx")
    source = read_model(tmp_path / "model.onnx")
    assert source.path == tmp_path / "model.onnx" / "model.onnx"
    assert source.files.keys() == {"model.onnx/model.onnx", "model.onnx/w.bin"}
    np.testing.assert_array_equal(load(tmp_path / "model.onnx").run(X)["y"][0], WEIGHTS)


def test_weights_lie_beside_the_file_that_a_link_leads_to(tmp_path: Path) -> None:
    """As in caches that name files by their content, and in volumes of Kubernetes."""
    for name in ("blobs", "version"):
        (tmp_path / name).mkdir()
    in_the_graph(tmp_path / "blobs")
    for name in ("model.onnx", "w.bin"):
        (tmp_path / "version" / name).symlink_to(tmp_path / "blobs" / name)
    np.testing.assert_array_equal(load(tmp_path / "version" / "model.onnx").run(X)["y"][0], WEIGHTS)


@pytest.mark.parametrize("location", ["", ".", "..", "/etc/hostname", "a\0b", "loop", "n" * 300])
def test_odd_paths_of_weights_are_refused_in_words(tmp_path: Path, location: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    path = save(tmp_path, [helper.make_node("Mul", ["x", "w"], ["y"])], [outside(WEIGHTS, "w", location=location)])
    with pytest.raises(ModelLoadError, match=r"model\.onnx|is missing|cannot be read|External data path"):
        load(path)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_model_are_refused_or_passed_on_as_they_are(data: bytes) -> None:
    marked = data + b"location"
    try:
        owned = own_external_data(marked, lambda _: b"")
    except ExternalDataError:
        return
    assert not owned.files or owned.model


def test_the_digest_of_several_files_is_what_sha256sum_says_of_them(tmp_path: Path) -> None:
    path = in_the_graph(tmp_path)
    digests = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("model.onnx", "w.bin")}
    printed = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    before = read_model(path).sha256
    assert before == hashlib.sha256(printed.encode()).hexdigest()
    (tmp_path / "w.bin").write_bytes((WEIGHTS + 1).tobytes())
    assert read_model(path).sha256 != before
