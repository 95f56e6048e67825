"""A folder of JPEGs through Pillow in a process pool and `session.run`: some forty lines, as a user writes them."""

import csv
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

SIDE = 224


def decode(paths):  # type: ignore[no-untyped-def]
    pixels = [
        np.asarray(Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for path in paths
    ]
    return [path.name for path in paths], np.stack(pixels)


def main(folder: str, model: str, out: str) -> None:
    cores = len(os.sched_getaffinity(0))
    paths = sorted(Path(folder).iterdir())
    chunks = [paths[start : start + 32] for start in range(0, len(paths), 32)]
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    with multiprocessing.get_context("spawn").Pool(cores) as pool, Path(out).open("w", newline="") as file:
        writer = csv.writer(file)
        for names, pixels in pool.imap(decode, chunks):
            (probabilities,) = session.run(None, {name: pixels})
            best = probabilities.argmax(axis=1)
            writer.writerows(zip(names, best, probabilities.max(axis=1), strict=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
