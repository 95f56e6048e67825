"""The metrics page of the HTTP port: whole, and never in the way for long."""

import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from testkit import onnx_models
from testkit.http_client import ask_http
from testkit.servers import running_server


def test_the_page_lets_others_go_on_after_each_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_models.save_doubler(tmp_path)
    pauses: list[float] = []
    sleep = time.sleep

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        sleep(seconds)

    with running_server(tmp_path) as server:
        monkeypatch.setattr(time, "sleep", pause)
        page = ask_http(server, "/metrics").body.decode()
        monkeypatch.undo()
        chosen = ask_http(server, "/metrics?name[]=inferry_ready").body.decode()
    families = list(text_string_to_metric_families(page))
    assert pauses.count(0) >= len(families) > 40
    assert [family.name for family in text_string_to_metric_families(chosen)] == ["inferry_ready"]
