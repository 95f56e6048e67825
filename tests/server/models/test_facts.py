"""What the metrics page is told of a version when it is read."""

from unittest.mock import create_autospec

from inferry_server.batching.batches import Queued
from inferry_server.batching.policy import Lane
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.models.facts import version_facts
from inferry_server.telemetry.statistics import VersionStatistics
from testkit.scheduling import POLICY


def test_the_figures_of_a_lane_are_of_one_moment() -> None:
    moments = iter((Queued(3, 12, 0.3), Queued(5, 20, 0.5)))  # a third is not to be asked for
    batcher = create_autospec(DynamicBatcher, instance=True)
    batcher.capacity_rows_per_s.return_value = 0.0
    batcher.queued.side_effect = lambda _lane: next(moments)
    lanes: dict[str, list[float]] = {}
    for name, *labels, value in version_facts(batcher, POLICY, 1, VersionStatistics()):
        if labels:
            assert str(name).startswith("inferry_queue_")
            lanes.setdefault(str(labels[0]), []).append(float(value))
    assert lanes == {Lane.INTERACTIVE.value: [3, 12, 0.3], Lane.BULK.value: [5, 20, 0.5]}
