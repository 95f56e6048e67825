"""The networks, as Keras models that take pixels in [0, 1] and give probabilities, or one logit for two classes."""

from typing import Any

import keras
from keras import layers

from inferry_trainer.errors import ConfigError

ImageShape = tuple[int, int, int]

_SMALLEST_SIDE = {"mnist-cnn": 4, "celeba-cnn": 8, "all-conv": 4, "deep-cnn": 8}  # smaller ones pool away


def build_network(name: str, image_shape: ImageShape, *, classes: int) -> Any:
    """A network by its name on the command line.

    Args:
        name: one of `config.NETWORKS`.
        image_shape: `(H, W, C)`.
        classes: `K`, at least 2.

    Returns:
        A Keras model, not compiled.

    Raises:
        ConfigError: no network has this name, or pictures are too small for it.
    """
    builders = {
        "mnist-cnn": build_mnist_cnn,
        "celeba-cnn": build_celeba_cnn,
        "all-conv": build_all_conv,
        "deep-cnn": build_deep_cnn,
    }
    if name not in builders:
        raise ConfigError(f"there is no network {name!r}; expected one of {', '.join(builders)}")
    if min(image_shape[:2]) < _SMALLEST_SIDE[name]:
        height, width = image_shape[:2]
        least = _SMALLEST_SIDE[name]
        raise ConfigError(f"network {name} needs pictures of at least {least}x{least} pixels; {width}x{height} came")
    return builders[name](image_shape, classes=classes)


def build_mnist_cnn(image_shape: ImageShape, *, classes: int) -> Any:
    """The chapter's network for MNIST: 3,274,634 parameters at `(28, 28, 1)` and 10 classes.

    Source: Python Machine Learning, 3rd edition, chapter 15.

    Args:
        image_shape: `(H, W, C)`.
        classes: `K`.

    Returns:
        A Keras model, not compiled: `(N, H, W, C)` float32 in [0, 1] to `(N, K)` float32
        probabilities.
    """
    return keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Conv2D(32, 5, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(2, name="pool_1"),
            layers.Conv2D(64, 5, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Flatten(name="flatten"),
            layers.Dense(1024, activation="relu", name="fc_1"),
            layers.Dropout(0.5, name="dropout"),
            layers.Dense(classes, activation="softmax", dtype="float32", name="fc_2"),
        ],
        name="mnist_cnn",
    )


def build_celeba_cnn(image_shape: ImageShape, *, classes: int) -> Any:
    """The chapter's network for CelebA: 388,673 parameters at `(64, 64, 3)` and 2 classes.

    Source: Python Machine Learning, 3rd edition, chapter 15.

    Args:
        image_shape: `(H, W, C)`.
        classes: `K`.

    Returns:
        A Keras model, not compiled: `(N, H, W, C)` float32 in [0, 1] to `(N, 1)` float32, the logit of
        class 1, where there are two classes; else to `(N, K)` probabilities.
    """
    return keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(2, name="pool_1"),
            layers.Dropout(0.5, name="dropout_1"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Dropout(0.5, name="dropout_2"),
            layers.Conv2D(128, 3, padding="same", activation="relu", name="conv_3"),
            layers.MaxPooling2D(2, name="pool_3"),
            layers.Conv2D(256, 3, padding="same", activation="relu", name="conv_4"),
            layers.GlobalAveragePooling2D(name="average"),
            _last_dense(classes),
        ],
        name="celeba_cnn",
    )


def build_all_conv(image_shape: ImageShape, *, classes: int) -> Any:
    """A network of convolutions alone: a stride of 2 stands where the chapter's have pooling.

    Source: the chapter's reference, Springenberg et al. 2014, "Striving for Simplicity: The All
    Convolutional Net" (arXiv:1412.6806), its pattern at the chapter's width.

    Args:
        image_shape: `(H, W, C)`.
        classes: `K`.

    Returns:
        A Keras model, not compiled; outputs as of `build_celeba_cnn`.
    """
    binary = classes == 2
    return keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_1"),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="down_1"),
            layers.Dropout(0.25, name="dropout_1"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv_2"),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu", name="down_2"),
            layers.Dropout(0.25, name="dropout_2"),
            layers.Conv2D(128, 3, padding="same", activation="relu", name="conv_3"),
            layers.Conv2D(1 if binary else classes, 1, name="conv_4"),
            layers.GlobalAveragePooling2D(name="average"),
            layers.Activation("linear" if binary else "softmax", dtype="float32", name="outputs"),
        ],
        name="all_conv",
    )


def build_deep_cnn(image_shape: ImageShape, *, classes: int) -> Any:
    """Five normalised convolutions of 3x3, for small pictures that the chapter's two tell apart too badly.

    Source: pairs of 3x3 convolutions are of Simonyan and Zisserman 2014 (arXiv:1409.1556), batch
    normalisation of Ioffe and Szegedy 2015 (arXiv:1502.03167). Only the first convolution works at full
    resolution: with a pair there an epoch took twice as long on two CPU cores.

    Args:
        image_shape: `(H, W, C)`.
        classes: `K`.

    Returns:
        A Keras model, not compiled; outputs as of `build_celeba_cnn`. At `(28, 28, 1)` and 10 classes it
        has 576,170 parameters.
    """
    stack: list[Any] = [keras.Input(image_shape)]
    for block, filters in enumerate(((32,), (64, 64), (128, 128)), start=1):
        for place, width in enumerate(filters, start=1):
            name = f"{block}_{place}"
            stack += [
                layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv_{name}"),
                layers.BatchNormalization(momentum=0.9, name=f"norm_{name}"),
                layers.ReLU(name=f"relu_{name}"),
            ]
        stack.append(layers.MaxPooling2D(2, name=f"pool_{block}"))
    stack += [
        layers.Flatten(name="flatten"),
        layers.Dropout(0.2, name="dropout_1"),
        layers.Dense(256, activation="relu", name="fc_1"),
        layers.Dropout(0.3, name="dropout_2"),
        _last_dense(classes),
    ]
    return keras.Sequential(stack, name="deep_cnn")


def _last_dense(classes: int) -> Any:
    """Float32 also where the layers before compute in float16: a loss needs it."""
    if classes == 2:
        return layers.Dense(1, dtype="float32", name="logit")
    return layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")
