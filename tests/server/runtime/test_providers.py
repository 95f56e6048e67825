"""Which execution providers are taken, and what is said of those that are missing."""

import re
from collections.abc import Sequence
from typing import Any

import onnxruntime
import pytest

from inferry_server.errors import StartError
from inferry_server.runtime.driver import Driver, read_driver
from inferry_server.runtime.providers import CPU, CUDA, TENSORRT, choose_providers, dropped_reason

ALL = (TENSORRT, CUDA, CPU)
NEW, OLD, HIDDEN = Driver((13, 0), 1), Driver((12, 8), 1), Driver((13, 1), 0)


def choose(choice: str, built: Sequence[str], driver: Driver | None) -> tuple[str, ...]:
    return choose_providers(choice, built_in=lambda: built, driver=lambda: driver, cuda_version=lambda: (13, 0))


@pytest.mark.parametrize(
    ("choice", "built", "driver", "chosen"),
    [
        ("auto", ALL, NEW, (CUDA, CPU)),
        ("auto", ALL, None, (CPU,)),
        ("auto", ALL, HIDDEN, (CPU,)),
        ("auto", ALL, OLD, (CPU,)),
        ("auto", (CPU,), NEW, (CPU,)),
        ("cpu", ALL, NEW, (CPU,)),
        ("cuda", ALL, NEW, (CUDA, CPU)),
        ("tensorrt", ALL, NEW, (TENSORRT, CUDA, CPU)),
    ],
)
def test_a_gpu_is_taken_where_it_can_run_and_tensorrt_only_if_asked_for(
    choice: str, built: tuple[str, ...], driver: Driver | None, chosen: tuple[str, ...]
) -> None:
    assert choose(choice, built, driver) == chosen


@pytest.mark.parametrize(
    ("choice", "built", "driver", "missing"),
    [
        ("cuda", ALL, None, "no NVIDIA driver .libcuda.so.1. was found: install it"),
        ("cuda", (CPU,), NEW, "without CUDAExecutionProvider: install onnxruntime-gpu"),
        ("cuda", ALL, OLD, r"too old: it runs CUDA up to 12\.8, .* needs 13\.0: install a newer driver"),
        ("cuda", ALL, HIDDEN, "shows no GPU: hand one to the container"),
        ("tensorrt", (CUDA, CPU), NEW, "without TensorrtExecutionProvider"),
    ],
)
def test_demanding_a_provider_in_vain_names_what_is_missing(
    choice: str, built: tuple[str, ...], driver: Driver | None, missing: str
) -> None:
    with pytest.raises(StartError, match=missing):
        choose(choice, built, driver)


def test_a_gpu_that_stays_idle_is_mentioned_and_a_missing_one_is_not(caplog: pytest.LogCaptureFixture) -> None:
    choose("auto", ALL, None)
    choose("auto", ALL, HIDDEN)
    assert not caplog.records
    choose("auto", ALL, OLD)
    assert "too old" in caplog.text


class FakeDriver:
    """libcuda, of a version, with some devices."""

    def __init__(self, version: int, devices: int, init: int = 0) -> None:
        self.version, self.devices, self.init = version, devices, init

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = self.version
        return 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.init

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.devices
        return 0


def test_the_driver_tells_its_version_and_its_devices() -> None:
    assert read_driver(lambda _: FakeDriver(13010, 2)) == Driver((13, 1), 2)
    assert read_driver(lambda _: FakeDriver(12080, 2, init=100)) == Driver((12, 8), 0)


def test_no_library_is_no_driver() -> None:
    def load(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    assert read_driver(load) is None


@pytest.mark.parametrize(
    ("missing", "advice"),
    [
        ("libcublasLt.so.13", r"libcublasLt\.so\.13, which ONNX Runtime .* needs .*: install nvidia-cublas"),
        ("libcudnn.so.9", "install nvidia-cudnn-cu13"),
        ("libnvinfer.so.10", "install tensorrt-cu13"),
        ("libcuda.so.1", "install the NVIDIA driver"),
        ("libother.so", r"does not load: libother\.so"),
    ],
)
def test_a_provider_that_was_dropped_is_explained_by_the_library_that_is_missing(missing: str, advice: str) -> None:
    def load(path: str) -> None:
        if "shared" not in path:
            raise OSError(f"{missing}: cannot open shared object file: No such file or directory")

    assert re.search(advice, dropped_reason(CUDA, load=load))


@pytest.mark.skipif(CUDA not in onnxruntime.get_available_providers(), reason="this ONNX Runtime has no CUDA provider")
@pytest.mark.skipif(read_driver() is not None, reason="this machine has a GPU")
def test_the_installed_library_names_what_this_machine_lacks() -> None:
    assert "was not found: install" in dropped_reason(CUDA)
