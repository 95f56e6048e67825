"""Writes the benchmark's models into a folder: FOLDER/float32.onnx and FOLDER/int8.onnx.

The chapter's MNIST network, untrained: what it answers does not change what it costs. In a process of its own,
so that TensorFlow's threads are gone before anything is measured.
"""

import sys
from pathlib import Path

import numpy as np

from bench.contenders import CLASSES, SHAPE
from inferry_trainer.quiet import import_tensorflow_quietly

_CALIBRATING = 256


def main() -> None:
    folder = Path(sys.argv[1])
    import_tensorflow_quietly(verbose=False)
    from inferry_trainer.export.convert import export_onnx
    from inferry_trainer.export.quantize import quantize_int8
    from inferry_trainer.models import build_mnist_cnn

    export_onnx(build_mnist_cnn(SHAPE, classes=CLASSES), folder / "float32.onnx")
    images = np.random.default_rng(0).integers(0, 256, (_CALIBRATING, *SHAPE), np.uint8)
    (folder / "int8.onnx").write_bytes(quantize_int8(folder / "float32.onnx", images).model.SerializeToString())


if __name__ == "__main__":
    main()
