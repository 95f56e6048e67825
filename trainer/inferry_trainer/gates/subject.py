"""What a graph is judged by: everything the gates ask for, each figure computed when the first of them asks."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from inferry_proto.cores import available_cores
from inferry_proto.golden import GoldenSamples, GoldenSamplesError, load_golden_samples
from inferry_proto.manifest_pb2 import ModelManifest
from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.datasets import Part
from inferry_trainer.errors import GateError
from inferry_trainer.evaluation.classifier import Classifier
from inferry_trainer.evaluation.evaluate import Evaluation, evaluate_probabilities
from inferry_trainer.export.candidate import make_probes
from inferry_trainer.export.onnx_model import CPU, INPUT, OnnxModel, load_onnx_model
from inferry_trainer.gates.accuracy import MAX_ACCURACY_DROP
from inferry_trainer.gates.golden import golden_positions, golden_tolerances, make_golden_samples
from inferry_trainer.gates.latency import LatencyCurve, measure_latency
from inferry_trainer.gates.outputs import ParityReport, compare_outputs, measure_difference
from inferry_trainer.gates.rounding import MAX_DIFFERENCE, Rounding, Truth, ask_float64, measure_rounding
from inferry_trainer.gates.scaled_jpeg import DecodedTwice


@dataclass(frozen=True)
class Limits:
    """What is accepted of a graph.

    Attributes:
        accuracy_drop: percentage points of test accuracy that reduced precision may cost, against Keras.
        difference: between a probability of Keras' and one of the float32 graph's, whatever rounding explains.
    """

    accuracy_drop: float = MAX_ACCURACY_DROP
    difference: float = MAX_DIFFERENCE


@dataclass(frozen=True)
class Recorded:
    """Figures that were recorded of a model on the same images.

    Attributes:
        where: they were recorded, for messages.
        accuracy: fraction of 1; None where none was recorded.
        loss: None where it was not recorded, or says nothing.
        keras_accuracy: of the Keras model the graph was made from; None where it was not recorded.
        rounding: accepted of the float32 graph when it was published.
        reason: why nothing was recorded that applies.
    """

    where: str = "the run"
    accuracy: float | None = None
    loss: float | None = None
    keras_accuracy: float | None = None
    rounding: float = 0.0
    reason: str = "nothing was recorded when the model was trained"


@dataclass(frozen=True)
class Published:
    """A version as it lies in a repository.

    Attributes:
        folder: of the version.
        manifest: what it says of itself.
        data_labels: of the images it is held against; empty without images.
    """

    folder: Path
    manifest: ModelManifest
    data_labels: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Subject:
    """A graph before the gates, and what it is held against.

    Attributes:
        graph: its file.
        precision: of its weights.
        labels: line i names class i.
        limits: what is accepted.
        classifier: the Keras model it was made from; None where it is not at hand.
        why_no_keras: says why.
        test: labelled images; None where there are none.
        why_no_test: says why.
        recorded: figures of earlier.
        float32: the proven float32 graph of the same model; None where this is it, or where it is not at hand.
        published: the version it belongs to; None before publication.
        decoded_twice: labelled pictures, whole and decoded smaller; None where that is not asked for.
    """

    graph: Path
    precision: str
    labels: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)
    classifier: Classifier | None = None
    why_no_keras: str = "the Keras model is not at hand: name its run with --run, or its file with --keras"
    test: Part | None = None
    why_no_test: str = "no test images: published unverified"
    recorded: Recorded = field(default_factory=Recorded)
    float32: "Subject | None" = None
    published: Published | None = None
    decoded_twice: DecodedTwice | None = None

    def _keras(self) -> Classifier:
        if self.classifier is None:
            raise ValueError(f"nothing is known of Keras' answers: {self.why_no_keras}")
        return self.classifier

    @property
    def is_full_precision(self) -> bool:
        """Whether parity is judged: what reduced precision changes, accuracy judges."""
        return self.precision == "float32"

    @cached_property
    def model(self) -> OnnxModel:
        """The graph in ONNX Runtime."""
        return load_onnx_model(self.graph)

    @cached_property
    def images(self) -> UInt8Array:
        """What is asked: every test image, or made-up ones, with the golden ones where there are any."""
        if self.test is not None:
            self.model.check_images(self.test.images)
            return self.test.images
        probes = make_probes(self.model.image_shape)
        return probes if self.published is None else np.concatenate([self.golden.inputs[INPUT], probes])

    @cached_property
    def outputs(self) -> Float32Array:
        """The graph's answers, `(N, K)`."""
        return self.model.predict(self.images)

    @cached_property
    def keras_outputs(self) -> Float32Array:
        """Keras' answers, `(N, K)`; asked only where there is a classifier."""
        if self.float32 is not None:
            return self.float32.keras_outputs
        return self._keras().predict(self.images)

    @cached_property
    def truth(self) -> Truth:
        """The float64 evaluation; asked only where there is a classifier."""
        if self.float32 is not None:
            return self.float32.truth
        return ask_float64(self._keras(), self.images, keras_outputs=self.keras_outputs, onnx_outputs=self.outputs)

    @cached_property
    def rounding(self) -> Rounding:
        """What float32 may make of this model: measured with Keras, else as it was recorded."""
        if self.float32 is not None:
            return self.float32.rounding
        if self.classifier is None:
            return Rounding(max(self.limits.difference, self.recorded.rounding), reason=self.why_no_keras)
        return measure_rounding(self.truth, self.keras_outputs, floor=self.limits.difference)

    @cached_property
    def parity(self) -> ParityReport:
        """Keras against the graph; refuses a float32 graph that differs by more than rounding."""
        if self.is_full_precision:
            return compare_outputs(self.keras_outputs, self.outputs, truth=self.truth, rounding=self.rounding)
        return measure_difference(self.keras_outputs, self.outputs, rounding=self.rounding)

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """Of the graph's answers; None without test images."""
        return None if self.test is None else evaluate_probabilities(self.outputs, self.test.labels)

    @cached_property
    def keras_evaluation(self) -> Evaluation | None:
        """Of Keras' answers; None without test images or Keras."""
        if self.test is None or self.classifier is None:
            return None
        return evaluate_probabilities(self.keras_outputs, self.test.labels)

    @cached_property
    def golden(self) -> GoldenSamples:
        """The samples that were published, or those that will be.

        Raises:
            GateError: `golden`: they cannot be read, or no image is answered as Keras does.
        """
        if self.published is not None:
            try:
                return load_golden_samples(self.published.folder / self.published.manifest.golden_samples.file)
            except GoldenSamplesError as error:
                raise GateError("golden", str(error)) from error
        positions = golden_positions(self.keras_outputs, self.outputs, tolerance=self.golden_tolerance)
        return make_golden_samples(self.images, self.keras_outputs, positions)

    @property
    def golden_tolerances(self) -> Mapping[str, float]:
        """By execution provider."""
        if self.published is not None:
            return self.published.manifest.golden_samples.tolerances
        return golden_tolerances(self.precision, self.rounding.difference_limit)

    @property
    def golden_tolerance(self) -> float:
        """On the CPU."""
        if CPU not in self.golden_tolerances:
            raise GateError("golden", f"the manifest states no tolerance for {CPU}")
        return self.golden_tolerances[CPU]

    @cached_property
    def latency(self) -> LatencyCurve:
        """Of batches on this machine's CPU."""
        return measure_latency(self.model.run, self.images[:32], threads=available_cores())


def digest_of(part: Part) -> str:
    """sha256 over every image with its label, in whatever order they come; lower-case hexadecimal."""
    each = sorted(
        hashlib.sha256(f"{image.shape} {label}\n".encode() + np.ascontiguousarray(image).tobytes()).digest()
        for image, label in zip(part.images, part.labels.tolist(), strict=True)
    )
    return hashlib.sha256(b"".join(each)).hexdigest()
