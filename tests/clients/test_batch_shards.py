"""Shards of a job, made on several machines, are the job of one."""

from pathlib import Path

import pytest

from inferry_client.batch.errors import JobError
from inferry_client.batch.merge import merge
from inferry_client.batch.places import FolderPlace
from inferry_client.batch.shard import INDEX_VARIABLE, Shard, read_shard
from inferry_client.cli import main
from testkit import brightness_model
from testkit.batch_jobs import files_of, run_batch
from testkit.scripted_server import ScriptedServer


def test_merged_shards_have_the_bytes_of_one_job(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 47)
    (tmp_path / "in" / "0033.png").write_bytes(b"no picture")
    run_batch(brightness_server, tmp_path / "in", tmp_path / "one")
    out = tmp_path / "out"
    classified = 0
    for index in (2, 0):
        summary = run_batch(brightness_server, tmp_path / "in", out, shard=Shard(index, 3))
        classified += summary.classified
    with pytest.raises(JobError, match=r"2 of 5 parts are in none of the 2 shards, the first is part 1; run the"):
        merge(out, [])
    classified += run_batch(brightness_server, tmp_path / "in", out, shard=Shard(1, 3)).classified
    assert classified == 46
    assert main(["batch", "merge", "--out", str(out)]) == 0
    assert "merged 47 pictures, 46 classified with brightness version 3" in capsys.readouterr().out
    assert files_of(out) == files_of(tmp_path / "one")
    brightness_server.received.clear()
    assert run_batch(brightness_server, tmp_path / "in", out).resumed == 47
    assert brightness_server.requests("ModelInfer") == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["merge", "--out", "x", "--model", "m", "--top-k=3"], "--model and --top-k would do nothing: a merge puts"),
        (["x", "--out", "x", "--onnx", "y", "--server", "host:1"], "--server would do nothing: with --onnx this"),
    ],
)
def test_options_that_a_job_has_no_use_for_are_refused(
    options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["batch", *options]) == 2
    assert named in capsys.readouterr().err


def test_shards_of_different_jobs_are_not_merged(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    brightness_model.write_pictures(tmp_path / "in", 12)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out", shard=Shard(0, 2))
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out", shard=Shard(1, 2), part_size=5)
    with pytest.raises(JobError, match="hold different jobs"):
        merge(tmp_path / "out", [])
    with pytest.raises(JobError, match="has no folders of shards"):
        merge(tmp_path / "in", [])
    with pytest.raises(JobError, match="holds no job"):
        merge(tmp_path / "out2", [tmp_path / "in"])


def test_a_shard_is_named_by_the_argument_or_by_kubernetes() -> None:
    assert read_shard("2/8", {}) == Shard(2, 8)
    assert read_shard("8", {INDEX_VARIABLE: "5"}) == Shard(5, 8)
    for text, index in (("8/8", ""), ("8", ""), ("8", "8"), ("-1/8", ""), ("0/0", ""), ("x", "1"), ("1/2/3", "")):
        with pytest.raises(JobError, match="--shard is"):
            read_shard(text, {INDEX_VARIABLE: index})
    assert [number for number in range(9) if Shard(1, 4).has(number)] == [1, 5]


def test_a_part_that_is_damaged_on_its_way_is_not_merged(
    brightness_server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 12)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out", shard=Shard(0, 2))
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out", shard=Shard(1, 2))
    read = FolderPlace.read
    monkeypatch.setattr(FolderPlace, "read", lambda self, name: read(self, name).replace(b"PAR1", b"RAP1"))
    with pytest.raises(JobError, match="its bytes are not those of its receipt"):
        merge(tmp_path / "out", [])
