"""What the metrics page asks of versions and models when it is read: limits, capacity, labels and their traffic."""

from collections.abc import Iterator

from inferry_server.batching.policy import BatchingPolicy, Lane
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.models.registry import ModelEntry, ModelRegistry
from inferry_server.telemetry.statistics import VersionStatistics

Fact = tuple[str | float, ...]
"""A family's name, the values of its labels, and the value."""


def version_facts(
    batcher: DynamicBatcher, policy: BatchingPolicy, instances: int, statistics: VersionStatistics
) -> Iterator[Fact]:
    """Of one version: how much it could compute, what runs of each size took, and its limits beside what is used."""
    yield "inferry_instances", instances
    yield "inferry_capacity_rows_per_second", batcher.capacity_rows_per_s()
    yield "inferry_max_batch_rows", policy.max_batch_size
    yield "inferry_queue_limit_rows", policy.max_queue_size
    yield "inferry_queue_limit_bytes", policy.max_queue_bytes
    for rows, (count, seconds) in statistics.by_size().items():
        yield "inferry_sized_runs", rows, count
        yield "inferry_sized_run_seconds", rows, seconds
    for size, quickest_s in statistics.quickest.items():
        yield "inferry_quickest_run_seconds", str(size), quickest_s
    for lane in Lane:
        queued = batcher.queued(lane)
        yield "inferry_queue_rows", lane.value, queued.rows
        yield "inferry_queue_bytes", lane.value, queued.nbytes
        yield "inferry_queue_oldest_age_seconds", lane.value, queued.oldest_age_s


def label_facts(registry: ModelRegistry) -> Iterator[Fact]:
    """Of every model: its labels, and their weights in the traffic."""
    for name in registry.names():
        entry = registry.model(name) or ModelEntry()
        for label, version in entry.labels.items():
            yield "inferry_model_label_info", name, str(version), label, 1
        for label, weight in entry.traffic.items():
            yield "inferry_model_traffic_weight", name, str(entry.labels.get(label, "")), label, weight
