"""What front ends cost and bring: `make bench-front-ends ARGS="--front-ends 0 1 2 4 8 --seconds 5 --rounds 4"`.

Single images and requests of 32 pictures over many connections, with models that cost nothing and with others of the
caller's. For each number of front ends: requests a second, and the CPU time of a request in the process that owns the
models (the part that no further process can take over), in the front ends, and in all.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.gpu_server import Server
from bench.server_cpu import cpu_s
from bench.server_process import started
from testkit import onnx_models

_SIDE, _CHANNELS = 64, 3  # of the pictures of large requests: 12 KiB each


@dataclass(frozen=True)
class Load:
    """What is asked, and how much of it at a time."""

    model: str
    rows: int
    concurrency: int
    connections: int


SINGLE, LARGE = ("single", "large")


@dataclass(frozen=True)
class Row:
    """One measurement: requests a second, and microseconds of CPU a request."""

    per_s: float
    owner_us: float
    front_ends_us: float


def main() -> None:
    arguments = _parse()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        onnx_models.save_doubler(repository)
        onnx_models.save_corner(repository, side=_SIDE, channels=_CHANNELS)
        if SINGLE in arguments.loads:
            _measure(repository, Load("doubler", 1, 64, 16), arguments)
        if LARGE in arguments.loads:
            _measure(repository, Load("corner", 32, 16, 8), arguments)
    for path in arguments.model:
        _measure(path.parent, Load(path.name, 1, 64, 16), arguments)


def _measure(repository: Path, load: Load, arguments: argparse.Namespace) -> None:
    rows: dict[int, list[Row]] = {count: [] for count in arguments.front_ends}
    for number in range(arguments.rounds):
        order = arguments.front_ends if number % 2 == 0 else arguments.front_ends[::-1]
        for count in order:
            rows[count].append(_row(repository, load, count, arguments.seconds))
    print(
        f"\n{load.model}, {load.concurrency} requests of {load.rows} at a time over {load.connections} connections, "
        f"medians of {arguments.rounds} rounds (all rates)"
    )
    print(f"{'front ends':>10}  {'requests/s':>10}  {'owner us':>8}  {'front ends us':>13}  {'all us':>7}")
    for count, measured in rows.items():
        print(
            f"{count:>10}  {_median(measured, 'per_s'):>10,.0f}  {_median(measured, 'owner_us'):>8.0f}  "
            f"{_median(measured, 'front_ends_us'):>13.0f}  "
            f"{statistics.median(row.owner_us + row.front_ends_us for row in measured):>7.0f}  "
            f"({', '.join(f'{row.per_s:,.0f}' for row in measured)})",
            flush=True,
        )


def _median(rows: Sequence[Row], name: str) -> float:
    return float(statistics.median(getattr(row, name) for row in rows))


def _row(repository: Path, load: Load, count: int, seconds: float) -> Row:
    with _server(repository, count, seconds) as server:
        server.ask(load.model, load.rows, load.concurrency, connections=load.connections)  # warm
        before = cpu_s(server.process)
        loaded, _, _ = server.ask(load.model, load.rows, load.concurrency, connections=load.connections)
        spent = cpu_s(server.process) - before
        return Row(len(loaded.seconds) / loaded.wall_s, **spent.figures(len(loaded.seconds)))


@contextmanager
def _server(repository: Path, count: int, seconds: float) -> Iterator[Server]:
    with started(repository, "--provider", "cpu", "--front-ends", str(count)) as (process, line):
        yield Server(line, repository, seconds, psutil.Process(process.pid))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--front-ends", type=int, nargs="+", default=[0, 1, 2], help="numbers of front ends")
    parser.add_argument(
        "--loads", nargs="*", choices=(SINGLE, LARGE), default=[SINGLE, LARGE], help="that cost nothing"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=4, help="even, as every other one runs backwards")
    parser.add_argument("--model", type=Path, nargs="*", default=[], help="folders of models, REPOSITORY/NAME")
    return parser.parse_args()


if __name__ == "__main__":
    main()
