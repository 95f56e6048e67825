"""A release out of a bucket: published, seen as canary, given traffic, taken back, while a real server answers."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from inferry_client import Client
from inferry_client.cli import main
from testkit import onnx_models
from testkit.object_store import bucket
from testkit.servers import running_server

LABELS = "repository/doubler/version_labels.json"


def upload(objects: dict[str, bytes], folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            objects[f"repository/{path.relative_to(folder)}"] = path.read_bytes()


def test_a_release_a_canary_and_its_rollback_are_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects: dict[str, bytes] = {}
    onnx_models.save_doubler(tmp_path / "made", version=1)
    upload(objects, tmp_path / "made")
    copy = tmp_path / "copy"
    with bucket(objects) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        command = ["sync", "s3://bucket/repository", str(copy), "--delete"]
        assert main(command) == 0
        with (
            running_server(copy, model_control="poll", poll_interval_s=3600.0) as server,
            Client(str(server.grpc_address)) as client,
        ):

            def released() -> None:
                assert main(command) == 0
                server._manager.poll_once()

            def versions(asked: str = "") -> Counter[str]:
                x = {"x": np.ones((1, 3), np.float32)}
                return Counter(client.infer("doubler", x, version=asked).version for _ in range(60))

            objects[LABELS] = b'{"labels": {"stable": 1}}'
            released()
            assert versions() == versions("stable") == {"1": 60}

            onnx_models.save_doubler(tmp_path / "made", version=2)
            upload(objects, tmp_path / "made")
            objects[LABELS] = b'{"labels": {"stable": 1, "canary": 2}, "traffic": {"stable": 50, "canary": 50}}'
            released()
            assert versions("canary") == {"2": 60}
            assert set(versions()) == {"1", "2"}

            objects[LABELS] = b'{"labels": {"stable": 1}, "traffic": {"stable": 100}}'
            released()
            assert versions() == versions("stable") == {"1": 60}
