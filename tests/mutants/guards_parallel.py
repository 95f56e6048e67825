"""The guards of runs that are computed at the same time."""

from mutants.mutant import Mutant

_TEST_SCHEDULER = ("tests/server/batching/test_scheduler.py",)
_TEST_PARALLEL = ("tests/server/runtime/test_parallel.py",)

PARALLEL = (
    Mutant(
        "small-batch-bulk",
        "small batches: interactive requests do not wait for a large batch of bulk work",
        "if False:",
        _TEST_SCHEDULER,
    ),
    Mutant(
        "small-batch-brief",
        "small batches: where smaller ones are as good, interactive requests wait for those",
        "return small",
        _TEST_SCHEDULER,
    ),
    Mutant(
        "bulk-batch-expected",
        "bulk batches: expected to take as long as all their rows",
        "most = self._most_rows",
        _TEST_SCHEDULER,
    ),
    Mutant(
        "bulk-batch-bulk-alone",
        "bulk batches: interactive requests have no such batches",
        "if self.serves_alone:",
        _TEST_SCHEDULER,
    ),
    Mutant(
        "small-batch-enough",
        "small batches: an idle device waits for no more",
        "enough = self.max_batch_size",
        _TEST_SCHEDULER,
    ),
    Mutant(
        "batch-lane-full",
        "batch: a lane without room for all of one can be full",
        "self._full_rows = policy.max_batch_size",
        _TEST_SCHEDULER,
    ),
    Mutant("parallel-runs-measured", "parallel runs: measured with the cores to itself", "", _TEST_PARALLEL),
    Mutant("parallel-runs-no", "parallel runs: no part reads on when another has failed", "", _TEST_PARALLEL),
    Mutant("parallel-runs-closed", "parallel runs: none once closed", "if len(sizes) == 1:", _TEST_PARALLEL),
    Mutant("parallel-runs-not", "parallel runs: not where they are slower", "if False:", _TEST_PARALLEL),
    Mutant("parallel-runs-second", "parallel runs: the second session is verified", "", _TEST_PARALLEL),
    Mutant(
        "parallel-runs-not-outputs",
        "parallel runs: not where outputs may differ in size",
        "if not (plan.batched and threads > 1  and fits):",
        _TEST_PARALLEL,
    ),
    Mutant("parallel-runs-no-run", "parallel runs: no run has more rows than allowed", "if True:", _TEST_PARALLEL),
    Mutant("parallel-runs-none", "parallel runs: none is without rows", "count = self.parallel_runs", _TEST_PARALLEL),
    Mutant(
        "parallel-runs-each",
        "parallel runs: no run has more rows than allowed where a core computes several",
        "each = 1",
        _TEST_PARALLEL,
    ),
    Mutant(
        "parallel-runs-few",
        "parallel runs: not where even several are too short",
        "return each",
        _TEST_PARALLEL,
    ),
    Mutant(
        "parallel-runs-bulk-alone",
        "parallel runs: interactive requests wait for no more than one short run",
        "if False:",
        _TEST_PARALLEL,
    ),
    Mutant(
        "parallel-runs-putting",
        "parallel runs: what putting them together took is counted once",
        "assembly_s = done.assembly_s",
        _TEST_PARALLEL,
    ),
)
