"""`make deploy-check ARGS="--values my.yaml"` gives a true answer about what the chart makes of one's own values."""

from pathlib import Path

import pytest
import yaml

from manifests.__main__ import main
from manifests.bundle import K8S


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    code = main(list(arguments))
    return code, capsys.readouterr().out.splitlines()


def written(folder: Path, **values: object) -> str:
    file = folder / "my.yaml"
    file.write_text(yaml.safe_dump(values))
    return str(file)


def test_right_values_have_nothing_wrong_and_what_the_cluster_must_have_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, image={"registry": "registry.test"}, models={"claim": {"name": "shared"}},
                   tls={"enabled": True, "secretName": "own-tls"})  # fmt: skip
    code, lines = answer(capsys, "--values", file, "--set", "priority.className=high", "--release", "digits")
    assert code == 0, lines
    assert lines[-1].endswith("nothing wrong")
    for name in ("PersistentVolumeClaim shared", "Secret own-tls", "PriorityClass high"):
        assert f"the chart: note: Deployment digits-inferry-server needs the {name}, which is not here" in lines


def test_values_that_render_and_are_wrong_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, networkPolicy={"enabled": True, "egress": [{"ports": [{"port": 4317}]}]},
                   settings={"trace_endpoint": "http://collector.monitoring:4317"})  # fmt: skip
    code, lines = answer(capsys, "-f", file)
    assert code == 1
    assert any("no NetworkPolicy lets it ask DNS" in line for line in lines)


def test_values_that_the_chart_refuses_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = answer(capsys, "--values", written(tmp_path, replicas=2), "--set", "settings.drain_delay_s=1")
    assert code == 1
    assert "settings.drain_delay_s is 1" in "\n".join(lines)
    assert answer(capsys, "--values", str(tmp_path / "nowhere.yaml"))[0] == 1


def test_volumes_of_the_wrong_shape_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, volumes=[{"name": "own", "confgMap": {"name": "own"}}])
    code, lines = answer(capsys, "--values", file)
    assert code == 1
    assert any("confgMap" in line for line in lines)


def test_a_chart_is_checked_beside_folders(capsys: pytest.CaptureFixture[str]) -> None:
    job = str(K8S / "jobs" / "train")
    assert any("needs the PersistentVolumeClaim inferry-models" in line for line in answer(capsys, job)[1])
    code, lines = answer(capsys, job, "--set", "image.registry=registry.test")
    assert code == 0, lines
    assert not [line for line in lines if "PersistentVolumeClaim inferry-models" in line]


def test_an_argument_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--value", "my.yaml", "--releese", "x"])
    assert "releese" in capsys.readouterr().err
