"""Pictures that are made where a test needs them."""

import io

import numpy as np
from PIL import Image

from inferry_proto.preprocessing import UInt8Array


def encode_picture(pixels: UInt8Array, format_: str = "PNG", **options: object) -> bytes:
    """A picture's file, of `(H, W)` or `(H, W, C)` uint8."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format_, **options)
    return file.getvalue()


def grey(level: int, side: int = 4) -> UInt8Array:
    """`(side, side)` pixels of one level."""
    return np.full((side, side), level, np.uint8)
