"""The check of a GPU finds what it is there to find, and runs through where there is none."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import gpu_check, gpu_model, gpu_weights
from bench.gpu_model import STEPS, Effort, check_answers, check_memory, measure_steps
from bench.gpu_report import Report
from inferry_proto.datatypes import Arrays
from inferry_server.runtime.device_health import DeviceHealth
from inferry_server.runtime.instance import DeviceInstance
from testkit import onnx_models
from testkit.fake_device import FakeDevice, rows

LITTLE = Effort(seconds=0.0, batches=5, models=1)
BATCHES: dict[int, Arrays] = {n: rows([float(i) for i in range(n)]) for n in STEPS}
EXPECTED: dict[int, Arrays] = {n: {"y": 2 * inputs["x"]} for n, inputs in BATCHES.items()}


def instance() -> DeviceInstance:
    return DeviceInstance(FakeDevice(), STEPS, DeviceHealth())


def states(report: Report) -> dict[str, str]:
    return {row["what"]: row["state"] for row in report.rows}


def test_right_answers_pass_and_wrong_ones_fail() -> None:
    right, wrong = Report({}), Report({})
    check_answers(right, "m", "on", instance(), BATCHES, EXPECTED, tolerance=1e-6)
    off = {n: {"y": outputs["y"] + (n == 4)} for n, outputs in EXPECTED.items()}  # one step only
    check_answers(wrong, "m", "on", instance(), BATCHES, off, tolerance=1e-6)
    assert (states(right), states(wrong)) == ({"answers": "ok"}, {"answers": "FAILED"})


def test_an_answer_that_is_no_number_fails() -> None:
    report = Report({})
    nan = {n: {"x": np.where(inputs["x"] == 3, np.nan, inputs["x"])} for n, inputs in BATCHES.items()}
    check_answers(report, "m", "on", instance(), nan, EXPECTED, tolerance=1e-6)
    assert states(report) == {"answers": "FAILED"}


def test_a_model_that_answers_every_image_alike_proves_nothing() -> None:
    report = Report({})
    alike = {n: {"x": np.ones((n, 1), np.float32)} for n in STEPS}
    expected = {n: {"y": np.full((n, 1), 2, np.float32)} for n in STEPS}
    check_answers(report, "m", "on", instance(), alike, expected, tolerance=1e-6)
    assert report.failed == 1


def test_memory_that_grows_fails() -> None:
    report, used = Report({}), iter([0, 1 << 30])
    check_memory(report, "m", "on", instance(), lambda: next(used), BATCHES[STEPS[-1]], LITTLE.batches)
    assert states(report) == {"memory": "FAILED"}


def test_memory_is_not_said_to_be_flat_where_there_is_no_device() -> None:
    report = Report({})
    check_memory(report, "m", "CPU", instance(), None, BATCHES[STEPS[-1]], LITTLE.batches)
    assert states(report) == {"memory": "measured"}


def test_a_step_slower_than_the_next_larger_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    took = {n: n / 1e3 for n in STEPS} | {8: 1.0}
    seconds = iter([took[n] for _ in range(gpu_model._ROUNDS) for n in STEPS])
    monkeypatch.setattr(gpu_model, "timed", lambda *_: [next(seconds)])
    report = Report({})
    measure_steps(report, "m", "on", instance(), BATCHES, LITTLE, must_hold=True)
    (steps,) = [row for row in report.rows if row["what"] == "steps"]
    assert (steps["state"], steps["slower_than_the_next"]) == ("FAILED", [8])


def test_a_run_that_is_cut_off_keeps_what_it_measured(tmp_path: Path) -> None:
    report = Report({"GPU": "none"}, path=tmp_path / "new" / "gpu.json")
    for row in range(3):
        report.add("answers", f"m{row}", "on", "ok", difference=np.float32(0.5).item())
        kept = json.loads((tmp_path / "new" / "gpu.json").read_text())
        assert kept == {"machine": report.machine, "rows": report.rows}


def test_weights_that_are_not_carried_are_the_same_wherever_they_are_written(tmp_path: Path) -> None:
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / gpu_weights.RECIPE).write_text(json.dumps([[1000, "float16", 0.1], [10, "float32", 2.0]]))
        gpu_weights.write_weights(folder)
        written.append((folder / gpu_weights.WEIGHTS).read_bytes())
    assert written[0] == written[1]
    assert len(written[0]) == 2000 + 40
    assert 0.08 < np.frombuffer(written[0][:2000], np.float16).std() < 0.12


def test_a_folder_without_a_recipe_gets_no_weights(tmp_path: Path) -> None:
    gpu_weights.write_weights(tmp_path)
    assert list(tmp_path.iterdir()) == []


def _note(ran: list[tuple[str, list[str]]], name: str, report: Report, _path: Path, models: list[str], *_: Any,
          on_gpu: bool) -> None:  # fmt: skip
    assert not on_gpu
    ran.append((name, models))
    report.add(name, "", "", "measured")


def test_one_part_is_run_for_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        onnx_models.save_brightness(tmp_path / "models", name=name)
    ran: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(gpu_check, "PARTS", {name: partial(_note, ran, name) for name in gpu_check.PARTS})
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: (False, "no NVIDIA driver"))
    arguments = [str(tmp_path / "models"), "--out", str(tmp_path / "gpu.json")]
    assert gpu_check.main([*arguments, "--only", "front-ends", "--only", "lost", "--model", "b"]) == 0
    assert ran == [("front-ends", ["b"]), ("lost", ["b"])]
    ran.clear()
    gpu_check.main(arguments)
    assert ran == [(part, ["a", "b"]) for part in gpu_check.PARTS]


def test_a_model_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx_models.save_brightness(tmp_path, name="digits")
    with pytest.raises(SystemExit):
        gpu_check.main([str(tmp_path), "--model", "digit"])
    assert f"--model is digit; {tmp_path} holds digits" in capsys.readouterr().err


def test_named_models_are_all_checked_however_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        onnx_models.save_brightness(tmp_path / "models", name=name)
    ran: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(gpu_check, "PARTS", {"lost": partial(_note, ran, "lost")})
    monkeypatch.setitem(gpu_check.EFFORTS, "quick", LITTLE)
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: (False, "no NVIDIA driver"))
    arguments = [str(tmp_path / "models"), "--out", str(tmp_path / "gpu.json"), "--quick"]
    gpu_check.main(arguments)
    gpu_check.main([*arguments, "--model", "a", "--model", "b"])
    assert ran == [("lost", ["a"]), ("lost", ["a", "b"])]


def test_a_part_that_has_nothing_for_the_models_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx_models.save_brightness(tmp_path / "models", name="digits")
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: (False, "no NVIDIA driver"))
    with pytest.raises(SystemExit) as ended:
        gpu_check.main([str(tmp_path / "models"), "--only", "memory-limit", "--out", str(tmp_path / "gpu.json")])
    assert ended.value.code == 2
    assert "nothing was checked: --only memory-limit has nothing for digits" in capsys.readouterr().err


def test_a_part_that_breaks_fails_and_the_next_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_models.save_brightness(tmp_path / "models", name="digits")
    ran: list[tuple[str, list[str]]] = []

    def breaks(*_: Any, **__: Any) -> None:
        raise RuntimeError("the server did not start")

    monkeypatch.setattr(gpu_check, "PARTS", {"server": breaks, "lost": partial(_note, ran, "lost")})
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: (False, "no NVIDIA driver"))
    assert gpu_check.main([str(tmp_path / "models"), "--out", str(tmp_path / "gpu.json")]) == 1
    assert ran == [("lost", ["digits"])]
    row = json.loads((tmp_path / "gpu.json").read_text())["rows"][0]
    assert (row["what"], row["state"], row["reason"]) == ("server", "FAILED", "RuntimeError: the server did not start")


def test_a_model_that_cannot_be_loaded_fails_and_the_next_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        onnx_models.save_brightness(tmp_path / "models", name=name)
    (tmp_path / "models" / "a" / "1" / "model.onnx").write_bytes(b"cut off")
    monkeypatch.setitem(gpu_check.EFFORTS, "brief", LITTLE)
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: (False, "no NVIDIA driver"))
    arguments = [str(tmp_path / "models"), "--out", str(tmp_path / "gpu.json"), "--model", "a", "--model", "b"]
    assert gpu_check.main([*arguments, "--only", "models"]) == 1
    found = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert {row["model"]: row["state"] for row in found if row["what"] in ("models", "answers") and
            row["mode"] in ("", "CPU buffers")} == {"a": "FAILED", "b": "ok"}  # fmt: skip


@pytest.mark.slow
def test_it_runs_through_without_a_gpu_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx_models.save_brightness(tmp_path / "models")
    monkeypatch.setitem(gpu_check.EFFORTS, "quick", LITTLE)
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: (False, "no NVIDIA driver"))
    assert gpu_check.main([str(tmp_path / "models"), "--quick", "--out", str(tmp_path / "gpu.json")]) == 0
    report = json.loads((tmp_path / "gpu.json").read_text())
    found = {(row["what"], row["mode"]): row["state"] for row in report["rows"]}
    assert found["answers", "graphs on"] == "no GPU"
    assert found["answers", "CPU buffers"] == "ok"
    assert found["golden", "CPU"] == "ok"
    assert found["memory", "CPU buffers"] == "measured"
    assert "0 of" in capsys.readouterr().out
