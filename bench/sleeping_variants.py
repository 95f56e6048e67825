"""`make bench-relief`: what is useful of twice a model's capacity where models sleep instead of computing.

    python -m bench.sleeping_variants --times 1.5 2 3

The rule by which a model leaves requests to its variant, in the real server, for variants so many times as fast: a
processor's arithmetic has no part in it, and other programs little, as a batch takes a tenth of a second and the
objective is a second. What is possible is measured in the same round: no more is, than the variant answers by itself.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import grpc
import numpy as np

from bench.degrade import MODEL, TIMES, VARIANT, Outcome, closed_loop, open_loop, possible
from bench.labelled_pictures import Pictures
from bench.server_process import started
from testkit import onnx_models

_A_MS, _B_MS, _ROWS, _BATCH = 20.0, 1.25, 8, 64  # a full batch takes 100 ms
_OBJECTIVE_MS = 1000.0
_CLOSED_S = 2.5


def played(channel: grpc.Channel, pictures: Pictures, seconds: float) -> tuple[float, float, Outcome]:
    """The peaks of model and variant, and what came of twice the first."""
    plain, accepting = (pictures.requests(MODEL, accept_variant=accept) for accept in (False, True))
    peak = closed_loop(channel, plain, _CLOSED_S)
    faster = closed_loop(channel, pictures.requests(VARIANT, accept_variant=False), _CLOSED_S)
    outcome = open_loop(channel, accepting, pictures, rate=TIMES * peak, seconds=seconds, objective_ms=_OBJECTIVE_MS)
    return peak, faster, outcome


def measured(repository: Path, times: float, *, rounds: int, seconds: float) -> None:
    """Print every round, and the medians, of a variant so many times as fast."""
    pictures = Pictures(np.zeros((64 * _ROWS, 4, 4, 1), np.uint8), np.zeros(64 * _ROWS, np.uint8), _ROWS)
    program = ("bench.sleeping_server", f"{_A_MS:g}", f"{_B_MS:g}", f"{times:g}")
    flags = ("--latency-objective-ms", f"{_OBJECTIVE_MS:g}", "--max-batch-size", str(_BATCH), "--no-parallel-runs")
    shares: list[tuple[float, float]] = []
    with (
        started(repository, "--provider", "cpu", *flags, program=program) as (_, line),
        grpc.insecure_channel(line.split("gRPC ")[1].split(",")[0]) as channel,
    ):
        for _ in range(rounds):
            peak, faster, outcome = played(channel, pictures, seconds)
            shares.append((outcome.useful, possible(peak, faster)))
            print(
                f"k {times:g}, measured {faster / peak:.2f}: useful {shares[-1][0]:.3f} of "
                f"{shares[-1][1]:.3f} possible; {outcome.by_variant:.2f} of the answers by the variant",
                flush=True,
            )
    useful, most = (statistics.median(column) for column in zip(*shares, strict=True))
    print(f"k {times:g}, medians: useful {useful:.3f} of {most:.3f} possible: {useful / most:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-relief", description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=float, nargs="+", default=[1.5, 2.0, 3.0], help="how fast variants are")
    parser.add_argument("--rounds", type=int, default=3, help="of each (3)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each open loop (10)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inferry-bench-") as folder:
        repository = Path(folder)
        onnx_models.save_brightness(repository, name=MODEL)
        onnx_models.save_brightness_variant(repository, base=MODEL)
        for times in args.times:
            measured(repository, times, rounds=args.rounds, seconds=args.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
