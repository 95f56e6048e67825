"""The guards of what is published: what is accepted of a graph, and that it is asked."""

from mutants.mutant import Mutant

_GATES = "trainer/inferry_trainer/gates"
_TEST_ROUNDING = ("tests/trainer/gates/test_rounding.py",)
_TEST_GATES = ("tests/trainer/gates/test_gates.py",)
_TEST_FAULTS = ("tests/trainer/gates/test_planted_faults.py",)

GATES = (
    Mutant(
        "gates: a graph is no further from the truth than the factor allows",
        f"{_GATES}/outputs.py",
        "if largest > rounding.limit or typical > rounding.typical_limit:",
        "if False:",
        _TEST_ROUNDING,
    ),
    Mutant(
        "gates: one doubtful image excuses no other",
        f"{_GATES}/outputs.py",
        " or typical > rounding.typical_limit:",
        ":",
        _TEST_ROUNDING,
    ),
    Mutant(
        "gates: a truth that is another model's widens nothing",
        f"{_GATES}/rounding.py",
        "if not largest <= CEILING:",
        "if False:",
        _TEST_ROUNDING,
    ),
    Mutant(
        "gates: ties are by rounding, not by the error itself",
        f"{_GATES}/outputs.py",
        "2 * rounding.difference_limit",
        "2 * np.abs(expected - onnx_outputs).max()",
        _TEST_ROUNDING,
    ),
    Mutant(
        "gates: the images that differ most are asked",
        f"{_GATES}/rounding.py",
        "np.argsort(-difference",
        "np.argsort(difference",
        _TEST_ROUNDING,
    ),
    Mutant(
        "gates: the float32 graph is judged whatever is published",
        "trainer/inferry_trainer/workflow/export.py",
        'return subject, judge(subject, leave_out=("golden", "latency") if only_variants else ())',
        "return subject, [] if only_variants else judge(subject)",
        _TEST_FAULTS,
    ),
    Mutant("gates: chance", f"{_GATES}/accuracy.py", "if not recall > least:", "if False:", _TEST_GATES),
)
