"""What a version must pass before it is served, and what a repository may hold."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from inferry_proto.datatypes import Arrays
from inferry_proto.golden import GoldenSamples, save_golden_samples
from inferry_proto.manifest import describe_file, read_manifest, write_manifest
from inferry_proto.manifest_pb2 import GoldenSamples as GoldenSamplesMessage
from inferry_proto.manifest_pb2 import ModelManifest, Preprocessing
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.request import InferenceRequest, ladder
from inferry_server.errors import ModelLoadError, StartError
from inferry_server.executing.core_turns import ComputeGate
from inferry_server.models.checks import read_golden_check
from inferry_server.models.loading import LoadOptions, load_version
from inferry_server.models.repository import VersionFolder, scan_repository
from inferry_server.models.version import ServedVersion
from inferry_server.runtime.providers import CPU, CUDA
from inferry_server.runtime.session import OnnxSession
from inferry_server.telemetry.metrics import ServerMetrics
from testkit import onnx_models
from testkit.batchers import Reply
from testkit.turns import until_asked

POLICY = BatchingPolicy(max_batch_size=8, max_request_rows=8, max_queue_size=64, max_queue_bytes=1 << 20)


def load(repository: Path, model: str, version: int = 1) -> ServedVersion:
    folder = VersionFolder(model, version, repository / model / str(version))
    served = load_version(folder, LoadOptions((CPU,), 1, 1, POLICY, ServerMetrics()))
    served.batcher.close(1)
    return served


@pytest.mark.parametrize("provider", [CPU, CUDA])
def test_a_version_computes_when_it_is_its_turn_at_the_cores_and_on_a_gpu_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    monkeypatch.setattr(OnnxSession, "provider", provider)
    onnx_models.save_doubler(tmp_path)
    gate = ComputeGate(2)
    neighbour = gate.seat("neighbour", 1)
    neighbour.acquire()
    folder = VersionFolder("doubler", 1, tmp_path / "doubler" / "1")
    served = load_version(folder, LoadOptions((CPU,), 2, 1, POLICY, ServerMetrics(), gate))
    reply = Reply()
    served.batcher.submit(InferenceRequest({"x": np.ones((1, 3), np.float32)}, 1, reply))
    if provider == CPU:
        until_asked(gate, "doubler")
        neighbour.release(1.0, again=False)
    assert not isinstance(reply.outcome(), Exception)
    assert served.batcher.close(10)


def edit_manifest(folder: Path, edit: Callable[[ModelManifest], object]) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None
    edit(manifest)
    write_manifest(folder, manifest)


def test_a_model_with_a_manifest_is_verified_and_knows_its_labels(tmp_path: Path) -> None:
    onnx_models.save_brightness(tmp_path)
    served = load(tmp_path, "brightness")
    assert served.score_labels == ("dark", "bright")
    assert served.max_request_rows == 8
    assert served.require_preprocessing().height == 4
    assert served.provider == CPU


def test_a_model_without_manifest_is_served_from_what_onnx_says(tmp_path: Path) -> None:
    onnx_models.save_brightness(tmp_path, manifest=False)
    served = load(tmp_path, "brightness")
    assert served.labels == {}
    assert served.require_preprocessing().width == 4


def test_labels_may_lie_beside_the_versions_as_triton_has_them(tmp_path: Path) -> None:
    onnx_models.save_brightness(tmp_path, manifest=False)
    (tmp_path / "brightness" / "labels.txt").write_text("night\nday\n")
    assert load(tmp_path, "brightness").score_labels == ("night", "day")
    (tmp_path / "brightness" / "1" / "labels.txt").write_text("one\n")
    assert load(tmp_path, "brightness").score_labels == ("one",)


def test_a_model_without_batch_dimension_takes_one_request_at_a_time(tmp_path: Path) -> None:
    onnx_models.save_scalar_adder(tmp_path)
    assert load(tmp_path, "adder").max_request_rows == 0


def test_one_changed_byte_keeps_a_version_from_being_served(tmp_path: Path) -> None:
    path = onnx_models.save_brightness(tmp_path) / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelLoadError, match=r"model\.onnx was changed after it was published"):
        load(tmp_path, "brightness")


@pytest.mark.parametrize("location", ["../../secret", "{root}/secret", "link"])
def test_weights_that_lie_outside_the_versions_folder_are_not_read(tmp_path: Path, location: str) -> None:
    folder = onnx_models.save_brightness(tmp_path, manifest=False)
    (tmp_path / "secret").write_bytes(np.float32(255).tobytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    model = onnx.load(folder / "model.onnx")
    white = next(c for c in model.graph.initializer if c.name == "white")
    white.ClearField("raw_data")
    white.data_location = onnx.TensorProto.EXTERNAL
    white.external_data.add(key="location", value=location.format(root=tmp_path))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelLoadError, match="External data path"):
        load(tmp_path, "brightness")
    (folder / "own").write_bytes(np.float32(255).tobytes())
    white.external_data[0].value = "own"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    assert load(tmp_path, "brightness").max_request_rows == 8


def test_another_model_under_a_valid_checksum_fails_the_golden_samples(tmp_path: Path) -> None:
    folder = onnx_models.save_brightness(tmp_path)
    model = onnx.load(folder / "model.onnx")
    next(c for c in model.graph.initializer if c.name == "white").raw_data = np.float32(254).tobytes()
    onnx.save(model, folder / "model.onnx")
    edit_manifest(folder, lambda m: m.files[0].CopyFrom(describe_file(folder / "model.onnx")))
    with pytest.raises(ModelLoadError, match="not the model that was verified"):
        load(tmp_path, "brightness")


def test_more_golden_samples_than_a_batch_holds_are_all_compared(tmp_path: Path) -> None:
    folder = onnx_models.save_brightness(tmp_path)
    images = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((20, 4, 4, 1), np.uint8)
    bright = images[:, 0, 0, 0].astype(np.float32) / 255
    outputs = np.stack([1 - bright, bright], axis=1)
    outputs[19] = 0.5  # in the last, partial batch
    save_golden_samples(folder / "golden.npz", GoldenSamples({"images": images}, {"probabilities": outputs}))
    edit_manifest(folder, lambda m: m.files[1].CopyFrom(describe_file(folder / "golden.npz")))
    with pytest.raises(ModelLoadError, match="not the model that was verified"):
        load(tmp_path, "brightness")


@pytest.mark.parametrize(("count", "largest", "asked"), [(3, 2, [2, 1, 1, 1, 1]), (1, 8, [1, 1, 2]), (2, 1, [1, 1])])
def test_golden_samples_are_asked_alone_and_in_a_batch(
    tmp_path: Path, count: int, largest: int, asked: list[int]
) -> None:
    recorded = GoldenSamplesMessage(file="golden.npz", tolerances={CPU: 0.0})
    values = {"x": np.arange(count, dtype=np.float32)}
    samples = GoldenSamples(values, values)
    check = read_golden_check(tmp_path, recorded, samples, provider=CPU, max_batch_size=largest)
    sizes: list[int] = []

    def run(inputs: Arrays) -> Arrays:
        sizes.append(len(inputs["x"]))
        return inputs

    assert check.check(run) == 0.0
    assert sizes == asked


def test_a_manifest_without_tolerance_for_the_provider_is_refused(tmp_path: Path) -> None:
    folder = onnx_models.save_brightness(tmp_path)
    edit_manifest(folder, lambda m: m.golden_samples.tolerances.pop(CPU))
    with pytest.raises(ModelLoadError, match=r"no golden tolerance for CPUExecutionProvider.*CUDAExecutionProvider"):
        load(tmp_path, "brightness")


EMPTY_CROP = Preprocessing.CropBox(left=1, height=4)
FAR_CROP = Preprocessing.CropBox(left=1, width=4, height=4, picture_width=4, picture_height=4)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.signature.inputs[0].shape.__setitem__(1, 5), "the manifest says .* the model is"),
        (lambda m: setattr(m.signature.inputs[0], "datatype", "PIXEL"), "datatype 'PIXEL'; known are"),
        (lambda m: setattr(m.preprocessing, "height", 5), "makes pixels of shape"),
        (lambda m: m.preprocessing.crop.MergeFrom(FAR_CROP), "crop box .* reaches beyond the pictures of 4x4"),
        (lambda m: m.preprocessing.crop.MergeFrom(EMPTY_CROP), "crop box .* holds no pixel; expected a width"),
        (lambda m: m.preprocessing.ClearField("filter"), "names no resize filter; expected BILINEAR or NEAREST"),
        (lambda m: m.preprocessing.ClearField("color_mode"), "names no colour mode; expected GRAYSCALE or RGB"),
        (lambda m: m.labels.append("third"), "3 labels for output 'probabilities' with 2 classes"),
        (lambda m: m.files.pop(0), r"no checksum for model\.onnx"),
        (lambda m: setattr(m.golden_samples, "file", "none.npz"), r"none\.npz cannot be read"),
    ],
)
def test_a_manifest_that_contradicts_the_model_is_refused(
    tmp_path: Path, edit: Callable[[ModelManifest], object], message: str
) -> None:
    edit_manifest(onnx_models.save_brightness(tmp_path), edit)
    with pytest.raises(ModelLoadError, match=message):
        load(tmp_path, "brightness")


@pytest.mark.parametrize("content", [b"", b"<html>quota</html>", b"\x08\x07"])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "broken" / "1"
    folder.mkdir(parents=True)
    with pytest.raises(ModelLoadError, match=r"model\.onnx is missing"):
        load(tmp_path, "broken")
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"broken/1/model\.onnx: ONNX Runtime cannot load it"):
        load(tmp_path, "broken")


def test_a_model_that_nothing_made_up_suits_is_served_without_warm_up_and_batched_on_its_owners_word_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    onnx_models.save_finder(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert load(tmp_path, "finder").max_request_rows == 0
    assert "was not shown: it fails on all inputs that could be made up" in caplog.text
    assert "not warmed" in caplog.text
    (tmp_path / "finder" / "config.pbtxt").write_text("max_batch_size: 8")
    with caplog.at_level(logging.WARNING):
        assert load(tmp_path, "finder").max_request_rows == 8
    assert "batched on the word of its owner" in caplog.text


@pytest.mark.parametrize(
    ("limit", "steps"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12))]
)
def test_the_ladder_climbs_in_powers_of_two_to_the_limit(limit: int, steps: tuple[int, ...]) -> None:
    assert ladder(limit) == steps


def test_a_repository_is_scanned_by_name_and_number(tmp_path: Path) -> None:
    for path in ("b/10", "b/9", "b/.publishing-1", "b/latest", "b/01", "a/1", ".hidden/1", "lost+found"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "README.md").touch()
    (tmp_path / "b" / "7").touch()
    found = scan_repository(tmp_path)
    assert [(m.name, [v.version for v in m.versions]) for m in found] == [("a", [1]), ("b", [9, 10])]


def test_a_model_folder_that_cannot_be_read_costs_only_that_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("a/1", "b/1"):
        (tmp_path / path).mkdir(parents=True)
    list_folder = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:  # root, whom permissions do not stop, runs this test too
        if path.name == "a":
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    unreadable, readable = scan_repository(tmp_path)
    assert unreadable.problem == f"{tmp_path / 'a'} cannot be read: Permission denied"
    assert len(readable.versions) == 1


def test_what_is_no_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="does not exist; expected a folder"):
        scan_repository(tmp_path / "absent")
    with pytest.raises(StartError, match="holds no model"):
        scan_repository(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="is a file"):
        scan_repository(tmp_path / "file")
