"""Which execution providers ONNX Runtime gets, and why it did not get one."""

import ctypes
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime

from inferry_proto.extras import how_to_install
from inferry_server.errors import StartError
from inferry_server.runtime.driver import Driver, read_driver

logger = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

_LOG_FATAL_ONLY = 4

CHOICES = ("auto", "cpu", "cuda", "tensorrt")
_DEMANDED = {"cuda": (CUDA, CPU), "tensorrt": (TENSORRT, CUDA, CPU)}
_LIBRARIES = {CUDA: "libonnxruntime_providers_cuda.so", TENSORRT: "libonnxruntime_providers_tensorrt.so"}
_PACKAGES = {
    "libcublas": "nvidia-cublas",
    "libcublasLt": "nvidia-cublas",
    "libcudart": "nvidia-cuda-runtime",
    "libcudnn": "nvidia-cudnn-cu13",
    "libcufft": "nvidia-cufft",
    "libcurand": "nvidia-curand",
    "libnvrtc": "nvidia-cuda-nvrtc",
    "libnvinfer": "tensorrt-cu13-libs",
    "libnvonnxparser": "tensorrt-cu13-libs",
    "libcuda": "",  # the driver's own: no package brings it
}


def runtime_cuda_version() -> tuple[int, int] | None:
    """The CUDA that ONNX Runtime was built for, as (major, minor); None where it was built without."""
    text = str(getattr(onnxruntime, "cuda_version", "") or "")
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def choose_providers(
    choice: str,
    *,
    built_in: Callable[[], Sequence[str]] = onnxruntime.get_available_providers,
    driver: Callable[[], Driver | None] = read_driver,
    cuda_version: Callable[[], tuple[int, int] | None] = runtime_cuda_version,
) -> tuple[str, ...]:
    """Execution providers in order of preference, the CPU always last.

    Args:
        choice: `cpu`, `cuda`, `tensorrt`, or `auto`, which takes CUDA where this ONNX Runtime has it
            and the driver can run it. TensorRT is taken only if it is asked for: it builds engines
            for minutes.
        built_in: the providers that this ONNX Runtime has.
        driver: NVIDIA's driver; not asked where it cannot matter.
        cuda_version: the one that ONNX Runtime was built for.

    Raises:
        StartError: CUDA or TensorRT was demanded and cannot be had; says what is missing.
    """
    if choice == "cpu":
        return (CPU,)
    wanted = _DEMANDED.get(choice, (CUDA, CPU))
    missing = _missing(wanted, built_in(), driver, cuda_version())
    if missing is None:
        return wanted
    if choice != "auto":
        raise StartError(f"provider: {choice} was asked for, but {missing}; or choose auto or cpu")
    if "too old" in missing:  # there is a GPU, and it would stay idle unnoticed
        logger.warning("computing on the CPU: %s", missing)
    return (CPU,)


def _missing(
    wanted: Sequence[str],
    built: Sequence[str],
    driver: Callable[[], Driver | None],
    cuda_version: tuple[int, int] | None,
) -> str | None:
    """What is missing for the use of a provider, and how to get it; None if nothing is."""
    for provider in wanted:
        if provider not in built:
            return (
                f"this ONNX Runtime ({onnxruntime.__version__}) was built without {provider}: "
                "install onnxruntime-gpu instead of onnxruntime"
            )
    found = driver()
    if found is None:
        return "no NVIDIA driver (libcuda.so.1) was found: install it"
    if found.device_count == 0:
        return "the NVIDIA driver shows no GPU: hand one to the container, and look at CUDA_VISIBLE_DEVICES"
    # Within a major version, newer CUDA runs on older drivers; across, it does not.
    if cuda_version is not None and found.cuda_version[0] < cuda_version[0]:
        return (
            f"the NVIDIA driver is too old: it runs CUDA up to {_dotted(found.cuda_version)}, and this ONNX Runtime "
            f"({onnxruntime.__version__}) needs {_dotted(cuda_version)}: install a newer driver"
        )
    return None


def preload_libraries(providers: Sequence[str], *, tf32: bool) -> None:
    """Load CUDA's libraries from Python packages, where they came that way.

    From here on ONNX Runtime logs nothing of its own: its errors are raised as well, and cuDNN's search for a kernel
    logs one for every candidate that does not fit.
    """
    if TENSORRT in providers and not tf32:  # it has no option for that; NVIDIA's libraries read this variable
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    if CUDA in providers:
        onnxruntime.set_default_logger_severity(_LOG_FATAL_ONLY)
        onnxruntime.preload_dlls()


def dropped_reason(provider: str, *, folder: Path | None = None, load: Callable[[str], object] = ctypes.CDLL) -> str:
    """Why ONNX Runtime does not use a provider: it only logs the reason, and computes on the CPU.

    Args:
        provider: the one that was asked for and is not there.
        folder: of ONNX Runtime's libraries; None for the installed one's.
        load: loads a library.

    Returns:
        A sentence that names the library that is missing, and the package that brings it.
    """
    library = _LIBRARIES.get(provider)
    if library is None:
        return f"ONNX Runtime {onnxruntime.__version__} has no library for {provider}"
    folder = folder or Path(onnxruntime.__file__).parent / "capi"
    try:
        load(str(folder / "libonnxruntime_providers_shared.so"))
        load(str(folder / library))
    except OSError as error:
        missing = str(error).partition(":")[0]
        package = _PACKAGES.get(Path(missing).name.partition(".so")[0])
        if package is None:
            return f"{library} of ONNX Runtime {onnxruntime.__version__} does not load: {error}"
        advice = f"install {package} ({how_to_install('cuda')} brings CUDA's and cuDNN's)" if package else (
            "install the NVIDIA driver"
        )  # fmt: skip
        return f"{missing}, which ONNX Runtime {onnxruntime.__version__} needs for {provider}, was not found: {advice}"
    return (
        f"{library} loads, and ONNX Runtime {onnxruntime.__version__} refused it all the same: look whether nvidia-smi "
        "shows the GPU, and whether other versions of CUDA's libraries stand in LD_LIBRARY_PATH"
    )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
