"""Does an image get the same answer alone and in company?"""

from collections.abc import Callable

import numpy as np

from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.errors import GateError
from inferry_trainer.gates.result import GateResult

LADDER = (1, 2, 4, 8, 16, 32)
# float32 and float16 sum in another order in other batches; an integer step of int8 may then fall the other way.
LIMITS = {"float32": 1e-5, "float16": 5e-3, "int8": 2e-2}
_SAME = 16 * 2.0**-23  # of probabilities that the same arithmetic gives for the same image


def check_batches(
    run: Callable[[UInt8Array], Float32Array],
    images: UInt8Array,
    *,
    precision: str = "float32",
    rounding: float = 0.0,
) -> GateResult:
    """Ask for the same images alone, in batches of every size of the ladder, and beside other images.

    Args:
        run: computes one batch.
        images: `(N, H, W, C)` uint8; 32 of them are taken, from everywhere and so of all classes, and repeated where
            there are fewer.
        precision: of the weights: what difference is accepted in any case.
        rounding: accepted as well: what float32 may make of this model's probabilities.

    Raises:
        GateError: `batch-consistency`: names the size.
    """
    images = _spread(images)
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
    moved = _moved_by_others(run, images)
    if not moved <= _SAME:  # guard: gates-other-images
        raise GateError(
            "batch-consistency",
            f"an image's probabilities change by {moved:.3g} with the images beside it in a batch of {len(images)}; "
            f"at most {_SAME:.3g} is accepted: a layer computes along the batch axis, and callers would get answers "
            "from each other's images",
        )
    return GateResult(
        "batch-consistency",
        {
            "max_abs_difference": largest,
            "max_abs_difference_limit": limit,
            "largest_batch": LADDER[-1],
            "moved_by_other_images": moved,
        },
    )


def _spread(images: UInt8Array) -> UInt8Array:
    """As many images as the largest batch has, from everywhere, in no order: those of one class may lie together."""
    places = np.linspace(0, len(images) - 1, LADDER[-1]).round().astype(int)
    spread: UInt8Array = images[np.random.default_rng(0).permutation(places)]
    return spread


def _moved_by_others(run: Callable[[UInt8Array], Float32Array], images: UInt8Array) -> float:
    """How much the answers to every other image change while those between them are exchanged."""
    before, moved = run(images)[::2].astype(np.float64), []
    for others in (np.zeros_like(images), 255 - images, np.roll(images, 2, axis=0)):
        exchanged = images.copy()
        exchanged[1::2] = others[1::2]
        moved.append(np.abs(run(exchanged)[::2] - before).max())
    return float(np.max(moved))  # not Python's max, which passes over NaN
