"""Does an image get the same answer alone and in company?"""

from collections.abc import Callable

import numpy as np

from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.errors import GateError
from inferry_trainer.gates.result import GateResult

LADDER = (1, 2, 4, 8, 16, 32)
# float32 and float16 sum in another order in other batches; an integer step of int8 may then fall the other way.
LIMITS = {"float32": 1e-5, "float16": 5e-3, "int8": 2e-2}


def check_batches(
    run: Callable[[UInt8Array], Float32Array],
    images: UInt8Array,
    *,
    precision: str = "float32",
    rounding: float = 0.0,
) -> GateResult:
    """Ask for the same images alone and in batches of every size of the ladder, each in several places.

    Args:
        run: computes one batch.
        images: `(N, H, W, C)` uint8; repeated up to 32 where there are fewer.
        precision: of the weights: what difference is accepted in any case.
        rounding: accepted as well: what float32 may make of this model's probabilities.

    Raises:
        GateError: `batch-consistency`: names the size.
    """
    images = np.resize(images, (LADDER[-1], *images.shape[1:])) if len(images) < LADDER[-1] else images[: LADDER[-1]]
    alone: Float32Array | None = None
    largest, limit = 0.0, max(LIMITS[precision], rounding)
    for size in LADDER:
        try:
            parts = [run(images[start : start + size]) for start in range(0, len(images), size)]
        except Exception as error:  # ONNX Runtime raises its own kinds, by no common name
            raise GateError("batch-consistency", f"the model fails in batches of {size}: {error}") from error
        answers = np.concatenate(parts)
        if len(answers) != len(images):
            raise GateError("batch-consistency", f"{len(answers)} answers to {len(images)} images in batches of {size}")
        alone = answers if alone is None else alone
        difference = float(np.abs(answers.astype(np.float64) - alone).max())
        if not difference <= limit:
            raise GateError(
                "batch-consistency",
                f"in batches of {size} an image's probabilities differ by {difference:.3g} from those it gets alone; "
                f"at most {limit:.3g} is accepted (--max-difference sets the least limit)",
            )
        largest = max(largest, difference)
    return GateResult(
        "batch-consistency",
        {"max_abs_difference": largest, "max_abs_difference_limit": limit, "largest_batch": LADDER[-1]},
    )
