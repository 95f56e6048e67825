"""The bill of materials of a published version, in CycloneDX 1.6 (an ML-BOM), made from its manifest.

The subject is the model with its model card; components are the version's files and the data sets; the formulation
names the libraries that made it, which are no part of it. The same manifest and number always give the same bytes.
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from google.protobuf import json_format
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from inferry_proto.manifest import MANIFEST_FILE, describe_file, read_manifest
from inferry_proto.manifest_pb2 import File, Gate, ModelManifest
from inferry_trainer.errors import ConfigError, PublishError
from inferry_trainer.evaluation.evaluate import wilson_interval

BOM_FILE = "bom.cdx.json"
_MODEL, _TRAINING, _TEST = "model", "dataset:training", "dataset:test"
_TRAINER, _PYTHON = "inferry", "python"  # among the library versions, but no libraries of PyPI's
Json = dict[str, Any]


def canonical_license(expression: str) -> str:
    """An SPDX license expression as SPDX spells it: `Apache-2.0`.

    Raises:
        ConfigError: names no license that SPDX lists, and is no `LicenseRef-` of one's own.
    """
    try:
        return canonicalize_license_expression(expression)
    except InvalidLicenseExpression as error:
        raise ConfigError(
            f"license is {expression!r}; expected an SPDX license expression, like Apache-2.0, 'MIT OR CC-BY-4.0' or "
            f"LicenseRef-Ours: {error}"
        ) from error


def write_bill_of_materials(version: Path, *, license_expression: str | None = None) -> None:
    """Write `bom.cdx.json` into a version's folder, whose name is the version's number.

    Args:
        version: the folder.
        license_expression: what the model is licensed under; None: nobody said.

    Raises:
        ConfigError: it is no license expression.
        PublishError: the folder has no manifest.
    """
    manifest = read_manifest(version)
    if manifest is None:
        raise PublishError(f"{version} has no {MANIFEST_FILE}; a bill of materials is made from it")
    bill = make_bill_of_materials(manifest, describe_file(version / MANIFEST_FILE), version=version.name)
    if license_expression is not None:
        licensed = {"expression": canonical_license(license_expression), "acknowledgement": "declared"}
        bill["metadata"]["component"]["licenses"] = [licensed]
    (version / BOM_FILE).write_text(json.dumps(bill, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def make_bill_of_materials(manifest: ModelManifest, manifest_file: File, *, version: str) -> Json:
    """The bill of materials as a JSON object.

    Args:
        manifest: of the version; what it does not say is left out.
        manifest_file: name and checksum of the manifest's own file.
        version: the version's number.
    """
    files = [_file(file) for file in (*manifest.files, manifest_file)]
    data = [*_datasets(manifest)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": _serial_number(manifest_file, version),
        "version": 1,
        "metadata": _metadata(manifest, version, [dataset["bom-ref"] for dataset in data]),
        "components": files + data,
        "dependencies": [{"ref": _MODEL, "dependsOn": [part["bom-ref"] for part in files + data]}],
        "formulation": [_formula(manifest)],
    }


def _serial_number(manifest_file: File, version: str) -> str:
    """A name of its own for each version's bill, the same whenever it is made."""
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, f'{manifest_file.sha256}/{version}')}"


def _metadata(manifest: ModelManifest, version: str, datasets: list[str]) -> Json:
    made = manifest.provenance
    trainer: Json = {"type": "application", "name": _TRAINER}
    if _TRAINER in made.library_versions:
        trainer["version"] = made.library_versions[_TRAINER]
    if made.git_revision:
        trainer["properties"] = _properties({"git-revision": made.git_revision})
    return {
        **({"timestamp": made.created_at} if made.created_at else {}),
        "tools": {"components": [trainer]},
        "component": _model(manifest, version, datasets),
    }


def _model(manifest: ModelManifest, version: str, datasets: list[str]) -> Json:
    preprocessing = json_format.MessageToJson(manifest.preprocessing, preserving_proto_field_name=True, indent=None)
    facts = {"precision": manifest.precision, "preprocessing": preprocessing}
    facts |= {f"gate:{gate.name}": _outcome(gate) for gate in manifest.gates}
    model: Json = {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": manifest.model_name,
        "version": version,
        "modelCard": _model_card(manifest, datasets),
        "properties": _properties(facts),
    }
    if manifest.HasField("variant_of"):
        origin = manifest.variant_of
        hashes = [{"alg": "SHA-256", "content": origin.model_sha256}]
        model["pedigree"] = {
            "ancestors": [{"type": "machine-learning-model", "name": origin.model_name, "hashes": hashes}],
            "notes": f"{manifest.precision}, made of this float32 model; the checksum is that of its ONNX graph",
        }
    return model


def _outcome(gate: Gate) -> str:
    outcome = "passed" if gate.outcome == Gate.PASSED else "not applicable"
    return f"{outcome}: {gate.reason}" if gate.reason else outcome


def _model_card(manifest: ModelManifest, datasets: list[str]) -> Json:
    signature = manifest.signature
    parameters: Json = {
        "approach": {"type": "supervised"},
        "task": "image classification",
        "datasets": [{"ref": name} for name in datasets],
        "inputs": [{"format": _tensor(spec)} for spec in signature.inputs],
        "outputs": [{"format": _tensor(spec)} for spec in signature.outputs],
    }
    card: Json = {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": [*_metrics(manifest)]},
    }
    if manifest.unverified:
        limitation = "Published without test data: its accuracy was not measured."
        card["considerations"] = {"technicalLimitations": [limitation]}
    return card


def _tensor(spec: Any) -> str:
    return f"{spec.name}: {spec.datatype} [{', '.join(map(str, spec.shape))}]"


def _metrics(manifest: ModelManifest) -> Iterator[Json]:
    measured = manifest.evaluation
    for name, value in sorted(measured.metrics.items()):
        metric: Json = {"type": name, "value": repr(value)}
        if name == "test_accuracy" and measured.classes:
            low, high = wilson_interval(sum(each.correct for each in measured.classes), measured.test_images)
            metric["confidenceInterval"] = {"lowerBound": repr(low), "upperBound": repr(high)}
        yield metric
    for label, each in zip(manifest.labels, measured.classes, strict=False):
        if each.images:
            yield {"type": "recall", "value": repr(each.correct / each.images), "slice": label}
    if manifest.parity.images:
        yield {"type": "max_abs_difference_from_keras", "value": repr(manifest.parity.max_abs_difference)}


def _datasets(manifest: ModelManifest) -> Iterator[Json]:
    made, measured = manifest.provenance, manifest.evaluation
    if made.train_images:  # else nobody knows the training data, and the name is that of the test images
        counts = f"Training: {made.train_images} images; to choose between epochs: {made.validation_images}."
        yield _dataset(_TRAINING, made.dataset, counts, made.dataset_sha256)
    if measured.dataset:
        yield _dataset(_TEST, measured.dataset, f"Evaluation: {measured.test_images} images.", measured.test_sha256)


def _dataset(reference: str, name: str, description: str, arrays_sha256: str) -> Json:
    """A data set as a component.

    Its checksum is over arrays and no file's: a property, never one of the hashes by which tools look files up.
    """
    contents = {"type": "dataset", "name": name, "description": description}
    component: Json = {"type": "data", "bom-ref": reference, "name": name, "data": [contents]}
    if arrays_sha256:
        component["properties"] = _properties({"arrays-sha256": arrays_sha256})
    return component


def _file(file: File) -> Json:
    return {
        "type": "file",
        "bom-ref": f"file:{file.name}",
        "name": file.name,
        "hashes": [{"alg": "SHA-256", "content": file.sha256}],
        "properties": _properties({"size-bytes": str(file.size_bytes)}),
    }


def _formula(manifest: ModelManifest) -> Json:
    """With what the model was made: libraries, Python, and the settings of the run."""
    made = manifest.provenance
    libraries = [_library(name, version) for name, version in sorted(made.library_versions.items()) if name != _TRAINER]
    settings = {f"config:{name}": value for name, value in sorted(made.config.items())}
    if manifest.HasField("quantization"):
        used = manifest.quantization
        settings["quantization"] = f"{used.calibration_method}, over {used.calibration_images} training images"
    return {"components": libraries, "properties": _properties(settings)}


def _library(name: str, version: str) -> Json:
    if name == _PYTHON:
        return {"type": "platform", "name": name, "version": version}
    package = name.lower().replace("_", "-")
    return {
        "type": "library",
        "bom-ref": f"library:{name}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{quote(package, safe='')}@{quote(version, safe='')}",
    }


def _properties(values: Mapping[str, str]) -> list[Json]:
    return [{"name": f"inferry:{name}", "value": value} for name, value in values.items()]
