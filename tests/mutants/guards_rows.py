"""The guards of what belongs to whom: rows to their request, labels to their output."""

from mutants.mutant import Mutant

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
)
