"""Publish a Keras model of your own for `inferry-serve --repository REPOSITORY`: `python own_model.py REPOSITORY`."""

import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

pictures = np.random.default_rng(1).integers(0, 256, (64, 16, 16, 1), np.uint8)
pictures[::2] //= 4  # every other one is dark
model = keras.Sequential(
    [
        keras.Input((16, 16, 1)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(2, activation="softmax"),
    ]
)
model.compile(keras.optimizers.Adam(0.1), "sparse_categorical_crossentropy")
model.fit(pictures, np.tile([0, 1], 32), epochs=20, verbose=0)

with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder, "brightness.keras"))
    export = ["inferry-train", "export", str(Path(folder, "brightness.keras")), "--labels", "dark,bright"]
    # `--data FOLDER` of labelled pictures instead of `--unverified` measures the accuracy before it is published.
    subprocess.run([*export, "--unverified", "--model", "brightness", "--repository", sys.argv[1]], check=True)
