"""What keeps a network from learning its training images by heart: dropout and the L2 penalty."""

import numpy as np
from numpy.typing import ArrayLike

from inferry_trainer.blocks.checks import Float64Array


def dropout(
    activations: ArrayLike, rate: float, *, generator: np.random.Generator, training: bool = True
) -> Float64Array:
    """Inverted dropout: some activations become 0, the others grow so that the mean stays.

    A unit is kept with probability 1 - rate and then divided by it. Scaling while training, not
    afterwards, leaves nothing to do at inference.

    Args:
        activations: any shape.
        rate: the probability that a unit is dropped, in [0, 1).
        generator: draws who is dropped, each element on its own.
        training: where False, nothing is dropped.

    Returns:
        float64 of the same shape; a new array.

    Raises:
        ValueError: a rate outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate: expected a probability in [0, 1); came {rate:g}")
    a = np.array(activations, dtype=np.float64)
    if not training:
        return a
    kept = generator.random(a.shape) >= rate
    return np.asarray(a * kept / (1.0 - rate))


def l2_penalty(weights: ArrayLike, strength: float) -> float:
    """What a layer's weights add to the loss: strength times the sum of their squares.

    Args:
        weights: any shape; a layer's kernel, as a rule without its bias.
        strength: lambda, not negative.

    Raises:
        ValueError: a negative strength.
    """
    if not strength >= 0:
        raise ValueError(f"strength: expected a number not below 0; came {strength:g}")
    return float(strength * np.sum(np.square(np.asarray(weights, dtype=np.float64))))
