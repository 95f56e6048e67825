"""What the repository holds can be checked out anywhere."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs git and a checkout made by it"
)
def test_nothing_tracked_is_a_link_or_a_thing_to_be_ignored() -> None:
    """A tracked link leads to a place of one machine; a tracked `.venv` stops the setup on all others."""
    tracked = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True)
    ignored = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not [line for line in tracked.stdout.splitlines() if line.startswith("120000")]
    assert not ignored.stdout
