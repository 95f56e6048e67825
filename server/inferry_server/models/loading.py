"""From a folder to a version that may be served: checksum, session, warm-up, golden samples."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inferry_proto.manifest import ManifestError, read_manifest, verify_files
from inferry_proto.manifest_pb2 import ModelManifest
from inferry_server.batching.assembly import exact, ladder, pad_to_ladder
from inferry_server.batching.batcher import DynamicBatcher
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import InferenceError, ModelLoadError
from inferry_server.metrics import ServerMetrics
from inferry_server.models.checks import can_warm_up, check_golden_samples, warm_up
from inferry_server.models.repository import MODEL_FILE, VersionFolder
from inferry_server.models.statistics import VersionObserver
from inferry_server.models.version import ServedVersion, usable_preprocessing
from inferry_server.runtime.providers import CPU
from inferry_server.runtime.session import OnnxSession, load_session
from inferry_server.signature import Signature, signature_from_manifest

logger = logging.getLogger(__name__)

LABELS_FILE = "labels.txt"


@dataclass(frozen=True)
class LoadOptions:
    """How models are loaded: what computes, and the limits of their queues.

    Attributes:
        intra_op_num_threads: threads that compute one batch together.
        instance_count: batches of one model that can run at the same time, each with its threads.
    """

    providers: Sequence[str]
    intra_op_num_threads: int
    instance_count: int
    policy: BatchingPolicy
    metrics: ServerMetrics


def load_version(folder: VersionFolder, options: LoadOptions) -> ServedVersion:
    """Load a version and let it prove itself; its batcher runs when this returns.

    Raises:
        ModelLoadError: says which file or check it failed.
    """
    started = time.monotonic()
    manifest = _read_verified_manifest(folder.path)
    sessions = [_load_instance(folder, options) for _ in range(options.instance_count)]
    signature = sessions[0].signature
    policy = options.policy if signature.has_batch_dimension else _one_at_a_time(options.policy)
    if manifest is not None:
        _check_signature(folder.path, signature, manifest)
    latency = LatencyModel(policy.max_batch_size)
    for session in sessions:
        _warm_up(folder, session, policy, latency, strict=manifest is not None)
        if manifest is not None and manifest.HasField("golden_samples"):
            check_golden_samples(
                session.run,
                folder.path,
                manifest.golden_samples,
                provider=session.provider,
                max_batch_size=policy.max_batch_size if signature.has_batch_dimension else None,
            )
    version = _serve(folder, sessions, manifest, policy, latency, options.metrics)
    logger.info(
        "model loaded",
        extra={
            "model": str(folder),
            "provider": version.provider,
            "verified": manifest is not None,
            "batched": signature.has_batch_dimension,
            "instances": len(sessions),
            "seconds": round(time.monotonic() - started, 3),
        },
    )
    return version


def _load_instance(folder: VersionFolder, options: LoadOptions) -> OnnxSession:
    return load_session(
        folder.path / MODEL_FILE, providers=options.providers, intra_op_num_threads=options.intra_op_num_threads
    )


def _read_verified_manifest(path: Path) -> ModelManifest | None:
    if not (path / MODEL_FILE).is_file():
        raise ModelLoadError(f"{path / MODEL_FILE} is missing")
    try:
        manifest = read_manifest(path)
        if manifest is not None:
            verify_files(path, manifest)
            if MODEL_FILE not in {file.name for file in manifest.files}:
                raise ManifestError(f"the manifest of {path} has no checksum for {MODEL_FILE}")
    except ManifestError as error:
        raise ModelLoadError(str(error)) from error
    return manifest


def _check_signature(path: Path, signature: Signature, manifest: ModelManifest) -> None:
    if not manifest.HasField("signature"):
        return
    try:
        recorded = signature_from_manifest(manifest.signature)
    except ValueError as error:
        raise ModelLoadError(f"{path}: the manifest's signature: {error}") from error
    if recorded != signature:
        raise ModelLoadError(f"{path}: the manifest says {recorded}, the model is {signature}")


def _warm_up(
    folder: VersionFolder, session: OnnxSession, policy: BatchingPolicy, latency: LatencyModel, *, strict: bool
) -> None:
    """Warm what can be warmed. A model nobody vouches for may need other inputs than zeros."""
    if not can_warm_up(session.signature):
        logger.info("not warmed: an axis besides the first has no fixed length", extra={"model": str(folder)})
        return
    try:
        seconds = warm_up(session.run, session.signature, ladder(policy.max_batch_size), clock=time.monotonic)
    except InferenceError as error:
        if strict:
            raise ModelLoadError(f"{folder.path / MODEL_FILE}: warm-up failed: {error}") from error
        logger.warning("not warmed: %s", error, extra={"model": str(folder)})
        return
    for rows, batch_s in seconds.items():
        latency.observe(rows, batch_s)


def _serve(
    folder: VersionFolder,
    sessions: Sequence[OnnxSession],
    manifest: ModelManifest | None,
    policy: BatchingPolicy,
    latency: LatencyModel,
    metrics: ServerMetrics,
) -> ServedVersion:
    signature, provider = sessions[0].signature, sessions[0].provider
    batched = signature.has_batch_dimension
    recorded = manifest.preprocessing if manifest and manifest.HasField("preprocessing") else None
    try:
        preprocessing = usable_preprocessing(signature, recorded)
    except ValueError as error:
        raise ModelLoadError(f"{folder.path}: {error}") from error
    labels = tuple(manifest.labels) if manifest and manifest.labels else _read_labels(folder.path)
    _check_labels(folder.path, signature, labels)
    version = str(folder.version)
    observer = VersionObserver(metrics.for_model(folder.model, version))
    batcher = DynamicBatcher(
        f"{folder.model}-{version}",
        [session.run for session in sessions],
        policy,
        observer=observer,
        latency=latency,
        pad_to=exact if provider == CPU else pad_to_ladder(policy.max_batch_size),
        batched=batched,
    )
    metrics.watch_queue(folder.model, version, batcher.queued_rows)
    batcher.start()
    return ServedVersion(
        model=folder.model,
        version=version,
        signature=signature,
        max_request_rows=policy.max_request_rows if batched else 0,
        labels=labels,
        preprocessing=preprocessing,
        provider=provider,
        batcher=batcher,
        statistics=observer.statistics,
    )


def _one_at_a_time(policy: BatchingPolicy) -> BatchingPolicy:
    """For a model without batch dimension, whose requests count as one row each."""
    return replace(policy, max_batch_size=1, max_request_rows=1)


def _read_labels(path: Path) -> tuple[str, ...]:
    """Triton's way: a text file beside the version's model or the versions, a label a line."""
    for folder in (path, path.parent):
        try:
            return tuple((folder / LABELS_FILE).read_text(encoding="utf-8").splitlines())
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ModelLoadError(f"{folder / LABELS_FILE} cannot be read: {error}") from error
    return ()


def _check_labels(path: Path, signature: Signature, labels: tuple[str, ...]) -> None:
    classes = signature.outputs[0].shape[-1:] if signature.outputs else ()
    if labels and classes and classes[0] not in (-1, len(labels)):
        raise ModelLoadError(f"{path}: {len(labels)} labels for a model with {classes[0]} classes")
