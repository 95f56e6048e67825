"""A repository as an OCI image: by the specification's rules, the same everywhere, and served when it is mounted."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.manifest import describe_file, write_manifest
from inferry_proto.manifest_pb2 import ModelManifest
from inferry_trainer.cli import main
from inferry_trainer.errors import PublishError
from inferry_trainer.publishing import oci as publishing
from inferry_trainer.publishing.oci import PLATFORMS, publish_image
from testkit import oci


def add_version(model: Path, number: int, *, manifest: bool = False) -> Path:
    version = model / str(number)
    (version / "model.onnx").parent.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"weights" * number)
    (version / "extra").mkdir()
    (version / "extra" / ("long" * 40)).write_bytes(b"")
    if manifest:
        write_manifest(version, ModelManifest(format_version=1, files=[describe_file(version / "model.onnx")]))
    return version


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for model, number in (("mnist", 1), ("mnist", 2), ("digits", 7)):
        add_version(tmp_path / "models" / model, number, manifest=True)
    (tmp_path / "models/mnist/version_labels.json").write_text('{"labels": {"stable": 1}}')
    (tmp_path / "models/mnist/.publishing-x").mkdir()
    (tmp_path / "models/.incoming").mkdir()
    return tmp_path / "models"


def shown(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_image_is_by_the_rules_and_shows_the_repository(repository: Path, tmp_path: Path) -> None:
    digest = publish_image(repository, tmp_path / "oci", "v1")
    assert list(oci.faults(tmp_path / "oci")) == []
    oci.extract(tmp_path / "oci", "v1", tmp_path / "mounted")
    assert shown(tmp_path / "mounted") == shown(repository)
    index = json.loads((tmp_path / "oci/index.json").read_bytes())
    assert [one["digest"] for one in index["manifests"]] == [digest]
    for path in (tmp_path / "mounted").rglob("*"):  # another user than the one who published reads them
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_every_platform_has_the_same_layers_and_a_version_is_one(repository: Path, tmp_path: Path) -> None:
    publish_image(repository, tmp_path / "oci", "v1")
    images = [oci.image(tmp_path / "oci", "v1", architecture) for architecture in PLATFORMS]
    assert images[0][1] == images[1][1]
    assert len(images[0][1]) == 3 + 1  # versions, and the labels


def test_the_digest_is_the_contents_alone(repository: Path, tmp_path: Path) -> None:
    first = publish_image(repository, tmp_path / "one", "v1")
    shutil.copytree(repository, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*"):
        os.utime(path, (0, 0))
        path.chmod(0o700)
    assert publish_image(tmp_path / "copy", tmp_path / "two", "other") == first
    (repository / "mnist/version_labels.json").write_text('{"labels": {"stable": 2}}')
    assert publish_image(repository, tmp_path / "one", "v2") != first


def test_a_new_version_adds_its_layer_and_the_tag_before_is_the_way_back(repository: Path, tmp_path: Path) -> None:
    publish_image(repository, tmp_path / "oci", "v1")
    before = oci.image(tmp_path / "oci", "v1")[1]
    add_version(repository / "mnist", 3)
    publish_image(repository, tmp_path / "oci", "v2")
    after = oci.image(tmp_path / "oci", "v2")[1]
    assert len(set(after) - set(before)) == 1
    assert list(oci.faults(tmp_path / "oci")) == []
    oci.extract(tmp_path / "oci", "v1", tmp_path / "back")
    assert not (tmp_path / "back/mnist/3").exists()


def test_a_tag_is_never_moved_and_publishing_twice_is_once(repository: Path, tmp_path: Path) -> None:
    first = publish_image(repository, tmp_path / "oci", "v1")
    assert publish_image(repository, tmp_path / "oci", "v1") == first
    assert len(json.loads((tmp_path / "oci/index.json").read_bytes())["manifests"]) == 1
    add_version(repository / "mnist", 3)
    with pytest.raises(PublishError, match=r"has the tag v1 for sha256:.*; choose another"):
        publish_image(repository, tmp_path / "oci", "v1")
    assert list(oci.faults(tmp_path / "oci")) == []


def test_one_model_of_a_repository_is_an_image_too(repository: Path, tmp_path: Path) -> None:
    publish_image(repository / "digits", tmp_path / "oci", "v1")
    oci.extract(tmp_path / "oci", "v1", tmp_path / "mounted")
    assert {path.name for path in (tmp_path / "mounted").iterdir()} == {"digits"}


def test_many_versions_share_layers_so_that_the_image_can_be_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "MOST_LAYERS", 3)
    for number in range(1, 7):
        add_version(tmp_path / "models/m", number)
    publish_image(tmp_path / "models", tmp_path / "oci", "v1")
    assert len(oci.image(tmp_path / "oci", "v1")[1]) == 3
    oci.extract(tmp_path / "oci", "v1", tmp_path / "mounted")
    assert shown(tmp_path / "mounted") == shown(tmp_path / "models")


def test_what_is_not_what_its_manifest_says_is_not_published(repository: Path, tmp_path: Path) -> None:
    (repository / "mnist/2/model.onnx").write_bytes(b"other")
    with pytest.raises(PublishError, match="nothing was published"):
        publish_image(repository, tmp_path / "oci", "v1")
    assert not (tmp_path / "oci" / "index.json").exists()


def test_links_and_pipes_are_refused_by_name(repository: Path, tmp_path: Path) -> None:
    os.mkfifo(repository / "digits/7/pipe")
    with pytest.raises(PublishError, match="pipe is neither a file nor a folder"):
        publish_image(repository, tmp_path / "oci", "v1")


def test_a_folder_of_something_else_stays_as_it_is(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "oci").mkdir()
    (tmp_path / "oci/notes").write_text("mine")
    with pytest.raises(PublishError, match="holds no image layout"):
        publish_image(repository, tmp_path / "oci", "v1")
    (tmp_path / "oci/index.json").write_text("[]")
    with pytest.raises(PublishError, match="is not the index"):
        publish_image(repository, tmp_path / "oci", "v1")
    assert (tmp_path / "oci/notes").read_text() == "mine"
    with pytest.raises(PublishError, match="notes"):
        publish_image(repository, tmp_path / "oci/notes", "v1")


@given(st.text(max_size=5).filter(lambda text: not text.isascii() or not text.replace("_", "a").isalnum()))
def test_no_other_text_is_a_tag(text: str) -> None:
    if (
        not text
        or text[0] in ".-"
        or set(text) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    ):
        with pytest.raises(PublishError, match="cannot be a tag"):
            publish_image(Path("/nowhere"), Path("/nowhere"), text)


def test_the_command_prints_the_digest(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", str(repository), "--oci", str(tmp_path / "oci"), "--tag", "v1"]) == 0
    assert f"v1 is {publish_image(repository, tmp_path / 'oci', 'v1')}" in capsys.readouterr().out
    assert main(["publish", str(repository / "mnist/1"), "--oci", str(tmp_path / "oci"), "--tag", "v2"]) == 1
    assert "is a version; expected its model's folder" in capsys.readouterr().err


@pytest.mark.slow
def test_container_tools_pull_and_mount_it(repository: Path, tmp_path: Path) -> None:
    if shutil.which("buildah") is None or os.geteuid() != 0:
        pytest.skip("buildah is not installed, or this is not root: apt-get install buildah")
    publish_image(repository, tmp_path / "oci", "v1")
    variables = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    store = ["buildah", "--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run")]

    def buildah(*arguments: str) -> str:
        done = subprocess.run([*store, *arguments], capture_output=True, text=True, env=variables, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    container = buildah("from", f"oci:{tmp_path / 'oci'}:v1")
    assert shown(Path(buildah("mount", container))) == shown(repository)
    buildah("rm", container)
