"""What a model is fed: training images in a new order each epoch, the others as they are.

Order and augmentation of an epoch are a function of the seed and the epoch's number alone, so that
a run that is taken up again sees exactly what an uninterrupted one would have.
"""

from typing import Any

import tensorflow as tf

from inferry_trainer.augmentation import augment
from inferry_trainer.config import RunConfig
from inferry_trainer.datasets import Part
from inferry_trainer.pixels import PIXEL_MAX

_AHEAD = 4  # batches prepared while one is trained on
_STEPS_AT_MOST = 2**32  # of an epoch: numbers every batch of a run differently


def training_batches(part: Part, config: RunConfig, *, first_epoch: int) -> Any:
    """Batches of the epochs from `first_epoch` (the first of all is 0) to the last, one after the other.

    Every image comes exactly once an epoch; the last batch of an epoch may be smaller.

    Returns:
        A tf.data.Dataset of `(N, H, W, C)` float32 in [0, 1] and `(N,)` int64.
    """
    images, labels = tf.constant(part.images), tf.constant(part.labels)

    def batches_of(epoch: Any) -> Any:
        seed = tf.stack([tf.constant(config.seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(len(part), dtype=tf.int64), seed=seed)
        return tf.data.Dataset.from_tensor_slices(order).batch(config.batch_size).enumerate(epoch * _STEPS_AT_MOST)

    def load(number: Any, positions: Any) -> tuple[Any, Any]:
        batch = _scale(tf.gather(images, positions))
        seed = tf.stack([tf.constant(config.seed, tf.int64), number])
        return augment(batch, config.augmentation, seed=seed), tf.gather(labels, positions)

    epochs = tf.data.Dataset.range(first_epoch, config.epochs)
    return epochs.flat_map(batches_of).map(load, num_parallel_calls=tf.data.AUTOTUNE).prefetch(_AHEAD)


def evaluation_batches(part: Part, *, batch_size: int) -> Any:
    """Every image once, in order, unchanged; the last batch may be smaller.

    Returns:
        A tf.data.Dataset of `(N, H, W, C)` float32 in [0, 1] and `(N,)` int64.
    """
    batches = tf.data.Dataset.from_tensor_slices((part.images, part.labels)).batch(batch_size)
    return batches.map(lambda images, labels: (_scale(images), labels), num_parallel_calls=tf.data.AUTOTUNE).prefetch(
        _AHEAD
    )


def _scale(images: Any) -> Any:
    return tf.cast(images, tf.float32) / PIXEL_MAX
