"""What a picture becomes before a model sees it: decode, scale to what the crop box refers to, crop, resize, uint8.

The one definition: evaluation, golden samples, server, clients and batch jobs all call it, so a
picture is treated in production exactly as when the accuracy was measured. Two decoders or two
bilinear resizes differ by enough levels to change answers.
"""

import io
import re
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from inferry_proto.manifest_pb2 import Preprocessing

UInt8Array: TypeAlias = NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_OTHER_FORMATS = {
    b"GIF8": "a GIF, which is not read",
    b"II*\0": "a TIFF, which is not read",
    b"MM\0*": "a TIFF, which is not read",
}
MAX_PIXELS = 64 * 1024 * 1024  # above any camera's picture, below what would exhaust a server
MAX_SCANS = 100  # of a JPEG; encoders write 10, and each costs as much as a whole picture

_MAX_RUN_PIXELS = 1 << 20  # of a BMP of run lengths, which is decoded in Python, and looks at nothing meanwhile
_RUN_LENGTHS = (1, 2)  # among the compressions of a BMP

_READ_BYTES = 16 * 1024  # at a time, between two looks at whether somebody still waits

_MODES = {Preprocessing.GRAYSCALE: "L", Preprocessing.RGB: "RGB"}
_CHANNELS = {Preprocessing.GRAYSCALE: 1, Preprocessing.RGB: 3}
_FILTERS = {
    Preprocessing.BILINEAR: Image.Resampling.BILINEAR,
    Preprocessing.NEAREST: Image.Resampling.NEAREST,
}


class PictureError(ValueError):
    """A picture that cannot be read or does not fit the preprocessing; says what was expected."""


class CostlyPictureError(PictureError):
    """A picture that would cost far more to decode than its size says; it was not decoded."""


def channel_count(spec: Preprocessing) -> int:
    """How many channels the prepared pixels have: 1 or 3.

    Raises:
        ValueError: the specification names no colour mode.
    """
    return _CHANNELS[_color_mode(spec)]


def check_preprocessing(spec: Preprocessing) -> None:
    """Check that pictures can be prepared as specified, whatever their size.

    Raises:
        ValueError: no colour mode, no resize filter, or a crop box that `check_crop` refuses.
    """
    _color_mode(spec)
    _filter(spec)  # guard: pictures-filter
    check_crop(spec)


def check_crop(spec: Preprocessing) -> None:
    """Check that a crop box has an area within the pictures that it refers to, and these a size to be decoded.

    Raises:
        ValueError: it does not; says what was expected. Where no size is recorded, only the area is checked.
    """
    crop = spec.crop
    size = (crop.picture_width, crop.picture_height)
    described = f"the crop box (left {crop.left}, top {crop.top}, {crop.width}x{crop.height})"
    if spec.HasField("crop") and 0 in (crop.width, crop.height):  # guard: pictures-crop-area
        raise ValueError(f"{described} holds no pixel; expected a width and a height above 0")
    if size == (0, 0):
        return
    if 0 in size or size[0] * size[1] > MAX_PIXELS:  # guard: pictures-crop-size
        raise ValueError(
            f"{described} refers to pictures of {size[0]}x{size[1]} pixels; expected two sides, at most {MAX_PIXELS} "
            "pixels"
        )
    if crop.left + crop.width > size[0] or crop.top + crop.height > size[1]:
        raise ValueError(f"{described} reaches beyond the pictures of {size[0]}x{size[1]} pixels that it refers to")


def prepare_image(
    data: bytes,
    spec: Preprocessing,
    *,
    max_pixels: int = MAX_PIXELS,
    max_scans: int = MAX_SCANS,
    go_on: Callable[[], None] | None = None,
) -> UInt8Array:
    """The pixels a model takes, from an encoded picture.

    Args:
        data: a JPEG, PNG, WebP or BMP file.
        spec: from the model's manifest.
        max_pixels: a picture with more is refused before it is decoded.
        max_scans: a JPEG with more is refused before it is decoded.
        go_on: called again and again while it is decoded; what it raises ends that, and comes out. Where it is None, a
            small picture takes less time.

    Returns:
        `(height, width, C)` uint8, 0-255; C is 1 (grey) or 3 (RGB).

    Raises:
        PictureError: not a picture, damaged, too large, smaller than the crop box, or of other proportions than the
            pictures that the box refers to.
    """
    return _finish(_decode(data, max_pixels, max_scans, go_on, at_least=_scaled_size(spec)), spec)


def prepare_pixels(pixels: UInt8Array, spec: Preprocessing) -> UInt8Array:
    """The pixels a model takes, from a picture that is already decoded.

    Args:
        pixels: `(H, W, C)` or `(H, W)` uint8, 0-255; C is 1 (grey) or 3 (RGB).
        spec: from the model's manifest.

    Returns:
        `(height, width, C)` uint8, 0-255; C is 1 (grey) or 3 (RGB).

    Raises:
        PictureError: another dtype or shape, smaller than the crop box, or of other proportions than the pictures
            that the box refers to.
    """
    return _finish(_from_pixels(pixels), spec)


class _Source(io.BytesIO):
    """An encoded picture, of which a decoder reads one piece after another, unless it is told to stop."""

    def __init__(self, data: bytes, go_on: Callable[[], None]) -> None:
        super().__init__(data)
        self._go_on = go_on
        self.stopped: BaseException | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            self._go_on()  # guard: pictures-stopped
        except BaseException as error:
            self.stopped = error  # decoders make what they like of errors
            raise
        return super().read(size)


def _scaled_size(spec: Preprocessing) -> int | None:
    """Pixels that each side of a JPEG needs where it may be decoded smaller than it is; None: it may not be.

    Twice the longer side of the result: enough for the resize to average over, whichever way the picture is turned.
    """
    if not spec.scaled_jpeg or spec.HasField("crop"):
        return None
    return 2 * max(spec.height, spec.width)


def _decode(
    data: bytes, max_pixels: int, max_scans: int, go_on: Callable[[], None] | None, *, at_least: int | None
) -> Image.Image:
    source = io.BytesIO(data) if go_on is None else _Source(data, go_on)
    try:
        scans = count_scans(data, most=max_scans)
        if scans > max_scans:  # guard: pictures-scans
            raise CostlyPictureError(f"a JPEG of more than {max_scans} scans; at most {max_scans} are accepted")
        with Image.open(source, formats=FORMATS) as picture:
            width, height = picture.size
            if picture.format == "BMP" and picture.info.get("compression") in _RUN_LENGTHS:
                max_pixels = min(max_pixels, _MAX_RUN_PIXELS)  # guard: pictures-run-lengths
            if width * height > max_pixels:  # guard: pictures-pixels-bounded
                raise CostlyPictureError(f"a picture of {width}x{height} pixels; at most {max_pixels} are accepted")
            if isinstance(picture, ImageFile.ImageFile):
                picture.decodermaxblock = _READ_BYTES
                if at_least is not None:
                    picture.draft(None, (at_least, at_least))  # of formats but JPEG, it does nothing
            picture.load()
            if picture.info:  # else nothing says that it is turned, and to look for it takes a small picture long
                ImageOps.exif_transpose(picture, in_place=True)  # else it copies a picture that need not be turned
            return _flatten(picture)
    except PictureError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        if isinstance(source, _Source) and source.stopped is not None:
            raise source.stopped from None
        if not isinstance(error, UnidentifiedImageError):
            raise PictureError(f"a damaged picture: {error}; {_came(data)}") from error
        found = next((kind for start, kind in _OTHER_FORMATS.items() if data.startswith(start)), "not a picture")
        raise PictureError(f"{found}: expected {', '.join(FORMATS)}, {_came(data)}") from None


def count_scans(data: bytes, *, most: int) -> int:
    """How often a JPEG describes its picture, each time better; 0 for other files. Stops beyond `most`.

    Walks its segments, so that a thumbnail inside of one is not counted, and passes over a scan's data by looking
    for the next marker: there, a byte 0xFF is followed by 0 or by the number of a restart.
    """
    if not data.startswith(_START):
        return 0
    scans, segments, position = 0, 0, len(_START)
    while scans <= most:
        marker = _NEXT_MARKER.search(data, position)
        if marker is None:
            break
        position = marker.end()
        kind = data[position - 1]
        if kind == _END_OF_IMAGE:
            break
        if kind in _WITHOUT_LENGTH:
            continue
        segments += 1
        if segments > _MOST_SEGMENTS:  # guard: pictures-segments
            raise CostlyPictureError(f"a JPEG of more than {_MOST_SEGMENTS} segments; no camera writes so many")
        scans += kind == _START_OF_SCAN
        position += int.from_bytes(data[position : position + 2], "big")
    return scans


_START = b"\xff\xd8"
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = (0x01, 0xD8)
# Of the bytes 0xFF that may stand before a marker, only the last: a search for all of them takes the square of a long
# run's time, with no other thread of the process running meanwhile.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_MOST_SEGMENTS = 10_000


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
    mode = "L" if picture.mode in ("L", "1") else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


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
        picture = _crop(_scale_to_box(picture, spec), spec.crop)
    if picture.size != (spec.width, spec.height):
        picture = picture.resize((spec.width, spec.height), _filter(spec))
    pixels = np.frombuffer(picture.tobytes(), np.uint8)  # of a small picture half the time of `np.array(picture)`
    return pixels.reshape(spec.height, spec.width, channel_count(spec)).copy()


def _scale_to_box(picture: Image.Image, spec: Preprocessing) -> Image.Image:
    """A picture in the size that the crop box refers to, where one is recorded."""
    crop = spec.crop
    size = width, height = crop.picture_width, crop.picture_height
    if 0 in size or picture.size == size:
        return picture
    # A scaled picture's sides are rounded: each may be half a pixel off.
    off = abs(picture.width * height - picture.height * width)
    if 2 * off > width + height:  # guard: pictures-proportions
        raise PictureError(
            f"the crop box refers to pictures of {width}x{height} pixels, or of the same proportions; "
            f"{picture.width}x{picture.height} came: cut it to these proportions first"
        )
    return picture.resize(size, _filter(spec))


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
