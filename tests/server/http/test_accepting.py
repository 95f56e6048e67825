"""What compression a client takes, and what it gets."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.http.accepting import accepts
from testkit import onnx_models
from testkit.http_client import ask_http
from testkit.servers import running_server

REQUEST = b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}'
ACCEPTED = [
    ("gzip", True),
    ("GZip", True),
    ("x-gzip", True),
    ("br, gzip;q=0.2, *;q=0", True),
    ("deflate, gzip;q=1.0, *;q=0.5", True),
    ("*", True),
    ("*;q=0.001", True),
    ("gzip;q=1, identity;q=0.5", True),
    ("gzip, identity", True),  # as much as identity
    ("identity;q=0, gzip;q=0.1", True),
    (" gzip\t;\tQ=0.5 ,, br", True),
    ("", False),
    ("identity", False),
    ("br, deflate", False),
    ("gzip;q=0", False),
    ("gzip;q=0.000", False),
    ("gzip ; q=0", False),
    ("*;q=0", False),
    ("gzip;q=0, *", False),
    ("gzip, gzip;q=0", False),
    ("x-gzip;q=0, *", False),
    ("gzip;q=0.5, identity", False),
    ("gzip;q=0.5, identity;q=0.501", False),
    ("gzipped, notgzip", False),
    ("gzip;q=", False),
    ("gzip;q=2", False),
    ("gzip;q=-0", False),
    ("gzip;q=1.001", False),
    ("gzip;q=0.0001", False),
    ("gzip;q=nan", False),
    ("gzip;q = 1", False),
    ("gzip;level=9", False),
    ("gzip" + "," * 2044, True),
    ("gzip" + "," * 2045, False),
]


@pytest.mark.parametrize(("line", "accepted"), ACCEPTED)
def test_gzip_is_sent_to_those_who_take_it_and_do_not_prefer_it_plain(line: str, accepted: bool) -> None:
    assert accepts("gzip", [line]) is accepted
    assert accepts("gzip", line.split(",")) is accepted  # lines of one name are one list
    assert accepts("gzip", []) is False


@given(st.text(max_size=40), st.sampled_from(["gzip", "*", "x-gzip"]))
def test_whatever_else_stands_there_a_weight_of_zero_is_a_refusal(other: str, name: str) -> None:
    plain = other.replace("g", "").replace("G", "")  # names no gzip
    assert accepts("gzip", [plain, f"{name};q=0"]) is False or name == "*"
    assert accepts("gzip", [f"{name};q=0.000", plain]) is False or name == "*"
    assert accepts("gzip", [plain.replace("*", ""), "*;q=0"]) is False


@pytest.mark.parametrize("line", ["gzip;q=0", "gzip", "identity, gzip;q=0.1", "deflate"])
def test_replies_and_the_metrics_page_are_compressed_for_those_alone(tmp_path: Path, line: str) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path, response_compression="gzip") as server:
        for path, body in (("/v2/models/doubler/infer", REQUEST), ("/metrics", None)):
            answer = ask_http(server, path, body, accept_encoding=line)
            assert answer.code == 200
            assert "accept-encoding" in answer.headers["vary"]
            assert answer.headers.get("content-encoding") == ("gzip" if line == "gzip" else None)
            plain = gzip.decompress(answer.body) if line == "gzip" else answer.body
            assert (b'"outputs"' if body else b"inferry_ready 1.0") in plain


def test_a_body_in_another_compression_is_refused_with_415_and_what_is_taken(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    paths = ("/v2/models/doubler/infer", "/v2/models/doubler/classify", "/v2/repository/index")
    with running_server(tmp_path) as server:
        for path in paths:
            refused = ask_http(server, path, REQUEST, content_encoding="br")
            assert (refused.code, refused.headers["accept-encoding"]) == (415, "gzip, deflate")
            assert "content-encoding 'br' is not known here; expected one of gzip, deflate" in refused.json["error"]
        outcomes = server.metrics.outcomes.values()
        refusals = sum(count for labels, count in outcomes.items() if "unsupported_encoding" in labels)
        assert refusals == len(paths)
        assert ask_http(server, paths[0], gzip.compress(REQUEST), content_encoding="gzip").code == 200
