"""A small colour network that learns real digits in seconds: what gates and faults are tested on."""

from typing import Any

import keras
import numpy as np

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.arrays import UInt8Array
from inferry_trainer.datasets import Part
from inferry_trainer.datasets.digits import load_digits
from inferry_trainer.evaluation.classifier import make_classifier
from inferry_trainer.export.candidate import Candidate

LABELS = tuple("0123456789")
SPEC = Preprocessing(color_mode=Preprocessing.RGB, height=14, width=14, filter=Preprocessing.BILINEAR)
layers = keras.layers


def tint(images: UInt8Array) -> UInt8Array:
    """Grey 28x28 to colour 14x14 in which no channel can stand in for another."""
    grey = images[:, ::2, ::2, 0].astype(np.float32)
    return np.stack([grey, 0.4 * grey, 255 - grey], axis=-1).astype(np.uint8)


def build_network() -> Any:
    return keras.Sequential(
        [
            keras.Input((14, 14, 3)),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(2, name="pool_1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Flatten(name="flatten"),
            layers.Dense(10, activation="softmax", name="fc"),
        ],
        name="tinted",
    )


def train_candidate() -> Candidate:
    """A candidate of about 97 % accuracy, with training images to calibrate on."""
    keras.utils.set_random_seed(3)
    digits = load_digits(validation_images=180, seed=1)
    train, test = digits.train.prepare(), digits.test.prepare()
    model = build_network()
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="sparse_categorical_crossentropy")
    model.fit(tint(train.images).astype(np.float32) / 255, train.labels, batch_size=32, epochs=6, verbose=0)
    return Candidate(
        classifier=make_classifier(model),
        name="tinted",
        labels=LABELS,
        preprocessing=SPEC,
        dataset="tinted",
        test=Part(tint(test.images), test.labels),
        calibration=tint(train.images)[:512],
    )
