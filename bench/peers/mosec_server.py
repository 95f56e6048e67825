"""The model in Mosec: pixels in the body of a POST, probabilities in the reply's."""

# mypy: disable-error-code="import-not-found, misc"
# It runs in the peer's own environment.

import os

import numpy as np
from model import model_from_environment
from mosec import Server, Worker


class Classifier(Worker):
    """Names are Mosec's."""

    def __init__(self) -> None:
        super().__init__()
        self._model = model_from_environment()
        self._shape = tuple(map(int, os.environ["BENCH_SHAPE"].split(",")))

    def deserialize(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, np.uint8).reshape(-1, *self._shape)

    def forward(self, data: list[np.ndarray]) -> list[np.ndarray]:
        outputs = self._model.run(np.concatenate(data) if len(data) > 1 else data[0])
        return np.split(outputs, np.cumsum([len(each) for each in data])[:-1])

    def serialize(self, data: np.ndarray) -> bytes:
        return data.tobytes()


if __name__ == "__main__":
    server = Server()
    # The shortest wait it has: 0 would be its default of 10 ms.
    server.append_worker(Classifier, num=1, max_batch_size=int(os.environ["BENCH_MAX_BATCH_SIZE"]), max_wait_time=1)
    server.run()
