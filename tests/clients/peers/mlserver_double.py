"""MLServer with the model `double`: `python mlserver_double.py GRPC_PORT HTTP_PORT METRICS_PORT FOLDER`."""

# mypy: ignore-errors

import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    grpc_port, http_port, metrics_port, folder = (*map(int, sys.argv[1:4]), Path(sys.argv[4]))
    ports = {"host": "127.0.0.1", "grpc_port": grpc_port, "http_port": http_port, "metrics_port": metrics_port}
    (folder / "settings.json").write_text(json.dumps(ports | {"parallel_workers": 0}))
    tensor = {"datatype": "INT64", "shape": [-1, 1]}
    model = {"name": "double", "implementation": "mlserver_double.Double"}
    tensors = {"inputs": [{"name": "x"} | tensor], "outputs": [{"name": "y"} | tensor]}
    (folder / "model-settings.json").write_text(json.dumps(model | tensors))
    server = str(Path(sys.executable).with_name("mlserver"))
    os.execve(server, [server, "start", str(folder)], os.environ | {"PYTHONPATH": str(Path(__file__).parent)})  # noqa: S606

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Double(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        outputs = [NumpyCodec.encode_output(name="y", payload=2 * NumpyCodec.decode_input(payload.inputs[0]))]
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=outputs)
