"""The runtime's own arguments start a server on /mnt/models, and its probes and ports answer.

The server runs in namespaces of its own, so that /mnt and the ports are nobody else's.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from manifests.bundle import K8S, Manifest, render
from testkit import onnx_models

NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount", "--net"]
INSIDE = """
import fcntl, signal, socket, struct, subprocess, sys, urllib.request
import numpy as np, tritonclient.grpc as triton
folder, grpc_port, paths, *command = sys.argv[1:]
subprocess.run(["mount", "--bind", folder, "/mnt"], check=True)
with socket.socket() as any_socket:  # the loopback interface of a new namespace is down
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
    assert "ready" in server.stdout.readline()
    try:
        for path in paths.split(","):
            assert urllib.request.urlopen("http://127.0.0.1:" + path, timeout=20).status == 200, path
        with triton.InferenceServerClient("127.0.0.1:" + grpc_port) as client:
            tensor = triton.InferInput("x", [1, 3], "FP32")
            tensor.set_data_from_numpy(np.array([[1, 2, 3]], np.float32))
            assert client.infer("doubler", [tensor]).as_numpy("y").tolist() == [[2, 4, 6]]
    finally:
        server.kill()
"""


@pytest.fixture
def container() -> Manifest:
    (runtime,) = render(K8S / "overlays" / "kserve").every("ClusterServingRuntime")
    found: Manifest = runtime["spec"]["containers"][0]
    return found


@pytest.mark.slow
def test_the_runtimes_arguments_start_a_server_where_kserve_puts_models(container: Manifest, tmp_path: Path) -> None:
    if subprocess.run([*NAMESPACES, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody make namespaces (unshare --user --mount --net)")
    onnx_models.save_doubler(tmp_path / "models")
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    paths = ",".join(f"{probe['port']}{probe['path']}" for probe in probes)
    grpc_port = str(container["ports"][0]["containerPort"])
    server = [str(Path(sys.executable).with_name("inferry-serve")), *container["args"]]
    done = subprocess.run(
        [*NAMESPACES, sys.executable, "-c", INSIDE, str(tmp_path), grpc_port, paths, *server],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_service_uses_the_runtime_and_a_format_that_it_has() -> None:
    bundle = render(K8S / "overlays" / "kserve")
    (runtime,), (service,) = bundle.every("ClusterServingRuntime"), bundle.every("InferenceService")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in {one["name"] for one in runtime["spec"]["supportedModelFormats"]}
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert [one["name"] for one in runtime["spec"]["containers"]] == ["kserve-container"]
