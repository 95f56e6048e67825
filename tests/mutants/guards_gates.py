"""The guards of what is published: what is accepted of a graph, and that it is asked."""

from mutants.mutant import Mutant

_TEST_ROUNDING = ("tests/trainer/gates/test_rounding.py",)
_TEST_GATES = ("tests/trainer/gates/test_gates.py",)
_TEST_FAULTS = ("tests/trainer/gates/test_planted_faults.py",)
_TEST_COPIES = ("tests/trainer/evaluation/test_copying.py",)
_TEST_LAYERS = ("tests/trainer/export/test_layers_that_convert.py",)
_TEST_LABELS = ("tests/trainer/publishing/test_version_labels.py",)
_TEST_TRAIN = ("tests/trainer/training/test_train.py",)

GATES = (
    Mutant("traffic-not-all", "traffic: a new version never gets all of it", "if False:", _TEST_LABELS),
    Mutant("traffic-stable-elsewhere", "traffic: `stable` is not moved", "if False:", _TEST_LABELS),
    Mutant("traffic-version-policy", "traffic: what settings choose is not guessed", "if False:", _TEST_LABELS),
    Mutant(
        "gates-scaled-measured",
        "gates: pictures that are decoded whole anyway measure nothing",
        "if False:",
        ("tests/trainer/gates/test_scaled_jpeg.py",),
    ),
    Mutant(
        "gates-scaled-drop",
        "gates: decoding JPEGs smaller costs no more accuracy than is accepted",
        "if False:",
        ("tests/trainer/gates/test_scaled_jpeg.py",),
    ),
    Mutant(
        "gates-truth",
        "gates: a graph is no further from the truth than the factor allows",
        "too_far = False",
        _TEST_ROUNDING,
    ),
    Mutant(
        "gates-typical-image",
        "gates: one doubtful image excuses no other",
        "too_far = largest > rounding.limit",
        _TEST_ROUNDING,
    ),
    Mutant(
        "gates-no-other-truth", "gates: a truth that is another model's widens nothing", "if False:", _TEST_ROUNDING
    ),
    Mutant(
        "gates-ties-by-rounding",
        "gates: ties are by rounding, not by the error itself",
        "tied = mismatched & (best - second <= 2 * np.abs(expected - onnx_outputs).max())",
        _TEST_ROUNDING,
    ),
    Mutant(
        "gates-worst-images",
        "gates: the images that differ most are asked",
        "worst = np.argsort(difference)[:_EACH]",
        _TEST_ROUNDING,
    ),
    Mutant(
        "gates-float32-first",
        "gates: the float32 graph is judged whatever is published",
        "return subject, [] if only_variants else judge(subject)",
        _TEST_FAULTS,
    ),
    Mutant(
        "folder-hidden-files",
        "pictures: hidden files are nobody's",
        "return True",
        ("tests/trainer/datasets/test_labelled_folder.py",),
    ),
    Mutant(
        "pixels-scaled-twice",
        "pixels: what a model scales by itself is not scaled before",
        "if False:",
        ("tests/trainer/export/test_pixel_range.py",),
    ),
    Mutant("copies-derived-state", "copies: what layers derive from weights is derived anew", "pass", _TEST_COPIES),
    Mutant("copies-compared", "copies: a model made again is compared with the model", "if False:", _TEST_COPIES),
    Mutant(
        "convert-pads-behind",
        "conversion: a transposed convolution adds rows behind",
        "pads[axis], pads[axes + axis] = 0, -more[axis]",
        _TEST_LAYERS,
    ),
    Mutant("convert-operators", "conversion: operators are ONNX's own", "if False:", _TEST_LAYERS),
    Mutant(
        "labels-count",
        "labels: as many as classes",
        "if True:",
        ("tests/trainer/export/test_class_labels.py",),
    ),
    Mutant("progress-sparse", "progress: a log has a line a minute", "if False:", _TEST_TRAIN),
    Mutant("gates-float64-twice", "gates: two float64 evaluations agree", "if False:", _TEST_GATES),
    Mutant(
        "gates-other-images",
        "gates: an image's answer depends on no other image",
        "if False:",
        ("tests/trainer/gates/test_latency.py",),
    ),
    Mutant("gates-chance", "gates: chance", "if True:", _TEST_GATES),
)
