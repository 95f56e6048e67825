"""`make soak`: a million rows through one server, whose memory must not grow.

A seeded mix of good, bad, cancelled and impatient requests; then the server's own account must add
up, and its resident memory may be at most 5 % above that after the first tenth. `--swaps N` changes
versions and labels N times under load instead. Figures and a picture go to runs/soak.
"""

import argparse
import json
import re
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from tqdm import tqdm

from bench.server_process import started
from bench.soak_picture import memory_picture
from bench.soak_swaps import save_first_versions, swap_versions
from bench.soak_traffic import LARGEST, Tally, Traffic, save_models

ROOT = Path(__file__).parents[1]
MOST_GROWTH = 0.05
_SAMPLES = 200
_SETTLE_S = 10.0  # for calls whose clients went away


@dataclass(frozen=True)
class RunningServer:
    """The server's process and where it answers."""

    process: psutil.Process
    address: str
    metrics_url: str

    def resident_mib(self) -> float:
        """What it holds in memory now."""
        return float(self.process.memory_info().rss) / 2**20

    def metrics_page(self) -> str:
        """Its own account."""
        with urllib.request.urlopen(self.metrics_url) as page:  # noqa: S310 - our own server
            text: str = page.read().decode()
            return text


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="to be answered (default: a million)")
    parser.add_argument("--swaps", type=int, default=0, help="change versions so often under load, instead")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "soak")
    arguments = parser.parse_args()
    name = "swaps" if arguments.swaps else "soak"
    report = swap(arguments.swaps) if arguments.swaps else soak(arguments.rows, arguments.seed)
    memory = report["memory"]
    assert isinstance(memory, list)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    picture = memory_picture(memory, x_label="swaps" if arguments.swaps else "rows answered")
    (arguments.out / f"{name}.svg").write_text(picture)
    print_report(report, arguments.out / f"{name}.json")
    return 1 if report["findings"] else 0


def soak(rows: int, seed: int) -> dict[str, object]:
    """Answer so many rows and look at memory and outcomes."""
    with tempfile.TemporaryDirectory() as folder:
        save_models(Path(folder))
        with serving(Path(folder)) as server, grpc.insecure_channel(server.address) as channel:
            traffic = Traffic(channel, seed)
            began = time.monotonic()
            memory = answer(traffic, server, rows)
            seconds = time.monotonic() - began
            received, ended = settled_account(server)
            codes = sum_by("code", server.metrics_page(), "inferry_requests_outcome_total")
    baseline = next(mib for at, mib in memory if at >= rows / 10)
    growth = memory[-1][1] / baseline - 1
    findings = list(traffic.tally.findings)
    if growth > MOST_GROWTH:
        findings.append(f"memory grew by {growth:.1%}; at most {MOST_GROWTH:.0%} is accepted")
    if received != ended:
        findings.append(f"received {dict(received)} is not the sum of outcomes {dict(ended)}")
    return {
        "rows": traffic.tally.rows,
        "seconds": seconds,
        "seed": seed,
        "baseline_mib": baseline,
        "final_mib": memory[-1][1],
        "growth": growth,
        "received": sum(received.values()),
        "outcomes": outcome_table(traffic.tally),
        "server_outcomes": dict(codes),
        "findings": findings,
        "memory": memory,
    }


def swap(swaps: int) -> dict[str, object]:
    """Change versions and labels under load and look at memory."""
    with tempfile.TemporaryDirectory() as folder:
        save_first_versions(Path(folder))
        with serving(Path(folder), "--model-control", "explicit") as server:
            return swap_versions(Path(folder), server.address, server.resident_mib, swaps)


@contextmanager
def serving(repository: Path, *arguments: str) -> Iterator[RunningServer]:
    """A server of its own process, on free ports."""
    room = ("--max-queue-size", str(64 * LARGEST))  # callers in flight fit: only who is late is refused
    with started(repository, "--provider", "cpu", *room, *arguments) as (process, line):
        found = re.search(r"gRPC (\S+), metrics (\S+),", line)
        assert found, f"the server did not start: {line!r}"
        yield RunningServer(psutil.Process(process.pid), found[1], found[2])


def answer(traffic: Traffic, server: RunningServer, rows: int) -> list[tuple[int, float]]:
    """Run the traffic; resident MiB by rows answered."""
    memory = [(0, server.resident_mib())]
    with tqdm(total=rows, unit="row", unit_scale=True, disable=None, leave=False) as progress:
        for answered in traffic.run(until_rows=rows):
            progress.update(min(answered, rows) - progress.n)
            if answered - memory[-1][0] >= rows / _SAMPLES:
                memory.append((answered, server.resident_mib()))
    memory.append((traffic.tally.rows, server.resident_mib()))
    return memory


def settled_account(server: RunningServer) -> tuple[Counter[str], Counter[str]]:
    """RPCs received and ended, by method, once they agree or the wait for it is over."""
    ends = time.monotonic() + _SETTLE_S
    while True:
        page = server.metrics_page()
        received = sum_by("method", page, "inferry_requests_received_total")
        ended = sum_by("method", page, "inferry_requests_outcome_total")
        if received == ended or time.monotonic() > ends:
            return received, ended
        time.sleep(0.1)


def sum_by(label: str, page: str, metric: str) -> Counter[str]:
    """A counter of the metrics page, summed over all labels but one."""
    sums: Counter[str] = Counter()
    for labels, value in re.findall(rf"^{metric}{{(.*?)}} (\S+)$", page, re.MULTILINE):
        (key,) = re.findall(rf'{label}="(.*?)"', labels)
        sums[key] += int(float(value))
    return sums


def outcome_table(tally: Tally) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for (kind, outcome), count in sorted(tally.outcomes.items()):
        table.setdefault(kind, {})[outcome] = count
    return table


def print_report(report: dict[str, object], path: Path) -> None:
    outcomes = report.get("outcomes", {})
    assert isinstance(outcomes, dict)
    for kind, row in outcomes.items():
        print(f"{kind:<16}" + ", ".join(f"{count:,} {outcome}" for outcome, count in row.items()))
    codes = report.get("server_outcomes", {})
    assert isinstance(codes, dict)
    print("\n" + "the server's own account: " + ", ".join(f"{n:,} {code}" for code, n in sorted(codes.items())) + "\n"
          if codes else "")  # fmt: skip
    for name, value in report.items():
        if isinstance(value, float | int):
            print(f"{name:<16}{value:,.3f}" if isinstance(value, float) else f"{name:<16}{value:,}")
    findings = report["findings"]
    assert isinstance(findings, list)
    for finding in findings[:20]:
        print(f"FAILED: {finding}", file=sys.stderr)
    print(path)


if __name__ == "__main__":
    sys.exit(main())
