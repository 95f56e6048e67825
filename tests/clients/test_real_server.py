import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from inferry_client import Client, errors
from inferry_client.cli import main
from testkit import brightness_model
from testkit.onnx_models import save_brightness, save_text_echo
from testkit.servers import running_server

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
    assert [(row["path"], row["label"], row["probability"]) for row in rows] == expected


def test_the_load_test_finds_no_failures(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", "--model", "mnist", "--users", "4", "--duration", "1s", "--server", address]) == 0
    assert " 0 failures, " in capsys.readouterr().out
