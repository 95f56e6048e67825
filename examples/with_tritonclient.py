"""The same server with Triton's client: `python with_tritonclient.py MODEL ROWS`, random pixels."""

import os
import sys

import numpy as np
import tritonclient.grpc as triton

model, rows = sys.argv[1], int(sys.argv[2])
client = triton.InferenceServerClient(os.environ.get("INFERRY_SERVER", "127.0.0.1:8001"))
spec = client.get_model_metadata(model, as_json=True)["inputs"][0]
pixels = np.random.default_rng(0).integers(0, 256, (rows, *map(int, spec["shape"][1:])), np.uint8)
tensor = triton.InferInput(spec["name"], pixels.shape, spec["datatype"])
tensor.set_data_from_numpy(pixels)
result = client.infer(model, [tensor])
for output in result.get_response().outputs:
    print(output.name, result.as_numpy(output.name).argmax(axis=1))
