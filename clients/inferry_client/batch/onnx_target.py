"""A version's folder as what answers a job: ONNX Runtime in this process, and no server."""

import hashlib
import threading
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from inferry_client.batch.errors import JobError
from inferry_client.batch.predict import PictureModel, picture_model
from inferry_client.batch.version_folder import read_output_labels, read_version_name
from inferry_client.results import ModelDescription, TensorSpec
from inferry_proto.manifest import MANIFEST_FILE, ManifestError, read_manifest, verify_files
from inferry_proto.manifest_pb2 import ModelManifest
from inferry_proto.model_source import MODEL_FILE, ModelSource, ModelSourceError, read_source

_MAX_BATCH_SIZE = 256
_MOST_WEIGHT_BYTES = 1 << 40  # of a file: what is in the manifest is the user's own


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
    """The version that lies in a folder. What is computed are the bytes that were checked.

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
        source = read_source(folder / MODEL_FILE, available_bytes=lambda: _MOST_WEIGHT_BYTES)
        verify_files(folder, manifest, source.files)
    except (ManifestError, ModelSourceError, OSError) as error:
        raise JobError(f"{folder} cannot be used: {error}") from error
    for name in source.files.keys() - {file.name for file in manifest.files}:  # guard: batch-onnx-checksums
        raise JobError(f"{folder} cannot be used: its manifest has no checksum for {name}")
    model = picture_model(_describe(folder, manifest, source), older_sha256=_older_sha256(manifest))
    return OnnxTarget(model, _load(source, threads=threads))


def _load(source: ModelSource, *, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoders use the cores meanwhile
    if source.weights:
        names, contents = list(source.weights), list(source.weights.values())
        options.add_external_initializers_from_files_in_memory(names, contents, list(map(len, contents)))
    try:
        return ort.InferenceSession(source.model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise JobError(f"{source.path} cannot be loaded: {error}") from error


def _describe(folder: Path, manifest: ModelManifest, source: ModelSource) -> ModelDescription:
    """The version as a server describes it: a job that a server began may go on here."""
    signature = manifest.signature
    model, version = read_version_name(folder)
    return ModelDescription(
        model=model or manifest.model_name,
        version=version,
        inputs=tuple(TensorSpec(t.name, t.datatype, tuple(t.shape)) for t in signature.inputs),
        outputs=tuple(TensorSpec(t.name, t.datatype, tuple(t.shape)) for t in signature.outputs),
        labels=tuple(manifest.labels) or read_output_labels(folder, manifest.signature),
        preprocessing=manifest.preprocessing if manifest.HasField("preprocessing") else None,
        max_batch_size=_MAX_BATCH_SIZE,
        model_sha256=source.sha256,
    )


def _older_sha256(manifest: ModelManifest) -> str:
    """What earlier versions of this command took for the digest of the model: over all files but golden samples."""
    golden = manifest.golden_samples.file
    files = sorted((file.name, file.sha256) for file in manifest.files if file.name != golden)
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in files).encode()).hexdigest()
