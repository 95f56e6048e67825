import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Semaphore

import numpy as np
import pyarrow.parquet as pq
import pytest

from inferry_client import Client, errors
from inferry_client.batch.job import Summary
from inferry_client.batch.predict import JOB_RETRIES
from inferry_client.cli import main
from inferry_proto.preprocessing import prepare_image
from inferry_proto.services import OPEN_INFERENCE
from inferry_proto.version_labels import write_version_labels
from testkit import brightness_model
from testkit.batch_jobs import opened, run_opened
from testkit.gated_server import count_outcomes, gated_server
from testkit.onnx_models import save_brightness, save_text_echo
from testkit.servers import running_server
from testkit.waiting import wait_until

README = Path(__file__).parents[2] / "clients" / "README.md"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server of `mnist`, which knows dark from bright, and of `echo`."""
    repository = tmp_path_factory.mktemp("models")
    save_brightness(repository, name="mnist", side=8)
    save_text_echo(repository)
    with running_server(repository) as server:
        yield str(server.grpc_address)


def test_the_readmes_first_prediction_works(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    monkeypatch.chdir(tmp_path)
    Path("digit.png").write_bytes(brightness_model.picture(255))
    exec(found[1].replace("127.0.0.1:8001", address), {})  # noqa: S102 - our own words
    assert re.fullmatch(r"bright  9\d\.\d\d%  \(version 1\)\n", capsys.readouterr().out)


def test_text_passes_through_a_model_unchanged(address: str) -> None:
    with Client(address) as client:
        outputs = client.infer("echo", {"in": np.array([["a", "é"], ["", "long " * 99]])}).outputs
    assert [[element.decode() for element in row] for row in outputs["out"]] == [["a", "é"], ["", "long " * 99]]


def test_the_servers_refusals_become_errors_of_their_kind(address: str) -> None:
    with Client(address) as client:
        with pytest.raises(errors.ModelNotFoundError, match="cats"):
            client.infer("cats", {})
        with pytest.raises(errors.InvalidRequestError, match="images"):
            client.infer("mnist", {"images": np.zeros((1, 3, 3, 1), np.uint8)})
        with pytest.raises(errors.InvalidRequestError, match="image 1"):
            client.classify("mnist", [brightness_model.picture(9), b"no picture"])


def test_a_batch_job_answers_what_classify_answers(address: str, tmp_path: Path) -> None:
    paths = brightness_model.write_pictures(tmp_path / "in", 30)
    command = ["batch", str(tmp_path / "in"), "--model", "mnist", "--out", str(tmp_path / "out"), "--server", address]
    assert main(command) == 0
    rows = pq.read_table(tmp_path / "out").to_pylist()
    with Client(address) as client:
        images = client.classify("mnist", [path.read_bytes() for path in paths]).images
    expected = [
        (path.name, best.label, pytest.approx(best.probability)) for path, (best,) in zip(paths, images, strict=True)
    ]
    assert [(row["id"], row["label"], row["probability"]) for row in rows] == expected


def test_a_label_names_a_version_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version in (1, 2):
        save_brightness(tmp_path / "models", name="mnist", side=8, version=version)
    write_version_labels(tmp_path / "models" / "mnist", {"stable": 1})
    (path,) = brightness_model.write_pictures(tmp_path / "in", 1)
    pixels = prepare_image(path.read_bytes(), brightness_model.PREPROCESSING)[None]
    with running_server(tmp_path / "models") as server:
        address = str(server.grpc_address)
        with Client(address) as client:
            description = client.describe_model("mnist", version="stable")
            inputs = {description.inputs[0].name: pixels}
            assert description.version == "1"
            assert client.classify("mnist", [path.read_bytes()], version="stable").version == "1"
            assert client.infer("mnist", inputs, version="stable").version == "1"
            assert client.model_ready("mnist", version="stable")
            assert client.infer("mnist", inputs).version == "2"
            with pytest.raises(errors.InvalidRequestError, match=r"'canary' .* nor one of its labels: stable"):
                client.infer("mnist", inputs, version="canary")
        common = ["--version", "stable", "--server", address]
        assert main(["classify", str(path), "--json", *common]) == 0
        assert '"model_version": "1"' in capsys.readouterr().out
        assert main(["batch", str(path.parent), "--out", str(tmp_path / "out"), *common]) == 0
        assert "mnist version 1" in capsys.readouterr().out
        assert main(["load", "--users", "1", "--duration", "1s", *common]) == 0


def test_a_batch_job_outlasts_restarts_of_the_server(tmp_path: Path) -> None:
    save_brightness(tmp_path / "models", name="mnist", side=8)
    brightness_model.write_pictures(tmp_path / "in", 600)
    done = Semaphore(0)

    def count(pictures: int, _: int) -> None:
        for _ in range(pictures):
            done.release()

    with ExitStack() as servers, ThreadPoolExecutor(1) as pool:
        address = servers.enter_context(running_server(tmp_path / "models")).grpc_address

        def run() -> Summary:
            with opened(
                str(address), tmp_path / "in", tmp_path / "out", batch_size=1, workers=16, retries=JOB_RETRIES
            ) as job:
                return run_opened(job, count)

        job = pool.submit(run)
        for _ in range(3):
            assert all(done.acquire(timeout=20) for _ in range(100))
            servers.close()  # the server stops while 16 requests are on their way
            servers.enter_context(running_server(tmp_path / "models", grpc_address=address))
        summary = job.result(60)
    assert (summary.classified, summary.bad) == (600, 0)


def test_a_batch_job_finishes_its_work_on_a_server_that_refuses_most_of_it(tmp_path: Path) -> None:
    save_brightness(tmp_path / "models", name="mnist", side=8)
    brightness_model.write_pictures(tmp_path / "in", 40)
    little_room = {"max_batch_size": 1, "max_request_rows": 1, "max_queue_size": 1}
    with gated_server(tmp_path / "models", **little_room) as gated, ThreadPoolExecutor(1) as pool:

        def refused() -> int:
            return count_outcomes(gated.server.metrics, OPEN_INFERENCE["ModelInfer"].path)["RESOURCE_EXHAUSTED"]

        def run() -> Summary:
            with opened(
                gated.address, tmp_path / "in", tmp_path / "out", batch_size=1, workers=16, retries=JOB_RETRIES
            ) as job:
                return run_opened(job)

        gated.gate.close()
        job = pool.submit(run)
        try:
            wait_until(lambda: refused() >= 1, "a request to be refused beside one computed and one that waits")
        finally:
            gated.gate.open()
        summary = job.result(60)
    assert (summary.classified, summary.bad) == (40, 0)


def test_the_load_test_finds_no_failures(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", "--model", "mnist", "--users", "4", "--duration", "1s", "--server", address]) == 0
    assert " 0 failures, " in capsys.readouterr().out
