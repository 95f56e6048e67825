import pytest

from inferry_server.errors import InferenceError
from inferry_server.runtime.device_errors import STICKY, CudaCallError, Fault, classify


@pytest.mark.parametrize("code", STICKY)
def test_sticky_codes_lose_the_device_wherever_they_are_met(code: int) -> None:
    assert classify(CudaCallError("cudaMemcpyAsync", code, "some text")) is Fault.LOST
    assert classify(RuntimeError(f"Status Message: CUDA failure {code}: some text ; GPU=0 ; expr=f()")) is Fault.LOST


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("CUDA failure 2: out of memory ; GPU=0", Fault.OUT_OF_MEMORY),
        ("bfc_arena.cc:358 Failed to allocate memory for requested buffer of size 1073741824", Fault.OUT_OF_MEMORY),
        ("Available memory of 0 is smaller than requested bytes of 256", Fault.OUT_OF_MEMORY),
        ("CUDNN failure 5000: CUDNN_STATUS_ALLOC_FAILED", Fault.OUT_OF_MEMORY),
        ("an illegal memory access was encountered", Fault.LOST),
        ("uncorrectable ECC error encountered", Fault.LOST),
        ("CUDA failure 1: invalid argument ; GPU=0", Fault.MODEL),
        ("INVALID_ARGUMENT : indices element out of data bounds, idx=700 must be within [-4,3]", Fault.MODEL),
        ("", Fault.MODEL),
    ],
)
def test_what_onnx_runtime_says_tells_them_apart(message: str, fault: Fault) -> None:
    assert classify(RuntimeError(message)) is fault


def test_an_error_that_was_shortened_is_judged_by_the_whole_of_it() -> None:
    error = InferenceError("the model failed: Non-zero status code returned while running Conv node.")
    error.__cause__ = RuntimeError("Non-zero status code returned while running Conv node.\nCUDA failure 719: failed")
    assert classify(error) is Fault.LOST
