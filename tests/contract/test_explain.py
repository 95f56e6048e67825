"""Why requests were late, asked over gRPC, over HTTP and from the command line."""

from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from inferry_client import Client
from inferry_client.cli import main
from inferry_client.commands.explain import version_lines
from inferry_client.results import ExplainedVersion, LateRequest
from inferry_proto import classifier_pb2, diagnostics_pb2
from inferry_proto.version_labels import write_version_labels
from inferry_server.app import Server
from testkit import onnx_models
from testkit.http_client import ask_http
from testkit.pictures import encode_picture, grey
from testkit.policies import save_policy, token_of
from testkit.rpc import begin, call, infer_request, refusal
from testkit.servers import running_server


def ask(server: Server, model: str = "", version: str = "", limit: int = 0) -> diagnostics_pb2.ExplainResponse:
    """Over gRPC."""
    request = diagnostics_pb2.ExplainRequest(model_name=model, model_version=version, limit=limit)
    with grpc.insecure_channel(str(server.grpc_address)) as channel:
        answer: diagnostics_pb2.ExplainResponse = call(channel, "Explain", request)
        return answer


def use(server: Server) -> None:
    """Two answers, a picture, and three refusals."""
    with grpc.insecure_channel(str(server.grpc_address)) as channel:
        for name in ("one", "two"):
            request = infer_request("doubler", x=np.ones((2, 3), np.float32))
            request.id = name
            call(channel, "ModelInfer", request)
        picture = classifier_pb2.Image(encoded=encode_picture(grey(3)))
        call(channel, "Classify", classifier_pb2.ClassifyRequest(model_name="brightness", images=[picture], id="grey"))
        bad = infer_request("doubler", x=np.ones((2, 4), np.float32))
        bad.id = "misshapen"
        hopeless = infer_request("doubler", x=np.ones((2, 3), np.float32))
        hopeless.id = "hopeless"
        hopeless.parameters["timeout"].int64_param = 1
        unreadable = classifier_pb2.ClassifyRequest(
            model_name="brightness", images=[classifier_pb2.Image(encoded=b"x")]
        )
        for name, refused in (("ModelInfer", bad), ("ModelInfer", hopeless), ("Classify", unreadable)):
            with suppress(grpc.RpcError):
                call(channel, name, refused)


def save_models(models: Path) -> None:
    onnx_models.save_doubler(models)
    onnx_models.save_brightness(models)
    write_version_labels(models / "doubler", {"stable": 1}, {"stable": 1})


def test_slow_and_refused_requests_are_told_with_their_parts_and_cause(tmp_path: Path, transport: str) -> None:
    save_models(tmp_path)
    with running_server(tmp_path, transport=transport) as server:
        use(server)
        told = {one.model_name: one for one in ask(server).versions}
        assert sorted(request.id for request in told["doubler"].slowest) == ["one", "two"]
        assert [request.id for request in told["brightness"].slowest] == ["grey"]
        for request in (*told["doubler"].slowest, *told["brightness"].slowest):
            parts = (request.read_us, request.queue_us, request.compute_us, request.reply_us)
            assert request.total_us == pytest.approx(sum(parts), abs=4)  # each is rounded
            assert min(parts) >= 0
            assert request.cause
            assert request.batch.rows == request.batch.padded_rows == request.rows
            assert (request.lane, request.reason, request.HasField("deadline_us")) == ("interactive", "", False)
        refused = {request.id: request for request in told["doubler"].refused}
        assert refused["misshapen"].reason == "signature_mismatch"
        assert "expected" in refused["misshapen"].cause
        assert refused["hopeless"].reason == "deadline_at_admission"
        assert refused["hopeless"].deadline_us == 1
        assert [request.reason for request in told["brightness"].refused] == ["undecodable"]
        assert [len(one.refused) for one in ask(server, limit=1).versions] == [1, 1]
        assert [one.model_name for one in ask(server, "doubler", "stable").versions] == ["doubler"]
        assert ask_http(server, "/v2/models/doubler/versions/1/explain").json["versions"][0]["model_name"] == "doubler"
        over_http = ask_http(server, "/v2/explain").json["versions"]
        assert [one["model_name"] for one in over_http] == ["brightness", "doubler"]
        assert {one["id"] for one in over_http[1]["slowest"]} == {"one", "two"}
        assert ask_http(server, "/v2/models/other/explain").code == 404
        assert ask_http(server, "/live.json").json["late"][1]["model_name"] == "doubler"
        with grpc.insecure_channel(str(server.grpc_address)) as channel:
            for unknown in (("other", ""), ("doubler", "7")):
                asked = diagnostics_pb2.ExplainRequest(model_name=unknown[0], model_version=unknown[1])
                assert refusal(begin(channel, "Explain", asked))[0] == "NOT_FOUND"


def test_nothing_is_kept_where_nothing_shall_be(tmp_path: Path) -> None:
    save_models(tmp_path)
    with running_server(tmp_path, late_requests=0) as server:
        use(server)
        assert [(len(one.slowest), len(one.refused)) for one in ask(server).versions] == [(0, 0), (0, 0)]


def test_the_role_read_is_asked_for(tmp_path: Path) -> None:
    save_models(tmp_path / "models")
    policy = save_policy(tmp_path / "policy.toml", reader=("read",), caller=("infer",))
    with running_server(tmp_path / "models", access_policy=policy) as server:
        for path in ("/v2/explain", "/live.json", "/live", "/live.json%0A", "/live%0A"):
            assert ask_http(server, path).code == 401
            assert ask_http(server, path, authorization=f"Bearer {token_of('caller')}").code == 403
        for path in ("/v2/explain", "/live.json"):
            assert ask_http(server, path, authorization=f"Bearer {token_of('reader')}").code == 200
        assert ask_http(server, "/").code == 200  # the page itself tells nothing, and asks for a token


def test_the_client_and_the_command_line_tell_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_models(tmp_path)
    with running_server(tmp_path) as server:
        use(server)
        address = str(server.grpc_address)
        with Client(address) as client:
            (doubler,) = client.explain("doubler", limit=1)
        assert (doubler.model, doubler.version, len(doubler.slowest), len(doubler.refused)) == ("doubler", "1", 1, 1)
        assert main(["explain", "--server", address, "--model", "doubler"]) == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in ("doubler 1", "slowest", "'one'", "'two'", "signature_mismatch"))
        assert main(["explain", "--server", address, "--json"]) == 0
        assert '"request_id": "grey"' in capsys.readouterr().out
        assert main(["explain", "--server", address, "--model", "other"]) == 1


def test_bars_are_in_proportion_and_nothing_is_said_to_be_nothing() -> None:
    slow = LateRequest(
        request_id="r", trace_id="ab", cause="because", reason="", ended_at=0.0, rows=1, lane="interactive",
        rows_ahead=3, total_s=0.04, read_s=0.001, queue_s=0.009, turn_s=0.002, compute_s=0.02, reply_s=0.01,
        deadline_s=None, batch_rows=5, padded_rows=8, batch_requests=4, expected_s=0.0,
    )  # fmt: skip
    lines = list(version_lines(ExplainedVersion("m", "1", (slow,), ())))
    assert (
        lines[4].strip()
        == "3 rows ahead in lane interactive; turn 2.0 ms; batch of 5 rows and 3 of padding, of 4 requests"
    )
    assert f"     40.0 ms  r{'q' * 9}{'C' * 20}{'p' * 10}  request 'r'  trace ab" in lines[2]
    assert list(version_lines(ExplainedVersion("m", "1", (), ()))) == ["m 1", "  nothing so far"]
