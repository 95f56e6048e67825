"""`inferry status --watch` and `inferry completion`."""

import json
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from inferry_client.cli import build_parser, main
from inferry_client.commands.completion import completion_script
from inferry_client.commands.watch import rates
from inferry_client.results import ModelStatistics
from inferry_proto import open_inference_pb2
from testkit.scripted_server import ScriptedServer


def _did(requests: int, *, version: str = "1", failures: int = 0) -> ModelStatistics:
    return ModelStatistics(
        "m", version, requests, failures, 4 * requests, requests, 0.5 * requests, 0.1 * requests, 0.0
    )


def test_rates_are_what_was_done_between_two_looks() -> None:
    (found,) = rates([_did(10)], [_did(30, failures=4)], seconds=2)
    assert (found.requests_per_second, found.failures_per_second, found.rows_per_second) == (10, 2, 40)
    assert [found.rows_per_batch, found.latency_ms, found.queue_ms] == pytest.approx([4, 500, 100])


def test_new_versions_and_restarted_servers_count_from_nothing_and_idle_ones_are_zero() -> None:
    anew, new, idle = rates(
        [_did(10), _did(7, version="3")], [_did(4), _did(6, version="2"), _did(7, version="3")], seconds=2
    )
    assert (anew.requests_per_second, new.requests_per_second) == (2, 3)
    assert (idle.requests_per_second, idle.latency_ms, idle.rows_per_batch) == (0, 0, 0)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Time passes at once; the third pause is interrupted."""
    pauses = count()

    def pause(_: float) -> None:
        if next(pauses) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("inferry_client.commands.watch.time.sleep", pause)
    return iter(())


def test_watching_prints_rates_and_what_is_wrong_until_interrupted(
    brightness_server: ScriptedServer, looks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = count(0, 50)

    def statistics(_: Any) -> Any:
        reply = open_inference_pb2.ModelStatisticsResponse()
        model = reply.model_stats.add(name="brightness", version="3")
        model.inference_stats.success.count = next(requests)
        return reply

    brightness_server.scripts["ModelStatistics"] = statistics
    assert main(["status", "--watch", "1", "--json", "--server", brightness_server.address]) == 130
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["models"][0]["model"] for line in lines] == ["brightness"] * 2
    assert all(line["models"][0]["requests_per_second"] > 0 for line in lines)


def test_a_server_that_cannot_tell_is_watched_on(
    brightness_server: ScriptedServer, looks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--watch", "--server", brightness_server.address]) == 130
    printed = capsys.readouterr().out
    assert printed.count("could not count what its models did") == 2
    assert "\x1b" not in printed  # nobody reads it on a terminal


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["inferry", "st"], {"status"}),
        (["inferry", "load", "--find"], {"--find-peak"}),
        (["inferry", "--ver"], {"--verbose", "--version"}),
    ],
)
def test_the_shell_completes_commands_and_their_options(typed: list[str], offered: set[str], tmp_path: Path) -> None:
    words = " ".join(f"'{word}'" for word in typed)
    call = f"COMP_WORDS=({words}); COMP_CWORD={len(typed) - 1}; _inferry; echo ${{COMPREPLY[@]}}"
    script = f"{completion_script(build_parser())}\n{call}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert set(done.stdout.split()) == offered


def test_the_script_is_printed_for_both_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    assert "complete -o filenames -F _inferry inferry" in capsys.readouterr().out
    assert main(["completion", "zsh"]) == 0
    assert "bashcompinit" in capsys.readouterr().out
