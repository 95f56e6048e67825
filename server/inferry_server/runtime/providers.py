"""Which execution providers ONNX Runtime gets, decided once at start."""

import ctypes
from collections.abc import Callable, Sequence

import onnxruntime

from inferry_server.errors import StartError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


def has_nvidia_driver() -> bool:
    """Whether NVIDIA's driver library loads: asked first, since ONNX Runtime is noisy without it."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def choose_providers(
    choice: str,
    *,
    built_in: Callable[[], Sequence[str]] = onnxruntime.get_available_providers,
    driver_present: Callable[[], bool] = has_nvidia_driver,
) -> tuple[str, ...]:
    """Execution providers in order of preference, the CPU always last.

    Args:
        choice: `cpu`, `cuda`, or `auto`, which takes CUDA where this ONNX Runtime has it and a
            driver is present.

    Raises:
        StartError: CUDA was demanded and cannot be had.
    """
    if choice == "cpu":
        return (CPU,)
    built, driver = CUDA in built_in(), driver_present()
    if built and driver:
        return (CUDA, CPU)
    if choice == "cuda":
        missing = "an NVIDIA driver (libcuda.so.1)" if built else "an ONNX Runtime with CUDA (onnxruntime-gpu)"
        raise StartError(f"provider: cuda was asked for, but {missing} was not found; install it or choose auto or cpu")
    return (CPU,)


def preload_libraries(providers: Sequence[str]) -> None:
    """Load CUDA's libraries from Python packages, where they came that way."""
    if CUDA in providers:
        onnxruntime.preload_dlls()
