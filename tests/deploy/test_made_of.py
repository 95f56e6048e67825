"""What was rendered is taken again only where all that it is made of is the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from manifests.bundle import render, write_overlay
from manifests.made_of import digest
from manifests.planting import data

MORE = """
configMapGenerator: [{name: inferry-server, behavior: merge, envs: [own.env]}]
patches: [{path: patch.yaml, target: {kind: Deployment}}]
"""
PATCH = "- {op: add, path: /metadata/annotations, value: {team: vision}}\n"


def overlay(folder: Path) -> Path:
    made = write_overlay(folder, ("monitoring",), more=MORE)
    (made / "own.env").write_text("INFERRY_LOG_LEVEL=debug\n")
    (made / "patch.yaml").write_text(PATCH)
    return made


def test_two_folders_with_the_same_in_them_are_made_of_the_same(tmp_path: Path) -> None:
    one, other = overlay(tmp_path / "one"), overlay(tmp_path / "other")
    renamed = other.rename(other.with_name("own"))
    assert digest(one) == digest(renamed) is not None
    assert render(one).objects == render(renamed).objects


CHANGES: dict[str, Callable[[Path], object]] = {
    "a setting": lambda made: (made / "own.env").write_text("INFERRY_LOG_LEVEL=info\n"),
    "a patch": lambda made: (made / "patch.yaml").write_text(PATCH.replace("vision", "text")),
    "the kustomization": lambda made: (made / "kustomization.yaml").write_text(
        (made / "kustomization.yaml").read_text() + "namePrefix: own-\n"
    ),
    "a file of the base": lambda made: append(made / "../../base/server.env", "INFERRY_MAX_BATCH_SIZE=16\n"),
    "a component": lambda made: append(made / "../../components/monitoring/podmonitor.yaml", "# another\n"),
    "a file under another name": lambda made: (
        (made / "own.env").rename(made / "other.env"),
        (made / "kustomization.yaml").write_text(
            (made / "kustomization.yaml").read_text().replace("own.env", "other.env")
        ),
    ),
}


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_changes_makes_it_another(name: str, tmp_path: Path) -> None:
    made = overlay(tmp_path)
    before = digest(made)
    CHANGES[name](made)
    assert digest(made) not in (before, None)


def test_a_changed_file_is_rendered_again(tmp_path: Path) -> None:
    made = overlay(tmp_path)
    assert data(render(made))["INFERRY_LOG_LEVEL"] == "debug"
    CHANGES["a setting"](made)
    assert data(render(made))["INFERRY_LOG_LEVEL"] == "info"
    data(render(made)).clear()
    assert data(render(made))


@pytest.mark.parametrize("text", [b"resources: [.\n", b"\xff\xfe", b"resources: [../own]\n"])
def test_kubectl_says_what_is_wrong_with_a_kustomization(text: bytes, tmp_path: Path) -> None:
    made = tmp_path / "own"
    made.mkdir()
    assert digest(made) is None
    (made / "kustomization.yaml").write_bytes(text)
    assert digest(made) is None
    with pytest.raises(ValueError, match="does not render"):
        render(made)
