"""A version's folder as what answers a job: ONNX Runtime in this process, and no server."""

import hashlib
import threading
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from inferry_client.batch.errors import JobError
from inferry_client.batch.predict import PictureModel, picture_model
from inferry_client.results import ModelDescription, TensorSpec
from inferry_proto.files import read_file
from inferry_proto.manifest import MANIFEST_FILE, ManifestError, read_manifest, verify_files
from inferry_proto.manifest_pb2 import ModelManifest

_MODEL_FILE = "model.onnx"
_MAX_BATCH_SIZE = 256
_MOST_MODEL_BYTES = (2 << 30) - 1  # of a protobuf message


class OnnxTarget:
    """A published version (`models/mnist/3`), checked against its manifest, computing on this machine's cores.

    Any number of threads may ask; one batch is computed at a time, by all cores.
    """

    def __init__(self, model: PictureModel, session: ort.InferenceSession) -> None:
        self.model = model
        self._session = session
        self._turn = threading.Lock()

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probabilities of `(N, H, W, C)` pixels, `(N, K)`."""
        try:
            with self._turn:
                (values,) = self._session.run([self.model.output], {self.model.input: pixels})
        except Exception as error:
            raise JobError(f"model {self.model.model!r} could not be run: {error}") from error
        return np.asarray(values, np.float32)

    def check_unchanged(self) -> None:
        """Nothing to see: the model is in memory."""

    def stop(self) -> None:
        """Nothing waits for long."""


def open_onnx_target(folder: Path, *, threads: int) -> OnnxTarget:
    """The version that lies in a folder.

    Args:
        folder: `MODEL/VERSION` of a model repository, with its manifest.
        threads: that compute a batch together.

    Raises:
        JobError: it has no manifest, is not what the manifest says, or cannot be loaded.
    """
    try:
        manifest = read_manifest(folder)
        if manifest is None or not manifest.HasField("signature"):
            raise JobError(f"{folder} has no {MANIFEST_FILE} with a signature; publish the model, or ask a server")
        own_files = {file.name: b"" for file in manifest.files if file.name != manifest.golden_samples.file}
        read = {name: read_file(folder / name, most_bytes=_MOST_MODEL_BYTES) for name in own_files}
        verify_files(folder, manifest, read)
    except (ManifestError, OSError) as error:
        raise JobError(f"{folder} cannot be used: {error}") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoders use the cores meanwhile
    try:
        source = read[_MODEL_FILE] if len(read) == 1 else str(folder / _MODEL_FILE)
        session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise JobError(f"{folder / _MODEL_FILE} cannot be loaded: {error}") from error
    return OnnxTarget(picture_model(_describe(folder, manifest, read)), session)


def _describe(folder: Path, manifest: ModelManifest, files: dict[str, bytes]) -> ModelDescription:
    """The version as a server describes it: a job that a server began may go on here."""
    signature = manifest.signature
    return ModelDescription(
        model=manifest.model_name,
        version=folder.resolve().name,
        inputs=tuple(TensorSpec(t.name, t.datatype, tuple(t.shape)) for t in signature.inputs),
        outputs=tuple(TensorSpec(t.name, t.datatype, tuple(t.shape)) for t in signature.outputs),
        labels=tuple(manifest.labels),
        preprocessing=manifest.preprocessing if manifest.HasField("preprocessing") else None,
        max_batch_size=_MAX_BATCH_SIZE,
        model_sha256=_sha256(files),
    )


def _sha256(files: dict[str, bytes]) -> str:
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()).hexdigest()
