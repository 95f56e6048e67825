"""From a folder to a version that may be served: checksum, session, warm-up, golden samples."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from inferry_proto.manifest import ManifestError, read_manifest, verify_files
from inferry_proto.manifest_pb2 import ModelManifest, Preprocessing
from inferry_server.batching.assembly import exact, ladder, pad_to_ladder
from inferry_server.batching.batcher import DynamicBatcher
from inferry_server.batching.gate import ComputeGate, OpenSeat, Seat
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import InferenceError, ModelLoadError
from inferry_server.metrics import ServerMetrics
from inferry_server.models.checks import RowsMismatchError, can_warm_up, check_golden_samples, warm_up
from inferry_server.models.config_pbtxt import CONFIG_FILE, read_model_settings
from inferry_server.models.labels import check_labels, read_labels
from inferry_server.models.model_settings import ModelSettings
from inferry_server.models.repository import VersionFolder
from inferry_server.models.statistics import VersionObserver
from inferry_server.models.version import ServedVersion, usable_preprocessing
from inferry_server.runtime.providers import CPU
from inferry_server.runtime.session import OnnxSession, load_session
from inferry_server.runtime.threads import available_cores
from inferry_server.signature import Signature, signature_from_manifest

logger = logging.getLogger(__name__)

WARM_UP_BUDGET_S = 1.0
"""For the measured runs of a version's warm-up: t(n) = a + b n is known from small batches, and a
CPU needs no preparation for each size. With it, a start takes about two seconds a slow model."""


@dataclass(frozen=True)
class LoadOptions:
    """How models are loaded, where they say nothing themselves: what computes, and the limits of their queues.

    Attributes:
        intra_op_num_threads: threads that compute one batch together.
        instance_count: batches of one model that can run at the same time, each with its threads.
        gate: before the cores, which all models share.
    """

    providers: Sequence[str]
    intra_op_num_threads: int
    instance_count: int
    policy: BatchingPolicy
    metrics: ServerMetrics
    gate: ComputeGate = field(default_factory=lambda: ComputeGate(available_cores()))


@dataclass(frozen=True)
class _Plan:
    """How one version is going to be served."""

    folder: VersionFolder
    settings: ModelSettings
    manifest: ModelManifest | None
    signature: Signature
    batched: bool
    policy: BatchingPolicy

    @property
    def model_path(self) -> Path:
        return self.folder.path / self.settings.model_file

    @property
    def is_vouched_for(self) -> bool:
        """Whether somebody said that the model takes rows; otherwise its shapes only look like it."""
        return self.manifest is not None or self.settings.max_batch_size is not None


def load_version(folder: VersionFolder, options: LoadOptions) -> ServedVersion:
    """Load a version and let it prove itself; its batcher runs when this returns.

    Raises:
        ModelLoadError: says which file or check it failed.
    """
    started = time.monotonic()
    settings = _read_settings(folder)
    manifest = _read_verified_manifest(folder.path, settings.model_file)
    sessions = _load_instances(folder, settings, options)
    if manifest is not None:
        _check_signature(folder.path, sessions[0].signature, manifest)
    plan = _plan(folder, settings, manifest, sessions[0].signature, options.policy)
    plan, latency = _prove(plan, sessions)
    version = _serve(plan, sessions, latency, options)
    logger.info(
        "model loaded",
        extra={
            "model": str(folder),
            "provider": version.provider,
            "verified": manifest is not None,
            "batched": plan.batched,
            "instances": len(sessions),
            "seconds": round(time.monotonic() - started, 3),
        },
    )
    return version


def _read_settings(folder: VersionFolder) -> ModelSettings:
    """The model's own settings; what of them has no effect is said once, in one line."""
    try:
        settings = read_model_settings(folder.path.parent)
    except ValueError as error:
        raise ModelLoadError(str(error)) from error
    if settings.ignored:
        logger.warning("%s: ignored: %s", CONFIG_FILE, "; ".join(settings.ignored), extra={"model": str(folder)})
    return settings


def _load_instances(folder: VersionFolder, settings: ModelSettings, options: LoadOptions) -> list[OnnxSession]:
    try:
        providers = settings.providers(options.providers)
    except ValueError as error:
        raise ModelLoadError(f"{folder.path.parent / CONFIG_FILE}: {error}") from error
    threads = _threads(settings, options)
    return [
        load_session(folder.path / settings.model_file, providers=providers, intra_op_num_threads=threads)
        for _ in range(settings.instance_count or options.instance_count)
    ]


def _threads(settings: ModelSettings, options: LoadOptions) -> int:
    return settings.threads(options.intra_op_num_threads, options.instance_count)


def _plan(
    folder: VersionFolder,
    settings: ModelSettings,
    manifest: ModelManifest | None,
    signature: Signature,
    policy: BatchingPolicy,
) -> _Plan:
    try:
        batched = settings.is_batched(signature)
        narrowed = settings.narrow(signature, batched=batched)
        own_policy = settings.policy(policy, batched=batched)
    except ValueError as error:
        raise ModelLoadError(f"{folder.path.parent / CONFIG_FILE}: {error}") from error
    return _Plan(folder, settings, manifest, narrowed, batched, own_policy)


def _prove(plan: _Plan, sessions: Sequence[OnnxSession]) -> tuple[_Plan, LatencyModel]:
    """Warm every instance and compare its answers; what looked batched and is not is served without rows."""
    latency = LatencyModel(plan.policy.max_batch_size)
    try:
        for session in sessions:
            _warm_up(plan, session, latency, budget_s=WARM_UP_BUDGET_S / len(sessions))
            _check_golden(plan, session)
    except RowsMismatchError as error:
        if plan.is_vouched_for:
            raise
        logger.warning("served without batching: %s", error, extra={"model": str(plan.folder)})
        policy = plan.settings.policy(plan.policy, batched=False)
        return _prove(replace(plan, batched=False, policy=policy), sessions)
    return plan, latency


def _read_verified_manifest(path: Path, model_file: str) -> ModelManifest | None:
    if not (path / model_file).is_file():
        raise ModelLoadError(f"{path / model_file} is missing")
    try:
        manifest = read_manifest(path)
        if manifest is not None:
            verify_files(path, manifest)
            if model_file not in {file.name for file in manifest.files}:
                raise ManifestError(f"the manifest of {path} has no checksum for {model_file}")
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


def _warm_up(plan: _Plan, session: OnnxSession, latency: LatencyModel, *, budget_s: float) -> None:
    """Warm what can be warmed. A model nobody vouches for may need other inputs than zeros."""
    model = {"model": str(plan.folder)}
    if not can_warm_up(plan.signature):
        logger.info("not warmed: an axis besides the first has no fixed length", extra=model)
        return
    sizes = ladder(plan.policy.max_batch_size)
    try:
        seconds = warm_up(
            session.run,
            plan.signature,
            sizes,
            batched=plan.batched,
            every_size=session.provider != CPU,
            budget_s=budget_s,
            clock=time.monotonic,
        )
    except InferenceError as error:
        if plan.manifest is not None:
            raise ModelLoadError(f"{plan.model_path}: warm-up failed: {error}") from error
        logger.warning("not warmed: %s", error, extra=model)
        return
    for rows, batch_s in seconds.items():
        latency.observe(rows, batch_s)


def _check_golden(plan: _Plan, session: OnnxSession) -> None:
    if plan.manifest is None or not plan.manifest.HasField("golden_samples"):
        return
    check_golden_samples(
        session.run,
        plan.folder.path,
        plan.manifest.golden_samples,
        provider=session.provider,
        max_batch_size=plan.policy.max_batch_size if plan.batched else None,
    )


def _serve(plan: _Plan, sessions: Sequence[OnnxSession], latency: LatencyModel, options: LoadOptions) -> ServedVersion:
    folder, settings, policy, metrics = plan.folder, plan.settings, plan.policy, options.metrics
    provider = sessions[0].provider
    labels = _labels(plan)
    version = str(folder.version)
    preprocessing = _preprocessing(plan)
    model_metrics = metrics.for_model(folder.model, version)  # nothing fails from here on, so somebody will forget it
    observer = VersionObserver(model_metrics)
    batcher = DynamicBatcher(
        f"{folder.model}-{version}",
        [session.run for session in sessions],
        policy,
        observer=observer,
        latency=latency,
        pad_to=exact if provider == CPU else pad_to_ladder(policy.max_batch_size),
        batched=plan.batched,
        seats=[_seat(plan, provider, options) for _ in sessions],
    )
    model_metrics.serving(provider=provider, rows=batcher.queued_rows, age_s=batcher.oldest_age_s)
    batcher.start()
    objective_ms = settings.latency_objective_ms
    return ServedVersion(
        model=folder.model,
        version=version,
        signature=plan.signature,
        max_request_rows=policy.max_request_rows if plan.batched else 0,
        labels=labels,
        preprocessing=preprocessing,
        provider=provider,
        batcher=batcher,
        observer=observer,
        policy=policy,
        instance_count=len(sessions),
        model_file=settings.model_file,
        latency_objective_s=None if objective_ms is None else objective_ms / 1e3,
    )


def _seat(plan: _Plan, provider: str, options: LoadOptions) -> Seat:
    """A place before the cores, under the model's name: its versions share what it is given."""
    if provider != CPU:
        return OpenSeat()  # its batches take no cores, and CUDA lets them share the GPU
    return options.gate.seat(plan.folder.model, _threads(plan.settings, options))


def _preprocessing(plan: _Plan) -> Preprocessing | None:
    """How pictures become the input; None for a model that takes no rows of them."""
    manifest = plan.manifest
    recorded = manifest.preprocessing if manifest and manifest.HasField("preprocessing") else None
    try:
        return usable_preprocessing(plan.signature, recorded) if plan.batched else None
    except ValueError as error:
        raise ModelLoadError(f"{plan.folder.path}: {error}") from error


def _labels(plan: _Plan) -> tuple[str, ...]:
    recorded = tuple(plan.manifest.labels) if plan.manifest else ()
    labels = recorded or read_labels(plan.folder.path, plan.settings.label_file)
    check_labels(plan.folder.path, plan.signature, labels)
    return labels
