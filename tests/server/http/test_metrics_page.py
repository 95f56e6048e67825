"""The metrics page of the HTTP port: whole, and never in the way for long."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inferry_server.giving_way import in_pieces
from inferry_server.http import metrics_page
from testkit import onnx_models
from testkit.http_client import ask_http
from testkit.servers import running_server


def test_the_page_lets_others_go_on_after_each_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_models.save_doubler(tmp_path)
    parts: list[bytes] = []

    def noting(given: Iterator[bytes]) -> Iterator[bytes]:
        for part in in_pieces(given):
            parts.append(part)
            yield part

    with running_server(tmp_path) as server:
        monkeypatch.setattr(metrics_page, "in_pieces", noting)
        page = ask_http(server, "/metrics").body.decode()
        monkeypatch.undo()
        chosen = ask_http(server, "/metrics?name[]=inferry_ready").body.decode()
    families = list(text_string_to_metric_families(page))
    assert len(parts) >= len(families) > 40
    assert [family.name for family in text_string_to_metric_families(chosen)] == ["inferry_ready"]
