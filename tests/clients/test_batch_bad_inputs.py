"""Inputs of a batch job that are no files, or not what their names say: an error each, and the job goes on."""

import os
import socket
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from inferry_client.batch import inputs
from inferry_client.batch.errors import JobError
from inferry_client.batch.inputs import InputOptions, open_inputs
from inferry_client.cli import main
from testkit import brightness_model
from testkit.batch_jobs import read_errors, read_rows, run_batch
from testkit.scripted_server import ScriptedServer

OPTIONS = InputOptions()
KINDS = (".tar", ".tar.gz", ".tgz", ".zip", ".parquet", ".csv", ".txt", ".lst", "-ubyte", "-ubyte.gz", ".idx")


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_lost(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (make_fifo, "it is a FIFO; expected a regular file"),
        (make_device, "it is a device; expected a regular file"),
        (make_socket, "it is a socket; expected a regular file"),
        (make_lost, "is a link to nothing"),
        (make_loop, "Too many levels of symbolic links"),
    ],
)
def test_what_is_no_regular_file_is_no_input_and_nobody_waits_for_it(
    tmp_path: Path, suffix: str, make: Callable[[Path], None], named: str
) -> None:
    path = tmp_path / f"in{suffix}"
    make(path)
    for texts in ([str(path)], [f"{tmp_path}/*{suffix}"]):
        with pytest.raises(JobError, match=named) as caught:
            list(open_inputs(texts, OPTIONS).records())
        assert str(path) in str(caught.value)


def test_a_list_that_names_no_regular_files_has_an_error_for_each(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    make_fifo(tmp_path / "fifo")
    make_socket(tmp_path / "socket")
    (tmp_path / "good.png").write_bytes(brightness_model.picture(7))
    (tmp_path / "in.csv").write_text("path\nfifo\nsocket\n/dev/zero\n.\ngood.png\n")
    assert run_batch(brightness_server, open_inputs([str(tmp_path / "in.csv")], OPTIONS), tmp_path / "out").bad == 4
    assert read_errors(tmp_path / "out") == {
        "fifo": "it is a FIFO; expected a regular file",
        "socket": "it is a socket; expected a regular file",
        "/dev/zero": "it is a device; expected a regular file",
        ".": "it is a folder; expected a regular file",
    }


def test_inputs_that_cannot_be_read_are_errors_among_others_and_the_job_goes_on(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 30)
    for name in ("a.zip", "b.parquet", "c-ubyte", "d.idx.gz", "e.tar", "f.tar.xz"):
        (tmp_path / name).write_bytes(b"words")
    make_fifo(tmp_path / "g.csv")
    make_lost(tmp_path / "h.txt")
    source = open_inputs([f"{tmp_path}/*.*", f"{tmp_path}/c-ubyte", f"{tmp_path}/in"], OPTIONS)
    summary = run_batch(brightness_server, source, tmp_path / "out")
    assert (summary.classified, summary.bad) == (30, 8)
    found = read_errors(tmp_path / "out")
    for name, named in (
        ("a.zip", "cannot be read as a zip archive"),
        ("b.parquet", "cannot be read"),
        ("c-ubyte", "is no IDX file"),
        ("d.idx.gz", "cannot be read"),
        ("e.tar", "damaged"),
        ("f.tar.xz", "damaged"),
        ("g.csv", "it is a FIFO; expected a regular file"),
        ("h.txt", "is a link to nothing"),
    ):
        (reason,) = [reason for own_id, reason in found.items() if own_id.startswith(f"{tmp_path / name}/")]
        assert named in reason
    assert len(read_rows(tmp_path / "out")) == 30
    assert run_batch(brightness_server, source, tmp_path / "out").resumed == 38
    with pytest.raises(JobError, match=r"8 of 38 pictures could not be classified.*--max-errors"):
        run_batch(brightness_server, source, tmp_path / "out2", max_errors=0.1, part_size=50)


def test_where_no_input_can_be_read_nothing_is_asked_or_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.zip", "b.zip"):
        (tmp_path / name).write_bytes(b"words")
    nobody = ["--server", "127.0.0.1:1", "--out", str(tmp_path / "out")]
    assert main(["batch", f"{tmp_path}/*.zip", *nobody]) == 1
    assert f"{tmp_path / 'a.zip'} cannot be read as a zip archive" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_column_that_a_table_lacks_ends_the_job_however_many_inputs_there_are(tmp_path: Path) -> None:
    brightness_model.write_pictures(tmp_path / "in", 1)
    (tmp_path / "in.csv").write_text("x\n1\n")
    source = open_inputs([f"{tmp_path}/in", f"{tmp_path}/in.csv"], OPTIONS)
    with pytest.raises(JobError, match="has no column of pictures"):
        list(source.records())


def test_an_input_whose_folder_may_not_be_looked_into_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> os.stat_result:
        raise PermissionError(13, os.strerror(13), path)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(JobError, match=r"in.tar cannot be looked at: Permission denied"):
        open_inputs([str(tmp_path / "in.tar")], OPTIONS)


def test_patterns_find_each_file_once_and_follow_no_links_in_circles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a/b/c", "a/.hidden", "a/[x]"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "in.tar").touch()
    for name in ("one", "two", "three"):
        (tmp_path / "a" / "b" / name).symlink_to(tmp_path)
    (tmp_path / "in.tar").touch()
    inside = ["a/[x]/in.tar", "a/b/c/in.tar"]
    monkeypatch.chdir(tmp_path)
    for pattern, expected in (
        ("**/*.tar", [*inside, "in.tar"]),
        ("./**/*.tar", [f"./{path}" for path in (*inside, "in.tar")]),
        ("a/**/*.tar", inside),
        ("*/**/c/**/*.tar", inside[1:]),
        (f"{tmp_path}/a/**/i*", [str(tmp_path / path) for path in inside]),
        ("a/*/in.tar", inside[:1]),
        ("a/**/none", []),
    ):
        assert sorted(inputs._match(pattern)) == expected


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "archive"])
def test_what_macos_puts_beside_files_is_left_out_and_counted(tmp_path: Path, *, archive: bool) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "1.png").write_bytes(brightness_model.picture(1))
    (folder / "._1.png").write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    if archive:
        with tarfile.open(tmp_path / "in.tar", "w") as tar:
            tar.add(folder, "in")
    source = open_inputs([str(tmp_path / "in.tar" if archive else folder)], OPTIONS)
    assert [Path(record.id).name for record in source.records()] == ["1.png"]
    assert source.left_out == {"files of macOS (._*)": 1}


def test_many_inputs_are_told_apart_in_time_that_grows_with_their_number(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3000):
        (tmp_path / "in" / f"{number}.png").touch()
    calls = [0]

    def count(*_: object) -> None:
        calls[0] += 1

    sys.setprofile(count)
    try:
        open_inputs([f"{tmp_path}/in/*.png"], OPTIONS)
    finally:
        sys.setprofile(None)
    assert calls[0] < 3000 * 400  # pairs would be nine million
