"""Contenders that are compared with one another are measured alike."""

from pathlib import Path

from bench.installed import Installed
from bench.workloads import (
    BARE,
    BARE_INT8,
    BARE_OF,
    BEFORE,
    BEFORE_INT8,
    BESIDE_BARE,
    INFERRY,
    INT8,
    SCRIPTED,
    contenders,
)


def test_each_contender_is_compared_with_the_bare_session_of_the_model_that_it_serves(tmp_path: Path) -> None:
    chosen = contenders(tmp_path, threads=2, inferry_flags=(), without=(), before=tmp_path)
    of_file = {"float32.onnx": BARE, "int8.onnx": BARE_INT8}
    assert {name: of_file[one.model.name] for name, one in chosen.items()} == {
        name: BARE_OF.get(name, BARE) for name in chosen
    }


def test_another_commit_follows_the_same_load_as_this_one() -> None:
    for now, then in ((INFERRY, BEFORE), (INT8, BEFORE_INT8)):
        ours, theirs = ({workload for workload, one in BESIDE_BARE if one == contender} for contender in (now, then))
        assert ours == theirs


def test_the_wheel_runs_as_inferry_and_as_nobody_else(tmp_path: Path) -> None:
    installed = Installed(tmp_path / "packages", "compiled")
    chosen = contenders(tmp_path, threads=2, inferry_flags=(), without=(), before=tmp_path, installed=installed)
    ours = {name for name, one in chosen.items() if one.kind == "inferry"} - {SCRIPTED, BEFORE, BEFORE_INT8}
    assert {name for name, one in chosen.items() if one.environment} == ours
    assert {chosen[name].environment["PYTHONPATH"] for name in ours} == {str(tmp_path / "packages")}
