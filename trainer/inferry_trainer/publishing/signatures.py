"""Signing what is published, and checking it: versions, and the settings and labels of their models."""

from pathlib import Path

from inferry_proto import signing
from inferry_trainer.errors import GateError, PublishError
from inferry_trainer.publishing.catalog import find_versions

GATE = "signature"


def sign_path(path: Path, private_key: Path) -> list[Path]:
    """Sign a version, or a model: every version of it, and its settings.

    Args:
        path: a version's folder, or a model's.
        private_key: an elliptic curve key in PEM.

    Returns:
        The versions that were signed.

    Raises:
        TrainerError: there is no version, or the key cannot sign.
    """
    versions = find_versions(path.absolute())  # signatures name folders
    try:
        for version in versions:
            signing.sign_version(version, private_key)
        for model in sorted({version.parent for version in versions}):
            signing.sign_settings(model, private_key)
    except (signing.SignatureError, OSError) as error:
        raise PublishError(f"not signed: {error}") from error
    return versions


def seal_version(version: Path, private_key: Path) -> None:
    """Sign a version before it is published.

    Raises:
        PublishError: the key cannot sign.
    """
    try:
        signing.sign_version(version, private_key)
    except signing.SignatureError as error:
        raise PublishError(f"not signed: {error}") from error


def seal_settings(model: Path, private_key: Path) -> None:
    """Sign what a model's folder holds beside its versions.

    Raises:
        PublishError: the key cannot sign.
    """
    try:
        signing.sign_settings(model, private_key)
    except (signing.SignatureError, OSError) as error:
        raise PublishError(f"{model} is published, but its settings are not signed: {error}") from error


def check_private_key(private_key: Path) -> None:
    """Refuse a key that cannot sign, before any work.

    Raises:
        PublishError: says why.
    """
    try:
        signing.check_private_key(private_key)
    except signing.SignatureError as error:
        raise PublishError(str(error)) from error


def check_signature(version: Path, public_key: Path) -> None:
    """Hold a version, and its model's settings, against their signatures.

    Raises:
        GateError: they are not signed with that key, or not as they are.
    """
    version = version.absolute()
    try:
        signing.verify_settings(version.parent, public_key)
        signing.verify_version(version, public_key, model=version.parent.name)
    except signing.SignatureError as error:
        raise GateError(GATE, str(error)) from error
