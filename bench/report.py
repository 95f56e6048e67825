"""What was measured, as JSON and as tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from bench.goals import Goal, Overloads, Samples
from bench.samples import Overload, Sample, spread

NOTES = """\
Every figure is the median of the rounds, with the least and the most of them. Client and server share the cores, so
CPU compares best: it is that of the server's whole process tree, for one image, in user and system.
CPU beyond the model is that less what the bare session takes for one image in batches as large as the server really
formed on average (rows/batch), measured in the same round at 1 to 32 rows and taken along straight lines between.
Peers compute with the same ONNX Runtime, model, threads and pixels (uint8), and wait alike. The common client
writes the same bytes to every server, in gRPC six requests a connection, in HTTP (Mosec) one; it is Python, so its
images/s compare with one another and not with perf_analyzer's. Every reply must be an answer, except in overload."""


_DERIVED: dict[type[Any], tuple[str, ...]] = {Sample: ("tail",)}


def summarize(
    samples: Samples, overloads: Overloads, goals: Sequence[Goal], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything, for JSON: the facts of the run, figures with their spreads, and each round."""
    return {
        **facts,
        "goals": [{**asdict(goal), "verdict": goal.verdict} for goal in goals],
        "workloads": _rows(samples, Sample),
        "overloads": _rows(overloads, Overload),
    }


def _rows(measured: Mapping[tuple[str, str], Sequence[Any]], kind: type[Any]) -> list[dict[str, Any]]:
    rows = []
    for (workload, contender), rounds in measured.items():
        figures: dict[str, Any] = {}
        for name in (*(each.name for each in fields(kind)), *_DERIVED.get(kind, ())):
            values = [getattr(one, name) for one in rounds]
            figures[name] = None if None in values else asdict(spread(values))
        each_round = [asdict(one) for one in rounds]
        rows.append({"workload": workload, "contender": contender, **figures, "rounds": each_round})
    return rows


def print_tables(report: Mapping[str, Any]) -> None:
    """The tables for people."""
    print(f"\n{NOTES}\n")
    columns = ("images/s", "CPU us/image", "beyond, us", "rows/batch", "p50 ms", "p99 ms", "p99.9 / p50")
    names = ("images_per_s", "cpu_us", "beyond_us", "rows", "p50_ms", "p99_ms", "tail")
    _print_rows(report["workloads"], columns, names)
    overload_columns = (
        "peak/s",
        "offered/s",
        "useful/s",
        "late/s",
        "accepted p99 ms",
        "rows/batch",
        "expired",
        "growth MB",
        "client late ms",
    )
    overload_names = (
        "peak_per_s",
        "offered_per_s",
        "useful_per_s",
        "late_per_s",
        "accepted_p99_ms",
        "rows",
        "expired",
        "growth_mb",
        "behind_ms",
    )
    _print_rows(report["overloads"], overload_columns, overload_names)
    print(f"{'':<62}{'median (least-most)':>28}{'must':>9}{'should':>9}")
    for goal in report["goals"]:
        sign = "<=" if goal["at_most"] else ">="
        limits = "".join(
            f"{sign + f'{limit:g}' if limit is not None else '':>9}" for limit in (goal["must"], goal["should"])
        )
        print(f"{goal['name']:<62}{_figure(goal['measured']):>28}{limits}  {goal['verdict']}")
    for name in ("ready_s", "idle"):
        print(f"\n{_TITLES[name]}: " + ", ".join(f"{who} {_figure(value)}" for who, value in report[name].items()))
    if report["without"]:
        print(f"\nIncomplete: without {', '.join(report['without'])}, so not what the README may state.")


def _print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], names: Sequence[str]) -> None:
    print(" " * 64 + "".join(f"{column:>22}" for column in columns))
    previous = ""
    for row in rows:
        workload = row["workload"] if row["workload"] != previous else ""
        previous = row["workload"]
        print(f"{workload:<40}{row['contender']:<24}" + "".join(f"{_figure(row[name]):>22}" for name in names))
    print()


def _figure(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "-"
    return f"{_short(value['median'])} ({_short(value['least'])}-{_short(value['most'])})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


_TITLES = {
    "ready_s": "Start to ready, s (Inferry and Triton say when; of the others the port is open)",
    "idle": "Idle CPU, of a core",
}
