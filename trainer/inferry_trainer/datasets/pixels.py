"""From uint8 pixels to what the networks take: the one scale that training, evaluation and export share."""

import numpy as np

from inferry_trainer.arrays import Float32Array, UInt8Array

PIXEL_MAX = 255.0


def scale_pixels(images: UInt8Array) -> Float32Array:
    """Scale pixels to the range the models are trained on.

    Args:
        images: `(N, H, W, C)` uint8, 0-255.

    Returns:
        `(N, H, W, C)` float32 in [0, 1]; a new array.
    """
    return images.astype(np.float32) / np.float32(PIXEL_MAX)
