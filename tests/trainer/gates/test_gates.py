from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.manifest import read_manifest
from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.errors import GateError
from inferry_trainer.evaluation.classifier import make_classifier
from inferry_trainer.evaluation.evaluate import Evaluation, predict_probabilities
from inferry_trainer.export.candidate import Candidate
from inferry_trainer.export.convert import export_onnx
from inferry_trainer.export.onnx_model import load_onnx_model
from inferry_trainer.gates.accuracy import check_above_chance, check_accuracy_drop, check_labels
from inferry_trainer.gates.float64 import float64_probabilities
from inferry_trainer.gates.graph import check_graph
from inferry_trainer.gates.outputs import check_varied, compare_outputs
from inferry_trainer.gates.rounding import Truth
from inferry_trainer.gates.table import GATES
from inferry_trainer.gates.third_opinion import check_third_opinion
from inferry_trainer.publishing.verification import Evidence, verify_version

IMAGES: UInt8Array = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(5, activation="softmax")]
    )


@pytest.fixture
def graph(model: Any, tmp_path: Path) -> Path:
    export_onnx(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def change_initializer(path: Path, dims: list[int], change: Any) -> None:
    """Rewrite the only initializer of this shape."""
    model = onnx.load(path)
    [tensor] = [tensor for tensor in model.graph.initializer if list(tensor.dims) == dims]
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(tensor)), tensor.name))
    onnx.save(model, path)


def run_onnx(path: Path, images: UInt8Array) -> Float32Array:
    check_graph(path)
    return load_onnx_model(path).predict(images)


def compare(model: Any, graph: Path) -> None:
    compare_outputs(predict_probabilities(model, IMAGES), run_onnx(graph, IMAGES))


def probabilities(*rows: list[float]) -> Float32Array:
    return np.array(rows, np.float32)


def test_a_faithful_export_passes(model: Any, graph: Path) -> None:
    report = compare_outputs(predict_probabilities(model, IMAGES), run_onnx(graph, IMAGES))
    assert (report.images, report.label_mismatches, report.label_ties) == (40, 0, 0)
    assert report.max_abs_difference < report.rounding.difference_limit == 1e-5


@pytest.mark.parametrize(
    ("dims", "change"),
    [
        ([], lambda scale: scale * scale),  # pixels divided by 255 twice
        ([], np.ones_like),  # not divided at all
        ([36, 5], lambda kernel: np.ascontiguousarray(kernel[:, ::-1])),  # labels swapped
        ([36, 5], lambda kernel: kernel + np.float32(1e-3) * np.sign(kernel)),  # weights of another step
    ],
)
def test_a_graph_that_computes_something_else_is_refused_with_figures(
    model: Any, graph: Path, dims: list[int], change: Any
) -> None:
    change_initializer(graph, dims, change)
    message = r"gate parity: .*over 40 images the largest difference is [\d.e-]+ \(at most 1e-05 is accepted; .*\)"
    with pytest.raises(GateError, match=message):
        compare(model, graph)


def test_a_model_that_answers_every_image_alike_is_refused() -> None:
    constant = probabilities([0.1, 0.9]).repeat(10, axis=0)
    with pytest.raises(GateError, match="Keras gives every image the same answer: over 10 images"):
        check_varied(constant, who="Keras")


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (probabilities([0.2, float("nan")], [0.5, 0.5]), "not finite probabilities"),
        (probabilities([0.2, 0.9], [0.5, 0.5]), "a row's sum is off 1 by 0.1"),
        (probabilities([-0.5, 1.5], [0.5, 0.5]), "not probabilities"),
        (probabilities([1.0], [1.0]), "K > 1"),
    ],
)
def test_what_is_no_probability_is_refused(outputs: Float32Array, message: str) -> None:
    with pytest.raises(GateError, match=message):
        check_varied(outputs, who="Keras")


def test_labels_may_differ_only_where_the_best_two_are_closer_than_rounding() -> None:
    tied = probabilities([0.5000005, 0.4999995], [0.9, 0.1])
    other = probabilities([0.4999995, 0.5000005], [0.9, 0.1])
    report = compare_outputs(tied, other)
    assert (report.label_mismatches, report.label_ties) == (1, 1)


def test_outputs_of_another_shape_are_refused() -> None:
    with pytest.raises(GateError, match=r"\(2, 2\), ONNX Runtime \(3, 2\)"):
        compare_outputs(probabilities([0.2, 0.8], [0.5, 0.5]), probabilities([0.2, 0.8], [0.5, 0.5], [0.5, 0.5]))


def test_a_fixed_batch_dimension_is_refused(graph: Path) -> None:
    model = onnx.load(graph)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 40
    onnx.save(model, graph)
    with pytest.raises(GateError, match="'images' takes batches of 40 only; expected any size"):
        run_onnx(graph, IMAGES)


def test_another_signature_is_refused(graph: Path) -> None:
    model = onnx.load(graph)
    model.graph.input[0].name = model.graph.node[0].input[0] = "pixels"
    onnx.save(model, graph)
    with pytest.raises(GateError, match=r"has inputs and outputs \[\('pixels'"):
        run_onnx(graph, IMAGES)


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(GateError, match=r"gate checker: .*not a valid ONNX graph"):
        run_onnx(tmp_path / "model.onnx", IMAGES)


@given(st.integers(2, 6), st.integers(0, 1000))
def test_a_model_that_is_mostly_right_has_its_labels_in_order(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confusion = rng.integers(0, 5, (classes, classes)) + np.diag([5 * classes] * classes)
    labels = tuple("abcdef"[:classes])
    assert check_labels(confusion, labels).figures == {"classes": classes}
    order = rng.permutation(classes)
    if (order == np.arange(classes)).all():
        return
    with pytest.raises(GateError, match="labels look swapped: most of") as refused:
        check_labels(confusion[order], labels)
    assert refused.value.gate == "labels"


def test_a_model_that_answers_one_class_to_everything_has_no_swapped_labels() -> None:
    """That is another gate's business."""
    check_labels(np.array([[9, 0, 0], [9, 0, 0], [9, 0, 0]]), ("a", "b", "c"))


@pytest.mark.parametrize("labels", [("a", "a"), ("a", " b"), ("a", ""), ("a", "b\nc"), ("a", "b", "c")])
def test_labels_that_are_no_names_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(GateError, match="gate labels: "):
        check_labels(np.diag([5, 5]), labels)


@pytest.mark.parametrize(("correct", "passes"), [(9_990, True), (9_981, True), (9_980, True), (9_979, False)])
def test_reduced_precision_may_cost_a_tenth_of_a_point_and_no_more(correct: int, passes: bool) -> None:
    evaluation = Evaluation(images=10_000, correct=correct, loss=0.1, confusion=np.diag([correct]))
    if passes:
        check_accuracy_drop(evaluation, keras_accuracy=0.999, precision="int8", limit=0.1)
        return
    with pytest.raises(GateError, match=r"0\.110 percentage points are lost; at most 0\.1 .* 0\.01 points"):
        check_accuracy_drop(evaluation, keras_accuracy=0.999, precision="int8", limit=0.1)


def test_a_third_opinion_that_differs_is_refused_and_says_who_is_wrong(model: Any) -> None:
    classifier = make_classifier(model)
    outputs = classifier.predict(IMAGES)
    wrong = outputs.copy()
    wrong[0] = outputs[0][::-1]
    with pytest.raises(GateError, match="over 40 images the onnx model's probabilities differ from the float64"):
        check_third_opinion(classifier, IMAGES, keras_outputs=outputs, onnx_outputs=wrong)
    with pytest.raises(GateError, match="the keras model's probabilities"):
        check_third_opinion(classifier, IMAGES, keras_outputs=wrong, onnx_outputs=outputs)


def test_a_truth_that_another_float64_evaluation_contradicts_is_refused(model: Any) -> None:
    classifier = make_classifier(model)
    outputs = classifier.predict(IMAGES)
    exact = float64_probabilities(classifier, IMAGES[:3])
    answers: dict[str, Any] = {"keras_outputs": outputs, "onnx_outputs": outputs}
    check_third_opinion(classifier, IMAGES, truth=Truth(np.arange(3), exact), **answers)
    with pytest.raises(GateError, match="evaluated in float64, differs"):
        check_third_opinion(classifier, IMAGES, truth=Truth(np.arange(3), exact + 1e-6), **answers)


def test_a_model_in_half_precision_is_exported_in_full(tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    half = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(5, "softmax", dtype="mixed_float16")]
    )
    classifier = make_classifier(half)
    assert classifier.model.layers[-1].compute_dtype == "float32"
    export_onnx(half, tmp_path / "model.onnx")
    compare_outputs(classifier.predict(IMAGES), run_onnx(tmp_path / "model.onnx", IMAGES))


def evaluation_of(confusion: Any) -> Evaluation:
    confusion = np.array(confusion)
    return Evaluation(int(confusion.sum()), int(np.trace(confusion)), 0.5, confusion)


@given(st.integers(2, 8), st.integers(0, 1000))
def test_who_answers_without_looking_is_told_apart_however_often_each_class_occurs(classes: int, seed: int) -> None:
    shown = np.random.default_rng(seed).integers(5, 60, classes)
    constant = np.zeros((classes, classes), np.int64)
    constant[:, shown.argmax()] = shown
    proportional = np.full((classes, classes), 3)
    for confusion in (constant, proportional):
        assert "no better than guessing" in check_above_chance(evaluation_of(confusion)).note


@pytest.mark.parametrize(
    "confusion",
    [
        [[8, 2], [2, 8]],
        [[95, 5], [2, 3]],  # rare, and less accurate than always answering the commonest class
        np.eye(200, dtype=int),
        np.diag([5, 5]),
    ],
)
def test_who_recognises_something_of_each_class_does_not_guess(confusion: Any) -> None:
    result = check_above_chance(evaluation_of(confusion))
    assert (result.reason, result.note) == ("", "")


def test_pictures_of_one_class_do_not_tell_who_guesses() -> None:
    assert "show one class" in check_above_chance(evaluation_of([[60, 0], [1, 0]])).reason


def test_who_guesses_is_told_what_else_to_try() -> None:
    note = check_above_chance(evaluation_of([[20, 0], [20, 0]]), hint=lambda: "; try this").note
    assert note.endswith("by luck; try this")


def test_every_gate_of_the_table_gives_its_own_name(tinted: Candidate, tinted_models: Path) -> None:
    version = tinted_models / "tinted" / "1"
    assert len({gate.name for gate in GATES}) == len(GATES)
    results = verify_version(version, Evidence(tinted.classifier, tinted.test, tinted.labels))
    assert [result.gate for result in results] == [gate.name for gate in GATES]
    manifest = read_manifest(version)
    assert manifest is not None
    assert [gate.name for gate in manifest.gates] == [gate.name for gate in GATES if not gate.of_versions]
