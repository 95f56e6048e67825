import subprocess
from pathlib import Path

from inferry_trainer.environment import git_revision, library_versions


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(folder), *settings, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    code = tmp_path / "code.py"
    code.write_text("1")
    assert git_revision(tmp_path) == ""
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "First")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_revision(tmp_path) == commit
    code.write_text("2")
    assert git_revision(tmp_path) == f"{commit}-dirty"


def test_installed_code_has_no_revision_though_its_environment_lies_in_a_checkout(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "tracked").write_text("")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "First")
    installed = tmp_path / ".venv" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "code.py").write_text("")
    assert git_revision(installed) == ""


def test_outside_git_there_is_no_revision(tmp_path: Path) -> None:
    assert git_revision(tmp_path) == ""
    assert git_revision(tmp_path / "nowhere") == ""


def test_versions_name_what_the_result_depends_on() -> None:
    assert {"python", "tensorflow", "keras", "numpy"} <= set(library_versions())
