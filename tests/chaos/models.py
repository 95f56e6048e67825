"""What the servers serve: pictures to their brightness, and what the right answer is."""

import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inferry_proto import signing
from testkit import onnx_models
from testkit.signing_keys import KeyPair

MODEL = "brightness"
SIDE = 4
_CLOSE_ENOUGH = 1e-5  # the smallest step between two answers is 2.4e-4


def save_version(repository: Path, version: int, keys: KeyPair | None = None) -> Path:
    """A version with manifest and golden samples, signed where there are keys; returns its folder."""
    folder = onnx_models.save_brightness(repository, name=MODEL, version=version, side=SIDE)
    if keys is not None:
        signing.sign_version(folder, keys.private)
        signing.sign_settings(folder.parent, keys.private)
    return folder


def draw_picture(rng: random.Random) -> NDArray[np.uint8]:
    """`(1, SIDE, SIDE, 1)` uint8: pictures of callers differ, so that an answer of somebody else's is wrong."""
    return np.frombuffer(rng.randbytes(SIDE * SIDE), np.uint8).reshape(1, SIDE, SIDE, 1)


def is_right(picture: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> bool:
    """Whether these are the picture's: `[1 - b, b]` for its mean brightness b."""
    bright = picture.mean() / 255
    return probabilities.shape == (2,) and bool(np.allclose(probabilities, [1 - bright, bright], atol=_CLOSE_ENOUGH))
