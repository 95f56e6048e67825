"""A version is the same to a job, whether a server serves it or the job computes with its folder."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from inferry_client import Client
from inferry_client.batch import onnx_target
from inferry_client.batch.classifier import TargetSettings
from inferry_client.batch.errors import JobError
from inferry_client.batch.onnx_target import open_onnx_target
from inferry_client.batch.plan import read_plan, write_plan
from inferry_client.batch.predict import picture_model
from inferry_client.batch.version_folder import read_model_files
from inferry_client.cli import main
from inferry_proto.manifest import describe_file, read_manifest, verify_files, write_manifest
from testkit import brightness_model
from testkit.batch_jobs import files_of, read_rows
from testkit.onnx_models import save_brightness
from testkit.servers import running_server

SIDE = 16  # its pictures have as many weights as stay outside of a model


def plain(repository: Path) -> Path:
    return save_brightness(repository, side=SIDE)


def with_labels_file(repository: Path) -> Path:
    """As the trainer publishes it."""
    folder = plain(repository)
    (folder / "labels.txt").write_text("dark\nbright\n")
    list_files(folder, "model.onnx", "golden.npz", "labels.txt")
    return folder


def with_weights_beside(repository: Path, white: float = 255.0) -> Path:
    folder = plain(repository)
    model = onnx.load(folder / "model.onnx")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((1, SIDE, SIDE, 1), white, "f4"), "white"))
    for old in ("model.onnx", "weights.bin"):
        (folder / old).unlink(missing_ok=True)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    list_files(folder, "model.onnx", "golden.npz", "weights.bin")
    return folder


def labelled_beside(repository: Path, *, path: str = "1/labels.txt", labels: str = "night\nday\n") -> Path:
    """Its manifest has no labels."""
    folder = plain(repository)
    manifest = read_manifest(folder)
    assert manifest is not None
    del manifest.labels[:]
    write_manifest(folder, manifest)
    (folder.parent / path).write_text(labels)
    return folder


def labelled_for_all_versions(repository: Path) -> Path:
    return labelled_beside(repository, path="labels.txt", labels="night\nday\nnobody's\n")


def renamed(repository: Path) -> Path:
    folder = plain(repository)
    folder.parent.rename(repository / "copy")
    return repository / "copy" / folder.name


def list_files(folder: Path, *names: str) -> None:
    """Have the manifest list these files as they are."""
    manifest = read_manifest(folder)
    assert manifest is not None
    del manifest.files[:]
    manifest.files.extend(describe_file(folder / name) for name in names)
    write_manifest(folder, manifest)


KINDS = pytest.mark.parametrize(
    "save", [plain, with_labels_file, labelled_beside, labelled_for_all_versions, with_weights_beside, renamed]
)


@KINDS
def test_both_targets_tell_the_same_of_a_version(save: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = save(tmp_path / "models")
    with running_server(tmp_path / "models") as server, Client(str(server.grpc_address)) as client:
        served = picture_model(client.describe_model(folder.parent.name))
    sent = TargetSettings(onnx=read_model_files(folder))
    with ExitStack() as stack:
        for here in (open_onnx_target(folder, threads=1).model, sent.open(stack).model):
            assert replace(here, max_batch_size=served.max_batch_size, older_digest="") == served


@KINDS
def test_a_job_that_one_target_began_goes_on_with_the_other(save: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = save(tmp_path / "models")
    brightness_model.write_pictures(tmp_path / "in", 25)
    job = ["batch", str(tmp_path / "in"), "--part-size", "10", "--out"]
    with running_server(tmp_path / "models") as server:
        targets = {"served": ["--server", str(server.grpc_address)], "here": ["--onnx", str(folder)]}
        for name, target in targets.items():
            assert main([*job, str(tmp_path / name), *target]) == 0
        assert files_of(tmp_path / "here") == files_of(tmp_path / "served")
        for name, target in zip(("here", "served"), targets.values(), strict=True):
            (tmp_path / name / "part-00001.parquet").unlink()
            assert main([*job, str(tmp_path / name), *target]) == 0
            assert len(read_rows(tmp_path / name)) == 25


def test_both_targets_notice_labels_that_changed_since_a_job_began(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_labels_file(tmp_path / "models")
    brightness_model.write_pictures(tmp_path / "in", 5)
    job = ["batch", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main([*job, "--onnx", str(folder)]) == 0
    (folder / "labels.txt").write_text("night\nday\n")
    manifest = read_manifest(folder)
    assert manifest is not None
    manifest.labels[:] = ["night", "day"]
    write_manifest(folder, manifest)
    list_files(folder, "model.onnx", "golden.npz", "labels.txt")
    with running_server(tmp_path / "models") as server:
        for target in (["--onnx", str(folder)], ["--server", str(server.grpc_address)]):
            assert main([*job, *target]) == 1
            assert "another content of the model's version" in capsys.readouterr().err


def test_a_job_that_an_earlier_version_began_goes_on_and_keeps_its_digest(tmp_path: Path) -> None:
    folder = with_labels_file(tmp_path / "models")
    brightness_model.write_pictures(tmp_path / "in", 25)
    command = ["batch", str(tmp_path / "in"), "--onnx", str(folder), "--part-size=10", f"--out={tmp_path / 'out'}"]
    assert main(command) == 0
    path = tmp_path / "out" / "_plan.json"
    older = replace(read_plan(path.read_text()), model_digest=open_onnx_target(folder, threads=1).model.older_digest)
    path.write_text(write_plan(older))
    (tmp_path / "out" / "part-00001.parquet").unlink()
    assert main(command) == 0
    assert read_plan(path.read_text()) == older
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_digest": "of another model"}))
    assert main(command) == 1


def test_what_is_computed_are_the_bytes_that_were_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = with_weights_beside(tmp_path / "models")

    def verify_and_replace(*arguments: object) -> None:
        verify_files(*arguments)  # type: ignore[arg-type]
        with_weights_beside(tmp_path / "others", white=1.0)
        for name in ("model.onnx", "weights.bin"):
            (folder / name).write_bytes((tmp_path / "others" / "brightness" / "1" / name).read_bytes())

    monkeypatch.setattr(onnx_target, "verify_files", verify_and_replace)
    target = open_onnx_target(folder, threads=1)
    assert target.infer(np.full((1, SIDE, SIDE, 1), 51, np.uint8)).tolist() == [pytest.approx([0.8, 0.2])]


def test_weights_without_a_checksum_are_not_computed_with(tmp_path: Path) -> None:
    folder = with_weights_beside(tmp_path / "models")
    list_files(folder, "model.onnx", "golden.npz")
    with pytest.raises(JobError, match=r"no checksum for weights\.bin"):
        open_onnx_target(folder, threads=1)


def test_a_link_to_a_version_is_called_as_what_it_leads_to(tmp_path: Path) -> None:
    folder = plain(tmp_path / "models")
    (folder.parent / "latest").symlink_to(folder.name)
    (tmp_path / "apart").mkdir()
    folder.rename(tmp_path / "apart" / "blob")
    folder.symlink_to(tmp_path / "apart" / "blob")
    names = {(model.model, model.version) for model in (open_onnx_target(folder, threads=1).model,)}
    assert names == {("brightness", "1")}
    blob = open_onnx_target(tmp_path / "apart" / "blob", threads=1).model
    assert (blob.model, blob.version) == ("brightness", "blob")
