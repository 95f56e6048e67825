"""A job that goes on with other pictures says what is new and what is gone, and goes on only with what it was told."""

import json
from pathlib import Path

import pytest

from inferry_client.batch.errors import JobError
from inferry_client.cli import main
from testkit import brightness_model
from testkit.batch_jobs import read_rows, run_batch
from testkit.scripted_server import ScriptedServer


def classify(server: ScriptedServer, folder: Path, *options: str) -> int:
    command = ["batch", str(folder / "in"), "--out", str(folder / "out"), "--server", server.address, "--part-size=10"]
    return main([*command, *options])


def test_what_is_new_is_counted_apart_and_what_is_gone_is_said(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = brightness_model.write_pictures(tmp_path / "in", 30)
    paths[8].write_bytes(b"no picture")
    assert classify(brightness_server, tmp_path) == 0
    (tmp_path / "in" / "new.png").write_bytes(brightness_model.picture(9))
    paths[3].unlink()
    paths[27].unlink()
    capsys.readouterr()
    gone = "2 of the 30 pictures of earlier runs are not in the input any more, '0003.png' among them; their results"
    assert classify(brightness_server, tmp_path, "--incremental", "--dry-run") == 0
    found = capsys.readouterr()
    assert "would classify 1 new pictures in 1 parts" in found.out
    assert gone in found.err
    assert classify(brightness_server, tmp_path, "--incremental") == 0
    found = capsys.readouterr()
    assert "classified 1 of 1 new pictures with brightness version 3" in found.out
    assert ", beside 30 of earlier runs; 1 could not be classified (1 not a picture)" in found.out
    assert gone in found.err
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_text()) == {"pictures": 31, "classified": 30, "errors": 1}
    assert {"0003.png", "0027.png", "new.png"} <= {row["id"] for row in read_rows(tmp_path / "out")}
    assert classify(brightness_server, tmp_path) == 0  # as it was when the job was told so
    found = capsys.readouterr()
    assert "classified 1 of 1 new pictures (1 done in earlier runs)" in found.out
    assert gone in found.err


def test_pictures_that_go_after_an_incremental_run_are_refused_as_before_it(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    paths = brightness_model.write_pictures(tmp_path / "in", 12)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "new.png").write_bytes(brightness_model.picture(9))
    data = paths[0].read_bytes()
    paths[0].unlink()
    assert run_batch(brightness_server, tmp_path / "in", tmp_path / "out", incremental=True).earlier == 12
    assert run_batch(brightness_server, tmp_path / "in", tmp_path / "out").earlier == 12
    paths[1].unlink()
    with pytest.raises(JobError, match=r"earlier runs are not in the input \(1 then, 2 now\).*with --incremental"):
        run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    paths[0].write_bytes(data)  # as many are gone, and another one
    with pytest.raises(JobError, match=r"earlier runs are not in the input \(1 then, 1 now\)"):
        run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    assert run_batch(brightness_server, tmp_path / "in", tmp_path / "out", incremental=True).classified == 13
    assert len(read_rows(tmp_path / "out")) == 13
    (tmp_path / "in" / "new.png").unlink()  # which the second run did, so it is of earlier ones by now
    with pytest.raises(JobError, match=r"\(1 then, 2 now\)"):
        run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
