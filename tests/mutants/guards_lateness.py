"""The guards of what is kept of late requests: bounded, and cheap while everything is refused."""

from mutants.mutant import Mutant

_TEST_RING = ("tests/server/lateness/test_ring.py",)

LATENESS = (
    Mutant(
        "late-bounded",
        "late requests: as many are kept as were asked for",
        "heapq.heappush(self._slow, (request.total_s, next(self._order), request))",
        _TEST_RING,
    ),
    Mutant(
        "outcome-unexpected",
        "metrics: an unexpected error of a request is an outcome of its version",
        "pass",
        ("tests/contract/test_model_metrics.py",),
    ),
    Mutant(
        "late-one-line",
        "late requests: a caller's id writes no lines of its own into the log",
        "return text",
        ("tests/server/lateness/test_recording.py",),
    ),
    Mutant(
        "late-harmless",
        "late requests: what only watches ends no batcher",
        "except AssertionError:",
        ("tests/server/lateness/test_recording.py",),
    ),
    Mutant("late-forgets", "late requests: those of past minutes are forgotten", "pass", _TEST_RING),
    Mutant("late-refusals-cheap", "late requests: a frequent refusal is not kept each time", "pass", _TEST_RING),
)
