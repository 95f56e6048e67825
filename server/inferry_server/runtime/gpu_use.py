"""How much of each GPU is in use, as NVIDIA's management library (NVML) tells, where it is installed."""

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_LIBRARY = "libnvidia-ml.so.1"


@dataclass(frozen=True)
class GpuUse:
    """The use of one GPU of the machine, by all processes.

    Attributes:
        index: of the GPU, as the driver numbers them.
        busy: share of about the last second in which it computed; None where the driver does not tell.
    """

    index: int
    memory_used_bytes: int
    memory_total_bytes: int
    busy: float | None


class GpuMeter:
    """Reads the GPUs' use; the library is loaded at the first reading. Used by one thread at a time.

    Args:
        load: opens a shared library; raises OSError where there is none.
    """

    def __init__(self, load: Callable[[str], Any] = ctypes.CDLL) -> None:
        self._load = load
        self._library: Any = None
        self._is_missing = False

    def read(self) -> Iterator[GpuUse]:
        """The use of every GPU whose memory the driver tells; of none without a driver."""
        library = self._opened()
        count = ctypes.c_uint()
        if library is None or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return
        for index in range(count.value):
            device, memory, use = ctypes.c_void_p(), _Memory(), _Utilization()
            if library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)):
                continue
            if library.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)):
                continue
            is_silent = library.nvmlDeviceGetUtilizationRates(device, ctypes.byref(use))
            yield GpuUse(index, memory.used, memory.total, None if is_silent else use.gpu / 100)

    def _opened(self) -> Any:
        if self._library is None and not self._is_missing:
            try:
                library = self._load(_LIBRARY)
                self._is_missing = bool(library.nvmlInit_v2())
            except OSError:
                self._is_missing = True
            else:
                self._library = None if self._is_missing else library
        return self._library


class _Memory(ctypes.Structure):
    """`nvmlMemory_t`."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))
    total: int
    used: int


class _Utilization(ctypes.Structure):
    """`nvmlUtilization_t`, in percent."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))
    gpu: int
