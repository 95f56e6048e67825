"""What remains of a load test where a report cannot be written."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inferry_client.cli import main
from inferry_client.load.errors import LoadError
from inferry_client.load.targets import check_target, deliver, write_target
from inferry_client.load.workers import OpenLoop
from testkit.scripted_server import ScriptedServer


def test_every_report_is_tried_and_the_figures_are_printed_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[tuple[str, ...]] = []

    def page() -> str:
        printed.append(tuple(capsys.readouterr()))
        return "page"

    html, gone = tmp_path / "load.html", tmp_path / "gone" / "load.json"
    assert not deliver("figures", [(gone, lambda: "{}"), (None, str), (html, page)])
    assert printed == [("figures\n", f"inferry: error: {gone} cannot be written: No such file or directory\n")]
    assert html.read_text() == "page"
    assert deliver("figures", [(html, page)])


def test_a_test_whose_report_finds_no_room_keeps_its_figures_and_ends_with_1(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html = tmp_path / "load.html"
    options = ["--rate", "20", "--duration", "1s", "--max-error-rate", "1", "--json", "/dev/full", "--html", str(html)]
    assert main(["load", "--server", brightness_server.address, *options]) == 1
    printed = capsys.readouterr()
    assert " 0 failures, " in printed.out
    assert "inferry: error: /dev/full cannot be written: No space left on device\n" in printed.err
    assert html.read_text().count("<svg") == 2


def test_reports_are_written_where_nobody_reads_the_figures(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    target = tmp_path / "load.json"
    command = [sys.executable, "-m", "inferry_client", "load", "--server", brightness_server.address]
    command += ["--rate", "20", "--duration", "1s", "--json", str(target)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "the output cannot be written: No space left on device" in done.stderr
    assert json.loads(target.read_text())["requests"] > 0


def test_a_search_that_fails_tells_what_it_tried(
    brightness_server: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, rates = OpenLoop.run, iter([True])

    def fail_later(self: OpenLoop, *args: Any, **kwargs: Any) -> Any:
        if not next(rates, False):
            raise LoadError("a process that sends ended")
        return run(self, *args, **kwargs)

    monkeypatch.setattr(OpenLoop, "run", fail_later)
    html, figures = tmp_path / "peak.html", tmp_path / "peak.json"
    options = ["--find-peak", "--p99-ms", "5000", "--rate", "20", "--duration", "1s"]
    options += ["--html", str(html), "--json", str(figures)]
    assert main(["load", "--server", brightness_server.address, *options]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1].startswith("20.0 ")
    assert "error: a process that sends ended" in printed.err
    assert "<td>20.0</td>" in html.read_text()
    assert "the search was broken off after 1 trials" in html.read_text()
    assert [trial["rate"] for trial in json.loads(figures.read_text())["trials"]] == [20]


def test_a_report_replaces_an_earlier_one_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, link = tmp_path / "load.json", tmp_path / "latest.json"
    report.write_text("before")
    report.chmod(0o640)
    link.symlink_to(report)

    def no_room(path: Path, text: str, **options: Any) -> None:
        path.write_bytes(text[:1].encode())
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", no_room)
        with pytest.raises(LoadError, match=r"latest\.json cannot be written: No space left on device"):
            write_target(link, "after")
    assert report.read_text() == "before"
    write_target(link, "after")
    assert report.read_text() == "after"
    assert link.is_symlink()
    assert report.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "load.json"]


def test_a_report_goes_where_nothing_can_be_made_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "load.json"
    report.touch()

    def mounted(path: Path, target: Path) -> Path:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", mounted)
    write_target(report, "figures")
    assert report.read_text() == "figures"
    assert [path.name for path in tmp_path.iterdir()] == ["load.json"]


def test_a_report_may_go_into_a_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    path = check_target(f"/dev/fd/{writing}")
    assert path is not None
    write_target(path, "figures")
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "figures"
