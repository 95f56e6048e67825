"""System shared memory and log settings as tritonclient speaks them, against a real server."""

import logging
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, serialize_byte_tensor
from tritonclient.utils import shared_memory as shm

from inferry_server.app import Server
from inferry_server.wire.shared_memory import FOLDER as SHARED_MEMORY
from testkit import onnx_models
from testkit.servers import running_server

pytestmark = pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="this machine has no POSIX shared memory")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save_doubler(folder)
    onnx_models.save_two_inputs(folder)
    onnx_models.save_text_echo(folder)
    onnx_models.save_scalar_adder(folder)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path, transport: str) -> Iterator[Server]:
    with running_server(repository, system_shared_memory=True, transport=transport) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(str(server.grpc_address)) as opened:
        yield opened
        opened.unregister_system_shared_memory()


@contextmanager
def shared(client: triton.InferenceServerClient, name: str, byte_size: int) -> Iterator[Any]:
    """Shared memory under a key of its own, registered."""
    key = f"/inferry-test-{uuid.uuid4()}"
    handle = shm.create_shared_memory_region(name, key, byte_size)
    try:
        client.register_system_shared_memory(name, key, byte_size)
        yield handle
    finally:
        shm.destroy_shared_memory_region(handle)


def in_memory(name: str, array: NDArray[Any], region: str, byte_size: int, offset: int = 0) -> triton.InferInput:
    tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    tensor.set_shared_memory(region, byte_size, offset)
    return tensor


def in_message(name: str, array: NDArray[Any]) -> triton.InferInput:
    tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def to_memory(name: str, region: str, byte_size: int, offset: int = 0) -> triton.InferRequestedOutput:
    output = triton.InferRequestedOutput(name)
    output.set_shared_memory(region, byte_size, offset)
    return output


def status_of(error: pytest.ExceptionInfo[InferenceServerException]) -> str:
    return str(error.value.status()).removeprefix("StatusCode.")


def test_tensors_come_and_go_through_shared_memory(client: triton.InferenceServerClient) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with shared(client, "in", 64) as source, shared(client, "out", 64) as destination:
        shm.set_shared_memory_region(source, [x], offset=16)
        inputs = [in_memory("x", x, "in", x.nbytes, 16)]
        result = client.infer("doubler", inputs, outputs=[to_memory("y", "out", 40, 8)])
        output = result.get_output("y")
        assert (output.parameters["shared_memory_region"].string_param, list(output.shape)) == ("out", [2, 3])
        assert output.parameters["shared_memory_byte_size"].int64_param == x.nbytes
        found = shm.get_contents_as_numpy(destination, np.float32, output.shape, offset=8).copy()
    np.testing.assert_array_equal(found, 2 * x)


def test_tensors_in_memory_and_in_messages_mix(client: triton.InferenceServerClient) -> None:
    left, right = np.array([[1, 2]], np.float32), np.array([[10, 20]], np.float32)
    with shared(client, "region", 64) as handle:
        shm.set_shared_memory_region(handle, [left])
        inputs = [in_memory("left", left, "region", 8), in_message("right", right)]
        outputs = [to_memory("total", "region", 8, 32), triton.InferRequestedOutput("difference")]
        result = client.infer("joiner", inputs, outputs=outputs)
        total = shm.get_contents_as_numpy(handle, np.float32, [1, 2], offset=32).copy()
    np.testing.assert_array_equal(total, left + right)
    np.testing.assert_array_equal(result.as_numpy("difference"), left - right)  # found by its position


def test_texts_and_scalars_go_through_shared_memory_too(client: triton.InferenceServerClient) -> None:
    texts = np.array([[b"a", "ü€".encode()]], dtype=object)
    written = serialize_byte_tensor(texts)
    size = len(written.item())
    with shared(client, "texts", 256) as handle:
        shm.set_shared_memory_region(handle, [written])
        inputs, outputs = [in_memory("in", texts, "texts", size)], [to_memory("out", "texts", 128, 128)]
        result = client.infer("echo", inputs, outputs=outputs)
        assert result.get_output("out").parameters["shared_memory_byte_size"].int64_param == size
        found = shm.get_contents_as_numpy(handle, np.object_, [1, 2], offset=128)
        np.testing.assert_array_equal(found, texts)
        with pytest.raises(InferenceServerException, match=r"output 'out' has 14 bytes; .* 'texts' was given with 13"):
            client.infer("echo", inputs, outputs=[to_memory("out", "texts", 13, 128)])
    with shared(client, "scalars", 24) as handle:
        a, b = np.array(2, np.int64), np.array(40, np.int64)
        shm.set_shared_memory_region(handle, [a.reshape(1), b.reshape(1)])
        inputs = [in_memory("a", a, "scalars", 8), in_memory("b", b, "scalars", 8, 8)]
        client.infer("adder", inputs, outputs=[to_memory("sum", "scalars", 8, 16)])
        assert shm.get_contents_as_numpy(handle, np.int64, [1], offset=16)[0] == 42


def test_regions_are_listed_and_forgotten(client: triton.InferenceServerClient) -> None:
    with shared(client, "one", 16), shared(client, "two", 16):
        status = client.get_system_shared_memory_status().regions
        assert set(status) == {"one", "two"}
        assert (status["one"].name, status["one"].offset, status["one"].byte_size) == ("one", 0, 16)
        assert set(client.get_system_shared_memory_status("two").regions) == {"two"}
        client.unregister_system_shared_memory("one")
        assert set(client.get_system_shared_memory_status().regions) == {"two"}
        with pytest.raises(InferenceServerException, match="'one' is not registered") as error:
            client.get_system_shared_memory_status("one")
        assert status_of(error) == "NOT_FOUND"
        client.unregister_system_shared_memory()
        assert not client.get_system_shared_memory_status().regions


@pytest.mark.parametrize("key", ["/nothing-of-that-name", "/../etc/passwd", "/a/b", ""])
def test_what_is_no_shared_memory_cannot_be_registered(client: triton.InferenceServerClient, key: str) -> None:
    with pytest.raises(InferenceServerException, match="region 'r': key") as error:
        client.register_system_shared_memory("r", key, 1)
    assert status_of(error) == "INVALID_ARGUMENT"


def test_a_region_for_which_there_is_no_memory_is_refused(client: triton.InferenceServerClient) -> None:
    facts = os.statvfs(SHARED_MEMORY)
    total = facts.f_blocks * facts.f_frsize
    if not total:
        pytest.skip("shared memory has no limit here")
    path = SHARED_MEMORY / f"inferry-test-{uuid.uuid4()}"
    path.touch()
    try:
        os.truncate(path, 2 * total)  # takes no memory, and touching it all would end the server
        with pytest.raises(InferenceServerException, match=r"region 'r': key .* cannot be mapped: .*No space") as error:
            client.register_system_shared_memory("r", f"/{path.name}", 2 * total)
    finally:
        path.unlink()
    assert status_of(error) == "INVALID_ARGUMENT"


def test_sizes_and_offsets_out_of_range_are_refused(client: triton.InferenceServerClient) -> None:
    x = np.ones((1, 3), np.float32)
    with shared(client, "r", 16) as handle:
        shm.set_shared_memory_region(handle, [x])
        for offset, byte_size in ((8, 12), (0, 11), ((1 << 63) - 1, 12), (-1, 12), (0, (1 << 63) - 1)):
            with pytest.raises(InferenceServerException, match=r"input 'x'.*region 'r'") as error:
                client.infer("doubler", [in_memory("x", x, "r", byte_size, offset)])
            assert status_of(error) == "INVALID_ARGUMENT"
        with pytest.raises(InferenceServerException, match="'y' of model 'doubler' takes 12 bytes") as error:
            client.infer("doubler", [in_message("x", x)], outputs=[to_memory("y", "r", 11)])
        assert status_of(error) == "INVALID_ARGUMENT"
        key = client.get_system_shared_memory_status("r").regions["r"].key
        for offset in (1, (1 << 64) - 1, (1 << 64) - 16):
            with pytest.raises(InferenceServerException, match=r"region 'large': key .* has 16 bytes; 16 bytes from"):
                client.register_system_shared_memory("large", key, 16, offset)


def test_a_region_can_go_while_requests_use_it(client: triton.InferenceServerClient, server: Server) -> None:
    x = np.ones((4, 3), np.float32)

    def ask(_: int) -> str:
        try:
            client.infer("doubler", [in_memory("x", x, "r", 48)], outputs=[to_memory("y", "r", 48, 48)])
        except InferenceServerException as error:
            return str(error.message())
        return "answered"

    with shared(client, "r", 96) as handle, ThreadPoolExecutor(8) as pool:
        shm.set_shared_memory_region(handle, [x])
        key = client.get_system_shared_memory_status("r").regions["r"].key
        answers = pool.map(ask, range(300))
        for _ in range(50):
            client.unregister_system_shared_memory("r")
            client.register_system_shared_memory("r", key, 96)
        outcomes = set(answers)
        np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, [4, 3], offset=48), 2 * x)
    assert "answered" in outcomes
    assert all("not registered" in outcome for outcome in outcomes - {"answered"})


def test_it_is_advertised_only_where_it_is_on(repository: Path, client: triton.InferenceServerClient) -> None:
    assert "system_shared_memory" in client.get_server_metadata().extensions
    with running_server(repository) as off, triton.InferenceServerClient(str(off.grpc_address)) as asking:
        assert "system_shared_memory" not in asking.get_server_metadata().extensions
        asking.unregister_system_shared_memory()
        assert not asking.get_system_shared_memory_status().regions
        with pytest.raises(InferenceServerException, match="--system-shared-memory") as error:
            asking.register_system_shared_memory("r", "/r", 1)
        assert status_of(error) == "UNIMPLEMENTED"
        with pytest.raises(InferenceServerException, match="'r' is not registered and cannot be") as error:
            asking.infer("doubler", [in_memory("x", np.ones((1, 3), np.float32), "r", 12)])
        assert status_of(error) == "INVALID_ARGUMENT"


def test_there_is_no_cuda_shared_memory_and_cleaning_it_up_is_no_error(client: triton.InferenceServerClient) -> None:
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_cuda_shared_memory()
    with pytest.raises(InferenceServerException) as error:
        client.register_cuda_shared_memory("r", b"", 0, 1)
    assert status_of(error) == grpc.StatusCode.UNIMPLEMENTED.name


def test_log_settings_are_told_and_changed_only_where_that_is_allowed(
    repository: Path, client: triton.InferenceServerClient
) -> None:
    assert "logging" in client.get_server_metadata().extensions
    assert client.get_log_settings().settings["log_info"].bool_param
    with pytest.raises(InferenceServerException, match="remote_logging_control") as error:
        client.update_log_settings({"log_info": False})
    assert status_of(error) == "FAILED_PRECONDITION"
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with (
            running_server(repository, remote_logging_control=True) as allowed,
            triton.InferenceServerClient(str(allowed.grpc_address)) as asking,
        ):
            told = asking.update_log_settings({"log_verbose_level": 1, "log_format": "json"}).settings
            assert (told["log_verbose_level"].uint32_param, told["log_format"].string_param) == (1, "json")
            assert root.level == logging.DEBUG
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
