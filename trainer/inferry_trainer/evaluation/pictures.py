"""Pictures inside a page: PNG as data addresses."""

import base64
import io

from PIL import Image

from inferry_trainer.arrays import UInt8Array


def encode_png(image: UInt8Array) -> bytes:
    """`(H, W, 1 or 3)` uint8 as a PNG file's bytes."""
    pixels = image[:, :, 0] if image.shape[2] == 1 else image
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_address(image: UInt8Array) -> str:
    """An address that holds the whole picture."""
    return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode("ascii")
