"""Pictures in, labels out, as data engines call it: an object that is made once in each of their processes.

    from inferry_client.batch.classifier import PictureClassifier

    dataset.map_batches(PictureClassifier, fn_constructor_kwargs={"onnx": "models/mnist/3"}, concurrency=4)   # Ray Data

The README of this folder has the same for Spark and Daft.
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_client.batch.decode import DecodeSettings, decode_chunk
from inferry_client.batch.predict import JOB_RETRIES, Target, open_server_target
from inferry_client.batch.records import NO_ANSWER, Content, DataContent, MissingContent
from inferry_client.batch.settings import DEFAULT_BATCH_SIZE, DEFAULT_MAX_FILE_BYTES
from inferry_client.batch.version_folder import ModelFiles
from inferry_client.batch.window import Limit, Window
from inferry_client.client import Client
from inferry_client.connecting.security import NO_SECURITY, Security
from inferry_client.retries import NO_RETRIES


@dataclass(frozen=True)
class TargetSettings:
    """What classifies; it can be pickled, and opened in another process.

    Attributes:
        onnx: a version's folder, or its files; None for servers.
        server: addresses, as of `Client`; None for what the environment names.
        model: None for the only one that is ready.
        version: empty for the newest.
        timeout_s: of a request.
        workers: requests under way at a time.
        threads: that compute a batch, without a server.
        security: of connections, beside what the environment of the process says that opens it.
    """

    onnx: str | Path | ModelFiles | None = None
    server: str | None = None
    model: str | None = None
    version: str = ""
    timeout_s: float = 30.0
    workers: int = 4
    threads: int = 1
    security: Security = NO_SECURITY

    def open(self, stack: ExitStack) -> Target:
        """It; what it needs is closed with the stack.

        Raises:
            InferryError: it cannot be had.
        """
        if self.onnx is not None:
            from inferry_client.batch.onnx_target import open_onnx_target

            return open_onnx_target(self._folder(stack, self.onnx), threads=self.threads)
        client = stack.enter_context(
            Client(self.server, timeout_s=self.timeout_s, retries=NO_RETRIES, **vars(self.security))
        )
        window = Window(Limit(most=self.workers))
        return open_server_target(
            client, name=self.model, version=self.version, begun=None, window=window, retries=JOB_RETRIES
        )

    def _folder(self, stack: ExitStack, onnx: str | Path | ModelFiles) -> Path:
        if not isinstance(onnx, ModelFiles):
            return Path(onnx)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inferry-"))) / onnx.model / onnx.version
        folder.mkdir(parents=True)
        for name, data in onnx.files.items():
            (folder / name).write_bytes(data)
        return folder


class PictureClassifier:
    """Classifies columns of encoded pictures; the model is loaded when it is made. One thread calls it.

    Args:
        onnx: a version's folder; None asks servers.
        server: addresses, as of `Client`.
        model: None for the only one that is ready.
        version: empty for the newest.
        column: of the pictures' bytes.
        batch_size: pictures that are computed together.
    """

    def __init__(
        self,
        *,
        onnx: str | Path | ModelFiles | None = None,
        server: str | None = None,
        model: str | None = None,
        version: str = "",
        column: str = "bytes",
        batch_size: int = DEFAULT_BATCH_SIZE,
        threads: int = 1,
    ) -> None:
        self._stack = ExitStack()
        settings = TargetSettings(onnx=onnx, server=server, model=model, version=version, threads=threads)
        self.target = settings.open(self._stack)
        self._column = column
        self._batch_size = min(batch_size, self.target.model.max_batch_size)
        self._settings = DecodeSettings(self.target.model.preprocessing.SerializeToString(), DEFAULT_MAX_FILE_BYTES)

    def close(self) -> None:
        """Give back what it holds."""
        self._stack.close()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with `label`, `index`, `probability` and `error`; a picture has the first three or the last.

        Args:
            batch: columns of equal length; a dict of arrays or lists, or a pandas data frame.
        """
        columns = {str(name): np.asarray(batch[name]) for name in batch if name != self._column}
        found = self.classify(list(batch[self._column]))
        return {str(name): columns.get(str(name), batch[name]) for name in batch} | found

    def classify(self, pictures: Sequence[bytes | None]) -> dict[str, Any]:
        """`label`, `index` (-1 without an answer), `probability` and `error` of encoded pictures."""
        labels: list[str | None] = []
        indexes: list[int] = []
        probabilities: list[float] = []
        errors: list[str | None] = []
        for start in range(0, len(pictures), self._batch_size):
            chunk = [_content(picture) for picture in pictures[start : start + self._batch_size]]
            decoded = decode_chunk(chunk, self._settings)
            answers = iter(self.target.infer(decoded.pixels) if len(decoded.pixels) else ())
            for position in range(len(chunk)):
                fault = decoded.faults.get(position)
                found = _Found(error=fault.reason) if fault else self._found(next(answers))
                indexes.append(found.index)
                labels.append(found.label)
                probabilities.append(found.probability)
                errors.append(found.error)
        return {
            "label": np.array(labels, object),
            "index": np.array(indexes, np.int32),
            "probability": np.array(probabilities, np.float32),
            "error": np.array(errors, object),
        }

    def _found(self, answer: NDArray[np.float32]) -> "_Found":
        if not np.all(np.isfinite(answer)):
            return _Found(error=f"{NO_ANSWER}: the model's probabilities are no finite numbers")
        best, labels = int(np.argmax(answer)), self.target.model.labels
        return _Found(best, labels[best] if best < len(labels) else "", float(answer[best]))


@dataclass(frozen=True)
class _Found:
    index: int = -1
    label: str | None = None
    probability: float = float("nan")
    error: str | None = None


def _content(picture: Any) -> Content:
    if isinstance(picture, bytes | bytearray | memoryview):
        return DataContent(bytes(picture))
    return MissingContent(f"the row holds {type(picture).__name__}; expected bytes")
