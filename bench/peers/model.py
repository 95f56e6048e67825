"""The model as every peer runs it, in the peer's own environment: NumPy and ONNX Runtime are all there is.

The session has the options of Inferry's: as many threads, which wait awake only within a batch. What it computes is
counted in a file that the benchmark reads, the same way for every peer: batches and rows.
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime


class CountedModel:
    """An ONNX model that takes pictures, with its batches and rows counted. For one thread.

    Args:
        path: of the ONNX file.
        threads: that compute a batch.
        counts: two int64, batches and rows, kept up to date.
    """

    def __init__(self, path: Path, *, threads: int, counts: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.intra_op.spin_duration_us", "20")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._outputs = [self._session.get_outputs()[0].name]
        self._counts = np.memmap(counts, np.int64, mode="r+", shape=2)

    def run(
        self, images: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]"
    ) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
        """Probabilities `(N, K)` of `(N, H, W, C)` uint8 pixels."""
        (output,) = self._session.run(self._outputs, {self._input: images})
        self._counts += (1, len(images))
        return output  # type: ignore[no-any-return]


def model_from_environment(path: str = "") -> CountedModel:
    """The model that the benchmark asks a peer to serve; with a path, one beside it."""
    return CountedModel(
        Path(path or os.environ["BENCH_MODEL"]),
        threads=int(os.environ["BENCH_THREADS"]),
        counts=Path(os.environ["BENCH_COUNTS"]),
    )
