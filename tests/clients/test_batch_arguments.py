"""Arguments of jobs that do not go together, places that are not for results, and advice that can be followed."""

from pathlib import Path

import pytest

from inferry_client.batch.errors import JobError
from inferry_client.batch.merge import merge
from inferry_client.batch.shard import Shard
from inferry_client.cli import main
from testkit import brightness_model
from testkit.batch_jobs import files_of, run_batch
from testkit.onnx_models import save_brightness
from testkit.scripted_server import ScriptedServer


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("in --onnx v --model m", "--model would do nothing: with --onnx this machine computes"),
        ("in --onnx v --version 3 --timeout-s 5", "--timeout-s and --version would do nothing: with --onnx"),
        ("in --engine ray --decoders 4", "--decoders would do nothing: on Ray tasks decode"),
        ("in --column image", "--column would do nothing: no input is a table"),
        ("a.tar digits.txt --id-column id", "--id-column would do nothing: no input is a table"),
        ("a.tar --follow-links", "--follow-links would do nothing: no input is a folder of a file system"),
        ("s3://bucket/in/ --follow-links", "--follow-links would do nothing: no input is a folder of a file system"),
        ("a.tar --no-recursive", "--no-recursive would do nothing: no input is a folder"),
        ("in --incremental --overwrite", "--incremental and --overwrite exclude each other"),
        ("merge --shard 0/2", "--shard would do nothing: a merge puts"),
        ("merge --engine ray", "--engine would do nothing: a merge puts"),
        ("in --out=", "--out is empty; expected a folder"),
        ("merge a --out=", "--out is empty; expected a folder"),
        ("in --out in", "--out in is an input too"),
        ("in --out ./in/", "--out ./in/ is an input too"),
        ("link --out in", "--out in is an input too"),
        ("a.tar in --out in", "--out in is an input too"),
        ("s3://bucket/in/ --out s3://bucket/in", "--out s3://bucket/in is an input too"),
        ("in/* --out in", "in/* also means what a job writes into --out in;"),
        ("in/[pe]* --out ./in/", "in/[pe]* also means what a job writes"),
        ("in/**/*.csv --out in/deep/er", "in/**/*.csv also means what a job writes"),
        ("s3://bucket/in/* --out s3://bucket/in", "s3://bucket/in/* also means what a job writes"),
    ],
)
def test_options_without_effect_and_results_among_pictures_are_refused(
    options: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("link").symlink_to("in")
    Path("a.tar").touch()
    arguments = options if "--out" in options else f"{options} --out out"
    assert main(["batch", *arguments.split()]) == 2
    assert named in capsys.readouterr().err
    assert sorted(path.name for path in Path().rglob("*")) == ["a.tar", "in", "link"]


@pytest.mark.parametrize(
    "options",
    [
        "pictures/* --column image",
        "pictures --follow-links",
        "table.csv --column image",
        "in/*.png --out in",
        "in/* --out out",
        "in/* --out in/deep",
    ],
)
def test_options_that_may_have_an_effect_are_taken(
    options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = options if "--out" in options else f"{options} --out out"
    assert main(["batch", *arguments.split(), "--onnx", "nowhere"]) == 1
    err = capsys.readouterr().err
    assert "nothing: " not in err
    assert "also means" not in err


def test_a_version_without_a_model_is_not_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--version", "3"]) == 2
    assert "--version would do nothing: it is of no model" in capsys.readouterr().err


def test_a_refused_job_is_advised_to_do_what_would_be_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dark, other = save_brightness(tmp_path / "models"), save_brightness(tmp_path / "models", name="other")
    brightness_model.write_pictures(tmp_path / "in", 5)
    out = tmp_path / "out"
    job = ["batch", str(tmp_path / "in"), "--out", str(out)]
    assert main([*job, "--onnx", str(dark)]) == 0

    def refused(*options: str) -> str:
        capsys.readouterr()
        assert main([*job, *options]) == 1
        return capsys.readouterr().err.partition("holds another job: ")[2]

    assert refused("--onnx", str(other)).endswith("; choose another --out, or begin anew with --overwrite\n")
    assert refused("--onnx", str(other), "--incremental").endswith("--out, or begin anew with --overwrite\n")
    brightness_model.write_pictures(tmp_path / "in", 7)
    assert refused("--onnx", str(dark)).endswith("--overwrite, or classify new pictures with --incremental\n")
    assert refused("--onnx", str(dark), "--top-k=2").endswith(
        "; choose another --out, or begin anew with --overwrite\n"
    )
    assert main([*job, "--onnx", str(dark), "--incremental"]) == 0
    assert main([*job, "--onnx", str(other), "--overwrite"]) == 0


def test_shards_are_not_done_where_they_cannot_be_merged(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    brightness_model.write_pictures(tmp_path / "in", 12)
    out = tmp_path / "out"
    run_batch(brightness_server, tmp_path / "in", out)
    run_batch(brightness_server, tmp_path / "in", out, shard=Shard(0, 2))  # of the same job
    brightness_model.write_pictures(tmp_path / "in", 14)
    before = files_of(out)
    for options in ({}, {"overwrite": True}):
        with pytest.raises(JobError, match=r"out holds another job: other pictures .*; choose another --out$"):
            run_batch(brightness_server, tmp_path / "in", out, shard=Shard(1, 2), **options)
    assert files_of(out) == before
    assert not (out / "shard-00001-of-00002" / "_plan.json").exists()


def test_a_merge_is_advised_to_do_what_a_merge_can(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    brightness_model.write_pictures(tmp_path / "in", 12)
    shards = [tmp_path / "a" / f"shard-0000{index}-of-00002" for index in range(2)]
    for index in range(2):
        run_batch(brightness_server, tmp_path / "in", tmp_path / "a", shard=Shard(index, 2))
    run_batch(brightness_server, tmp_path / "in", tmp_path / "b", part_size=5)
    with pytest.raises(JobError, match=r"b holds another job: another part size .*; choose another --out$"):
        merge(tmp_path / "b", shards)
    with pytest.raises(JobError, match="is one of the shards too"):
        merge(shards[0], shards)
    with pytest.raises(JobError, match=r"hold different jobs: another part size \(10 then, 5 now\)"):
        merge(tmp_path / "c", [shards[0], tmp_path / "b"])
