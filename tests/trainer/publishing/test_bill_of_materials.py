"""A version's bill of materials holds to CycloneDX's schema, and says what its manifest says."""

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto import signing
from inferry_proto.manifest import read_manifest
from inferry_proto.manifest_pb2 import Evaluation, File, Gate, ModelManifest, Parity, Provenance, VariantOf
from inferry_trainer.errors import ConfigError, GateError, PublishError
from inferry_trainer.publishing.bill_of_materials import (
    BOM_FILE,
    canonical_license,
    make_bill_of_materials,
    write_bill_of_materials,
)
from inferry_trainer.publishing.signatures import check_signature, seal_settings, seal_version
from inferry_trainer.workflow.export import ExportOptions
from testkit import onnx_models
from testkit.signing_keys import make_keys

cyclonedx = pytest.importorskip("cyclonedx")

from cyclonedx.schema import SchemaVersion  # noqa: E402 - behind the check that it is there
from cyclonedx.validation.json import JsonStrictValidator  # noqa: E402

MANIFEST_FILE = File(name="manifest.json", size_bytes=1, sha256="0" * 64)
VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)
texts = st.text(max_size=12)


def check_schema(text: str) -> None:
    failed = VALIDATOR.validate_str(text)
    assert failed is None, str(failed)[:2000]


def bill_of(version: Path) -> Any:
    text = (version / BOM_FILE).read_text(encoding="utf-8")
    check_schema(text)
    return json.loads(text)


def properties(part: Any) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in part["properties"]}


@pytest.mark.parametrize("name", ["tinted", "tinted-float16", "tinted-int8"])
def test_what_is_published_has_a_bill_that_holds_to_the_schema(tinted_models: Path, name: str) -> None:
    bill = bill_of(tinted_models / name / "1")
    model = bill["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", name, "1")


def test_it_has_the_checksum_of_every_other_file(tinted_models: Path) -> None:
    version = tinted_models / "tinted" / "1"
    files = [part for part in bill_of(version)["components"] if part["type"] == "file"]
    assert {file["name"] for file in files} == {path.name for path in version.iterdir()} - {BOM_FILE}
    for file in files:
        [checksum] = file["hashes"]
        content = hashlib.sha256((version / file["name"]).read_bytes()).hexdigest()
        assert checksum == {"alg": "SHA-256", "content": content}


def test_it_says_what_was_measured(tinted_models: Path) -> None:
    version = tinted_models / "tinted" / "1"
    manifest, bill = read_manifest(version), bill_of(version)
    assert manifest is not None
    card = bill["metadata"]["component"]["modelCard"]
    metrics = {
        (metric["type"], metric.get("slice")): metric for metric in card["quantitativeAnalysis"]["performanceMetrics"]
    }
    accuracy = metrics["test_accuracy", None]
    low, high = (float(accuracy["confidenceInterval"][bound]) for bound in ("lowerBound", "upperBound"))
    assert low < float(accuracy["value"]) == manifest.evaluation.metrics["test_accuracy"] < high
    for label, each in zip(manifest.labels, manifest.evaluation.classes, strict=True):
        assert float(metrics["recall", label]["value"]) == each.correct / each.images
    assert card["modelParameters"]["inputs"] == [{"format": "images: UINT8 [-1, 14, 14, 3]"}]
    assert properties(bill["metadata"]["component"])["inferry:gate:parity"] == "passed"


def test_a_variant_names_the_graph_that_it_was_made_of(tinted_models: Path) -> None:
    bill = bill_of(tinted_models / "tinted-int8" / "1")
    [origin] = bill["metadata"]["component"]["pedigree"]["ancestors"]
    graph = (tinted_models / "tinted" / "1" / "model.onnx").read_bytes()
    assert (origin["name"], origin["hashes"][0]["content"]) == ("tinted", hashlib.sha256(graph).hexdigest())
    assert "training images" in properties(bill["formulation"][0])["inferry:quantization"]


@given(name=texts, label=texts, value=st.floats(), library=texts, version=texts, setting=texts)
def test_whatever_a_manifest_says_the_bill_holds_to_the_schema(
    name: str, label: str, value: float, library: str, version: str, setting: str
) -> None:
    manifest = ModelManifest(
        model_name=name,
        labels=[label, label],
        evaluation=Evaluation(
            dataset=name, metrics={setting: value, "test_accuracy": 1.0}, classes=[{"images": 1}, {}]
        ),
        parity=Parity(images=1, max_abs_difference=value),
        provenance=Provenance(
            dataset=name, train_images=1, library_versions={library: version}, config={setting: name}
        ),
        gates=[Gate(name=name, reason=label)],
        variant_of=VariantOf(model_name=name, model_sha256="1" * 64),
    )
    manifest.evaluation.test_images = 1
    check_schema(json.dumps(make_bill_of_materials(manifest, MANIFEST_FILE, version="7")))


def test_libraries_are_named_as_package_indices_name_them_and_are_no_part_of_the_model() -> None:
    versions = {"Some_Thing": "2.1+cpu", "inferry": "0.9", "python": "3.12.1"}
    manifest = ModelManifest(model_name="made", provenance={"library_versions": versions, "git_revision": "a" * 40})
    bill = make_bill_of_materials(manifest, MANIFEST_FILE, version="1")
    check_schema(json.dumps(bill))
    assert [(part["type"], part.get("purl")) for part in bill["formulation"][0]["components"]] == [
        ("library", "pkg:pypi/some-thing@2.1%2Bcpu"),
        ("platform", None),
    ]
    [tool] = bill["metadata"]["tools"]["components"]
    assert (tool["name"], tool["version"], properties(tool)) == ("inferry", "0.9", {"inferry:git-revision": "a" * 40})
    assert [part["type"] for part in bill["components"]] == ["file"]


def test_what_a_manifest_leaves_out_is_left_out() -> None:
    manifest = ModelManifest(model_name="bare", unverified=True)
    bill = make_bill_of_materials(manifest, MANIFEST_FILE, version="1")
    check_schema(json.dumps(bill))
    card = bill["metadata"]["component"]["modelCard"]
    assert "its accuracy was not measured" in card["considerations"]["technicalLimitations"][0]
    assert card["modelParameters"]["datasets"] == []
    assert [part["name"] for part in bill["components"]] == ["manifest.json"]


def test_data_that_only_judged_a_model_is_not_called_its_training_data() -> None:
    """Somebody's Keras model was trained on nobody knows what."""
    manifest = ModelManifest(model_name="theirs", provenance={"dataset": "photos"})
    manifest.evaluation.dataset = "photos"
    bill = make_bill_of_materials(manifest, MANIFEST_FILE, version="1")
    assert [part["bom-ref"] for part in bill["components"] if part["type"] == "data"] == ["dataset:test"]


def test_the_same_version_always_has_the_same_bill_and_another_has_another_serial_number() -> None:
    manifest = ModelManifest(model_name="same")
    first, again, other = (make_bill_of_materials(manifest, MANIFEST_FILE, version=version) for version in "112")
    assert first == again
    assert first["serialNumber"] != other["serialNumber"]


def test_the_signature_covers_the_bill(tmp_path: Path) -> None:
    keys = make_keys(tmp_path, "ours")
    version = onnx_models.save_brightness(tmp_path / "models")
    write_bill_of_materials(version)
    seal_version(version, keys.private)
    seal_settings(version.parent, keys.private)
    check_signature(version, keys.public)
    assert (version / signing.VERSION_SIGNATURE).is_file()
    (version / BOM_FILE).write_text((version / BOM_FILE).read_text().replace("brightness", "darkness"))
    with pytest.raises(GateError, match=BOM_FILE):
        check_signature(version, keys.public)


def test_the_license_is_told_as_spdx_spells_it(tmp_path: Path) -> None:
    version = onnx_models.save_brightness(tmp_path)
    write_bill_of_materials(version, license_expression="apache-2.0 or LicenseRef-Ours")
    [licensed] = bill_of(version)["metadata"]["component"]["licenses"]
    assert licensed == {"expression": "Apache-2.0 OR LicenseRef-Ours", "acknowledgement": "declared"}
    write_bill_of_materials(version)
    assert "licenses" not in bill_of(version)["metadata"]["component"]


@pytest.mark.parametrize("text", ["", "Proprietary", "MIT AND", "MIT Apache-2.0", "(MIT", "LicenseRef-", "MIT;"])
def test_what_is_no_license_expression_is_refused_before_any_work(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"license is {text!r}; expected an SPDX license expression")):
        ExportOptions(tmp_path, license_expression=text)


@given(st.one_of(st.text(), st.text("MIT ANDOR()-+.", max_size=20)))
def test_any_text_is_a_license_or_is_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert canonical_license(canonical_license(text)) == canonical_license(text)


def test_a_folder_without_manifest_has_no_bill(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"has no manifest.json"):
        write_bill_of_materials(tmp_path)
