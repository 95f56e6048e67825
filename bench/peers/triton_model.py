"""The model in Triton's Python backend: what Triton batched is joined, computed and taken apart again."""

# mypy: disable-error-code="import-not-found, misc"
# It runs in the peer's own environment.

import json
import os
import sys
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.insert(0, os.environ["BENCH_PEERS"])  # Triton loads this file from its repository
from model import model_from_environment


class TritonPythonModel:
    """Names are the backend's."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self._input, self._output = config["input"][0]["name"], config["output"][0]["name"]
        self._batches = config["max_batch_size"] > 0
        self._model = model_from_environment(config["parameters"].get("onnx", {}).get("string_value", ""))

    def execute(self, requests: list[Any]) -> list[Any]:
        images = [pb_utils.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        if not self._batches:
            answers = [self._model.run(each) for each in images]
            return [pb_utils.InferenceResponse([pb_utils.Tensor(self._output, each)]) for each in answers]
        outputs = self._model.run(np.concatenate(images) if len(images) > 1 else images[0])
        ends = np.cumsum([len(each) for each in images])[:-1]
        return [pb_utils.InferenceResponse([pb_utils.Tensor(self._output, part)]) for part in np.split(outputs, ends)]
