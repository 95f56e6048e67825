"""The server's image, built from the unmodified Dockerfile without a daemon, and run as Kubernetes runs it.

Debian's `buildah` builds in a chroot, on a base made by `debootstrap`; both need root. Where one is missing, the test
is skipped and says which package brings it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from testkit import onnx_models

ROOT = Path(__file__).parents[2]
BASE, IMAGE = "localhost/inferry-test-base:bookworm-headers", "localhost/inferry-test-server:built"
SUITE = "bookworm"
MOST_MIB_AT_REST = 150
MOST_MB = 200  # of the environment: with python:3.12-slim's 125 MB below the 330 MB that are promised

pytestmark = pytest.mark.slow


def buildah(*arguments: str) -> str:
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()


def pip_mounts() -> list[str]:
    """How this machine's pip finds packages, for the build's: its files of settings, and certificates."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "debug"], capture_output=True, text=True, check=True
    ).stdout
    files = [line.rsplit(", exists: ", 1)[0].strip() for line in listed.splitlines() if line.endswith("exists: True")]
    paths = [Path("/etc/ssl/certs"), Path("/etc/xdg/pip"), *(Path(file).parent for file in files)]
    kept = dict.fromkeys(path for path in paths if path.is_dir() and path not in (Path("/etc"), Path.home()))
    mounts = [*kept, *(Path(file) for file in files if Path(file).parent == Path("/etc"))]
    return [part for path in mounts for part in ("--volume", f"{path}:{path}:ro")]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The server's image, which is not kept; its base is."""
    for tool in ("buildah", "debootstrap"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: apt-get install {tool}")
    if os.geteuid() != 0:
        pytest.skip("building needs root")
    if BASE not in buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        make_base()
    buildah(
        "build", "--pull=never", "--build-arg", f"PYTHON_IMAGE={BASE}", *pip_mounts(), "--target", "server",
        "--file", str(ROOT / "deploy/docker/Dockerfile"), "--tag", IMAGE, str(ROOT),
    )  # fmt: skip
    yield IMAGE
    buildah("rmi", IMAGE)


def make_base() -> None:
    """Debian with its Python, as python:3.12-slim is Debian with another."""
    container = buildah("from", "scratch")
    root = buildah("mount", container)
    packages = "python3,python3-venv,python3-pip,libpython3-dev,ca-certificates"
    subprocess.run(["debootstrap", "--variant=minbase", f"--include={packages}", SUITE, root], check=True)
    (Path(root) / "usr/bin/python").symlink_to("python3")
    for marker in Path(root).glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()  # the official images' pip installs where it is told
    buildah("commit", container, BASE)
    buildah("rm", container)


@pytest.fixture
def container(image: str) -> Iterator[str]:
    name = buildah("from", "--pull=never", image)
    yield name
    buildah("rm", name)


def test_the_environment_is_small_and_has_neither_trainer_nor_clients_nor_cuda(container: str) -> None:
    root = Path(buildah("mount", container)) / "opt" / "inferry"
    (packages,) = root.glob("lib/python3*/site-packages")
    assert {path.name.split(".")[0] for path in packages.glob("inferry_*")} == {
        "inferry_proto", "inferry_server", "inferry_server__mypyc",
    }  # fmt: skip
    assert not [path.name for path in packages.iterdir() if path.name.startswith(("nvidia", "tensorflow", "pip"))]
    assert [path.name for path in (root / "bin").glob("inferry*")] == ["inferry-serve"]
    size_mb = int(subprocess.run(["du", "-sm", root], capture_output=True, text=True, check=True).stdout.split()[0])
    assert size_mb <= MOST_MB
    labels = json.loads(buildah("inspect", "--type", "container", container))["OCIv1"]["config"]["Labels"]
    assert labels["org.opencontainers.image.base.name"] == BASE


def test_the_list_of_what_is_in_it_is_its_lock(container: str) -> None:
    root = Path(buildah("mount", container)) / "opt" / "inferry"
    syft = Path(sys.executable).with_name("syft")
    command = [str(syft), "scan", f"dir:{root}", "--output", "cyclonedx-json", "--quiet"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True,
        env={**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"},
    )  # fmt: skip
    listed = {one["name"].lower().replace("_", "-"): one["version"] for one in json.loads(done.stdout)["components"]
              if one["type"] == "library"}  # fmt: skip
    lock = (ROOT / "requirements-server-cpu.txt").read_text()
    pinned = set(re.findall(r"^([a-z0-9-]+)==([^ ;\n]+)", lock, re.MULTILINE))  # some twice, by Python's version
    assert listed.pop("inferry") == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert listed.items() <= pinned
    assert {"onnxruntime", "grpcio", "numpy", "pillow"} <= listed.keys()


INSIDE = """
import os, subprocess, sys
root, models, user, *command = sys.argv[1:]
for arguments in (
    ["--bind", root, root], ["--bind", models, root + "/models"], ["--rbind", "/proc", root + "/proc"],
    ["--rbind", "/dev", root + "/dev"],
    ["-o", "remount,bind,ro", root], ["-o", "remount,bind,ro", root + "/models"],
):
    subprocess.run(["/usr/bin/mount", *arguments], check=True)
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # two cores, as the manifests have
os.chroot(root)
os.chdir("/")
os.execv("/usr/bin/setpriv", ["setpriv", "--reuid", user.partition(":")[0], "--regid", user.partition(":")[2],
         "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", *command])
"""


@contextmanager
def serving(container: str, models: Path) -> Iterator[tuple[str, int]]:
    """The image's own command as Kubernetes runs it: user 10001, no capabilities, a root that is mounted read-only.

    Yields:
        The gRPC address, and the process.
    """
    config = json.loads(buildah("inspect", "--type", "container", container))["OCIv1"]["config"]
    root = buildah("mount", container)
    (Path(root) / "models").mkdir(exist_ok=True)
    addresses = {"INFERRY_GRPC_ADDRESS": "127.0.0.1:0", "INFERRY_HTTP_ADDRESS": "127.0.0.1:0"}
    variables = dict(line.split("=", 1) for line in config["Env"]) | addresses
    command = ["unshare", "--mount", sys.executable, "-c", INSIDE, root, str(models), config["User"]]
    with subprocess.Popen(
        [*command, *config["Entrypoint"]], stdout=subprocess.PIPE, text=True, env=variables
    ) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        try:
            assert "ready" in ready
            yield ready.split("gRPC ")[1].split(",")[0], process.pid
        finally:
            process.terminate()
    assert process.returncode == 0


def test_it_serves_as_another_user_from_a_root_that_cannot_be_written(container: str, tmp_path: Path) -> None:
    onnx_models.save_brightness(tmp_path)
    make_readable(tmp_path)
    with serving(container, tmp_path) as (address, process), triton.InferenceServerClient(address) as client:
        status = Path(f"/proc/{process}/status").read_text()
        assert re.search(r"^Uid:\t10001\t10001\t10001\t10001$", status, re.MULTILINE)
        assert "/inferry_server__mypyc." in Path(f"/proc/{process}/maps").read_text()  # its hot path is compiled
        assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
        assert re.search(r"^\S+ \S+ \S+ \S+ / ro\b", Path(f"/proc/{process}/mountinfo").read_text(), re.MULTILINE)
        tensor = triton.InferInput("images", [1, 4, 4, 1], "UINT8")
        tensor.set_data_from_numpy(np.full((1, 4, 4, 1), 255, np.uint8))
        assert client.infer("brightness", [tensor]).get_response().model_version == "1"


def test_it_takes_little_memory_at_rest_with_the_mnist_network(container: str, tmp_path: Path) -> None:
    """Resident: its own memory, and the pages of the libraries' files, which a container is charged with too."""
    trainer = str(Path(sys.executable).with_name("inferry-train"))
    run, models = str(tmp_path / "run"), tmp_path / "models"
    subprocess.run([trainer, "run", "digits", "--out", run, "--epochs", "4"], check=True)  # the network of MNIST
    subprocess.run([trainer, "export", run, "--repository", str(models)], check=True)
    make_readable(tmp_path)
    with serving(container, models) as (_, process):
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    (resident_kib,) = re.findall(r"^Rss: +(\d+) kB$", rollup, re.MULTILINE)
    assert int(resident_kib) / 1024 <= MOST_MIB_AT_REST, rollup


def make_readable(folder: Path) -> None:
    """For others than who made it."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
