"""What is published can be signed, checked, and checked by the tool that others use for it."""

import re
from pathlib import Path

import pytest
from model_signing import verifying

from inferry_proto import signing
from inferry_trainer.cli import main
from inferry_trainer.errors import GateError, PublishError
from inferry_trainer.publishing.publish import publish_version
from inferry_trainer.publishing.signatures import check_private_key, check_signature, seal_version, sign_path
from testkit import onnx_models
from testkit.signing_keys import KeyPair, make_keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return make_keys(tmp_path_factory.mktemp("keys"), "ours")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for version in (1, 2):
        onnx_models.save_brightness(tmp_path, version=version)
    return tmp_path


def test_a_repository_is_signed_whole_and_again_after_a_change(repository: Path, keys: KeyPair) -> None:
    assert [version.name for version in sign_path(repository, keys.private)] == ["1", "2"]
    model = repository / "brightness"
    for version in ("1", "2"):
        check_signature(model / version, keys.public)
    (model / "version_labels.json").write_text('{"labels": {"stable": "1"}}')
    with pytest.raises(GateError, match=r"gate signature: .*version_labels.json"):
        check_signature(model / "1", keys.public)
    sign_path(model / "1", keys.private)
    check_signature(model / "2", keys.public)


def test_the_signature_is_one_that_the_tool_of_openssf_takes(repository: Path, keys: KeyPair) -> None:
    sign_path(repository, keys.private)
    version = repository / "brightness" / "2"
    verifier = verifying.Config()  # type: ignore[no-untyped-call]
    verifier.use_elliptic_key_verifier(public_key=keys.public)
    verifier.verify(version, version / signing.VERSION_SIGNATURE)


def test_a_version_is_signed_with_the_number_that_it_gets(repository: Path, keys: KeyPair) -> None:
    """Another publisher takes the number in between: the signature is made anew."""
    model, sealed = repository / "brightness", []

    def seal(folder: Path) -> None:
        sealed.append(folder.name)
        seal_version(folder, keys.private)
        if len(sealed) == 1:
            onnx_models.save_brightness(repository, version=3)

    def write(folder: Path) -> None:
        for file in (model / "1").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())

    version = publish_version(repository, "brightness", write, seal=seal)
    assert (sealed, version.name) == (["3", "4"], "4")
    signing.verify_version(version, keys.public, model="brightness")
    assert not list(model.glob(".*"))


def test_signing_and_verifying_from_the_command_line(
    repository: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository / "brightness")  # paths may be relative, signatures name folders
    assert main(["sign", "1", "--key", str(keys.private)]) == 0
    assert re.search(r"signed: .*/brightness/1\n", capsys.readouterr().out)
    check_signature(Path("1"), keys.public)


@pytest.mark.parametrize("text", ["", "no key", "public"])
def test_a_key_that_cannot_sign_is_refused_before_any_work(keys: KeyPair, tmp_path: Path, text: str) -> None:
    key = tmp_path / "key.pem"
    key.write_text(keys.public.read_text() if text == "public" else text)
    with pytest.raises(PublishError, match=r"key.pem cannot sign: .*; expected an elliptic curve key"):
        check_private_key(key)
    check_private_key(keys.private)


def test_what_nobody_published_is_not_signed(tmp_path: Path, keys: KeyPair) -> None:
    """Nothing would say whose version it is."""
    onnx_models.save_brightness(tmp_path, manifest=False)
    with pytest.raises(PublishError, match=r"has no manifest.json; expected a version that inferry-train published"):
        sign_path(tmp_path, keys.private)
