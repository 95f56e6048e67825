"""Weights of a network that is too large to carry: written where they are needed, from a seed.

An exported graph refers to them as ONNX's external data, so ONNX Runtime reads them from the file as any others.
"""

import json
from pathlib import Path

import numpy as np

RECIPE, WEIGHTS = "weights.json", "weights.bin"


def write_weights(folder: Path) -> None:
    """Write the weights that a folder's recipe describes; nothing where there is no recipe.

    A recipe is a list of `[count, datatype, scale]`, in the order in which the tensors lie in the file: normally
    distributed numbers, with so large a standard deviation.
    """
    recipe = folder / RECIPE
    if not recipe.exists():
        return
    random = np.random.default_rng(0)
    with (folder / WEIGHTS).open("wb") as file:
        for count, datatype, scale in json.loads(recipe.read_text()):
            file.write((random.standard_normal(count, np.float32) * np.float32(scale)).astype(datatype).tobytes())
