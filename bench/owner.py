"""How many requests a second the owner of the models takes from front ends: `make bench-owner`.

It is the part of a server with front ends that further processes cannot take over. Here it is all that is measured: a
process plays the front ends (`played_front_end.py`), without gRPC and clients, so that the owner is the limit with two
cores too. The models cost next to nothing; their requests have 12 bytes, and as many as a picture of MNIST.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.server_process import started
from inferry_proto.datatypes import DATATYPES
from inferry_server.__main__ import main as serve
from inferry_server.front_ends import slot
from inferry_server.hot_path import hot_path
from testkit import onnx_models
from testkit.rpc import infer_request

_SERVE = "serve"
_SIDE, _CHANNELS = 28, 4  # of the larger requests: 3136 bytes, as MNIST's pictures have in float32
# The input of a request: its model, name, datatype and shape.
_INPUTS = (("doubler", "x", "FP32", (1, 3)), ("corner", "x", "UINT8", (1, _SIDE, _SIDE, _CHANNELS)))
_AT_A_TIME = (64, 256)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or serve with a played front end.

    Returns:
        0, or what serving returns.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] == _SERVE:
        slot._start = _start_played
        return serve(words[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(words)
    print(f"hot path: {hot_path()}; medians of {options.rounds} rounds (all of them)")
    print(f"{'bytes':>6}  {'at a time':>9}  {'requests/s':>10}  {'owner us':>8}")
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        onnx_models.save_doubler(repository)
        onnx_models.save_corner(repository, side=_SIDE, channels=_CHANNELS)
        for model, name, datatype, shape in _INPUTS:
            array = np.zeros(shape, DATATYPES[datatype].dtype)
            message = infer_request(model, **{name: array}).SerializeToString()
            for at_a_time in _AT_A_TIME:
                words = [message.hex(), str(at_a_time), str(options.seconds)]
                rows = [_measure(repository, words) for _ in range(options.rounds)]
                rates, costs = zip(*rows, strict=True)
                rate_per_s, owner_us = statistics.median(rates), statistics.median(costs)
                print(
                    f"{array.nbytes:>6}  {at_a_time:>9}  {rate_per_s:>10,.0f}  {owner_us:>8.1f}  "
                    f"({', '.join(f'{rate:,.0f}: {cost:.1f}' for rate, cost in rows)})",
                    flush=True,
                )
    return 0


def _measure(repository: Path, words: Sequence[str]) -> tuple[float, float]:
    """Requests a second, and microseconds of the owner's CPU time for each."""
    os.environ["PLAYED"] = json.dumps(words)
    with started(repository, "--provider", "cpu", "--front-ends", "1", program=("bench.owner", _SERVE)) as (process, _):
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        return told["requests"] / told["seconds"], told["owner_s"] / told["requests"] * 1e6


def _start_played() -> tuple["subprocess.Popen[bytes]", socket.socket, None]:
    """As `slot._start`: a process that plays a front end, our end of the socket to it, and no shared memory."""
    ours, its = socket.socketpair()
    with its:
        for end in (ours, its):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, slot._BUFFER_BYTES)
        command = [sys.executable, "-m", "bench.played_front_end", str(its.fileno()), *json.loads(os.environ["PLAYED"])]
        return subprocess.Popen(command, pass_fds=[its.fileno()], process_group=0), ours, None


if __name__ == "__main__":
    sys.exit(main())
