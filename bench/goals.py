"""The ratios that matter, with what they must be and what they should be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.overloads import DEVICE, NETWORK
from bench.samples import Overload, Sample, Spread, differences, ratios, spread
from bench.workloads import (
    BATCH,
    BATCHES,
    BEFORE,
    BEFORE_INT8,
    INFERRY,
    INT8,
    OBJECTIVE,
    OBJECTIVE_MS,
    SCRIPTED,
    STREAM,
    TRITON,
    UNBATCHED,
    single,
)

Beside = Mapping[tuple[str, str], Sequence[Mapping[int, Sample]]]
Samples = Mapping[tuple[str, str], Sequence[Sample]]
Overloads = Mapping[tuple[str, str], Sequence[Overload]]
_SAID = {"images_per_s": "images/s", "cpu_us": "server CPU"}


@dataclass(frozen=True)
class Goal:
    """One figure and its limits.

    Attributes:
        name: with its unit, where it has one.
        measured: over the rounds.
        must: the limit.
        should: a better one, or None.
        at_most: whether less is better.
    """

    name: str
    measured: Spread
    must: float
    should: float | None = None
    at_most: bool = False

    @property
    def verdict(self) -> str:
        """`reached`, `must` (the limit is kept and the better one missed) or `missed`, by the median."""
        if not self._keeps(self.must):
            return "missed"
        return "reached" if self.should is None or self._keeps(self.should) else "must"

    def _keeps(self, limit: float) -> bool:
        return self.measured.median <= limit if self.at_most else self.measured.median >= limit


def judge(
    samples: Samples, beside: Beside, overloads: Overloads, *, start_s: Sequence[float], idle: Sequence[float]
) -> list[Goal]:
    """Every goal whose contenders took part.

    Args:
        samples: rounds by workload and contender.
        beside: likewise, the bare session by its rows, measured just before.
        overloads: rounds by workload and contender.
        start_s: from start to ready, for each round.
        idle: of a core, for each time it was looked at.
    """

    def values(key: tuple[str, str], name: str) -> list[float]:
        return [getattr(sample, name) for sample in samples[key]]

    busy, alone = single("perf_analyzer", 32), single("perf_analyzer", 1)
    batch, one, stream = (BATCHES, INFERRY), (alone, INFERRY), (STREAM, INFERRY)
    goals = [
        Goal("1 image, 32 at a time: server CPU beyond the model, us", spread(values((busy, INFERRY), "beyond_us")),
             120, 60, at_most=True),
        Goal("1 image, streamed, 32 at a time: the same", spread(values(stream, "beyond_us")), 80, at_most=True),
        Goal("32 images: server CPU / model CPU",
             ratios(values(batch, "cpu_us"), [each[BATCH].cpu_us for each in beside[batch]]), 1.05, 1.02, at_most=True),
        Goal("32 images: images/s / bare session",
             ratios(values(batch, "images_per_s"), [each[BATCH].images_per_s for each in beside[batch]]), 0.9, 0.95),
        Goal("1 image, 1 at a time: p50 beyond the bare session, ms",
             differences(values(one, "p50_ms"), [each[1].p50_ms for each in beside[one]]), 0.4, 0.3, at_most=True),
    ]  # fmt: skip
    if (busy, TRITON) in samples:
        ours, ours_int8, triton = (values((busy, name), "images_per_s") for name in (INFERRY, INT8, TRITON))
        goals += [
            Goal("1 image, 32 at a time: images/s / Triton", ratios(ours, triton), 1.2, 1.5),
            Goal("the same in int8 / Triton in float32", ratios(ours_int8, triton), 2, 2.5),
        ]
    goals += before_goals(samples)
    goals += batching_goals(samples)
    goals += overload_goals(overloads[DEVICE, SCRIPTED], overloads[NETWORK, OBJECTIVE])
    goals.append(Goal("idle server CPU, of a core", spread(idle), 0.005, at_most=True))
    goals.append(Goal("start to ready, s", spread(start_s), 1.5, at_most=True))
    return goals


def before_goals(samples: Samples) -> list[Goal]:
    """This checkout against another one, wherever both were measured: nothing may have become dearer."""
    goals = []
    for (workload, contender), rounds in samples.items():
        now = {BEFORE: INFERRY, BEFORE_INT8: INT8}.get(contender)
        if now is None:
            continue
        name = f"{workload}{', int8' if now == INT8 else ''}: {{}} / before"
        for figure, limit, at_most in (("images_per_s", 0.97, False), ("cpu_us", 1.03, True)):
            ours, theirs = ([getattr(one, figure) for one in each] for each in (samples[workload, now], rounds))
            goals.append(Goal(name.format(_SAID[figure]), ratios(ours, theirs), limit, at_most=at_most))
    return goals


def batching_goals(samples: Samples) -> list[Goal]:
    """Batching against none, wherever both were measured."""
    goals = []
    for (workload, contender), rounds in samples.items():
        if contender != UNBATCHED:
            continue
        batched = [sample.images_per_s for sample in samples[workload, INFERRY]]
        concurrency = int(workload.split(", ")[-1].split()[0])
        gain = ratios(batched, [sample.images_per_s for sample in rounds])
        goals.append(
            Goal(f"{concurrency} at a time: images/s with batching / without", gain, 1 if concurrency >= 8 else 0.97)
        )
    return sorted(goals, key=lambda goal: int(goal.name.split()[0]))


def overload_goals(rounds: Sequence[Overload], network: Sequence[Overload]) -> list[Goal]:
    """Of the scripted device, and of the real network, whose cores the generator shares."""
    useful = _useful(rounds)
    late = spread([each.accepted_p99_ms / OBJECTIVE_MS for each in rounds])
    expired = spread([float(each.expired) for each in rounds if each.expired is not None])
    return [
        Goal("overload: useful answers / peak", useful, 0.95, 0.98),
        Goal("overload: p99 of accepted / objective", late, 2, at_most=True),
        Goal("overload: expired requests computed", expired, 0, at_most=True),
        Goal("overload: growth of memory, MB", spread([each.growth_mb for each in rounds]), 5, at_most=True),
        Goal("overload of the network: useful answers / peak", _useful(network), 0.6),
    ]


def _useful(rounds: Sequence[Overload]) -> Spread:
    return ratios([each.useful_per_s for each in rounds], [each.peak_per_s for each in rounds])


def bare(rows: int) -> str:
    """The name of a bare session's workload."""
    return f"bare session, {rows} image{'s' if rows > 1 else ''}"
