"""Signatures of published models, in the format of OpenSSF Model Signing (the extra `signing`).

A version's folder is signed as that project's own tool signs it: `model.sig` beside the files. The statement names the
version's number, its manifest the model. The files of a model that belong to no version (`config.pbtxt`,
`version_labels.json`, label files) have a statement of their own, `settings.sig`, which names the model too. So a
version keeps its model and number, and a label its version. Keys are elliptic curve keys in PEM files.
"""

import base64
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inferry_proto.extras import how_to_install
from inferry_proto.files import read_file
from inferry_proto.manifest import MANIFEST_FILE, ManifestError, read_manifest

VERSION_SIGNATURE = "model.sig"
SETTINGS_SIGNATURE = "settings.sig"
_MOST_BYTES = 64 << 20  # of a signature, and of a file of settings
_MODEL_FILE_NAMES = "files of the model that belong to no version"


class SignatureError(ValueError):
    """A signature that is missing, was made with another key, or is one of something else."""


def sign_version(folder: Path, private_key: Path) -> None:
    """Write `model.sig` into a version's folder, whose name is the version's number.

    Raises:
        SignatureError: the key cannot be used, the folder has links, or no manifest that says whose version it is.
    """
    if _model_of(folder) is None:
        raise SignatureError(f"{folder} has no {MANIFEST_FILE}; expected a version that inferry-train published")
    _sign(folder, folder / VERSION_SIGNATURE, private_key)


def sign_settings(model: Path, private_key: Path) -> None:
    """Write `settings.sig` into a model's folder, for all its files that belong to no version.

    Raises:
        SignatureError: the key cannot be used.
    """
    with _only_settings(model) as copied:
        _sign(copied, copied / SETTINGS_SIGNATURE, private_key)
        made = model / f".{SETTINGS_SIGNATURE}"
        shutil.copyfile(copied / SETTINGS_SIGNATURE, made)
        made.replace(model / SETTINGS_SIGNATURE)


def verify_version(folder: Path, public_key: Path, *, model: str) -> None:
    """Check that a version's signature is one of exactly the files that lie there, for this model and number.

    Files may change afterwards: who serves them verifies a copy of his own.

    Raises:
        SignatureError: says what is wrong.
    """
    _verify(folder, folder / VERSION_SIGNATURE, public_key, expected=folder.name, said=folder)
    signed_for = _model_of(folder)
    if signed_for != model:  # guard: signed-model
        raise SignatureError(f"{folder} is a version of {signed_for!r}; expected one of {model!r}")


def verify_settings(model: Path, public_key: Path) -> None:
    """Check the signature of a model's files that belong to no version.

    Raises:
        SignatureError: says what is wrong.
    """
    with verified_settings(model, public_key):
        pass


@contextmanager
def verified_settings(model: Path, public_key: Path) -> Iterator[Path]:
    """A copy of a model's files that belong to no version, in a folder of that model's name; gone on leaving.

    The copy is what was verified; the originals may change meanwhile.

    Raises:
        SignatureError: says what is wrong.
    """
    with _only_settings(model) as copied:
        _verify(copied, copied / SETTINGS_SIGNATURE, public_key, expected=model.name, said=model)
        yield copied


@contextmanager
def _only_settings(model: Path) -> Iterator[Path]:
    """The files of a model's folder, without versions and hidden files, copied into a private folder of its name."""
    with tempfile.TemporaryDirectory(prefix="inferry-settings-") as private:
        copied = Path(private) / model.name
        copied.mkdir()
        try:
            for path in sorted(model.iterdir()):
                if not path.name.startswith(".") and not path.is_dir():
                    (copied / path.name).write_bytes(read_file(path, most_bytes=_MOST_BYTES))
        except OSError as error:
            raise SignatureError(f"{model}: the {_MODEL_FILE_NAMES} cannot be read: {error}") from error
        yield copied


def _sign(folder: Path, signature: Path, private_key: Path) -> None:
    signing, hashing, _ = _library()
    config = _signer(signing, private_key)
    signature.unlink(missing_ok=True)
    hashes = hashing.Config().set_ignored_paths(paths=[signature.name], ignore_git_paths=False)
    try:
        config.set_hashing_config(hashes).sign(folder, signature)
    except (OSError, ValueError) as error:
        raise SignatureError(f"{folder} cannot be signed: {error}") from error


def _verify(folder: Path, signature: Path, public_key: Path, *, expected: str, said: Path) -> None:
    """The signature is read once; `said` is where the files came from, for messages."""
    _, hashing, verifying = _library()
    try:
        data = read_file(signature, most_bytes=_MOST_BYTES)
    except FileNotFoundError as error:
        raise SignatureError(f"{said} is not signed: it has no {signature.name}") from error
    except OSError as error:
        raise SignatureError(f"{said / signature.name} cannot be read: {error}") from error
    hashes = hashing.Config().set_ignored_paths(paths=[signature.name], ignore_git_paths=False)
    config = _verifier(verifying, public_key).set_hashing_config(hashes)
    with tempfile.TemporaryDirectory(prefix="inferry-signature-") as private:
        kept = Path(private) / signature.name
        try:
            kept.write_bytes(_naming_its_key(data, public_key))  # guard: signed-quietly
            config.verify(folder, kept)
            subject = _subject(data)
        except Exception as error:  # whatever a forged signature provokes in the library
            reason = f"{type(error).__name__}: {error}".replace(str(folder), str(said)).rstrip(": ")
            raise SignatureError(
                f"{said / signature.name} is no signature of these files with {public_key}: {reason}"
            ) from error
    if subject != expected:  # guard: signed-number
        raise SignatureError(f"{said / signature.name} was made for {subject!r}; expected one for {expected!r}")


def _signer(signing: Any, private_key: Path) -> Any:
    try:
        return signing.Config().use_elliptic_key_signer(private_key=private_key)
    except Exception as error:  # the library's own, and those of what it parses with
        raise SignatureError(
            f"{private_key} cannot sign: {error}; expected an elliptic curve key in PEM without password"
        ) from error


def _verifier(verifying: Any, public_key: Path) -> Any:
    try:
        return verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:  # the library's own, and those of what it parses with
        raise SignatureError(f"{public_key} cannot verify: {error}; expected an elliptic curve key in PEM") from error


def check_private_key(path: Path) -> None:
    """Find out now whether a key can sign.

    Raises:
        SignatureError: it cannot.
    """
    _signer(_library()[0], path)


def check_public_key(path: Path) -> None:
    """Find out now whether a key can verify signatures, and whether the library for it is there.

    Raises:
        SignatureError: it cannot.
    """
    _verifier(_library()[2], path)


def _naming_its_key(bundle: bytes, public_key: Path) -> bytes:
    """A signature that says which key it is to be verified with, as those of model-signing 1.1 do.

    For another one that library prints a warning to standard output, which belongs to its callers. What names the key
    is not signed: whether the key has made the signature is found out all the same.
    """
    from cryptography.hazmat.primitives import serialization as written  # which comes with model-signing

    said = json.loads(bundle)
    key = said["verificationMaterial"]["publicKey"]
    if key.get("hint"):
        return bundle
    loaded = written.load_pem_public_key(public_key.read_bytes())
    pem = loaded.public_bytes(written.Encoding.PEM, written.PublicFormat.SubjectPublicKeyInfo)
    key["hint"] = hashlib.sha256(pem).hexdigest()
    return json.dumps(said).encode()


def _subject(bundle: bytes) -> str:
    """What a signature was made for: the name of the folder."""
    statement = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    return str(statement["subject"][0]["name"])


def _model_of(folder: Path) -> str | None:
    """The model that a version's manifest names; None without a manifest."""
    try:
        manifest = read_manifest(folder)
    except ManifestError as error:
        raise SignatureError(str(error)) from error
    return None if manifest is None else manifest.model_name


def _library() -> tuple[Any, Any, Any]:
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        raise SignatureError(f"signatures need the extra signing: {how_to_install('signing')} ({error})") from error
    return signing, hashing, verifying
