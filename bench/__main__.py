"""`make bench`: Inferry's wheel beside bare ONNX Runtime, Triton, Mosec and MLServer, as ratios of one run.

A round starts every server, on the same cores, with the same network, and measures every workload on each, one after
the other; every second round does so in the opposite order. JSON, tables and a plot go to
runs/bench. The full run takes about 21 minutes on two cores (--rounds 5), and some more the first time, when the
peers are installed; --quick shows in about three that everything works.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.environments import PINS, environment
from bench.goals import judge
from bench.installed import install
from bench.perf_analyzer import ProgramUnavailableError, installed_program
from bench.plot import Panel, draw
from bench.report import print_tables, summarize
from bench.rounds import FULL, QUICK, Bench
from bench.samples import spread
from bench.workloads import (
    CONCURRENCIES,
    INFERRY,
    MLSERVER,
    MOSEC,
    PEERS,
    TRITON,
    UNBATCHED,
    contenders,
    single,
)

ROOT = Path(__file__).resolve().parents[1]
_EXPORT_S = 300.0
_INSTRUCTION_SETS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "i8mm", "sve")


def main() -> int:
    """Measure, write and print; 0 even where a goal is missed: a benchmark is no test."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a short run that shows that everything works")
    parser.add_argument("--rounds", type=int, help=f"of everything ({FULL.rounds})")
    parser.add_argument("--without-peer", action="append", default=[], choices=PEERS, help="leave a peer out")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another checkout, set up, to compare with")
    parser.add_argument("--from-source", action="store_true", help="this checkout's Python, not its compiled wheel")
    parser.add_argument("--transport", help="Inferry's setting of this name")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    arguments = parser.parse_args()
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error(f"--rounds is {arguments.rounds}; expected 1 or more")
    if arguments.before is not None and not (arguments.before / ".venv" / "bin" / "python").exists():
        parser.error(f"--before {arguments.before} has no .venv; expected a checkout where `make setup` ran")
    durations = QUICK if arguments.quick else FULL
    durations = replace(durations, rounds=arguments.rounds or durations.rounds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))  # servers are stopped on the way out
    try:
        installed_program()
    except ProgramUnavailableError as error:  # known now, and not minutes later
        parser.error(str(error))
    for name in set(PEERS) - set(arguments.without_peer):
        environment(name)
    cores = len(os.sched_getaffinity(0))
    flags = ("--transport", arguments.transport) if arguments.transport else ()
    with tempfile.TemporaryDirectory(prefix="inferry-bench-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "bench.export_models", name]
        subprocess.run(command, check=True, timeout=_EXPORT_S, stdout=sys.stderr)
        installed = None if arguments.from_source else install(folder / "installed")
        chosen = contenders(
            folder,
            threads=cores,
            inferry_flags=flags,
            without=arguments.without_peer,
            before=arguments.before and arguments.before.absolute(),
            installed=installed,
        )
        bench, started = Bench(chosen, durations, folder), time.monotonic()
        bench.measure()
    ready_s, idle = (
        {name: asdict(spread(measured[name])) for name in (INFERRY, *PEERS.values()) if name in measured}
        for measured in (bench.ready_s, bench.idle)
    )
    goals = judge(
        bench.samples, bench.beside, bench.overloads, start_s=bench.ready_s[INFERRY], idle=bench.idle[INFERRY]
    )
    facts = {
        "machine": f"{cores} cores, {cpu_name()} ({', '.join(instruction_sets())}), Python {platform.python_version()}",
        "minutes": (time.monotonic() - started) / 60,
        "rounds": durations.rounds,
        "hot_path": installed.hot_path if installed else "python",
        "transport": arguments.transport or "default",
        "pins": {each.stem: each.read_text().splitlines() for each in PINS.glob("*.txt")},
        "without": arguments.without_peer,
        "ready_s": ready_s,
        "idle": idle,
    }
    report = summarize(bench.samples, bench.overloads, goals, facts)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    (arguments.out / "concurrency.svg").write_text(draw(panels(report)))
    print(
        f"the chapter's MNIST network, uint8 pixels, {facts['machine']}; Inferry's hot path: {facts['hot_path']}; "
        f"{durations.rounds} rounds"
    )
    print_tables(report)
    print(f"\n{arguments.out / 'bench.json'}\n{arguments.out / 'concurrency.svg'}")
    return 0


def panels(report: Mapping[str, Any]) -> list[list[Panel]]:
    """A row for each load generator: throughput, and p99."""
    rows = {(row["workload"], row["contender"]): row for row in report["workloads"]}

    def curves(tool: str, names: tuple[str, ...], figure: str) -> dict[str, dict[int, float]]:
        found = {
            name: {n: rows[key][figure]["median"] for n in CONCURRENCIES if (key := (single(tool, n), name)) in rows}
            for name in names
        }
        return {name: curve for name, curve in found.items() if curve}

    drawn = []
    for tool, names in {
        "perf_analyzer": (INFERRY, UNBATCHED, TRITON),
        "common client": (INFERRY, TRITON, MOSEC, MLSERVER),
    }.items():
        throughput = Panel(f"images/s, one a request ({tool})", curves(tool, names, "images_per_s"))
        p99 = Panel(f"p99 of a request, ms ({tool})", curves(tool, names, "p99_ms"), logarithmic=True)
        drawn.append([throughput, p99])
    return drawn


def cpu_name() -> str:
    """As the kernel calls it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def instruction_sets() -> list[str]:
    """Those that decide how fast ONNX Runtime computes, as the kernel names them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    known = set(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())
    return [name for name in _INSTRUCTION_SETS if name in known] or ["no vector instructions that the kernel names"]


if __name__ == "__main__":
    sys.exit(main())
