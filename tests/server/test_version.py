"""What the server says of its version."""

import importlib
import importlib.metadata

import pytest

import inferry_server


def test_the_version_is_the_installed_packages_and_unknown_where_only_the_source_files_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = importlib.metadata.version("inferry")
    assert inferry_server.__version__ == installed

    def no_package(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patched:
        patched.setattr(importlib.metadata, "version", no_package)
        assert importlib.reload(inferry_server).__version__ == "0+unknown"
    assert importlib.reload(inferry_server).__version__ == installed
