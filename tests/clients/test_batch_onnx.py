"""A job without a server gives what a server gives, from a published version's folder."""

import contextlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from inferry_client.batch.classifier import PictureClassifier
from inferry_client.batch.decode import DecodeSettings
from inferry_client.batch.decoding import ProcessDecoder
from inferry_client.batch.errors import JobError
from inferry_client.batch.folder import FolderInput
from inferry_client.batch.job import LocalEngine, run_job
from inferry_client.batch.onnx_target import open_onnx_target
from inferry_client.batch.opening import open_job
from inferry_client.batch.report import Times, cluster_report_lines
from inferry_client.batch.settings import BatchSettings
from inferry_client.batch.version_folder import read_model_files
from inferry_client.cli import main
from testkit import brightness_model
from testkit.batch_jobs import opened, read_rows, run_opened
from testkit.onnx_models import save_brightness
from testkit.servers import running_server


def test_a_job_in_process_gives_the_same_bytes_as_with_a_server_and_may_go_on_with_its_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = save_brightness(tmp_path / "models", side=8)
    brightness_model.write_pictures(tmp_path / "in", 25)
    (tmp_path / "in" / "0003.png").write_bytes(b"no picture")
    with (
        running_server(tmp_path / "models") as server,
        opened(str(server.grpc_address), tmp_path / "in", tmp_path / "served") as job,
    ):
        assert run_opened(job).classified == 24
    command = ["batch", str(tmp_path / "in"), "--onnx", str(version), "--part-size", "10"]
    assert main([*command, "--out", str(tmp_path / "local"), "--report"]) == 0
    assert "classified 24 of 25 pictures" in capsys.readouterr().out
    for name in ("part-00000.parquet", "part-00001.parquet", "part-00002.parquet", "errors.csv", "_plan.json"):
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "served" / name).read_bytes()
    (tmp_path / "served" / "part-00001.parquet").unlink()
    assert main([*command, "--out", str(tmp_path / "served"), "--dry-run"]) == 0
    assert "would classify 25 pictures in 3 parts of 10, 2 of them complete" in capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "served")]) == 0
    assert len(read_rows(tmp_path / "served")) == 24


def test_a_folder_that_is_no_published_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    with pytest.raises(JobError, match=r"has no manifest.json with a signature"):
        open_onnx_target(tmp_path / "1", threads=1)
    version = save_brightness(tmp_path / "models")
    (version / "model.onnx").write_bytes(b"another")
    with pytest.raises(JobError, match=r"cannot be used"):
        open_onnx_target(version, threads=1)


def test_processes_decode_as_threads_do(tmp_path: Path) -> None:
    version = save_brightness(tmp_path / "models", side=8)
    brightness_model.write_pictures(tmp_path / "in", 25)
    target = open_onnx_target(version, threads=1)
    settings = BatchSettings(tmp_path / "out", part_size=10, batch_size=4)
    spec = target.model.preprocessing.SerializeToString()
    with (
        open_job(FolderInput(tmp_path / "in"), settings, lambda _: target) as job,
        ProcessDecoder(DecodeSettings(spec, settings.max_file_bytes), processes=2) as decoder,
    ):
        assert run_job(job, LocalEngine(decoder), progress=lambda *_: None).classified == 25
    command = ["batch", str(tmp_path / "in"), "--onnx", str(version), "--part-size=10", f"--out={tmp_path / 'threads'}"]
    assert main(command) == 0
    assert read_rows(tmp_path / "out") == read_rows(tmp_path / "threads")


def test_the_classifier_of_data_engines_answers_as_a_job_does(tmp_path: Path) -> None:
    version = save_brightness(tmp_path / "models", side=8)
    paths = brightness_model.write_pictures(tmp_path / "in", 70)
    command = ["batch", str(tmp_path / "in"), "--onnx", str(version), f"--out={tmp_path / 'out'}"]
    assert main(command) == 0
    pictures = [path.read_bytes() for path in paths]
    classifier = PictureClassifier(onnx=version, batch_size=32)
    answered = classifier({"name": np.array([path.name for path in paths]), "bytes": np.array(pictures, object)})
    rows = read_rows(tmp_path / "out")
    for name in ("label", "index", "probability"):
        assert answered[name].tolist() == [row[name] for row in rows]
    assert answered["name"].tolist() == [row["id"] for row in rows]
    assert not answered["error"].any()
    bad = classifier.classify([b"no picture", None, pictures[0]])
    assert bad["index"].tolist() == [-1, -1, rows[0]["index"]]
    assert [bool(error) for error in bad["error"]] == [True, True, False]
    classifier.close()


def test_a_version_that_was_sent_elsewhere_answers_there(tmp_path: Path) -> None:
    version = save_brightness(tmp_path / "models", side=8)
    (path,) = brightness_model.write_pictures(tmp_path / "in", 1)
    sent = pickle.loads(pickle.dumps(read_model_files(version)))  # noqa: S301
    (tmp_path / "models").rename(tmp_path / "gone")
    with contextlib.closing(PictureClassifier(onnx=sent)) as classifier:
        assert classifier.target.model.version == version.name
        assert classifier.classify([path.read_bytes()])["index"][0] >= 0
    with pytest.raises(JobError, match="cannot be read"):
        read_model_files(version)


def test_the_report_of_a_cluster_names_what_was_measured_there() -> None:
    times = Times()
    times.read_s, times.decode_s, times.write_s, times.pictures, times.wall_s = 3.0, 4.0, 1.0, 100, 10.0
    first, second, third = cluster_report_lines(times)
    assert first == "100 pictures in 10.0 s, 10/s"
    assert "reading 3.0 s, decoding 4.0 s" in second
    assert "writing parts 1.0 s" in third
