from pathlib import Path

import numpy as np
import pytest

from inferry_proto.golden import (
    GoldenSamples,
    GoldenSamplesError,
    largest_difference,
    load_golden_samples,
    save_golden_samples,
)
from inferry_proto.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    ManifestError,
    describe_file,
    read_manifest,
    verify_files,
    write_manifest,
)
from inferry_proto.manifest_pb2 import File, ModelManifest


def publish(folder: Path) -> ModelManifest:
    (folder / "model.onnx").write_bytes(b"weights")
    manifest = ModelManifest(
        format_version=FORMAT_VERSION, labels=["0", "1"], files=[describe_file(folder / "model.onnx")]
    )
    write_manifest(folder, manifest)
    return manifest


def test_a_written_manifest_reads_back_equal(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    written = publish(tmp_path)
    assert read_manifest(tmp_path) == written
    verify_files(tmp_path, written)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a model manifest"),
        ("<html>", "not a model manifest"),
        ('{"format_version": 1, "labls": []}', "labls"),
        ('{"format_version": 2}', "format_version 2; this version of Inferry reads 1"),
        ("{}", "format_version 0"),
    ],
)
def test_what_is_not_a_manifest_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(text)
    with pytest.raises(ManifestError, match=message) as caught:
        read_manifest(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_one_changed_byte_is_noticed(tmp_path: Path) -> None:
    manifest = publish(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"weighty"[:7])
    with pytest.raises(ManifestError, match=r"model\.onnx was changed after it was published"):
        verify_files(tmp_path, manifest)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    manifest = publish(tmp_path)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(ManifestError, match=r"model\.onnx is missing"):
        verify_files(tmp_path, manifest)


def test_a_listed_file_may_not_lie_outside_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="plain file name"):
        verify_files(tmp_path, ModelManifest(files=[File(name="../secret")]))


def test_golden_samples_read_back_equal(tmp_path: Path) -> None:
    samples = GoldenSamples({"images": np.zeros((2, 3), np.uint8)}, {"probabilities": np.ones((2, 4), np.float32)})
    save_golden_samples(tmp_path / "golden.npz", samples)
    loaded = load_golden_samples(tmp_path / "golden.npz")
    assert largest_difference(samples.inputs, loaded.inputs) == 0
    assert largest_difference(samples.outputs, loaded.outputs) == 0
    assert loaded.outputs["probabilities"].dtype == np.float32


def test_a_damaged_golden_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    with pytest.raises(GoldenSamplesError, match=r"golden\.npz"):
        load_golden_samples(path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(GoldenSamplesError, match=r"golden\.npz"):
        load_golden_samples(path)
    np.savez(path, something=np.zeros(1))
    with pytest.raises(GoldenSamplesError, match="expected arrays named inputs/"):
        load_golden_samples(path)


def test_a_difference_is_the_largest_of_any_output_and_nan_is_never_close() -> None:
    expected = {"a": np.array([1.0, 2.0]), "b": np.array([250], np.uint8)}
    assert largest_difference(expected, {"a": np.array([1.0, 2.5]), "b": np.array([252], np.uint8)}) == 2
    assert largest_difference(expected, {"a": np.array([1.0, np.nan]), "b": np.array([250])}) == float("inf")
    with pytest.raises(GoldenSamplesError, match="shape"):
        largest_difference(expected, {"a": np.array([1.0]), "b": np.array([250])})
    with pytest.raises(GoldenSamplesError, match="'b' is missing"):
        largest_difference(expected, {"a": np.array([1.0, 2.0])})
