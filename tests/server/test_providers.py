import pytest

from inferry_server.errors import StartError
from inferry_server.runtime.providers import CPU, CUDA, choose_providers


@pytest.mark.parametrize(
    ("choice", "built", "driver", "chosen"),
    [
        ("auto", (CUDA, CPU), True, (CUDA, CPU)),
        ("auto", (CUDA, CPU), False, (CPU,)),
        ("auto", (CPU,), True, (CPU,)),
        ("cpu", (CUDA, CPU), True, (CPU,)),
        ("cuda", (CUDA, CPU), True, (CUDA, CPU)),
    ],
)
def test_cuda_is_taken_where_it_can_run(
    choice: str, built: tuple[str, ...], driver: bool, chosen: tuple[str, ...]
) -> None:
    assert choose_providers(choice, built_in=lambda: built, driver_present=lambda: driver) == chosen


@pytest.mark.parametrize(
    ("built", "driver", "missing"), [((CUDA, CPU), False, "NVIDIA driver"), ((CPU,), True, "onnxruntime-gpu")]
)
def test_demanding_cuda_in_vain_names_what_is_missing(built: tuple[str, ...], driver: bool, missing: str) -> None:
    with pytest.raises(StartError, match=missing):
        choose_providers("cuda", built_in=lambda: built, driver_present=lambda: driver)
