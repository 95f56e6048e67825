"""From a folder to a version that serves: settings, checksums, sessions, proof (`qualification.py`), batcher."""

import functools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from inferry_proto.cores import available_cores
from inferry_proto.foreign_errors import first_line
from inferry_proto.manifest_pb2 import ModelManifest, Preprocessing
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.request import exact, pad_to_ladder
from inferry_server.batching.shared_room import SharedRoom
from inferry_server.errors import (
    DeviceLostError,
    ModelLoadError,
    RecordingError,
)
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.executing.core_turns import ComputeGate, OpenSeat, Seat
from inferry_server.executing.inline import InlineWork
from inferry_server.lateness.ring import LateRequests
from inferry_server.models.apart import why_apart
from inferry_server.models.checks import give_memory_back, give_outputs_back, take_little_first
from inferry_server.models.class_labels import Labels, read_labels
from inferry_server.models.config_pbtxt import CONFIG_FILE, read_model_settings
from inferry_server.models.facts import version_facts
from inferry_server.models.model_settings import ModelSettings
from inferry_server.models.opening import session_opener, without_graphs
from inferry_server.models.parallel_runs import parallel_instance
from inferry_server.models.qualification import prove
from inferry_server.models.repository import VersionFolder, readable
from inferry_server.models.signed import trusted
from inferry_server.models.sizes import check_sizes, keeps_too_much, with_bounded_batches, with_bounded_requests
from inferry_server.models.variants import made_of
from inferry_server.models.verified import read_verified
from inferry_server.models.version import ServedVersion, usable_preprocessing
from inferry_server.models.version_plan import VersionPlan
from inferry_server.runtime.instance import Instance
from inferry_server.runtime.instances import Devices
from inferry_server.runtime.load_watch import LoadWatch
from inferry_server.runtime.memory import ALLOCATIONS, trim_heap
from inferry_server.runtime.model_source import read_model
from inferry_server.runtime.parallel import ParallelInstance
from inferry_server.runtime.providers import CPU, CUDA
from inferry_server.runtime.session import OnnxSession
from inferry_server.signature import Signature, signature_from_manifest
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.telemetry.statistics import VersionObserver

logger = logging.getLogger(__name__)

_LONGEST_REASON = 500  # characters; the log has the rest


@dataclass(frozen=True)
class LoadOptions:
    """How models are loaded, where they say nothing themselves: what computes, and the limits of their queues.

    Attributes:
        intra_op_num_threads: threads that compute one batch together.
        instance_count: batches of one model that can run at the same time, each with its threads.
        devices: what all models share of the GPUs.
        gate: before the cores, which all models share.
        inline: what the thread that reads requests runs between two events: short batches of the CPU.
        inline_batch_s: how long such a batch may be expected to take.
        watch: ends what ONNX Runtime does for the version; of one load alone.
        parallel_runs: whether several full runs of a model may be computed at the same time, each on one core.
        late_requests: how many slow and how many refused requests of a version are kept, to explain them.
        latency_objective_s: beyond it a request is late, where the model has no objective of its own.
        room: what may wait for all models together.
        model_key: public key that everything served is signed with; None: nothing need be.
    """

    providers: Sequence[str]
    intra_op_num_threads: int
    instance_count: int
    policy: BatchingPolicy
    metrics: ServerMetrics
    gate: ComputeGate = field(default_factory=lambda: ComputeGate(available_cores()))
    devices: Devices = field(default_factory=Devices)
    inline: InlineWork = field(default_factory=InlineWork)
    inline_batch_s: float = 0.0
    parallel_runs: bool = False
    late_requests: int = 0
    latency_objective_s: float | None = None
    room: SharedRoom = field(default_factory=SharedRoom)
    model_key: Path | None = None
    watch: LoadWatch = field(default_factory=LoadWatch)


def load_version(folder: VersionFolder, options: LoadOptions) -> ServedVersion:
    """Load a version and let it prove itself; its batcher runs when this returns.

    Raises:
        ModelLoadError: says which file or check it failed. Nothing else is raised, whatever the files hold.
    """
    try:
        loaded = _load_trusted(folder, options)
    except ModelLoadError as error:
        raise ModelLoadError(readable(str(error))) from error
    except Exception as error:
        if options.watch.reason is not None:
            raise ModelLoadError(options.watch.reason) from error
        logger.exception("loading a version failed unexpectedly", extra={"model": str(folder)})
        raise ModelLoadError(f"{readable(folder.path)}: {unexpected(error)}") from error  # guard: boundary-version
    trim_heap()  # now that nobody holds the model's bytes, and what was tried, any more
    return loaded


def _load_trusted(folder: VersionFolder, options: LoadOptions) -> ServedVersion:
    with trusted(folder, options.model_key) as version:
        if tuple(options.providers) != (CPU,):  # CUDA reserves addresses by the terabyte
            return _load_with_graphs_or_without(version, options)
        with ALLOCATIONS.while_loading(threads=options.intra_op_num_threads):  # guard: sizes-allocations
            return _load_with_graphs_or_without(version, options)


def unexpected(error: Exception) -> str:
    """An error that no check foresaw, in one line; the log has its traceback."""
    return f"loading failed with {type(error).__name__}: {readable(first_line(error))[:_LONGEST_REASON]}"


def _load_with_graphs_or_without(folder: VersionFolder, options: LoadOptions) -> ServedVersion:
    try:
        return _load_version(folder, options)
    except RecordingError as error:
        logger.warning("served without CUDA graphs: %s", error, extra={"model": str(folder)})
        return _load_version(folder, replace(options, devices=without_graphs(options.devices)))


def _load_version(folder: VersionFolder, options: LoadOptions) -> ServedVersion:
    started = time.monotonic()
    settings = _read_settings(folder)
    source = read_model(folder.path / settings.model_file)
    manifest, golden = read_verified(folder.path, source)
    opener = session_opener(
        folder,
        settings,
        manifest,
        source,
        providers=options.providers,
        devices=options.devices,
        threads=_threads(settings, options),
        watch=options.watch,
    )
    options = replace(options, devices=opener.devices)
    sessions = opener.open_all(settings.device_ids(options.instance_count, on_gpu=opener.providers[0] != CPU))
    try:
        signature = sessions[0].session.signature
        if manifest is not None:
            _check_signature(folder.path, signature, manifest)
        plan = replace(_plan(folder, settings, manifest, signature, options), source=source, golden=golden)
        check_sizes(plan)
        plan = with_bounded_batches(with_bounded_requests(plan))
        if keeps_too_much(plan.signature) and sessions[0].session.provider == CPU:
            for one in sessions:  # else what one row takes while it is tried would be kept for good
                one.session.give_memory_back()  # guard: sizes-given-back
        plan, latency, instances = prove(plan, sessions, opener.open_plain)  # guard: start-version-served
        parallel: ParallelInstance | None = None
        if options.parallel_runs and sessions[0].session.provider == CPU and len(instances) == 1:
            threads, seat = _threads(settings, options), _seat(plan, CPU, options)
            parallel = parallel_instance(plan, instances[0], latency, threads=threads, seat=seat, watch=options.watch)
        on_cpu = [one.session for one in sessions] if sessions[0].session.provider == CPU else []
        on_cpu += [parallel.single] if parallel is not None else []
        give_memory_back(on_cpu, plan.signature)  # guard: sizes-tried-given-back
        if options.watch.reason is not None:  # what ended early may look like a model that zeros do not suit
            raise ModelLoadError(options.watch.reason)
        seen = replace(plan, signature=plan.reshaping.seen(plan.signature))
        apart = _why_apart(plan, on_cpu) if on_cpu else None
        version = _serve(
            seen, instances, latency, sessions[0].session.provider, options, apart=apart, parallel=parallel
        )
        version = replace(version, give_outputs_back=functools.partial(give_outputs_back, on_cpu, plan.signature))
    except BaseException:
        for session in sessions:
            session.close()
        raise
    logger.info(
        "model loaded",
        extra={
            "model": str(folder),
            "provider": version.provider,
            "verified": manifest is not None,
            "batched": plan.batched,
            "instances": len(sessions),
            "parallel_runs": version.parallel_runs,
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


def _threads(settings: ModelSettings, options: LoadOptions) -> int:
    return settings.threads(options.intra_op_num_threads, options.instance_count)


def _plan(
    folder: VersionFolder,
    settings: ModelSettings,
    manifest: ModelManifest | None,
    signature: Signature,
    options: LoadOptions,
) -> VersionPlan:
    try:
        batched = settings.is_batched(signature)
        narrowed = settings.narrow(signature, batched=batched)
        own_policy = settings.policy(options.policy, batched=batched)
        reshaping = settings.reshaping(batched=batched)
    except ValueError as error:
        raise ModelLoadError(f"{folder.path.parent / CONFIG_FILE}: {error}") from error
    return VersionPlan(folder, settings, manifest, narrowed, batched, own_policy, options.devices, reshaping)


def _check_signature(path: Path, signature: Signature, manifest: ModelManifest) -> None:
    if not manifest.HasField("signature"):
        return
    try:
        recorded = signature_from_manifest(manifest.signature)
    except ValueError as error:
        raise ModelLoadError(f"{path}: the manifest's signature: {error}") from error
    if recorded != signature:  # guard: proof-manifest-signature
        raise ModelLoadError(f"{path}: the manifest says {recorded}, the model is {signature}")


def _serve(
    plan: VersionPlan,
    instances: Sequence[Instance],
    latency: LatencyModel,
    provider: str,
    options: LoadOptions,
    *,
    apart: str | None,
    parallel: ParallelInstance | None,
) -> ServedVersion:
    folder, settings, policy, metrics = plan.folder, plan.settings, plan.policy, options.metrics
    instances = [parallel] if parallel is not None else instances
    labels = _labels(plan)
    version = str(folder.version)
    preprocessing = _preprocessing(plan)
    golden = plan.reshaping.golden(plan.golden_check(provider))
    model_metrics = metrics.for_model(folder.model, version)  # whoever ends the version forgets it
    own_objective_s = None if settings.latency_objective_ms is None else settings.latency_objective_ms / 1e3
    objective_s = options.latency_objective_s if own_objective_s is None else own_objective_s
    late = LateRequests(options.late_requests, objective_s=objective_s)
    observer = VersionObserver(model_metrics, late, parallel.run_sizes if parallel is not None else None)
    batcher = DynamicBatcher(
        f"{folder.model}-{version}",
        [plan.reshaping.run(instance.run) for instance in instances],
        _batching(policy, parallel),
        observer=observer,
        whole=[plan.reshaping.run(instance.run_whole) for instance in instances],
        staging=[plan.reshaping.staging(instance.staging) for instance in instances],
        interrupters=[instance.interrupter for instance in instances],
        prepare=[instance.prepare for instance in instances],
        latency=latency,
        pad_to=exact if provider == CPU else pad_to_ladder(policy.max_batch_size),
        batched=plan.batched,
        seats=[_seat(plan, provider, options) for _ in instances],
        inline=_inline(provider, instances, options) if apart is None else None,
        inline_batch_s=options.inline_batch_s,
        late=late,
        room=options.room,
    )
    model_metrics.serving(provider)
    try:
        _start(plan, batcher)
    except ModelLoadError:
        metrics.forget(folder.model, version)
        raise
    model_metrics.watch(functools.partial(version_facts, batcher, policy, len(instances), observer.statistics))
    model_metrics.on_device(lambda: _batch_limit(policy, instances))
    return ServedVersion(
        model=folder.model,
        version=version,
        signature=plan.signature,
        reshaping=plan.reshaping,
        max_request_rows=policy.max_request_rows if plan.batched else 0,
        labels=labels,
        preprocessing=preprocessing,
        provider=provider,
        batcher=batcher,
        observer=observer,
        policy=policy,
        parallel_runs=parallel.parallel_runs if parallel is not None else 1,
        instance_count=len(instances),
        instances=tuple(instances),
        golden=golden,
        end_runs=options.watch.end_runs,
        device_options=plan.devices.options if provider == CUDA else None,
        gpus=tuple(dict.fromkeys(settings.device_ids(1, on_gpu=True))) if provider != CPU else (),
        share_of_cores=len(instances) * options.gate.share(_threads(settings, options)) if provider == CPU else 0.0,
        model_file=settings.model_file,
        model_sha256=plan.source.sha256 if plan.source else "",
        latency_objective_s=own_objective_s,
        made_of=made_of(plan.manifest),
        accepts=settings.accepts_variants,
    )


def _batching(policy: BatchingPolicy, parallel: ParallelInstance | None) -> BatchingPolicy:
    """The limits of the batcher. Where an instance takes more rows than one run may have, a small batch is one run.

    Where it computes short runs one after the other, interactive requests have batches of one run all the same: the
    first of them would wait for the last, and gain nothing.
    """
    if parallel is None:
        return policy
    if parallel.runs_each > 1:  # guard: parallel-runs-bulk-alone
        return replace(policy, bulk_batch_size=parallel.most_rows)
    return replace(policy, max_batch_size=parallel.most_rows, small_batch_size=policy.max_batch_size)


def _inline(provider: str, instances: Sequence[Instance], options: LoadOptions) -> InlineWork | None:
    """Where inline batches go; None: on a GPU, and with several instances, nothing is computed inline."""
    alone = provider == CPU and len(instances) == 1
    return options.inline if alone and options.inline_batch_s else None


def _why_apart(plan: VersionPlan, sessions: Sequence[OnnxSession]) -> str | None:
    """Why nobody can tell from its batches so far how long the next one takes, or how much memory; None if one can."""
    apart = why_apart(plan)
    if apart is not None:
        logger.info("computed apart from reading: %s", apart, extra={"model": str(plan.folder)})
        for session in sessions:
            session.give_memory_back()
        take_little_first(sessions, plan.signature)
    return apart


def _start(plan: VersionPlan, batcher: DynamicBatcher) -> None:
    try:
        batcher.start()
    except DeviceLostError as error:
        raise ModelLoadError(f"{plan.model_path}: {error}") from error


def _batch_limit(policy: BatchingPolicy, instances: Sequence[Instance]) -> int:
    """Rows that every instance still runs at once."""
    return min(policy.max_batch_size if one.batch_limit is None else one.batch_limit for one in instances)


def _seat(plan: VersionPlan, provider: str, options: LoadOptions) -> Seat:
    """A place before the cores, under the model's name: its versions share what it is given."""
    if provider != CPU:
        return OpenSeat()  # its batches take no cores, and CUDA lets them share the GPU
    return options.gate.seat(plan.folder.model, _threads(plan.settings, options))


def _preprocessing(plan: VersionPlan) -> Preprocessing | None:
    """How pictures become the input; None for a model that takes no rows of them."""
    manifest = plan.manifest
    recorded = manifest.preprocessing if manifest and manifest.HasField("preprocessing") else None
    try:
        return usable_preprocessing(plan.signature, recorded) if plan.batched else None
    except ValueError as error:
        raise ModelLoadError(f"{plan.folder.path}: {error}") from error


def _labels(plan: VersionPlan) -> Labels:
    return read_labels(
        plan.folder.path,
        plan.signature,
        batched=plan.batched,
        recorded=plan.manifest.labels if plan.manifest else (),
        named={output.name: output.label_file for output in plan.settings.outputs if output.label_file},
    )
