"""The guards of what belongs to whom: rows to their request, labels to their output."""

from mutants.mutant import Mutant

_TEST = ("tests/server/models/test_row_independence.py",)
_TEST_BOUNDS = ("tests/server/models/test_row_examination.py",)
_TEST_PROOF = ("tests/server/models/test_row_proof.py",)

ROWS = (
    Mutant(
        "labels-manifest",
        "labels: a manifest has one for each class",
        "if False:",
        ("tests/server/models/test_class_labels.py",),
    ),
    Mutant(
        "labels-own-output",
        "labels: an output has its own or none",
        "own = labels[min(labels)]",
        ("tests/contract/test_classification.py",),
    ),
    Mutant(
        "labels-as-many-classes",
        "labels: a file that names no output labels one with as many classes",
        "if True:",
        ("tests/server/models/test_class_labels.py",),
    ),
    Mutant(
        "rows-others-exchanged", "rows: whatever comes beside a row changes nothing of its answer", "if False:", _TEST
    ),
    Mutant("rows-alone", "rows: a row is answered alone as in a batch", "if False:", _TEST),
    Mutant("rows-varied", "rows: an output that never changes shows nothing", "if False:", _TEST),
    Mutant("rows-one-large-batch", "rows: slow models are tried in a large batch too", "if True:", _TEST_BOUNDS),
    Mutant("rows-quickest", "rows: a stall makes no model look slow", "self._row_s = took_s", _TEST_BOUNDS),
    Mutant("rows-as-many-as-tried", "rows: batches are no larger than were tried", "if True:", _TEST_PROOF),
    Mutant("rows-flags", "rows: rows of flags are all true and all false too", "if False:", _TEST),
    Mutant("rows-quickly-compared", "rows: the scale of a group is told once", "if True:", _TEST),
    Mutant("rows-too-long-once", "rows: what takes for ever is asked for once", "continue", _TEST_BOUNDS),
    Mutant(
        "rows-runs-limited",
        "rows: runs of made-up rows are ended",
        "",
        ("tests/server/runtime/test_limited_runs.py",),
    ),
    Mutant("rows-scale-of-places", "rows: a large number hides nothing beside it", "alike = False", _TEST),
    Mutant("rows-bytes", "rows: what is too large is not made up", "if False:", _TEST_BOUNDS),
    Mutant("rows-batch-bytes", "rows: made up batches are bounded in bytes", "return largest", _TEST_BOUNDS),
    Mutant(
        "rows-alone-unless-shown",
        "rows: no batches unless rows were shown to be independent",
        "return plan, False",
        _TEST_PROOF,
    ),
    Mutant("rows-axis-names", "rows: first axes with two names are no batch", "if False:", _TEST_PROOF),
    Mutant(
        "shapes-of-any-rank",
        "shapes: what has any number of axes is no scalar",
        "any_rank = False",
        ("tests/server/models/test_any_rank.py",),
    ),
    Mutant(
        "golden-alone",
        "proof: golden samples are asked alone as well",
        "for start in range(0):",
        ("tests/server/models/test_loading.py",),
    ),
)
