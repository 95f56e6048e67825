"""What lies in a job's folders: pictures that are none, and results that are damaged, another job's or in use."""

import errno
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from inferry_client.batch.errors import JobError
from inferry_client.batch.places import FolderPlace
from inferry_client.cli import main
from testkit import brightness_model
from testkit.batch_jobs import opened, read_errors, read_rows, run_batch, run_opened
from testkit.scripted_server import ScriptedServer


def test_the_folder_reads_as_one_table(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    brightness_model.write_pictures(tmp_path / "in", 12)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    assert pq.read_table(tmp_path / "out").num_rows == 12


def test_bad_pictures_are_listed_and_nobody_elses_fault(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    brightness_model.write_pictures(tmp_path / "in", 9)
    (tmp_path / "in" / "0003.png").write_bytes(b"no picture")
    (tmp_path / "in" / "0004b.jpg").symlink_to("nowhere")
    summary = run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    assert (summary.classified, summary.bad) == (8, 2)
    found = read_errors(tmp_path / "out")
    assert found["0003.png"].startswith("not a picture")
    assert found["0004b.jpg"] == "No such file or directory"
    answered = {row["id"] for row in read_rows(tmp_path / "out")}
    assert answered.isdisjoint(found)
    assert len(answered) + len(found) == 10


def test_receipts_of_parts_without_errors_are_not_read_again_to_list_errors(
    brightness_server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 30)
    (tmp_path / "in" / "0013.png").write_bytes(b"no picture")
    read: list[str] = []
    before = FolderPlace.read

    def noted(place: FolderPlace, name: str) -> bytes:
        read.append(name)
        return before(place, name)

    monkeypatch.setattr(FolderPlace, "read", noted)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    assert {name for name in read if "_receipts" in name} == {"_receipts/part-00001.json"}
    assert set(read_errors(tmp_path / "out")) == {"0013.png"}
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    assert set(read_errors(tmp_path / "out")) == {"0013.png"}


def test_a_job_that_classifies_nothing_fails(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").touch()
    out = tmp_path / "out"
    command = ["batch", str(tmp_path), "--out", str(out), "--server", brightness_server.address]
    assert main([*command, "--max-errors", "100%"]) == 1
    assert "none of the pictures could be classified" in capsys.readouterr().err
    assert set(read_errors(out)) == {"bad.png"}


def test_another_job_in_the_same_folder_is_refused_unless_overwritten(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 25)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "0000.png").unlink()
    with pytest.raises(JobError, match=r"other pictures \(25 then, 24 now\); choose another --out"):
        run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    summary = run_batch(brightness_server, tmp_path / "in", tmp_path / "out", overwrite=True, part_size=50)
    assert summary.classified == 24
    assert [part.name for part in (tmp_path / "out").glob("part-*")] == ["part-00000.parquet"]


@pytest.mark.parametrize("place", ["file", "file/below"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_where_the_folder_is_to_be_is_named(
    brightness_server: ScriptedServer, tmp_path: Path, place: str, overwrite: bool
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 1)
    (tmp_path / "file").touch()
    with pytest.raises(
        JobError, match=f"--out {tmp_path / place} is to be a folder, but {tmp_path / 'file'} is a file"
    ):
        run_batch(brightness_server, tmp_path / "in", tmp_path / place, overwrite=overwrite)


def _truncate(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-9])


def _keep_one_row(part: Path) -> None:
    pq.write_table(pq.read_table(part).slice(0, 1), part)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_truncate, "bytes that are not the .* of its receipt"),
        (lambda part: part.write_bytes(b""), "it has 0 bytes that are not the"),
        (_keep_one_row, "bytes that are not the .* of its receipt"),
        (
            lambda part: part.rename(part.with_name("part-00009.parquet")),
            "the job has no such part, and it has no receipt",
        ),
    ],
)
def test_a_damaged_part_is_named_with_its_remedy(
    brightness_server: ScriptedServer, tmp_path: Path, damage: Any, named: str
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 25)
    out = tmp_path / "out"
    run_batch(brightness_server, tmp_path / "in", out)
    damage(out / "part-00001.parquet")
    brightness_server.received.clear()
    with pytest.raises(
        JobError, match=rf"part-0000\d.parquet is no whole part of this job: .*{named}.*delete it"
    ) as caught:
        run_batch(brightness_server, tmp_path / "in", out)
    assert brightness_server.requests("ModelInfer") == []
    Path(str(caught.value).partition(" ")[0]).unlink()  # the remedy
    assert run_batch(brightness_server, tmp_path / "in", out).classified == 25
    assert len(read_rows(out)) == 25


def test_a_damaged_plan_is_named_and_overwriting_begins_anew(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    brightness_model.write_pictures(tmp_path / "in", 3)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    plan = tmp_path / "out" / "_plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"part_size": "ten"}))
    with pytest.raises(
        JobError, match=r"_plan.json is no plan.*part_size is 'ten'; expected a whole number; --overwrite"
    ):
        run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    assert run_batch(brightness_server, tmp_path / "in", tmp_path / "out", overwrite=True).classified == 3


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_job_in_the_same_folder_is_refused_while_the_first_runs(
    brightness_server: ScriptedServer, tmp_path: Path, overwrite: bool
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 3)
    with opened(brightness_server.address, tmp_path / "in", tmp_path / "out") as first:
        with pytest.raises(JobError, match=r"another job is writing into .*out; wait until it has ended"):
            run_batch(brightness_server, tmp_path / "in", tmp_path / "out", part_size=None, overwrite=overwrite)
        assert run_opened(first).classified == 3
    assert len(brightness_server.requests("ModelInfer")) == 1
    assert run_batch(brightness_server, tmp_path / "in", tmp_path / "out", part_size=None).resumed == 3


def test_a_full_disk_is_said_and_complete_parts_are_kept(
    brightness_server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    brightness_model.write_pictures(tmp_path / "in", 3)
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fail)
        with pytest.raises(JobError, match="cannot be written: No space left on device"):
            run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.writing"))
    assert run_batch(brightness_server, tmp_path / "in", tmp_path / "out").classified == 3


def test_errors_are_written_a_line_at_a_time_and_never_gathered(
    brightness_server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 12)
    for number in range(1, 12, 2):
        (tmp_path / "in" / f"{number:04}.png").write_bytes(b"no picture")
    written: list[bytes] = []
    write_long = FolderPlace.write_long

    def keep(self: FolderPlace, name: str, pieces: Iterable[bytes]) -> None:
        written.extend(pieces)
        write_long(self, name, iter(written))

    monkeypatch.setattr(FolderPlace, "write_long", keep)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    assert [line.count(b"\r\n") for line in written] == [1] * 7
    assert len(read_errors(tmp_path / "out")) == 6
