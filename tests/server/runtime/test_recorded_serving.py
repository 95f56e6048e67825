"""Which models are recorded as CUDA graphs, from loading on; the CPU plays the device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferry_proto.manifest import read_manifest, write_manifest
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.models import loading, opening
from inferry_server.models.repository import VersionFolder
from inferry_server.models.version import ServedVersion
from inferry_server.runtime.device import BoundDevice
from inferry_server.runtime.instances import Devices, LoadedSession
from inferry_server.runtime.providers import CPU
from inferry_server.telemetry.metrics import ServerMetrics
from testkit import onnx_models
from testkit.fake_device import FaultyMemory
from testkit.faulty_server import opened_with

Load = Callable[[str], ServedVersion]


class Recorder:
    """What was opened and recorded while versions were loaded.

    Attributes:
        opened: for each session whether it records.
        layouts: likewise, whether channels come last.
        recorded: rows of each recording.
    """

    def __init__(self) -> None:
        self.opened: list[bool] = []
        self.layouts: list[str] = []
        self.recorded: list[int] = []


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    told, record = Recorder(), BoundDevice.record

    def open_session(path: Any, providers: Any, devices: Devices, **options: Any) -> LoadedSession:
        told.opened.append(devices.options.cuda_graphs)
        told.layouts.append(devices.options.prefer_nhwc)
        return opened_with(FaultyMemory())(path, providers, devices, **options)

    def recording(device: BoundDevice, inputs: Any) -> Any:
        outputs = record(device, inputs)
        if outputs is not None:
            told.recorded.append(len(next(iter(inputs.values()))))
        return outputs

    monkeypatch.setattr(opening, "open_session", open_session)
    monkeypatch.setattr(BoundDevice, "record", recording)
    return told


@pytest.fixture
def load(tmp_path: Path) -> Load:
    policy = BatchingPolicy(max_batch_size=4, max_request_rows=8, max_queue_size=64, max_queue_bytes=1 << 20)

    def load(model: str) -> ServedVersion:
        folder = VersionFolder(model, 1, tmp_path / model / "1")
        return loading.load_version(folder, loading.LoadOptions((CPU,), 1, 1, policy, ServerMetrics()))

    return load


@pytest.mark.parametrize("save", [onnx_models.save_brightness, onnx_models.save_doubler])
def test_rows_are_shown_where_nothing_is_recorded_and_then_every_size_is(
    tmp_path: Path, recorder: Recorder, load: Load, save: Callable[[Path], object]
) -> None:
    save(tmp_path)
    (model,) = (path.name for path in tmp_path.iterdir())
    version = load(model)
    assert recorder.opened == [True, False]
    assert recorder.recorded == [4, 2, 1]
    assert version.max_request_rows == 8
    assert version.close(5)


def test_a_model_whose_outputs_need_not_have_the_rows_of_the_inputs_is_not_recorded(
    tmp_path: Path, recorder: Recorder, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    onnx_models.save_finder(tmp_path)
    (tmp_path / "finder" / "config.pbtxt").write_text("max_batch_size: 4")
    version = load("finder")
    assert "served without CUDA graphs: that a batch is answered row by row was not shown" in caplog.text
    assert not recorder.recorded
    three = np.array([209, 208, 211], np.uint8).reshape(3, 1, 1, 1) * np.ones((3, 2, 2, 1), np.uint8)
    outputs = version.instances[0].run({"pictures": three})
    assert outputs["scores"].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert version.close(5)


def test_a_model_without_rows_is_served_as_it_is(tmp_path: Path, recorder: Recorder, load: Load) -> None:
    onnx_models.save_scalar_adder(tmp_path)
    version = load("adder")
    assert not recorder.recorded
    assert version.instances[0].run({"a": np.array(2), "b": np.array(3)})["sum"] == 5
    assert version.close(5)


@pytest.mark.parametrize(("precision", "layout"), [("float16", "on"), ("float32", "off")])
def test_every_session_is_laid_out_as_the_manifests_precision_wants(
    tmp_path: Path, recorder: Recorder, load: Load, precision: str, layout: str
) -> None:
    onnx_models.save_brightness(tmp_path)
    manifest = read_manifest(tmp_path / "brightness" / "1")
    assert manifest is not None
    manifest.precision = precision
    write_manifest(tmp_path / "brightness" / "1", manifest)
    version = load("brightness")
    assert recorder.layouts == [layout, layout]
    assert version.close(5)
