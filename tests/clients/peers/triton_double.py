"""Triton of PyPI's `nvidia-pytriton`, with its Python backend and the model `double`.

`python triton_double.py GRPC_PORT HTTP_PORT METRICS_PORT FOLDER`, in an environment with NumPy 1.
"""

# mypy: ignore-errors

import os
import sys
import sysconfig
from pathlib import Path

CONFIG = """
name: "double"
backend: "python"
max_batch_size: 16
input [ { name: "x" data_type: TYPE_INT64 dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_INT64 dims: [ 1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching { }
"""
MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", 2 * x)]) for x in inputs]
"""

port, folder = sys.argv[1], Path(sys.argv[4])
packages = Path(sysconfig.get_path("purelib"))
home = packages / "pytriton" / "tritonserver"
backend, model = folder / "backends" / "python", folder / "models" / "double"
(model / "1").mkdir(parents=True)
(model / "1" / "model.py").write_text(MODEL)
(model / "config.pbtxt").write_text(CONFIG)
backend.mkdir(parents=True)
version = f"{sys.version_info.major}.{sys.version_info.minor}"
for file in (*home.glob("backends/python/*.*"), *home.glob(f"python_backend_stubs/{version}/*")):
    (backend / file.name).symlink_to(file)
flags = {
    "model-repository": model.parent, "backend-directory": backend.parent, "grpc-address": "127.0.0.1",
    "grpc-port": port, "allow-http": "false", "allow-metrics": "false",
}  # fmt: skip
libraries = [packages / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, libraries))
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
server = str(home / "bin" / "tritonserver")
os.execv(server, [server, *(f"--{name}={value}" for name, value in flags.items())])  # noqa: S606
