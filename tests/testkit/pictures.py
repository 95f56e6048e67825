"""Pictures that are made where a test needs them."""

import io

import numpy as np
from PIL import Image

from inferry_proto.preprocessing import UInt8Array, count_scans


def encode_picture(pixels: UInt8Array, format_: str = "PNG", **options: object) -> bytes:
    """A picture's file, of `(H, W)` or `(H, W, C)` uint8."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format_, **options)
    return file.getvalue()


def grey(level: int, side: int = 4) -> UInt8Array:
    """`(side, side)` pixels of one level."""
    return np.full((side, side), level, np.uint8)


def a_jpeg(scans: int, *, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encode_picture(np.random.default_rng(0).integers(0, 256, (side, side), np.uint8), "JPEG", progressive=True)
    own = count_scans(data, most=100)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[last:end] * (scans - own) + data[end:]
