"""KServe's Python server with the model `double`: `python kserve_double.py GRPC_PORT HTTP_PORT`."""

# mypy: ignore-errors

import sys

from kserve import InferOutput, InferResponse, Model, ModelServer


class Double(Model):
    def load(self):
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        doubled = 2 * payload.inputs[0].as_numpy()
        output = InferOutput(name="y", shape=list(doubled.shape), datatype="INT64")
        output.set_data_from_numpy(doubled, binary_data=False)
        return InferResponse(response_id=payload.id or "none", model_name=self.name, infer_outputs=[output])


model = Double("double")
model.load()
ModelServer(grpc_port=int(sys.argv[1]), http_port=int(sys.argv[2]), workers=1, enable_docs_url=False).start([model])
