"""The networks that people have: exported with default limits, served, and asked about a JPEG."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inferry_client import Client
from inferry_proto.manifest import read_manifest
from inferry_trainer.evaluation.classifier import Classifier, make_classifier
from inferry_trainer.export.candidate import make_probes
from inferry_trainer.export.keras_source import KerasSource
from inferry_trainer.workflow.export import ExportOptions, export_keras
from testkit.architectures import APPLICATIONS, CLASSES, build_application, build_vision_transformer
from testkit.servers import running_server

LABELS = tuple(f"class-{number}" for number in range(CLASSES))


def write_test_pictures(classifier: Classifier, folder: Path) -> None:
    images = make_probes(classifier.image_shape)
    answers = classifier.predict(images).argmax(axis=1)
    assert set(answers.tolist()) == set(range(CLASSES)), "a class that no picture shows is no test"
    for number, (image, answer) in enumerate(zip(images, answers, strict=True)):
        (folder / LABELS[answer]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / LABELS[answer] / f"{number:02}.png")


def jpeg_of(image: np.ndarray) -> tuple[bytes, np.ndarray]:
    """A picture's JPEG, and the pixels that Pillow reads from it."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue(), np.asarray(Image.open(buffer))


@pytest.mark.parametrize(
    "name", ["VisionTransformer", *(pytest.param(name, marks=pytest.mark.slow) for name in APPLICATIONS)]
)
def test_a_network_is_exported_with_default_limits_and_classifies_a_jpeg(name: str, tmp_path: Path) -> None:
    model, pixels = build_vision_transformer() if name == "VisionTransformer" else build_application(name)
    model.save(tmp_path / "mine.keras")
    classifier = make_classifier(model, pixels=pixels)
    write_test_pictures(classifier, tmp_path / "pictures")
    source = KerasSource(tmp_path / "mine.keras", ",".join(LABELS), data=tmp_path / "pictures", pixels=pixels.value)
    [version] = export_keras(source, ExportOptions(tmp_path / "models"), say=lambda _: None)
    manifest = read_manifest(version)
    assert manifest is not None
    assert manifest.evaluation.metrics["test_accuracy"] == 1.0
    jpeg, decoded = jpeg_of(make_probes(classifier.image_shape)[3])
    expected = classifier.predict(decoded[None])[0]
    with running_server(tmp_path / "models") as server, Client(str(server.grpc_address)) as client:
        [[found]] = client.classify("mine", [jpeg]).images
    assert found.label == LABELS[int(expected.argmax())]
    assert found.probability == pytest.approx(float(expected.max()), abs=1e-3)
