"""What a model is fed: training images in a new order each epoch, the others as they are.

Order and augmentation of an epoch are a function of the seed and the epoch's number alone, so that
a run that is taken up again sees exactly what an uninterrupted one would have.
"""

import os
from pathlib import Path
from typing import Any

import tensorflow as tf

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import channel_count
from inferry_trainer.arrays import UInt8Array
from inferry_trainer.config import RunConfig
from inferry_trainer.datasets import AnyPart, FilePart, Part
from inferry_trainer.datasets.dataset import read_picture
from inferry_trainer.datasets.pixels import PIXEL_MAX
from inferry_trainer.training.augmentation import augment
from inferry_trainer.training.augmentation_chapter import crop_to_box, random_square, resize

_PIPELINE_BATCH = 256
_AHEAD = 4  # batches prepared while one is trained on
_NUMBERS_OF_AN_EPOCH = 2**32  # every batch and image of a run has a number of its own


def training_batches(part: AnyPart, config: RunConfig, *, first_epoch: int) -> Any:
    """Batches of the epochs from `first_epoch` (the first of all is 0) to the last, one after the other.

    Every image comes exactly once an epoch; the last batch of an epoch may be smaller.

    Returns:
        A tf.data.Dataset of `(N, H, W, C)` float32 in [0, 1] and `(N,)` int64.
    """
    run_seed = tf.constant(config.seed, tf.int64)
    read = _from_memory(part) if isinstance(part, Part) else _from_files(part, config)

    def batches_of(epoch: Any) -> Any:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(part), dtype=tf.int64), seed=tf.stack([run_seed, epoch])
        )
        numbered = tf.data.Dataset.from_tensor_slices(order).enumerate(epoch * _NUMBERS_OF_AN_EPOCH)
        return read(numbered, config.batch_size)

    def change(number: Any, batch: Any, labels: Any) -> tuple[Any, Any]:
        return augment(batch, config.augmentation, seed=tf.stack([run_seed, number])), labels

    epochs = tf.data.Dataset.range(first_epoch, config.epochs)
    return epochs.flat_map(batches_of).map(change, num_parallel_calls=tf.data.AUTOTUNE).prefetch(_AHEAD)


def evaluation_batches(part: Part, *, batch_size: int) -> Any:
    """Every image once, in order, unchanged; the last batch may be smaller.

    Returns:
        A tf.data.Dataset of `(N, H, W, C)` float32 in [0, 1] and `(N,)` int64.
    """
    batches = tf.data.Dataset.from_tensor_slices((part.images, part.labels)).batch(batch_size)
    return batches.map(lambda images, labels: (_scale(images), labels), num_parallel_calls=tf.data.AUTOTUNE).prefetch(
        _AHEAD
    )


def training_pipeline_batches(part: FilePart) -> Any:
    """Every picture once, in order, as TensorFlow decodes, crops and resizes it, to compare with the shared way.

    Returns:
        A tf.data.Dataset of `(N, H, W, C)` float32 in [0, 1].
    """
    spec = part.preprocessing

    def read(file: Any) -> Any:
        image = _decoded(file, spec)
        if spec.HasField("crop"):
            image = crop_to_box(image, spec.crop)
        return _resized(image, spec)

    files = tf.data.Dataset.from_tensor_slices([os.fsencode(file) for file in part.files])
    return files.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(_PIPELINE_BATCH).prefetch(_AHEAD)


def _from_memory(part: Part) -> Any:
    images, labels = tf.constant(part.images), tf.constant(part.labels)

    def read(numbered: Any, batch_size: int) -> Any:
        return numbered.batch(batch_size).map(
            lambda numbers, positions: (numbers[0], _scale(tf.gather(images, positions)), tf.gather(labels, positions))
        )

    return read


def _from_files(part: FilePart, config: RunConfig) -> Any:
    """Files are decoded when their turn comes, several at a time, in the epoch's order."""
    files, labels = tf.constant([os.fsencode(file) for file in part.files]), tf.constant(part.labels)
    random_crop = config.augmentation.crop == "random"

    def read_one(number: Any, position: Any) -> tuple[Any, Any, Any]:
        if random_crop:
            seed = tf.stack([tf.constant(config.seed, tf.int64), number])
            image = _resized(
                random_square(_decoded(files[position], part.preprocessing), seed=seed), part.preprocessing
            )
        else:
            image = _scale(_prepared(files[position], part.preprocessing))
        return number, image, labels[position]

    def read(numbered: Any, batch_size: int) -> Any:
        # Parallel in itself: `flat_map` asks an epoch's batches one by one.
        images = numbered.map(read_one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return images.batch(batch_size).map(lambda numbers, batch, labels: (numbers[0], batch, labels))

    return read


def _prepared(file: Any, spec: Preprocessing) -> Any:
    """A file's pixels through the shared preprocessing, uint8: any format it decodes."""

    def prepare(path: bytes) -> UInt8Array:
        return read_picture(Path(os.fsdecode(path)), spec)

    pixels = tf.numpy_function(prepare, [file], tf.uint8, stateful=False)  # so that several run at a time
    pixels.set_shape((spec.height, spec.width, channel_count(spec)))
    return pixels


def _decoded(file: Any, spec: Preprocessing) -> Any:
    """A file's picture as TensorFlow decodes it, which is faster than Pillow; `(H, W, C)` float32 in [0, 1]."""
    data = tf.io.read_file(file)
    return _scale(tf.io.decode_image(data, channels=channel_count(spec), expand_animations=False))


def _resized(image: Any, spec: Preprocessing) -> Any:
    image = resize(image, spec.height, spec.width)
    image.set_shape((spec.height, spec.width, channel_count(spec)))
    return image


def _scale(pixels: Any) -> Any:
    return tf.cast(pixels, tf.float32) / PIXEL_MAX
