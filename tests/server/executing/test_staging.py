"""Batches that are put together in the memory from which they go to a device."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.request import InferenceRequest, pad_to_ladder
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.runtime.device_health import DeviceHealth
from inferry_server.runtime.instance import DeviceInstance
from testkit.batchers import Observer, Reply, values
from testkit.fake_device import FakeDevice, rows
from testkit.waiting import SOON_S

STEPS = (1, 2, 4, 8)


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(1, 11), min_size=1, max_size=6), staged=st.sampled_from((0, 3, 8)))
def test_requests_keep_their_own_rows_and_what_fits_is_computed_where_it_was_put_together(
    sizes: list[int], staged: int
) -> None:
    device = FakeDevice(staged=np.full((staged, 1), -1, np.float32))
    instance = DeviceInstance(device, STEPS, DeviceHealth())
    policy = BatchingPolicy(max_batch_size=8, max_request_rows=100, max_queue_size=100, max_queue_bytes=1 << 20)
    batcher = DynamicBatcher(
        "test", [instance.run], policy, observer=Observer(), staging=[instance.staging], pad_to=pad_to_ladder(8)
    )
    batcher.start()
    try:
        sent = []
        for number, size in enumerate(sizes):
            asked, reply = rows([100.0 * number + row for row in range(size)]), Reply()
            batcher.submit(InferenceRequest(asked, size, reply))
            sent.append((asked, reply))
        for asked, reply in sent:
            assert values(reply.outcome()) == (2 * asked["x"]).ravel().tolist()
            assert asked["x"].ravel().tolist() == [asked["x"][0, 0] + row for row in range(len(asked["x"]))]
    finally:
        batcher.close(SOON_S)
    assert device.runs_staged == [size <= staged for size in device.sizes]
