"""Random changes to training images, as TensorFlow functions of a batch and a seed.

The same seed gives the same changes, so that a run can be repeated, or taken up where it was
interrupted. Every image of a batch is changed in its own way.
"""

import math
from typing import Any

import tensorflow as tf

from inferry_trainer.config import Augmentation

_ELASTIC_POINTS = 5  # each way; interpolated over 28 pixels, about the smoothness of Simard's field
_ERASED_AREA = (0.02, 0.25)  # of the image; Zhong et al. 2017 (arXiv:1708.04896) go up to 0.4, on larger objects
_ERASED_ASPECT = (0.3, 1 / 0.3)


def augment(images: Any, settings: Augmentation, *, seed: Any) -> Any:
    """Change a batch as the settings say: affine and elastic first, then flip, then erase.

    Args:
        images: `(N, H, W, C)` float32 in [0, 1].
        settings: `crop` is not among what is done here: it comes before images have one size.
        seed: `(2,)` integers.

    Returns:
        A tensor of the same shape and range.
    """
    seeds = tf.random.experimental.stateless_split(seed, 3)
    affine = {
        "rotation_degrees": settings.rotation_degrees,
        "shear_degrees": settings.shear_degrees,
        "zoom": settings.zoom,
        "shift": settings.shift,
    }
    if settings.elastic:
        images = random_elastic(images, elastic=settings.elastic, **affine, seed=seeds[0])
    elif any(affine.values()):
        images = random_affine(images, **affine, seed=seeds[0])
    if settings.flip:
        images = random_flip(images, seed=seeds[1])
    if settings.erase:
        images = random_erase(images, share=settings.erase, seed=seeds[2])
    return images


def random_flip(images: Any, *, seed: Any) -> Any:
    """Mirror about every second image, left to right."""
    flipped = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], seed) < 0.5
    return tf.where(flipped, tf.reverse(images, [2]), images)


def random_affine(
    images: Any, *, rotation_degrees: float, shear_degrees: float, zoom: float, shift: float, seed: Any
) -> Any:
    """Scale, slant, turn and move each image, bilinear; what comes in from outside is black.

    Args:
        images: `(N, H, W, C)` float32 in [0, 1].
        rotation_degrees: the largest angle, either way.
        shear_degrees: the largest angle of a vertical line, either way.
        zoom: the largest change of width and height, apart: 0.1 is 0.9 to 1.1.
        shift: the largest way, as a share of height and width.
        seed: `(2,)` integers.
    """
    matrices = _inverse_matrices(
        images,
        rotation_degrees=rotation_degrees,
        shear_degrees=shear_degrees,
        zoom=zoom,
        shift=shift,
        seed=seed,
    )
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.concat([matrices, tf.zeros_like(matrices[:, :2])], axis=1),
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def random_elastic(
    images: Any,
    *,
    elastic: float,
    rotation_degrees: float,
    shear_degrees: float,
    zoom: float,
    shift: float,
    seed: Any,
) -> Any:
    """Stretch each image unevenly, as a hand writes, together with `random_affine`: interpolated once, not twice.

    Source: Simard et al. 2003, "Best Practices for Convolutional Neural Networks Applied to Visual
    Document Analysis"; here the field is drawn at few points and interpolated, where they blur noise.

    Args:
        images: `(N, H, W, C)` float32 in [0, 1].
        elastic: the largest way of those points, as a share of height and width.
        rotation_degrees: and the following as of `random_affine`.
        seed: `(2,)` integers.
    """
    of_affine, of_field = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    matrices = _inverse_matrices(
        images,
        rotation_degrees=rotation_degrees,
        shear_degrees=shear_degrees,
        zoom=zoom,
        shift=shift,
        seed=of_affine,
    )
    shape = tf.shape(images)
    count, height, width = shape[0], shape[1], shape[2]
    x, y = tf.meshgrid(tf.range(tf.cast(width, tf.float32)), tf.range(tf.cast(height, tf.float32)))
    xx, xy, from_x, yx, yy, from_y = (column[:, None, None] for column in tf.unstack(matrices, axis=1))
    points = tf.random.stateless_uniform([count, _ELASTIC_POINTS, _ELASTIC_POINTS, 2], of_field, -elastic, elastic)
    field = tf.image.resize(points, [height, width], "bicubic")
    source_x = xx * x + xy * y + from_x + field[..., 0] * tf.cast(width, tf.float32)
    source_y = yx * x + yy * y + from_y + field[..., 1] * tf.cast(height, tf.float32)
    return _sample(images, source_x, source_y)


def _inverse_matrices(
    images: Any, *, rotation_degrees: float, shear_degrees: float, zoom: float, shift: float, seed: Any
) -> Any:
    """From where each pixel of the result comes: `(N, 6)`, x = m0 x' + m1 y' + m2, y = m3 x' + m4 y' + m5."""
    count = tf.shape(images)[0]
    height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(images)[1:3]))
    draws = tf.random.stateless_uniform([6, count], seed, -1.0, 1.0)
    angle, slant = draws[0] * math.radians(rotation_degrees), tf.tan(draws[1] * math.radians(shear_degrees))
    scale_x, scale_y = 1.0 + draws[2] * zoom, 1.0 + draws[3] * zoom
    move_x, move_y = draws[4] * shift * width, draws[5] * shift * height
    # The inverse of scale, then slant, then turn: turned back, straightened, scaled back.
    cos, sin = tf.cos(angle), tf.sin(angle)
    xx, xy = (cos + slant * sin) / scale_x, (sin - slant * cos) / scale_x
    yx, yy = -sin / scale_y, cos / scale_y
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    from_x = center_x - xx * (center_x + move_x) - xy * (center_y + move_y)
    from_y = center_y - yx * (center_x + move_x) - yy * (center_y + move_y)
    return tf.stack([xx, xy, from_x, yx, yy, from_y], axis=1)


def _sample(images: Any, x: Any, y: Any) -> Any:
    """Images at fractional positions, `(N, H, W)` each, bilinear; black outside."""
    shape = tf.shape(images)
    count, height, width = shape[0], shape[1], shape[2]
    padded = tf.reshape(tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]]), [count, -1, images.shape[3]])
    last_x, last_y = tf.cast(width, tf.float32) + 1, tf.cast(height, tf.float32) + 1
    x, y = tf.clip_by_value(x + 1, 0.0, last_x), tf.clip_by_value(y + 1, 0.0, last_y)
    left, top = tf.minimum(tf.floor(x), last_x - 1), tf.minimum(tf.floor(y), last_y - 1)
    right_share, bottom_share = (x - left)[..., None], (y - top)[..., None]
    first = tf.cast(top, tf.int32) * (width + 2) + tf.cast(left, tf.int32)

    def at(offset: Any) -> Any:
        values = tf.gather(padded, tf.reshape(first + offset, [count, -1]), batch_dims=1)
        return tf.reshape(values, shape)

    upper = at(0) * (1 - right_share) + at(1) * right_share
    lower = at(width + 2) * (1 - right_share) + at(width + 3) * right_share
    return upper * (1 - bottom_share) + lower * bottom_share


def random_erase(images: Any, *, share: float, seed: Any) -> Any:
    """Fill a rectangle with noise in a share of the images, so that no single detail decides.

    Source: Zhong et al. 2017, "Random Erasing Data Augmentation" (arXiv:1708.04896).

    Args:
        images: `(N, H, W, C)` float32 in [0, 1].
        share: of the images that are changed, 0 to 1.
        seed: `(2,)` integers.
    """
    shape = tf.shape(images)
    count, height, width = shape[0], shape[1], shape[2]
    of_place, of_noise = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    draws = tf.random.stateless_uniform([5, count], of_place)
    least, most = _ERASED_AREA
    area = (least + (most - least) * draws[0]) * tf.cast(height * width, tf.float32)
    low, high = (math.log(aspect) for aspect in _ERASED_ASPECT)
    aspect = tf.exp(low + (high - low) * draws[1])
    rows = _inside(height, tf.sqrt(area * aspect), draws[2])
    columns = _inside(width, tf.sqrt(area / aspect), draws[3])
    erased = rows[:, :, None, None] & columns[:, None, :, None] & (draws[4] < share)[:, None, None, None]
    return tf.where(erased, tf.random.stateless_uniform(shape, of_noise), images)


def _inside(side: Any, length: Any, place: Any) -> Any:
    """Which of `side` positions lie in a stretch of `length` that begins at `place` (0-1) of what is possible."""
    side_f = tf.cast(side, tf.float32)
    length = tf.minimum(tf.round(length), side_f)
    start = tf.floor(place * (side_f - length + 1))
    positions = tf.range(side_f)[None, :]
    return (positions >= start[:, None]) & (positions < (start + length)[:, None])
