"""The use of GPUs, as a library says that is not there or is played."""

import ctypes
from typing import Any

from inferry_server.runtime.gpu_use import GpuMeter, GpuUse


class PlayedLibrary:
    """NVIDIA's management library with two GPUs; the second does not tell how busy it is."""

    def __init__(self, *, works: bool = True) -> None:
        self._works = works
        self.opened = 0

    def nvmlInit_v2(self) -> int:  # noqa: N802 - its name
        self.opened += 1
        return 0 if self._works else 9

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, device: Any) -> int:  # noqa: N802
        device._obj.value = 100 + index.value
        return 0

    def nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> int:  # noqa: N802
        memory._obj.used, memory._obj.total = device.value, 1000
        return 0

    def nvmlDeviceGetUtilizationRates(self, device: Any, use: Any) -> int:  # noqa: N802
        use._obj.gpu = 25
        return 0 if device.value == 100 else 3


def test_every_gpu_tells_its_memory_and_how_busy_it_is() -> None:
    library = PlayedLibrary()
    meter = GpuMeter(lambda _: library)
    expected = [GpuUse(0, 100, 1000, 0.25), GpuUse(1, 101, 1000, None)]
    assert list(meter.read()) == list(meter.read()) == expected
    assert library.opened == 1


def test_where_there_is_no_driver_nothing_is_told_and_it_is_looked_for_once() -> None:
    looked: list[str] = []

    def missing(name: str) -> Any:
        looked.append(name)
        raise OSError(name)

    meter = GpuMeter(missing)
    assert list(meter.read()) == list(meter.read()) == []
    assert len(looked) == 1
    broken = GpuMeter(lambda _: PlayedLibrary(works=False))
    assert list(broken.read()) == []


def test_the_structures_are_those_of_the_library() -> None:
    from inferry_server.runtime import gpu_use

    assert ctypes.sizeof(gpu_use._Memory) == 24
    assert ctypes.sizeof(gpu_use._Utilization) == 8
