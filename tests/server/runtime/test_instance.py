"""What an instance makes of a device's limits and errors, told by a device that misbehaves on demand."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.errors import DeviceLostError, DeviceOutOfMemoryError, InferenceError, RecordingError
from inferry_server.runtime.device_errors import CudaCallError
from inferry_server.runtime.device_health import DeviceHealth
from inferry_server.runtime.instance import DeviceInstance
from testkit.fake_device import ILLEGAL_ACCESS, FakeDevice, rows

STEPS = (1, 2, 4, 8, 12)


def instance(device: FakeDevice, health: DeviceHealth | None = None) -> DeviceInstance:
    return DeviceInstance(
        device, STEPS, health or DeviceHealth(), make_inputs=lambda n: rows([float(i) for i in range(n)])
    )


@given(count=st.integers(1, 40), memory_rows=st.integers(1, 12))
def test_an_answer_is_the_same_whatever_fits_into_memory(count: int, memory_rows: int) -> None:
    device = FakeDevice(memory_rows=memory_rows)
    one = instance(device)
    inputs = rows([float(i) for i in range(count)])
    limits = [one.batch_limit]
    for _ in STEPS:  # each failure lowers the limit by a step at least
        with contextlib.suppress(DeviceOutOfMemoryError):
            outputs = one.run(inputs)
            break
        limits.append(one.batch_limit)
    assert limits == sorted(set(limits), reverse=True)
    np.testing.assert_array_equal(outputs["y"], 2 * inputs["x"])
    assert set(device.sizes) <= {step for step in STEPS if step <= memory_rows}


def test_what_counts_no_rows_is_computed_neither_cut_nor_padded() -> None:
    device = FakeDevice()
    for count in (3, 13, 40):
        assert len(instance(device).run_whole(rows([1.0] * count))["y"]) == count
    assert device.sizes == [3, 13, 40]


def test_out_of_memory_halves_the_limit_and_gives_memory_back_until_one_row_is_left() -> None:
    device = FakeDevice(memory_rows=0)
    counted: list[str] = []
    one = instance(device, DeviceHealth(counted=counted.append))
    limits = []
    for _ in range(6):
        with pytest.raises(DeviceOutOfMemoryError):
            one.run(rows([0.0] * 12))
        limits.append(one.batch_limit)
    assert limits == [4, 2, 1, 1, 1, 1]
    assert device.gave_back == 6
    assert counted == ["out_of_memory"] * 6
    device.memory_rows = 12
    assert one.run(rows([1.0, 2.0]))["y"].tolist() == [[2.0], [4.0]]


def test_a_lost_device_is_told_once_and_never_touched_again() -> None:
    told: list[str] = []
    health = DeviceHealth(told.append)
    broken, neighbour = (
        FakeDevice(error=CudaCallError("cudaStreamSynchronize", ILLEGAL_ACCESS, "illegal")),
        FakeDevice(),
    )
    for _ in range(3):
        with pytest.raises(DeviceLostError, match="CUDA error 700"):
            instance(broken, health).run(rows([1.0]))
    with pytest.raises(DeviceLostError):  # one context serves all models
        instance(neighbour, health).run(rows([1.0]))
    assert (broken.calls, neighbour.calls) == (1, 0)
    assert len(told) == 1
    lost = instance(neighbour, health)
    lost.close()
    assert not neighbour.closed  # giving back would wait for a device that does not answer


def test_an_error_of_the_model_costs_nobody_else_anything() -> None:
    device = FakeDevice(error=RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : indices out of bounds"))
    told: list[str] = []
    one = instance(device, DeviceHealth(told.append))
    with pytest.raises(InferenceError, match="out of bounds") as caught:
        one.run(rows([1.0]))
    assert type(caught.value) is InferenceError
    device.error = None
    assert one.run(rows([1.0]))["y"].tolist() == [[2.0]]
    assert (told, one.batch_limit) == ([], 12)


def test_runs_of_one_instance_never_meet_in_its_buffers() -> None:
    device = FakeDevice()
    device.may_go.clear()
    one = instance(device)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(one.run, rows([float(i)] * 3)) for i in range(4)]
        device.entered.acquire()
        assert not device.entered.acquire(blocking=False)  # the others wait outside
        device.may_go.set()
        for i, answer in enumerate(answers):
            assert answer.result()["y"].tolist() == [[2.0 * i]] * 3
    assert device.most_inside == 1


def test_two_instances_overlap() -> None:
    slow, quick = FakeDevice(), FakeDevice()
    slow.may_go.clear()
    with ThreadPoolExecutor(1) as pool:
        copying = pool.submit(instance(slow).run, rows([1.0]))
        slow.entered.acquire()
        assert instance(quick).run(rows([3.0]))["y"].tolist() == [[6.0]]  # while the other one copies
        assert not copying.done()
        slow.may_go.set()
        assert copying.result()["y"].tolist() == [[2.0]]


def test_every_step_is_recorded_on_the_thread_that_will_run_it() -> None:
    device = FakeDevice(records=True)
    one = instance(device)
    thread = threading.Thread(target=one.prepare, name="batcher")
    thread.start()
    thread.join()
    assert device.recorded == set(STEPS)
    assert device.recorded_on == {"batcher"}


def test_a_recording_that_answers_something_else_is_refused() -> None:
    with pytest.raises(RecordingError, match="12 rows does not answer in output 'y'"):
        instance(FakeDevice(records=True, wrong_replays=True)).prepare()


def test_a_device_lost_while_recording_is_reported() -> None:
    told: list[str] = []
    device = FakeDevice(records=True, error=CudaCallError("cudaStreamSynchronize", ILLEGAL_ACCESS, "illegal"))
    with pytest.raises(DeviceLostError):
        instance(device, DeviceHealth(told.append)).prepare()
    assert len(told) == 1
