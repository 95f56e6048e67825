"""The model in MLServer, as a runtime of its own."""

# mypy: disable-error-code="import-not-found, misc"
# It runs in the peer's own environment.

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from model import model_from_environment


class Classifier(MLModel):
    """Names are MLServer's."""

    async def load(self) -> bool:
        self._model = model_from_environment()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = self._model.run(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output(name="probabilities", payload=outputs)]
        )
