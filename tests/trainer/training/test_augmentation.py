from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import prepare_pixels
from inferry_trainer.cli import main
from inferry_trainer.config import Augmentation, RunConfig
from inferry_trainer.datasets import Part
from inferry_trainer.datasets.celeba import PREPROCESSING
from inferry_trainer.training import augmentation_chapter as chapter
from inferry_trainer.training.augmentation import augment, random_affine, random_elastic, random_erase, random_flip
from inferry_trainer.training.batches import training_batches
from testkit.celeba_files import write_celeba

EVERYTHING = Augmentation(
    flip=True, rotation_degrees=20, shear_degrees=10, zoom=0.2, shift=0.2, elastic=0.05, erase=0.5
)


def pictures(count: int = 64, *, side: int = 12, channels: int = 1) -> Any:
    return tf.random.stateless_uniform([count, side, side, channels], (1, 2))


def affine(images: Any, **changes: float) -> Any:
    settings = {"rotation_degrees": 0.0, "shear_degrees": 0.0, "zoom": 0.0, "shift": 0.0} | changes
    return random_affine(images, **settings, seed=(1, 2)).numpy()


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_keeps_shape_and_range_and_depends_on_the_seed_alone(channels: int) -> None:
    images = pictures(channels=channels)
    one, again, two = (augment(images, EVERYTHING, seed=seed).numpy() for seed in ((1, 2), (1, 2), (1, 3)))
    assert one.shape == images.shape
    assert one.min() >= 0
    assert one.max() <= 1
    assert np.array_equal(one, again)
    assert not np.array_equal(one, two)


def test_no_augmentation_changes_nothing() -> None:
    images = pictures()
    assert np.array_equal(augment(images, Augmentation(), seed=(1, 2)), images)
    assert np.allclose(affine(images), images, atol=1e-6)


def test_about_half_of_the_images_are_mirrored_and_the_others_left_alone() -> None:
    images = pictures(400).numpy()
    flipped = random_flip(images, seed=(1, 2)).numpy()
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert 150 < mirrored.sum() < 250
    assert np.array_equal(flipped[~mirrored], images[~mirrored])


def test_a_shift_moves_all_pixels_by_at_most_its_share() -> None:
    dot = np.zeros((200, 21, 21, 1), np.float32)
    dot[:, 10, 10] = 1
    moved = affine(dot, shift=0.2)
    rows, columns = np.indices((21, 21))
    centers = np.stack(
        [(moved[..., 0] * axis).sum(axis=(1, 2)) / moved.sum(axis=(1, 2, 3)) for axis in (rows, columns)]
    )
    offsets = np.abs(centers - 10)
    assert offsets.max() <= 0.2 * 21 + 1e-3
    assert offsets.max(axis=1).min() > 3
    assert np.abs(centers.mean(axis=1) - 10).max() < 0.6


def test_a_turn_and_a_zoom_leave_the_centre_where_it_is() -> None:
    dot = np.zeros((50, 21, 21, 1), np.float32)
    dot[:, 10, 10] = 1
    turned = affine(dot, rotation_degrees=45, shear_degrees=10, zoom=0.3)
    assert (turned.reshape(50, -1).argmax(axis=1) == 10 * 21 + 10).all()


def test_a_zoom_scales_width_and_height_apart() -> None:
    square = np.zeros((100, 41, 41, 1), np.float32)
    square[:, 10:31, 10:31] = 1
    zoomed = affine(square, zoom=0.4)
    heights, widths = zoomed[:, :, 20, 0].sum(axis=1), zoomed[:, 20, :, 0].sum(axis=1)
    for sides in (heights, widths):
        assert 21 * 0.55 < sides.min() < 21 * 0.75
        assert 21 * 1.25 < sides.max() < 21 * 1.45
    assert np.abs(heights - widths).max() > 3


def test_elastic_without_strength_is_affine_and_with_it_moves_pixels_by_little() -> None:
    images = pictures(20, side=20, channels=3)
    settings = {"rotation_degrees": 20.0, "shear_degrees": 10.0, "zoom": 0.2, "shift": 0.2}
    of_affine = tf.random.experimental.stateless_split((1, 2), 2)[0]
    straight = random_affine(images, **settings, seed=of_affine)
    assert np.allclose(random_elastic(images, elastic=0.0, **settings, seed=(1, 2)), straight, atol=1e-4)
    ramp = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None] / 20, (20, 20, 20))[..., None]
    still = dict.fromkeys(settings, 0.0)
    moved = random_elastic(tf.constant(ramp), elastic=0.1, **still, seed=(1, 2)).numpy() - ramp
    inner = np.abs(moved[:, 5:15, 5:15])
    assert 0.02 < inner.max() < 0.13  # a ramp's value is its position; bicubic goes a little beyond
    assert np.abs(moved[0] - moved[1]).max() > 0.01


def test_erasing_fills_one_rectangle_in_the_share_asked_for() -> None:
    images = np.full((300, 20, 20, 3), 2.0, np.float32)  # no noise has this value
    erased = (random_erase(images, share=0.4, seed=(1, 2)).numpy() != 2.0).all(axis=-1)
    touched = erased.any(axis=(1, 2))
    assert 90 < touched.sum() < 150
    for mask in erased[touched]:
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        assert mask.sum() == rows.sum() * columns.sum() <= 0.3 * 400
    assert (erased[touched][:, 0].any(axis=1)).any()  # edges are reached


def test_the_chapters_transformations_are_what_the_chapter_says() -> None:
    image = pictures(1, side=10, channels=3)[0]
    box = Preprocessing.CropBox(left=2, top=1, width=5, height=6)
    assert np.array_equal(chapter.crop_to_box(image, box), image[1:7, 2:7])
    assert np.array_equal(chapter.flip(image), image[:, ::-1])
    means = image.numpy().mean(axis=(0, 1))
    assert np.allclose(chapter.change_contrast(image), ((image - means) * 2 + means).numpy().clip(0, 1), atol=1e-5)
    assert np.allclose(chapter.change_brightness(image), (image.numpy() + 0.3).clip(0, 1), atol=1e-6)
    assert chapter.zoom_into_center(image).shape == (10, 10, 3)


def test_the_three_steps_for_training_are_square_resize_and_mirror() -> None:
    photograph = tf.random.stateless_uniform([218, 178, 3], (3, 4))
    square = chapter.random_square(photograph, seed=(1, 2))
    assert square.shape == (178, 178, 3)
    assert any(np.array_equal(square, photograph[top : top + 178]) for top in range(41))
    view = chapter.random_view(photograph, height=64, width=64, seed=(1, 2))
    assert view.shape == (64, 64, 3)
    assert not np.array_equal(view, chapter.random_view(photograph, height=64, width=64, seed=(1, 3)))


def test_training_sees_nearly_the_pixels_that_evaluation_sees() -> None:
    rng = np.random.default_rng(1)
    photograph = Image.fromarray(rng.integers(0, 256, (27, 22, 3), dtype=np.uint8)).resize((178, 218))
    pixels = np.asarray(photograph)
    expected = prepare_pixels(pixels, PREPROCESSING).astype(np.float32) / 255
    cropped = chapter.crop_to_box(tf.constant(pixels, tf.float32) / 255, PREPROCESSING.crop)
    assert np.abs(chapter.resize(cropped, 64, 64).numpy() - expected).max() < 3 / 255


def test_every_image_comes_once_an_epoch_in_an_order_of_its_own() -> None:
    count = 50
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 4, 1)).copy()
    part = Part(images, np.arange(count, dtype=np.int64))
    config = RunConfig("made-up", epochs=3, batch_size=16)
    batches = [labels.numpy() for _, labels in training_batches(part, config, first_epoch=0)]
    assert [len(batch) for batch in batches] == [16, 16, 16, 2] * 3
    epochs = [np.concatenate(batches[start : start + 4]) for start in (0, 4, 8)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    later = [labels.numpy() for _, labels in training_batches(part, config, first_epoch=2)]
    assert np.array_equal(np.concatenate(later), epochs[2])
    for pixels, labels in training_batches(part, config, first_epoch=2):
        assert np.allclose(pixels[:, 0, 0, 0] * 255, labels)


@pytest.mark.parametrize("dataset", ["digits", "celeba"])
def test_show_augmentation_draws_a_row_for_each_image(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data-dir", str(write_celeba(tmp_path / "celeba"))] if dataset == "celeba" else []
    out = tmp_path / "picture.png"
    assert main(["show-augmentation", dataset, "--out", str(out), "--images", "2", *flags]) == 0
    assert capsys.readouterr().out == f"picture: {out}\n"
    with Image.open(out) as picture:
        colors = picture.convert("RGB").getcolors(1 << 24)
        assert picture.width > picture.height > 200
    assert colors is not None
    assert len(colors) > 50


def test_show_augmentation_refuses_what_is_no_picture_and_too_many_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show-augmentation", "digits", "--out", str(tmp_path / "picture.txt")]) == 1
    assert "has no name of a picture; expected one that ends in .png" in capsys.readouterr().err
    assert main(["show-augmentation", "digits", "--out", str(tmp_path / "picture.png"), "--images", "0"]) == 1
    assert "images is 0; expected 1 to 100" in capsys.readouterr().err
