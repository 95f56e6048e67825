"""What lies in wait for a batch job: pictures and models that change, files that are none, folders without locks."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.batch import files, ownership
from inferry_client.batch.command import stopped_by_sigterm
from inferry_client.batch.errors import JobError, StoppedError
from inferry_client.batch.folder import FolderInput
from inferry_client.batch.options import number_or_share
from inferry_client.batch.ownership import owned
from inferry_client.batch.records import printable_name
from inferry_client.batch.settings import errors_allowed
from inferry_client.console.stopping import STOPPED
from testkit import brightness_model
from testkit.batch_jobs import opened, read_errors, read_rows, run_batch, run_opened
from testkit.scripted_server import ScriptedServer


def test_a_picture_replaced_by_one_of_the_same_size_and_time_is_not_mixed_with_what_is_done(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 12)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    changed = tmp_path / "in" / "0004.png"
    before, data = changed.stat(), changed.read_bytes()
    changed.write_bytes(data[:-1] + b"\0")
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    for incremental in (False, True):
        with pytest.raises(JobError, match=r"'0004.png' has other contents than when its result or error"):
            run_batch(brightness_server, tmp_path / "in", tmp_path / "out", incremental=incremental)


def test_pictures_that_were_only_touched_are_the_same(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    paths = brightness_model.write_pictures(tmp_path / "in", 12)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    for path in paths:
        os.utime(path, (1, 1))
    assert run_batch(brightness_server, tmp_path / "in", tmp_path / "out").resumed == 12


def _describe_as(digest: str) -> Any:
    def describe(request: Any) -> Any:
        reply = brightness_model.describe(request)
        reply.model_sha256 = digest
        return reply

    return describe


def test_a_version_replaced_in_place_does_not_resume_what_the_old_one_began(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 3)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    brightness_server.scripts["DescribeModel"] = _describe_as("1" * 64)
    with pytest.raises(JobError, match="another content of the model's version"):
        run_batch(brightness_server, tmp_path / "in", tmp_path / "out")


def test_a_version_replaced_while_the_job_runs_commits_no_part(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 3)
    with opened(brightness_server.address, tmp_path / "in", tmp_path / "out") as job:
        brightness_server.scripts["DescribeModel"] = _describe_as("1" * 64)
        with pytest.raises(JobError, match="was replaced while the job ran"):
            run_opened(job)
    assert read_rows(tmp_path / "out") == []


def test_files_that_are_none_and_giants_are_errors_and_end_no_job(
    brightness_server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    brightness_model.write_pictures(folder, 3)
    os.mkfifo(folder / "fifo.png")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to("loop.png")
    with (folder / "giant.png").open("wb") as giant:
        giant.truncate(1 << 34)
    (folder / "closed").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    summary = run_batch(brightness_server, folder, tmp_path / "out")
    assert (summary.classified, summary.bad) == (3, 5)
    assert read_errors(tmp_path / "out") == {
        "closed/": "the folder cannot be listed: Permission denied",
        "fifo.png": "it is a FIFO; expected a regular file",
        "giant.png": f"it has {1 << 34} bytes; expected at most {256 << 20}",
        "loop.png": "Too many levels of symbolic links",
        "zero.jpg": "it is a device; expected a regular file",
    }


def test_whatever_looks_like_a_picture_is_one_and_the_rest_is_counted(tmp_path: Path) -> None:
    png = brightness_model.picture(7)
    names = ("b.png", "a.JPG", "sub/c.webp", "sub/d.tiff", "e.gif", "photo", "README", "notes.txt", "sub-1/z.bmp")
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"words" if name == "README" else png)
    (tmp_path / "linked").symlink_to("sub")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    source = FolderInput(tmp_path)
    found = [record.id for record in source.records()]
    assert found == ["a.JPG", "b.png", "e.gif", "photo", "sub-1/z.bmp", "sub/c.webp", "sub/d.tiff"]
    assert source.left_out == {
        ".txt": 1,
        "files without suffix that are no pictures": 1,
        "links to folders (--follow-links)": 2,
    }
    followed = {record.id for record in FolderInput(tmp_path, follow_links=True).records()}
    assert followed == {*found, "linked/c.webp", "linked/d.tiff", "linked/up/", "sub/up/"}
    assert {record.id for record in FolderInput(tmp_path, recursive=False).records()} == set(found[:4])


@given(st.lists(st.binary(min_size=1, max_size=6), unique=True, max_size=8))
def test_names_of_any_bytes_have_ids_of_their_own(names: list[bytes]) -> None:
    printed = [printable_name(os.fsdecode(name)) for name in [*names, b"\xff", b"\\xff", b"\\\\xff"]]
    assert len(set(printed)) == len({*names, b"\xff", b"\\xff", b"\\\\xff"})
    for name in printed:
        name.encode()


def test_a_job_ends_once_more_pictures_fail_than_may(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    for path in brightness_model.write_pictures(tmp_path / "in", 40)[5:]:
        path.write_bytes(b"no picture")
    with pytest.raises(JobError, match=r"5 of 10 pictures .* of 40 in all 4 are allowed \(--max-errors\)"):
        run_batch(brightness_server, tmp_path / "in", tmp_path / "out", max_errors=0.1)
    assert len(read_errors(tmp_path / "out")) == 5
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert run_batch(brightness_server, tmp_path / "in", tmp_path / "out", max_errors=35).bad == 35
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_text()) == {"pictures": 40, "classified": 5, "errors": 35}


def test_errors_are_allowed_as_a_number_or_a_share() -> None:
    assert [errors_allowed(number_or_share(text), 50) for text in ("0", "7", "0%", "5%", "2.5%", "100%")] == [
        0, 7, 0, 2, 1, 50,
    ]  # fmt: skip
    assert errors_allowed(number_or_share("1"), 50) == 1


def test_new_pictures_are_classified_when_asked_for_and_nothing_twice(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 12)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    old = {part.name: part.read_bytes() for part in (tmp_path / "out").glob("part-*")}
    for number in range(15):
        (tmp_path / "in" / f"0003-{number}.png").write_bytes(brightness_model.picture(number))
    with pytest.raises(JobError, match=r"other pictures .*--incremental"):
        run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    summary = run_batch(brightness_server, tmp_path / "in", tmp_path / "out", incremental=True)
    assert (summary.classified, summary.bad) == (27, 0)
    ids = [row["id"] for row in read_rows(tmp_path / "out")]
    assert sorted(ids) == sorted(path.name for path in (tmp_path / "in").iterdir())
    assert all((tmp_path / "out" / name).read_bytes() == data for name, data in old.items())
    brightness_server.received.clear()
    for incremental in (False, True):  # nothing is new, with or without the word
        assert run_batch(brightness_server, tmp_path / "in", tmp_path / "out", incremental=incremental).classified == 27
    assert brightness_server.requests("ModelInfer") == []


def test_pictures_that_come_while_the_job_runs_end_it_before_they_mix(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 25)
    with opened(brightness_server.address, tmp_path / "in", tmp_path / "out") as job:
        (tmp_path / "in" / "0012b.png").write_bytes(brightness_model.picture(3))
        with pytest.raises(JobError, match=r"the input changed while the job ran, at '0010.png' or one of the 9"):
            run_opened(job)
    assert run_batch(brightness_server, tmp_path / "in", tmp_path / "out", incremental=True).classified == 26
    assert len({row["id"] for row in read_rows(tmp_path / "out")}) == 26


def test_a_name_is_synced_after_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        events.append("folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file")
        fsync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    files.write_whole(tmp_path / "a", [b"1"])
    assert events == ["file", "rename", "folder"]


def _without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_second_job_is_refused_where_locks_do_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_locks(monkeypatch)

    def renew_meanwhile(seconds: float) -> None:
        if seconds == ownership.STALE_S:
            lease = tmp_path / "_lease"
            lease.write_text(lease.read_text() + " again")

    with (
        owned(tmp_path, wait=lambda _: None),
        pytest.raises(JobError, match="another job is writing into"),
        owned(tmp_path, wait=renew_meanwhile),
    ):
        pass
    with owned(tmp_path, wait=lambda _: None):  # it was given back
        pass


def test_a_lease_is_renewed_again_after_a_disk_was_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_locks(monkeypatch)
    monkeypatch.setattr(ownership, "RENEW_S", 0.001)
    write, renewed = Path.write_text, [threading.Event(), threading.Event()]

    def write_text(path: Path, text: str, **options: Any) -> int:
        if not renewed[0].is_set():
            path.open("w").close()  # it is empty by the time that its text has no room
            renewed[0].set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        renewed[1].set()
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", write_text)
    with owned(tmp_path, wait=lambda _: None):
        assert all(event.wait(60) for event in renewed)
    assert not (tmp_path / "_lease").exists()


@pytest.mark.parametrize("host", [None, "another"])
def test_a_lease_of_a_killed_job_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str | None) -> None:
    _without_locks(monkeypatch)
    with subprocess.Popen(["true"]) as dead:
        pass
    owner = {"host": host or socket.gethostname(), "pid": dead.pid, "token": "t"}
    (tmp_path / "_lease").write_text(json.dumps(owner))
    waited: list[float] = []
    with owned(tmp_path, wait=waited.append):
        assert (ownership.STALE_S in waited) == (host is not None)


def test_sigterm_before_the_first_part_ends_a_job_that_has_written_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match="before its first part"), stopped_by_sigterm(1.0):
        signal.raise_signal(signal.SIGTERM)
    with stopped_by_sigterm(1.0) as draining:
        draining.working = True
        signal.raise_signal(signal.SIGTERM)
        assert (draining.begun, draining.over) == (True, False)
        signal.raise_signal(signal.SIGTERM)
        assert draining.over


def test_sigterm_publishes_the_part_in_hand_and_says_that_there_is_more(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 40)
    asked, told = threading.Event(), threading.Event()

    def answer_once_told(request: Any) -> Any:
        asked.set()
        told.wait(20)
        return brightness_model.infer(request)

    brightness_server.scripts["ModelInfer"] = answer_once_told
    arguments = ["batch", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--server", brightness_server.address]
    command = [sys.executable, "-m", "inferry_client", *arguments, "--batch-size=5", "--part-size=20", "--workers=1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert asked.wait(20)
        process.send_signal(signal.SIGTERM)
        told.set()
        _, err = process.communicate(timeout=20)
    assert process.returncode == STOPPED, err
    assert "complete parts are kept: run again to go on" in err
    assert len(read_rows(tmp_path / "out")) == 20
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert run_batch(brightness_server, tmp_path / "in", tmp_path / "out", part_size=None).resumed == 20
