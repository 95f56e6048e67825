"""What the live page is told, and what the browser is told about the page."""

import asyncio
import http.client
import json
import re
from pathlib import Path
from typing import Any

import pytest

from inferry_proto.version_labels import write_version_labels
from inferry_server.http import live
from testkit import onnx_models
from testkit.http_client import ask_http
from testkit.policies import save_policy, token_of
from testkit.servers import running_server

REQUEST = b'{"inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}]}'


def test_the_page_is_told_of_versions_traffic_refusals_and_latency(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    onnx_models.save_brightness(tmp_path)
    write_version_labels(tmp_path / "doubler", {"stable": 1}, {"stable": 7})
    (tmp_path / "broken" / "1").mkdir(parents=True)
    with running_server(tmp_path) as server:
        for _ in range(3):
            assert ask_http(server, "/v2/models/doubler/infer", REQUEST).code == 200
        ask_http(server, "/v2/models/doubler/infer", b"{}")
        told = ask_http(server, "/live.json").json
    versions = {one["model"]: one for one in told["versions"]}
    doubler, brightness, broken = versions["doubler"], versions["brightness"], versions["broken"]
    assert (doubler["rows"], doubler["batches"], doubler["compute"]["count"]) == (6, 3, 3)
    assert (doubler["labels"], doubler["traffic"], doubler["provider"]) == (["stable"], 7, "CPU")
    assert (doubler["pictures"], doubler["golden"]) == (False, False)
    assert (brightness["pictures"], brightness["golden"]) == (True, True)
    assert (broken["state"], "rows" in broken, "model.onnx" in broken["reason"]) == ("UNAVAILABLE", False, True)
    assert told["not_ready"] == []
    assert told["refused"] == {"signature_mismatch": 1}
    assert told["latency"]["+Inf"] == 4


def test_failures_and_what_no_version_was_found_for_are_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server:
        (version,) = server.registry.served()
        monkeypatch.setattr(version.batcher, "submit", lambda _: 1 / 0)
        assert [ask_http(server, f"/v2/models/{model}/infer", REQUEST).code for model in ("doubler", "other")] == [
            500,
            404,
        ]
        told = ask_http(server, "/live.json").json["refused"]
    assert told == {"model_not_found": 1, "unexpected_error": 1}


def test_the_page_advises_on_every_reason_that_the_documentation_does() -> None:
    root = Path(__file__).parents[3]
    script = (root / "server/inferry_server/http/page/page.js").read_text()
    advised = set(re.findall(r"^  (\w+): \"", script.partition("const ADVICE = {")[2].partition("};")[0], re.MULTILINE))
    documented = (root / "docs/observability.md").read_text()
    table = documented.partition("Reasons of `inferry_requests_refused_total`")[2].partition("\n\nSome")[0]
    rows = [row.rpartition(" | ")[::2] for row in table.splitlines() if row.startswith("| `")]
    reasons = {
        reason for named, what in rows if "caller's mistake" not in what for reason in re.findall(r"`(\w+)`", named)
    }
    assert reasons > {"shed", "overloaded", "picture_too_costly"}
    assert reasons - advised == set()
    assert {reason for reason in advised if f"`{reason}`" not in documented} == set()


def test_the_stream_goes_on_and_ends_with_the_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server:
        assert server.http_address is not None
        connection = http.client.HTTPConnection(server.http_address.host, server.http_address.port, timeout=20)
        connection.request("GET", "/live")
        answer = connection.getresponse()
        assert answer.headers["content-type"] == "text/event-stream"
        for _ in range(2):
            event = answer.readline()
            assert json.loads(event.removeprefix(b"data: "))["not_ready"] == []
            assert answer.readline() == b"\n"
    assert all(line.startswith(b"data: ") or line == b"\n" for line in answer)
    assert "ERROR" not in caplog.text


def test_the_stream_ends_for_whoever_may_not_look_any_more(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    policy = save_policy(tmp_path / "policy.toml", old=("read",), kept=("read",))
    with running_server(tmp_path / "models", access_policy=policy) as server:
        assert server.http_address is not None
        answers = []
        for caller in ("old", "kept"):
            connection = http.client.HTTPConnection(server.http_address.host, server.http_address.port, timeout=20)
            connection.request("GET", "/live", headers={"authorization": f"Bearer {token_of(caller)}"})
            answers.append(connection.getresponse())
        old, kept = answers
        assert all(answer.readline().startswith(b"data: ") for answer in answers)
        save_policy(policy, kept=("read",))
        for _ in range(2):
            server._watcher.look()
        assert [old.readline() for _ in range(6)][-2:] == [b"", b""]  # after one event that was on its way, at most
        assert [kept.readline()[:6] for _ in range(6)][1::2] == [b"data: "] * 3
        assert server.metrics.outcomes.values()["/live", "UNAUTHENTICATED", "unauthenticated"] == 1


def test_all_who_look_are_told_the_same_at_the_same_moment(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server:
        assert server.http_address is not None
        streams = []
        for _ in range(3):
            connection = http.client.HTTPConnection(server.http_address.host, server.http_address.port, timeout=20)
            connection.request("GET", "/live")
            streams.append(connection.getresponse())
        events = [[stream.readline() for _ in range(5)][::2] for stream in streams]
    assert len(set.union(*(set(event) for event in events))) <= 5  # the first may differ


@pytest.mark.parametrize(
    ("path", "kind"), [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")]
)
def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path, path: str, kind: str) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server:
        answer = ask_http(server, path)
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert b"//" not in answer.body.replace(b"// ", b"")
    with running_server(tmp_path, http_inference="off") as server:
        assert ask_http(server, path).code == ask_http(server, "/live").code == 404


class Snapshots:
    """Numbers instead of what a server does; the first may fail."""

    def __init__(self, *, failing: bool = False) -> None:
        self.taken = 0
        self._failing = failing

    def take(self) -> bytes:
        self.taken += 1
        if self._failing and self.taken == 1:
            raise RuntimeError("no snapshot")
        return b"%d" % self.taken


def asked_together(snapshots: Any, *, cancelled: bool) -> list[Any]:
    """What three are told who look at the same moment, the first of whom may have gone; and one after them."""

    async def ask() -> list[Any]:
        feed = live._Feed(snapshots)
        looking = [asyncio.create_task(feed.latest()) for _ in range(3)]
        await asyncio.sleep(0)  # they wait now
        if cancelled:
            looking[0].cancel()
        return [*await asyncio.gather(*looking, return_exceptions=True), await feed.latest()]

    return asyncio.run(ask())


def test_one_snapshot_is_taken_for_all_and_who_goes_takes_it_from_nobody() -> None:
    for cancelled in (False, True):
        snapshots = Snapshots()
        told = asked_together(snapshots, cancelled=cancelled)
        assert told[1:] == [b"1"] * 3
        assert isinstance(told[0], asyncio.CancelledError) is cancelled
        assert snapshots.taken == 1


def test_a_snapshot_that_fails_is_told_to_all_and_the_next_is_taken() -> None:
    told = asked_together(Snapshots(failing=True), cancelled=False)
    assert [str(error) for error in told[:3]] == ["no snapshot"] * 3
    assert told[3] == b"2"
