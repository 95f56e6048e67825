"""The benchmark's device that only sleeps, behind the real server."""

import sys
import time
from pathlib import Path

import numpy as np

from bench import scripted_device
from bench.contenders import Contender
from inferry_client import Client
from testkit import onnx_models


def test_a_scripted_device_is_served_and_counts_what_it_computes_in_vain(tmp_path: Path) -> None:
    """`manifest=False`: a device that adds up pixels cannot answer golden samples."""
    model = onnx_models.save_brightness(tmp_path / "made", manifest=False) / "model.onnx"
    counts = tmp_path / "counts"
    np.zeros(3, np.int64).tofile(counts)
    program = (sys.executable, scripted_device.__file__, str(counts), "1", "0.1")
    served = Contender("scripted", "inferry", model, 1, ("--no-parallel-runs",), program=program)
    with served.serve(tmp_path / "server") as server, Client(server.address) as client:
        before = np.fromfile(counts, np.int64)
        for stamp in (1, time.monotonic_ns() + 3_600 * 10**9):  # long past, and an hour ahead
            pixels = np.zeros((1, 4, 4, 1), np.uint8)
            pixels.reshape(-1)[:8] = np.frombuffer(np.int64(stamp).tobytes(), np.uint8)
            scores = client.infer("mnist", {"images": pixels}).outputs["probabilities"]
            assert scores.tolist() == [[pixels.sum(), 0]]
        assert (np.fromfile(counts, np.int64) - before).tolist() == [2, 2, 1]
        assert "without batching" not in (tmp_path / "server" / "server.log").read_text()
