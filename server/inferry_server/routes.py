"""Every service of the server, on one router."""

from collections.abc import Callable

from inferry_proto.open_inference_pb2 import InferTensorContents
from inferry_proto.services import (
    DIAGNOSTICS,
    DIAGNOSTICS_SERVICE,
    IMAGE_CLASSIFIER,
    IMAGE_CLASSIFIER_SERVICE,
    OPEN_INFERENCE,
    OPEN_INFERENCE_SERVICE,
)
from inferry_server.batching.request import DeadlinePolicy
from inferry_server.lifecycle import Readiness
from inferry_server.models.manager import ModelManager
from inferry_server.models.registry import ModelRegistry
from inferry_server.rpc.router import Router
from inferry_server.security.access import Access
from inferry_server.services.classifier import ClassifierService
from inferry_server.services.control import ControlService
from inferry_server.services.decoding import DecodingPool
from inferry_server.services.diagnostics import DiagnosticsService
from inferry_server.services.health import HealthService
from inferry_server.services.inference import InferenceService
from inferry_server.services.log_settings import LogSettingsService
from inferry_server.services.reflection import HEALTH_SERVICE, ReflectionService
from inferry_server.services.repository import RepositoryService
from inferry_server.services.shared_memory import SharedMemoryService
from inferry_server.services.trace_settings import TraceSettingsService
from inferry_server.settings.options import extensions, objective_s, picture_limits
from inferry_server.settings.settings import Settings
from inferry_server.telemetry.logs import choose_logging, configure_logging
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.trace import Tracer
from inferry_server.wire.fields import FieldLimit
from inferry_server.wire.shared_memory import SharedMemoryRegions

_REQUEST_TYPES = {
    method.path: method.request_type.DESCRIPTOR
    for methods in (OPEN_INFERENCE, IMAGE_CLASSIFIER, DIAGNOSTICS)
    for method in methods.values()
}
_DATA_TYPES = frozenset({InferTensorContents.DESCRIPTOR.full_name})


def route(
    settings: Settings,
    *,
    registry: ModelRegistry,
    manager: ModelManager,
    readiness: Readiness,
    metrics: ServerMetrics,
    health: HealthService,
    diagnostics: DiagnosticsService,
    decoding: DecodingPool,
    access: Access | None,
    tracer: Tracer,
    is_one_version_served: Callable[[], bool],
) -> Router:
    """A router that knows every method.

    Args:
        settings: as read.
        registry: the models.
        manager: loads and unloads them.
        readiness: of the server.
        metrics: where calls are counted.
        health: answers for the server and its models.
        diagnostics: tells where the time of late requests went.
        decoding: threads that decode pictures.
        access: who may call what; None: everybody everything.
        tracer: of requests.
        is_one_version_served: whether every inference call is meant for the same version now.
    """
    most_fields = settings.max_message_fields
    limit = FieldLimit(most_fields, _REQUEST_TYPES, data_types=_DATA_TYPES)
    router = Router(metrics, tracer, check=limit.check, unchecked_bytes=most_fields, access=access)
    deadlines = DeadlinePolicy(objective_s(settings))
    control = ControlService(registry, readiness.is_ready, extensions=extensions(settings))
    reflection = ReflectionService(
        (OPEN_INFERENCE_SERVICE, IMAGE_CLASSIFIER_SERVICE, DIAGNOSTICS_SERVICE, HEALTH_SERVICE)
    )
    regions = SharedMemoryRegions(allowed=settings.system_shared_memory)
    log_settings = LogSettingsService(
        choose_logging(log_format=settings.log_format, level=settings.log_level),
        configure_logging,
        allowed=settings.remote_logging_control,
    )
    inference = InferenceService(registry, deadlines, regions, tracer, most_texts=most_fields)
    router.add_unary(inference.unary_handlers(), sheddable=is_one_version_served, views=True)
    router.add_alike(inference.alike_handlers())
    router.add_streams(inference.stream_handlers(), views=True)
    classifier = ClassifierService(
        registry,
        deadlines,
        decoding,
        tracer,
        limits=picture_limits(settings),
        most_texts=most_fields,
    )
    router.add_unary(classifier.unary_handlers(), sheddable=is_one_version_served)
    router.add_streams(classifier.stream_handlers())
    router.add_unary(control.unary_handlers())
    router.add_unary(diagnostics.unary_handlers())
    router.add_unary(
        RepositoryService(
            manager.load_model,
            manager.unload_model,
            allowed=settings.model_control == "explicit",
        ).unary_handlers()
    )
    router.add_unary(SharedMemoryService(regions).unary_handlers())
    router.add_unary(log_settings.unary_handlers())
    trace_settings = TraceSettingsService(
        registry,
        exported=settings.trace_endpoint is not None,
        sample_ratio=settings.trace_sample_ratio,
    )
    router.add_unary(trace_settings.unary_handlers())
    router.add_unary(health.unary_handlers(), traced=False)
    router.add_streams(health.stream_handlers())
    router.add_streams(reflection.stream_handlers())
    return router
