"""What a picture becomes before a model sees it: decode, crop, resize, uint8.

The one definition: evaluation, golden samples, server, clients and batch jobs all call it, so a
picture is treated in production exactly as when the accuracy was measured. Two decoders or two
bilinear resizes differ by enough levels to change answers.
"""

import io
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from inferry_proto.manifest_pb2 import Preprocessing

UInt8Array: TypeAlias = NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 64 * 1024 * 1024  # above any camera's picture, below what would exhaust a server

_MODES = {Preprocessing.GRAYSCALE: "L", Preprocessing.RGB: "RGB"}
_CHANNELS = {Preprocessing.GRAYSCALE: 1, Preprocessing.RGB: 3}
_FILTERS = {
    Preprocessing.BILINEAR: Image.Resampling.BILINEAR,
    Preprocessing.NEAREST: Image.Resampling.NEAREST,
}


class PictureError(ValueError):
    """A picture that cannot be read or does not fit the preprocessing; says what was expected."""


def channel_count(spec: Preprocessing) -> int:
    """How many channels the prepared pixels have: 1 or 3.

    Raises:
        ValueError: the specification names no colour mode.
    """
    return _CHANNELS[_color_mode(spec)]


def prepare_image(data: bytes, spec: Preprocessing, *, max_pixels: int = MAX_PIXELS) -> UInt8Array:
    """The pixels a model takes, from an encoded picture.

    Args:
        data: a JPEG, PNG, WebP or BMP file.
        spec: from the model's manifest.
        max_pixels: a picture with more is refused before it is decoded.

    Returns:
        `(height, width, C)` uint8, 0-255; C is 1 (grey) or 3 (RGB).

    Raises:
        PictureError: not a picture, damaged, too large, or smaller than the crop box.
    """
    return _finish(_decode(data, max_pixels), spec)


def prepare_pixels(pixels: UInt8Array, spec: Preprocessing) -> UInt8Array:
    """The pixels a model takes, from a picture that is already decoded.

    Args:
        pixels: `(H, W, C)` or `(H, W)` uint8, 0-255; C is 1 (grey) or 3 (RGB).
        spec: from the model's manifest.

    Returns:
        `(height, width, C)` uint8, 0-255; C is 1 (grey) or 3 (RGB).

    Raises:
        PictureError: another dtype or shape, or smaller than the crop box.
    """
    return _finish(_from_pixels(pixels), spec)


def _decode(data: bytes, max_pixels: int) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:  # guard: pictures-pixels-bounded
                raise PictureError(f"a picture of {width}x{height} pixels; at most {max_pixels} are accepted")
            picture.load()
            return _flatten(ImageOps.exif_transpose(picture))
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(f"not a picture: expected {', '.join(FORMATS)}, {_came(data)}") from None
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        raise PictureError(f"a damaged picture: {error}; {_came(data)}") from error


def _came(data: bytes) -> str:
    return f"{len(data)} bytes came, beginning with {data[:8]!r}" if data else "0 bytes came"


def _flatten(picture: Image.Image) -> Image.Image:
    """Grey or RGB of 8 bits: transparency over white, as viewers show it; 16 bits scaled to 8."""
    if picture.mode.startswith("I"):
        levels = np.asarray(picture).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("L" if picture.mode in ("L", "1") else "RGB")


def _from_pixels(pixels: UInt8Array) -> Image.Image:
    shape = pixels.shape
    grey = pixels.ndim == 2 or (pixels.ndim == 3 and shape[2] == 1)
    if pixels.dtype != np.uint8 or not (grey or (pixels.ndim == 3 and shape[2] == 3)) or 0 in shape:
        raise PictureError(
            "pixels must be uint8 of shape (height, width, 1 or 3), none of them 0; "
            f"{pixels.dtype} of shape {shape} came"
        )
    return Image.fromarray(pixels.reshape(shape[:2]) if grey else pixels)


def _finish(picture: Image.Image, spec: Preprocessing) -> UInt8Array:
    mode = _MODES[_color_mode(spec)]
    if picture.mode != mode:
        picture = picture.convert(mode)
    if spec.HasField("crop"):
        picture = _crop(picture, spec.crop)
    if picture.size != (spec.width, spec.height):
        picture = picture.resize((spec.width, spec.height), _filter(spec))
    return np.array(picture).reshape(spec.height, spec.width, channel_count(spec))


def _crop(picture: Image.Image, crop: Preprocessing.CropBox) -> Image.Image:
    right, bottom = crop.left + crop.width, crop.top + crop.height
    if right > picture.width or bottom > picture.height:
        raise PictureError(
            f"the crop box (left {crop.left}, top {crop.top}, {crop.width}x{crop.height}) "
            f"reaches beyond a picture of {picture.width}x{picture.height} pixels"
        )
    return picture.crop((crop.left, crop.top, right, bottom))


def _color_mode(spec: Preprocessing) -> Preprocessing.ColorMode:
    if spec.color_mode not in _MODES:
        raise ValueError("the preprocessing names no colour mode; expected GRAYSCALE or RGB")
    return spec.color_mode


def _filter(spec: Preprocessing) -> Image.Resampling:
    if spec.filter not in _FILTERS:
        raise ValueError("the preprocessing names no resize filter; expected BILINEAR or NEAREST")
    return _FILTERS[spec.filter]
