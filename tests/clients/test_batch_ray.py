"""Batch jobs on Ray, and the classifier in other engines: run by an interpreter of its own, which has them.

It is made on first use, in `$INFERRY_BENCH_CACHE` or `~/.cache/inferry-bench`, or named by `$INFERRY_RAY_PYTHON`.
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from testkit import brightness_model
from testkit.onnx_models import save_brightness
from testkit.policies import save_policy, token_of
from testkit.servers import running_server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = ("ray[data]>=2.51,<3", "daft", "onnxruntime", "grpcio", "tqdm", "pillow", "numpy", "pandas", "protobuf<8")
SETTINGS = {
    "PYTHONPATH": ":".join(str(ROOT / name) for name in ("clients", "proto", "tests")),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


@pytest.fixture(scope="module")
def python() -> Path:
    if named := os.environ.get("INFERRY_RAY_PYTHON"):
        return Path(named)
    cache = Path(os.environ.get("INFERRY_BENCH_CACHE", Path.home() / ".cache" / "inferry-bench"))
    found = cache / f"ray-{sys.version_info[0]}.{sys.version_info[1]}" / "bin" / "python"
    if not (found.parent / "ready").exists():
        venv.create(found.parent.parent, with_pip=True, clear=True)
        done = subprocess.run(
            [found, "-m", "pip", "install", "--quiet", *PACKAGES], capture_output=True, text=True, timeout=900
        )
        if done.returncode:
            pytest.skip(f"Ray cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        (found.parent / "ready").touch()
    return found


def outcome(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name.startswith(("part-", "errors", "_S"))}


def succeed(command: list[Any]) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=500, env=os.environ | SETTINGS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kill_after", [0, 3])
def test_a_job_on_ray_has_the_bytes_of_a_local_one_though_a_node_is_killed(
    python: Path, tmp_path: Path, kill_after: int
) -> None:
    version = save_brightness(tmp_path / "models", side=8)
    brightness_model.write_pictures(tmp_path / "in", 400)
    (tmp_path / "in" / "0003.png").write_bytes(b"no picture")
    arguments = [tmp_path / "in", "--onnx", version, "--part-size", 20]
    # by the same interpreter: Parquet files name the version of pyarrow that wrote them
    succeed([python, "-m", "inferry_client", "batch", *arguments, "--out", tmp_path / "local"])
    told = succeed([python, "-m", "testkit.ray_job", tmp_path / "ray", kill_after, *arguments])
    report = json.loads(told.strip().splitlines()[-1])
    assert report["status"] == 0
    assert len(report["killed_after_parts"]) == (1 if kill_after else 0)
    assert all(parts < 20 for parts in report["killed_after_parts"])
    assert outcome(tmp_path / "ray") == outcome(tmp_path / "local")


def test_actors_ask_a_server_as_the_command_was_told_to(python: Path, tmp_path: Path) -> None:
    """The cluster was begun by others, whose environment knows no token."""
    save_brightness(tmp_path / "models", side=8)
    brightness_model.write_pictures(tmp_path / "in", 40)
    policy = save_policy(tmp_path / "policy.toml", batch=("infer", "read"))
    (tmp_path / "token").write_text(token_of("batch"))
    with running_server(tmp_path / "models", access_policy=policy) as server:
        options = ["--server", str(server.grpc_address), "--token-file", tmp_path / "token"]
        told = succeed([python, "-m", "testkit.ray_job", tmp_path / "out", 0, tmp_path / "in", *options])
    assert json.loads(told.strip().splitlines()[-1])["status"] == 0


def test_an_actor_that_finds_another_model_than_the_job_began_with_refuses(python: Path, tmp_path: Path) -> None:
    version = save_brightness(tmp_path / "models", side=8)
    program = f"""
from inferry_client.batch.classifier import TargetSettings
from inferry_client.batch.ray_data.engine import PieceClassifier
digest = TargetSettings(onnx={str(version)!r}).open(None).model.digest
PieceClassifier(TargetSettings(onnx={str(version)!r}), digest)
try:
    PieceClassifier(TargetSettings(onnx={str(version)!r}), "another")
except Exception as error:
    print(error)
"""
    assert succeed([python, "-c", program]) == "version 1 of model 'brightness' was replaced while the job began\n"


SNIPPETS = {
    "ray": """
import ray
from inferry_client.batch.classifier import PictureClassifier
ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
pool = ray.data.ActorPoolStrategy(size=1)
rows = ray.data.from_items(pictures).map_batches(
    PictureClassifier, fn_constructor_kwargs={"onnx": version}, compute=pool, batch_size=64
).take_all()
""",
    "daft": """
import daft
from inferry_client.batch.classifier import PictureClassifier

@daft.cls
class Classify:
    def __init__(self, version):
        self.classifier = PictureClassifier(onnx=version)

    @daft.method.batch(return_dtype=daft.DataType.string())
    def __call__(self, pictures):
        return self.classifier.classify(pictures.to_pylist())["label"].tolist()

frame = daft.from_pydict({"name": [p["name"] for p in pictures], "bytes": [p["bytes"] for p in pictures]})
rows = frame.with_column("label", Classify(version)(frame["bytes"])).to_pylist()
""",
    "pandas, as Spark's mapInPandas calls it": """
import pandas
from inferry_client.batch.classifier import PictureClassifier

def classify(frames):
    classifier = PictureClassifier(onnx=version)
    for frame in frames:
        yield pandas.DataFrame(classifier(frame)).drop(columns="bytes")

rows = pandas.concat(classify([pandas.DataFrame(pictures[:7]), pandas.DataFrame(pictures[7:])])).to_dict("records")
""",
}


@pytest.mark.parametrize("engine", SNIPPETS)
def test_the_classifier_gives_the_labels_of_a_job_in_other_engines(python: Path, tmp_path: Path, engine: str) -> None:
    version = save_brightness(tmp_path / "models", side=8)
    brightness_model.write_pictures(tmp_path / "in", 20)
    command = [sys.executable, "-m", "inferry_client", "batch", tmp_path / "in", "--onnx", version, "--format=jsonl"]
    succeed([*command, "--out", tmp_path / "out"])
    expected = {row["id"]: row["label"] for row in map(json.loads, (tmp_path / "out" / "part-00000.jsonl").open())}
    program = f"""
import json
from pathlib import Path
version = {str(version)!r}
pictures = [{{"name": p.name, "bytes": p.read_bytes()}} for p in sorted(Path({str(tmp_path / "in")!r}).iterdir())]
{SNIPPETS[engine]}
print(json.dumps({{row["name"]: row["label"] for row in rows}}))
"""
    assert json.loads(succeed([python, "-c", program]).strip().splitlines()[-1]) == expected
