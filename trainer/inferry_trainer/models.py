"""The networks, as Keras models that take pixels in [0, 1] and give probabilities."""

from typing import Any

import keras
from keras import layers


def build_mnist_cnn(image_shape: tuple[int, int, int], *, classes: int) -> Any:
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
            layers.Dense(classes, activation="softmax", name="fc_2"),
        ],
        name="mnist_cnn",
    )
