import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import (
    CostlyPictureError,
    PictureError,
    UInt8Array,
    check_crop,
    count_scans,
    prepare_image,
    prepare_pixels,
)
from testkit.pictures import a_jpeg, encode_picture

GREY_28 = Preprocessing(color_mode=Preprocessing.GRAYSCALE, height=28, width=28, filter=Preprocessing.BILINEAR)
RGB_8 = Preprocessing(color_mode=Preprocessing.RGB, height=8, width=8, filter=Preprocessing.BILINEAR)


def gradient(height: int, width: int) -> UInt8Array:
    return np.linspace(0, 255, height * width).astype(np.uint8).reshape(height, width)


@given(hnp.arrays(np.uint8, (28, 28)))
def test_a_grey_png_of_the_right_size_arrives_unchanged(pixels: UInt8Array) -> None:
    assert np.array_equal(prepare_image(encode_picture(pixels), GREY_28)[:, :, 0], pixels)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=20).map(lambda s: (s[0], s[1], 3))))
def test_an_encoded_picture_is_treated_as_its_pixels_are(pixels: UInt8Array) -> None:
    for spec in (GREY_28, RGB_8):
        assert np.array_equal(prepare_image(encode_picture(pixels), spec), prepare_pixels(pixels, spec))


@given(st.sampled_from([GREY_28, RGB_8]), st.integers(1, 60), st.integers(1, 60), st.sampled_from([1, 3]))
def test_the_result_always_has_the_shape_the_model_takes(
    spec: Preprocessing, height: int, width: int, channels: int
) -> None:
    prepared = prepare_pixels(np.zeros((height, width, channels), np.uint8), spec)
    assert prepared.shape == (spec.height, spec.width, 1 if spec is GREY_28 else 3)
    assert prepared.dtype == np.uint8


def test_the_crop_box_is_cut_before_resizing() -> None:
    spec = Preprocessing(color_mode=Preprocessing.GRAYSCALE, height=2, width=3, filter=Preprocessing.NEAREST)
    spec.crop.top, spec.crop.left, spec.crop.height, spec.crop.width = 1, 2, 2, 3
    pixels = gradient(6, 7)
    assert np.array_equal(prepare_pixels(pixels, spec)[:, :, 0], pixels[1:3, 2:5])


def test_bilinear_reduction_is_antialiased() -> None:
    checkerboard = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = prepare_pixels(checkerboard, GREY_28).astype(int)
    assert 96 <= small.min() <= small.max() <= 160  # aliasing would give bands of black and white


def test_a_crop_box_beyond_the_picture_names_both() -> None:
    spec = Preprocessing(color_mode=Preprocessing.RGB, height=8, width=8, filter=Preprocessing.BILINEAR)
    spec.crop.top, spec.crop.left, spec.crop.height, spec.crop.width = 20, 0, 178, 178
    with pytest.raises(PictureError, match=r"178x178.*beyond a picture of 100x50"):
        prepare_pixels(np.zeros((50, 100, 3), np.uint8), spec)


def of_a_face(height: int = 218, width: int = 178) -> Preprocessing:
    """A crop box that refers to pictures of one size, as CelebA's does."""
    spec = Preprocessing(color_mode=Preprocessing.RGB, height=16, width=16, filter=Preprocessing.BILINEAR)
    side = min(height, width)
    spec.crop.CopyFrom(Preprocessing.CropBox(top=height - side, left=width - side, height=side, width=side))
    spec.crop.picture_height, spec.crop.picture_width = height, width
    return spec


def blots(height: int, width: int) -> UInt8Array:
    """Smooth colours, which scaling by any filter leaves nearly as they are."""
    rows, columns = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)]
    waves = [np.sin(3 * rows + 2 * columns), np.cos(4 * columns), np.sin(5 * rows)]
    return np.stack([(127 + 120 * wave).astype(np.uint8) for wave in waves], axis=2)


@given(st.integers(40, 300), st.integers(40, 300), st.floats(0.5, 5))
def test_a_crop_box_means_the_same_part_of_a_scaled_picture(height: int, width: int, scale: float) -> None:
    spec = of_a_face(height, width)
    scaled = blots(round(scale * height), round(scale * width))
    expected = prepare_pixels(blots(height, width), spec).astype(int)
    assert np.abs(prepare_pixels(scaled, spec) - expected).max() <= 12


def test_a_picture_of_the_recorded_size_is_cut_as_it_is() -> None:
    spec = of_a_face()
    recorded = prepare_pixels(blots(218, 178), spec)
    spec.crop.ClearField("picture_height")
    spec.crop.ClearField("picture_width")
    assert np.array_equal(prepare_pixels(blots(218, 178), spec), recorded)


@pytest.mark.parametrize(("height", "width"), [(1000, 1000), (178, 218), (218, 182), (600, 480), (400, 400)])
def test_a_crop_box_means_nothing_in_a_picture_of_other_proportions(height: int, width: int) -> None:
    with pytest.raises(PictureError, match=rf"refers to pictures of 178x218 .*; {width}x{height} came"):
        prepare_pixels(np.zeros((height, width, 3), np.uint8), of_a_face())


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ({"picture_width": 100}, r"reaches beyond the pictures of 100x218"),
        ({"top": 41}, r"top 41.*reaches beyond the pictures of 178x218"),
        ({"picture_width": 0}, r"0x218 pixels; expected two sides"),
        ({"picture_width": 2**31, "picture_height": 2**31}, r"expected two sides, at most \d+ pixels"),
    ],
)
def test_a_crop_box_that_contradicts_itself_is_named(box: dict[str, int], message: str) -> None:
    spec = of_a_face()
    for name, value in box.items():
        setattr(spec.crop, name, value)
    with pytest.raises(ValueError, match=message):
        check_crop(spec)
    check_crop(of_a_face())
    check_crop(RGB_8)


def test_transparent_pixels_are_white() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    assert (prepare_image(encode_picture(pixels), RGB_8) == 255).all()


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    levels = np.full((28, 28), 32896, np.uint16)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    assert (prepare_image(file.getvalue(), GREY_28) == 128).all()


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:, :4] = 255
    turned = prepare_image(encode_picture(upright, "PNG", exif=exif), RGB_8)
    assert np.array_equal(turned, np.rot90(upright, -1))


@pytest.mark.parametrize("kind", ["exif", "xmp"])
def test_a_picture_is_turned_by_what_comes_after_its_pixels(kind: str) -> None:
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    chunk = (b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")) if kind == "exif" else b"iTXt" + xmp
    plain, end = encode_picture(upright), 12  # of the last chunk, which is empty
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    turned = prepare_image(plain[:-end] + chunk + plain[-end:], RGB_8)
    assert np.array_equal(turned, np.rot90(upright, -1))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes came"),
        (b"<html>quota exceeded</html>", "not a picture: expected JPEG, PNG"),
        (encode_picture(gradient(8, 8), "GIF"), "a GIF, which is not read: expected JPEG, PNG, WEBP, BMP"),
        (encode_picture(gradient(8, 8), "TIFF"), "a TIFF, which is not read: expected JPEG, PNG, WEBP, BMP"),
        (encode_picture(gradient(64, 64))[:-60], "damaged picture"),
    ],
)
def test_what_is_not_a_whole_picture_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        prepare_image(data, GREY_28)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_no_bytes_escape_as_another_error(noise: bytes, cut: int) -> None:
    for data in (noise, encode_picture(gradient(20, 20))[:cut] + noise):
        try:
            prepare_image(data, GREY_28)
        except PictureError:
            continue


def test_a_picture_with_too_many_pixels_is_refused_before_decoding() -> None:
    with pytest.raises(PictureError, match="100x50 pixels; at most 4999"):
        prepare_image(encode_picture(gradient(50, 100)), GREY_28, max_pixels=4999)


@pytest.mark.parametrize("pixels", [np.zeros((2, 2, 2), np.uint8), np.zeros((2, 0, 3), np.uint8), np.zeros((2, 2))])
def test_pixels_of_another_shape_or_dtype_are_refused(pixels: UInt8Array) -> None:
    with pytest.raises(PictureError, match="pixels must be uint8 of shape"):
        prepare_pixels(pixels, RGB_8)


def test_an_unspecified_preprocessing_is_an_error() -> None:
    with pytest.raises(ValueError, match="colour mode"):
        prepare_pixels(np.zeros((2, 2, 3), np.uint8), Preprocessing(height=2, width=2))
    with pytest.raises(ValueError, match="filter"):
        prepare_pixels(np.zeros((3, 3, 3), np.uint8), Preprocessing(color_mode=Preprocessing.RGB, height=2, width=2))


@given(st.integers(10, 120), st.integers(10, 120))
def test_a_jpeg_with_more_scans_than_may_be_is_refused_before_decoding(scans: int, most: int) -> None:
    data = a_jpeg(scans)
    assert min(count_scans(data, most=most), most + 1) == min(scans, most + 1)
    looked: list[bool] = []
    if scans > most:
        with pytest.raises(CostlyPictureError, match=f"more than {most} scans"):
            prepare_image(data, GREY_28, max_scans=most, go_on=lambda: looked.append(True))
        assert looked == []
    else:
        prepare_image(data, GREY_28, max_scans=most)


@pytest.mark.parametrize("progressive", [True, False])
def test_a_usual_jpeg_has_few_scans_and_a_thumbnail_inside_has_none(progressive: bool) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (200, 300, 3), np.uint8)
    options = {"progressive": progressive, "restart_marker_rows": 1}
    plain = encode_picture(pixels, "JPEG", **options)
    assert count_scans(plain, most=100) <= 12
    thumbnail = b"\xff\xda" * 1000
    assert count_scans(encode_picture(pixels, "JPEG", comment=thumbnail, **options), most=100) == count_scans(
        plain, most=100
    )


def test_a_jpeg_of_very_many_segments_is_refused_before_decoding() -> None:
    plain = encode_picture(gradient(8, 8), "JPEG")
    data = plain[:2] + b"\xff\xfe\x00\x02" * 10_001 + plain[2:]
    with pytest.raises(CostlyPictureError, match="segments"):
        prepare_image(data, GREY_28)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_bytes_that_fill_the_room_before_a_marker_change_nothing_of_the_scans(fills: list[int]) -> None:
    scans = b"".join(b"\xff" * fill + b"\xff\xda\x00\x02\x00\xff\x00\xff\xd3" for fill in fills)
    assert count_scans(b"\xff\xd8" + scans + b"\xff\xff\xd9" + scans, most=100) == len(fills)


def test_a_long_run_of_fill_bytes_is_looked_at_once() -> None:
    # Looked at once for each of its bytes, it would hold up every thread of the process for minutes.
    assert count_scans(b"\xff\xd8" + b"\xff" * (1 << 17) + b"\x00", most=100) == 0


def a_bmp_of_runs(width: int, height: int) -> bytes:
    """A BMP of run lengths: one grey pixel, and the end of a line."""
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(info) + len(palette)) + info + palette + b"\1\x80\0\0"


def test_a_picture_of_run_lengths_is_small_or_refused_before_decoding() -> None:
    assert prepare_image(a_bmp_of_runs(8, 1), RGB_8).shape == (8, 8, 3)
    with pytest.raises(CostlyPictureError, match="16777216x1 pixels; at most 1048576"):
        prepare_image(a_bmp_of_runs(1 << 24, 1), RGB_8)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize(
    ("format_", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})],
)
def test_decoding_can_be_stopped_and_tells_by_whom(format_: str, options: dict[str, object]) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (256, 256, 3), np.uint8)
    data = encode_picture(noise, format_, **options)
    looks = 0

    def go_on() -> None:
        nonlocal looks
        looks += 1
        if looks == stop_at:
            raise StoppedError

    stop_at = 0
    prepare_image(data, GREY_28, go_on=go_on)
    total = looks
    for place in (1, total // 2 + 1, total):
        looks, stop_at = 0, place
        with pytest.raises(StoppedError):
            prepare_image(data, GREY_28, go_on=go_on)
    if format_ != "WEBP":  # which is decoded at once
        assert total >= len(data) // (16 * 1024)


@pytest.mark.parametrize(("side", "smaller"), [(8, True), (32, True), (33, False), (64, False)])
@pytest.mark.parametrize("turned", [False, True])
def test_a_jpeg_is_decoded_smaller_only_where_the_manifest_says_so_and_twice_the_size_is_left(
    side: int, smaller: bool, turned: bool
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (128, 256, 3), np.uint8)
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    Image.fromarray(noise).save(buffer, "JPEG", exif=exif)
    plain = Preprocessing(color_mode=Preprocessing.RGB, height=side, width=side, filter=Preprocessing.BILINEAR)
    scaled = Preprocessing()
    scaled.CopyFrom(plain)
    scaled.scaled_jpeg = True
    full, reduced = (prepare_image(buffer.getvalue(), spec).astype(int) for spec in (plain, scaled))
    assert np.array_equal(full, reduced) != smaller
    assert np.abs(full - reduced).mean() < 12  # of 255, of pure noise
    scaled.crop.CopyFrom(Preprocessing.CropBox(height=100, width=100))
    plain.crop.CopyFrom(scaled.crop)
    assert np.array_equal(prepare_image(buffer.getvalue(), plain), prepare_image(buffer.getvalue(), scaled))


def test_other_formats_are_decoded_as_they_are_wherever_jpegs_may_be_smaller() -> None:
    spec = Preprocessing(color_mode=Preprocessing.GRAYSCALE, height=4, width=4, filter=Preprocessing.BILINEAR)
    png = encode_picture(gradient(64, 64), "PNG")
    before = prepare_image(png, spec)
    spec.scaled_jpeg = True
    assert np.array_equal(prepare_image(png, spec), before)
