"""The guards of runs that are computed at the same time."""

from mutants.mutant import Mutant

_SERVER = "server/inferry_server"
_SCHEDULER = f"{_SERVER}/batching/scheduler.py"
_PARALLEL = f"{_SERVER}/runtime/parallel.py"
_PARALLEL_RUNS = f"{_SERVER}/models/parallel_runs.py"
_TEST_SCHEDULER = ("tests/server/batching/test_scheduler.py",)
_TEST_PARALLEL = ("tests/server/runtime/test_parallel.py",)

PARALLEL = (
    Mutant(
        "parallel runs: people do not wait for all runs of a job",
        _SCHEDULER,
        "if lane is self._bulk and now - self._person_at < _PEOPLE_S:",
        "if False:",
        _TEST_SCHEDULER,
    ),
    Mutant(
        "parallel runs: a lane without room for all of them can be full",
        _SCHEDULER,
        "self._full_rows = min(policy.most_rows, policy.max_queue_size)",
        "self._full_rows = policy.most_rows",
        _TEST_SCHEDULER,
    ),
    Mutant(
        "parallel runs: measured with the cores to itself",
        _PARALLEL_RUNS,
        "seat.acquire()\n",
        "pass\n",
        _TEST_PARALLEL,
    ),
    Mutant(
        "parallel runs: no part reads on when another has failed",
        _PARALLEL,
        "wait(others)  # they read the inputs",
        "pass",
        _TEST_PARALLEL,
    ),
    Mutant(
        "parallel runs: not where they are slower",
        _PARALLEL_RUNS,
        "if all_s > _MOST_SLOWDOWN * threads * full_s:",
        "if False:",
        _TEST_PARALLEL,
    ),
    Mutant(
        "parallel runs: the second session is verified",
        _PARALLEL_RUNS,
        "golden.check(single.run)",
        "pass",
        _TEST_PARALLEL,
    ),
    Mutant(
        "parallel runs: not where outputs may differ in size",
        _PARALLEL_RUNS,
        "and can_be_bound(plan.signature)",
        "",
        _TEST_PARALLEL,
    ),
    Mutant(
        "parallel runs: no run has more rows than allowed",
        f"{_SERVER}/batching/policy.py",
        "if rows <= self.max_batch_size or self.parallel_runs == 1:",
        "if True:",
        _TEST_PARALLEL,
    ),
    Mutant(
        "parallel runs: none is without rows",
        f"{_SERVER}/batching/policy.py",
        "count = min(rows, self.parallel_runs)",
        "count = self.parallel_runs",
        _TEST_PARALLEL,
    ),
    Mutant(
        "parallel runs: what putting them together took is counted once",
        f"{_SERVER}/executing/execution.py",
        "assembly_s=done.assembly_s / len(runs)",
        "assembly_s=done.assembly_s",
        _TEST_PARALLEL,
    ),
)
