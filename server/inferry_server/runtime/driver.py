"""What NVIDIA's driver can do, asked before ONNX Runtime is used, which logs errors where there is no driver."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_LIBRARY = "libcuda.so.1"


@dataclass(frozen=True)
class Driver:
    """What the driver can do.

    Attributes:
        cuda_version: the newest CUDA it runs, as (major, minor).
        device_count: GPUs this process may see; 0 where CUDA_VISIBLE_DEVICES or the container hides them.
    """

    cuda_version: tuple[int, int]
    device_count: int


def read_driver(load: Callable[[str], Any] = ctypes.CDLL) -> Driver | None:
    """The driver of this machine, or None where there is none."""
    try:
        library = load(_LIBRARY)
    except OSError:
        return None
    version, count = ctypes.c_int(), ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)):
        return None
    # cuInit fails where the library is installed and no device is handed to the container.
    if library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        count.value = 0
    major, rest = divmod(version.value, 1000)
    return Driver((major, rest // 10), count.value)
