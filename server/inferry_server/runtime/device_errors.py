"""What an error of the device means: is memory short, is the device lost, or is it the request's fault?

ONNX Runtime raises one kind of exception for everything; only codes and words in its message tell what happened.
Codes are those of cudaError_t.
"""

import enum
import re

from inferry_server.errors import InferenceError

SUCCESS = 0
OUT_OF_MEMORY = 2

STICKY = {
    214: "uncorrectable ECC error",
    220: "uncorrectable NVLink error",
    226: "uncorrectable error, contained",
    700: "illegal memory access",
    702: "a kernel ran into the watchdog",
    709: "the context was destroyed",
    710: "device-side assert",
    714: "hardware stack error",
    715: "illegal instruction",
    716: "misaligned address",
    717: "invalid address space",
    718: "invalid program counter",
    719: "a kernel failed to run",
    721: "a kernel failed to run, contained",
    999: "unknown error",
}
"""Errors after which every call on the device fails, until the process ends."""

_CODE = re.compile(r"\b(?:CUDA|cuda)\s+(?:failure|error)[:\s]+(\d+)|\bcudaError\w*\s*\(?(\d+)\)?")
_STICKY_WORDS = (
    "illegal memory access", "device-side assert", "uncorrectable ECC", "misaligned address", "illegal instruction",
    "unspecified launch failure", "cudaErrorIllegalAddress", "cudaErrorAssert", "CUDNN_STATUS_EXECUTION_FAILED_CUDART",
)  # fmt: skip
_MEMORY_WORDS = (
    "out of memory", "Failed to allocate memory", "Available memory of", "cudaErrorMemoryAllocation",
    "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
)  # fmt: skip


class Fault(enum.Enum):
    """What follows from an error."""

    MODEL = "model"
    """The batch failed, and the next one may not."""
    OUT_OF_MEMORY = "out_of_memory"
    """Smaller batches may fit."""
    LOST = "lost"
    """Nothing will be computed on this device any more."""


class CudaCallError(Exception):
    """A call of CUDA's runtime failed.

    Attributes:
        code: of cudaError_t.
    """

    def __init__(self, call: str, code: int, text: str) -> None:
        self.call, self.code = call, code
        super().__init__(f"{call}: CUDA error {code}: {text}")


def classify(error: BaseException) -> Fault:
    """What an error, of CUDA's runtime or of ONNX Runtime, means for the device."""
    if isinstance(error, CudaCallError):
        return _by_code(error.code)
    if isinstance(error, InferenceError) and error.__cause__ is not None:
        return classify(error.__cause__)
    text = str(error)
    if any(words in text for words in _STICKY_WORDS):
        return Fault.LOST
    if any(words in text for words in _MEMORY_WORDS):
        return Fault.OUT_OF_MEMORY
    found = _CODE.search(text)
    return _by_code(int(found[1] or found[2])) if found else Fault.MODEL


def _by_code(code: int) -> Fault:
    if code == OUT_OF_MEMORY:
        return Fault.OUT_OF_MEMORY
    return Fault.LOST if code in STICKY else Fault.MODEL
