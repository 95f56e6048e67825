"""The chapter's transformations of a photograph, as TensorFlow functions that tf.data can map.

Source: Python Machine Learning, 3rd edition, chapter 15. Images are `(H, W, C)` float32 in [0, 1]; what
leaves that range by contrast or brightness is cut off, as a picture would be.
"""

from typing import Any

import tensorflow as tf

from inferry_proto.manifest_pb2 import Preprocessing


def crop_to_box(image: Any, box: Preprocessing.CropBox) -> Any:
    """The part of an image inside a box; the image is scaled first to what the box refers to, if it says so."""
    if box.picture_height:
        image = resize(image, box.picture_height, box.picture_width)
    return image[box.top : box.top + box.height, box.left : box.left + box.width]


def flip(image: Any) -> Any:
    """The mirror image, left to right."""
    return tf.image.flip_left_right(image)


def change_contrast(image: Any, *, factor: float = 2.0) -> Any:
    """Each channel further from its mean, or nearer for factors below 1."""
    return tf.clip_by_value(tf.image.adjust_contrast(image, factor), 0.0, 1.0)


def change_brightness(image: Any, *, delta: float = 0.3) -> Any:
    """Everything brighter by the same amount, or darker."""
    return tf.clip_by_value(tf.image.adjust_brightness(image, delta), 0.0, 1.0)


def zoom_into_center(image: Any, *, fraction: float = 0.7) -> Any:
    """The middle, enlarged to the size of the whole."""
    return resize(tf.image.central_crop(image, fraction), tf.shape(image)[0], tf.shape(image)[1])


def random_square(image: Any, *, seed: Any) -> Any:
    """A square as wide as the shorter side, from anywhere in the image; of CelebA's pictures, 178x178."""
    side = tf.reduce_min(tf.shape(image)[:2])
    room = tf.shape(image)[:2] - side
    corner = tf.cast(tf.random.stateless_uniform([2], seed) * tf.cast(room + 1, tf.float32), tf.int32)
    top, left = corner[0], corner[1]
    return image[top : top + side, left : left + side]


def random_view(image: Any, *, height: int, width: int, seed: Any) -> Any:
    """The chapter's three steps for a training image: a random square, resized, and mirrored every second time."""
    of_crop, of_flip = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    view = resize(random_square(image, seed=of_crop), height, width)
    return tf.image.stateless_random_flip_left_right(view, of_flip)


def resize(image: Any, height: Any, width: Any) -> Any:
    """Another size, bilinear, antialiased as the shared preprocessing is: the model sees alike pixels in both."""
    return tf.clip_by_value(tf.image.resize(image, [height, width], antialias=True), 0.0, 1.0)
