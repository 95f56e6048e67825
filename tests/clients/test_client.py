import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import inferry_client
from inferry_client import AsyncClient, Client, RetryPolicy, errors
from inferry_client.connecting.channels import channel_options
from inferry_client.retries import NO_RETRIES
from inferry_proto import open_inference_pb2
from inferry_proto.preprocessing import prepare_image
from testkit import brightness_model
from testkit.scripted_server import Refusal, ScriptedServer, serving
from testkit.waiting import SOON_S

QUICK = RetryPolicy(max_attempts=5, initial_backoff_s=0.01, max_backoff_s=0.02)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving(brightness_model.scripts()) as scripted:
        yield scripted


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[Client]:
    with Client(server.address, retries=QUICK) as connected:
        yield connected


def _refuse(server: ScriptedServer, name: str, *refusals: Refusal) -> None:
    """End the first calls of an RPC with statuses, one each; answer those after them."""
    answer, waiting = server.scripts[name], list(refusals)

    def script(request: Any) -> Any:
        if waiting:
            raise waiting.pop(0)
        return answer(request)

    server.scripts[name] = script


def test_pictures_are_classified_in_their_order(client: Client) -> None:
    result = client.classify("brightness", [brightness_model.picture(250), np.zeros((8, 8), np.uint8)], top_k=2)
    assert (result.model, result.version) == ("brightness", "3")
    assert [image[0].label for image in result.images] == ["bright", "dark"]
    assert [len(image) for image in result.images] == [2, 2]
    assert result.images[0][0].index == 2
    assert 0.9 < result.images[0][0].probability <= 1
    assert result.timing.compute_us == 7


@pytest.mark.parametrize(("retries", "resends"), [(QUICK, False), (NO_RETRIES, True)])
def test_grpc_keeps_what_it_may_send_again_only_where_the_client_makes_no_call_again(
    retries: RetryPolicy, resends: bool
) -> None:
    with Client("127.0.0.1:1", retries=retries) as client:
        options = dict(channel_options("127.0.0.1:1", client._settings, health=False))
    assert options["grpc.enable_retries"] == resends


def test_tensors_give_what_the_model_gives(client: Client) -> None:
    pixels = prepare_image(brightness_model.picture(128), brightness_model.PREPROCESSING)[None]
    result = client.infer("brightness", {"image": pixels})
    np.testing.assert_array_equal(result.outputs["probabilities"], brightness_model.probabilities(pixels))
    assert result.version == "3"


def test_a_model_describes_itself(client: Client) -> None:
    description = client.describe_model("brightness")
    assert description.inputs[0] == inferry_client.TensorSpec("image", "UINT8", (-1, 8, 8, 1))
    assert description.labels == ("dark", "grey", "bright")
    assert description.preprocessing == brightness_model.PREPROCESSING
    assert client.model_metadata("brightness").outputs[0].shape == (-1, 3)


def test_a_server_describes_itself(client: Client) -> None:
    assert client.server_live()
    assert client.server_ready()
    assert client.model_ready("brightness")
    assert not client.model_ready("another")
    assert client.server_metadata() == inferry_client.ServerMetadata("inferry", "0.1.0", ("model_repository",))
    (status,) = client.repository_index()
    assert (status.name, status.version, status.ready) == ("brightness", "3", True)


def test_an_unknown_model_is_named(client: Client) -> None:
    with pytest.raises(
        errors.ModelNotFoundError, match=r"127.0.0.1:\d+ could not describe model 'cats'.*inferry models"
    ):
        client.describe_model("cats")


def test_a_bad_picture_is_named_by_its_position(client: Client) -> None:
    with pytest.raises(errors.InvalidRequestError, match="image 1: not a picture"):
        client.classify("brightness", [brightness_model.picture(1), b"not a picture"])


def test_a_server_that_is_full_is_asked_again_when_it_said(server: ScriptedServer, client: Client) -> None:
    full = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", pushback_ms=60)
    _refuse(server, "ModelInfer", full)
    started = time.monotonic()
    client.infer("brightness", {"image": np.zeros((1, 8, 8, 1), np.uint8)})
    assert time.monotonic() - started >= 0.06  # QUICK alone would have come back after 10 ms
    assert len(server.requests("ModelInfer")) == 2


def test_a_server_that_stays_full_is_an_overload(server: ScriptedServer, client: Client) -> None:
    full = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", pushback_ms=3)
    _refuse(server, "ModelInfer", *[full] * 5)
    with pytest.raises(errors.OverloadedError, match="the queue is full") as caught:
        client.infer("brightness", {"image": np.zeros((1, 8, 8, 1), np.uint8)})
    assert caught.value.retry_after_s == 0.003
    assert len(server.requests("ModelInfer")) == 5


@pytest.mark.parametrize("said", ["9" * 30, "-1", "soon"])
def test_a_pushback_that_is_no_time_forbids_to_ask_again(server: ScriptedServer, client: Client, said: str) -> None:
    _refuse(server, "ServerReady", Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", pushback_ms=said))
    with pytest.raises(errors.OverloadedError) as caught:
        client.server_ready()
    assert caught.value.retry_after_s is None
    assert len(server.requests("ServerReady")) == 1


def test_a_server_that_comes_back_is_not_an_error(server: ScriptedServer, client: Client) -> None:
    _refuse(server, "ServerReady", *[Refusal(grpc.StatusCode.UNAVAILABLE, "draining")] * 2)
    assert client.server_ready()


def test_a_server_that_stops_and_cancels_what_it_had_not_begun_is_asked_again(
    server: ScriptedServer, client: Client
) -> None:
    _refuse(server, "ModelInfer", *[Refusal(grpc.StatusCode.CANCELLED)] * 2)
    assert client.infer("brightness", {"image": np.zeros((1, 8, 8, 1), np.uint8)}).version == "3"
    assert len(server.requests("ModelInfer")) == 3


def test_what_stays_cancelled_is_a_server_that_is_away(server: ScriptedServer, client: Client) -> None:
    _refuse(server, "ServerReady", *[Refusal(grpc.StatusCode.CANCELLED)] * 5)
    with pytest.raises(errors.ServerUnavailableError, match="it was stopped; ask again when it is back"):
        client.server_ready()


def test_closing_ends_calls_under_way_and_later_ones_as_cancelled(server: ScriptedServer, client: Client) -> None:
    asked, closed = threading.Event(), threading.Event()

    def wait(_: Any) -> Any:
        asked.set()
        closed.wait(10)
        return open_inference_pb2.ServerLiveResponse(live=True)

    server.scripts["ServerLive"] = wait
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(client.server_live)
        assert asked.wait(10)
        client.close()
        with pytest.raises(errors.RequestCancelledError, match="was closed before it could say whether it is live"):
            under_way.result(10)
        closed.set()
    assert len(server.requests("ServerLive")) == 1
    with pytest.raises(errors.RequestCancelledError):
        client.server_live()


def test_without_retries_the_first_refusal_counts(server: ScriptedServer) -> None:
    _refuse(server, "ServerReady", Refusal(grpc.StatusCode.UNAVAILABLE, "draining"))
    with Client(server.address, retries=NO_RETRIES) as client, pytest.raises(errors.ServerUnavailableError):
        client.server_ready()


def test_a_slow_reply_is_a_deadline_error(server: ScriptedServer) -> None:
    answered_too_late = threading.Event()

    def slow(request: Any) -> Any:
        answered_too_late.wait(10)
        return open_inference_pb2.ServerLiveResponse(live=True)

    server.scripts["ServerLive"] = slow
    with Client(server.address, timeout_s=0.1) as client, pytest.raises(errors.DeadlineExceededError, match=r"0\.1 s"):
        client.server_live()
    answered_too_late.set()


def test_a_server_that_is_not_there_fails_clearly_within_seconds(unused_address: str) -> None:
    started = time.monotonic()
    with Client(unused_address, timeout_s=3 * SOON_S) as client, pytest.raises(errors.ServerUnavailableError) as caught:
        client.server_live()
    assert str(caught.value) == (
        f"no server answers at {unused_address}: Connection refused; check the address and that it is running"
    )
    assert time.monotonic() - started < SOON_S


def test_a_host_that_never_speaks_does_not_eat_the_deadline(silent_address: str) -> None:
    client = Client(silent_address, timeout_s=3 * SOON_S, connect_timeout_s=0.2, retries=QUICK)
    started = time.monotonic()
    with client, pytest.raises(errors.ServerUnavailableError, match="no server answers"):
        client.server_live()
    assert time.monotonic() - started < SOON_S


def test_messages_above_grpcs_own_limit_of_4_mib_arrive(server: ScriptedServer, client: Client) -> None:
    reply = open_inference_pb2.ModelInferResponse(model_name="m", model_version="1")
    reply.outputs.add(name="y", datatype="UINT8", shape=(6 << 20,))
    reply.raw_output_contents.append(bytes(6 << 20))
    server.scripts["ModelInfer"] = lambda _: reply
    assert client.infer("m", {}).outputs["y"].size == 6 << 20


@pytest.mark.parametrize(
    ("raw", "named"), [([b"abc"], "output 'y': 3 bytes came"), ([b"", b""], "2 raw contents came for 1 outputs")]
)
def test_a_reply_that_breaks_the_protocol_is_named(
    server: ScriptedServer, client: Client, raw: list[bytes], named: str
) -> None:
    reply = open_inference_pb2.ModelInferResponse(model_name="m", raw_output_contents=raw)
    reply.outputs.add(name="y", datatype="FP32", shape=(1,))
    server.scripts["ModelInfer"] = lambda _: reply
    with pytest.raises(errors.ReplyError, match=named):
        client.infer("m", {})


@pytest.mark.parametrize("address", ["", "localhost", "host:", "host:99999", "host:80/path", "http://host:80", ":8001"])
def test_what_is_no_address_is_refused_by_name(address: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match="expected HOST:PORT"):
        Client(address)


@pytest.mark.parametrize(
    "address",
    [8001, b"host:80", {"host": 80}, Path("host:80"), [["host:80"]], "[zz]:80", "a[b]:80", "unix:", "xds:///",
     "dns:", "dns:///", "dns:///host", "dns:///host:x", "dns://8.8.8.8/host:80", "dns:///host:80/path"],
)  # fmt: skip
def test_what_could_never_be_reached_is_refused_before_the_first_call(address: Any) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"expected|names nothing"):
        Client(address)


@pytest.mark.parametrize(
    ("address", "servers"),
    [("dns:///a:1,dns:///b:2", "dns:///a:1,dns:///b:2"), (" a:1 , b:2\n", "a:1,b:2"), ("unix:/a,b", "unix:/a,b"),
     ("[fe80::1%eth0]:1", "[fe80::1%eth0]:1"),
     (("ipv4:1.1.1.1:1,2.2.2.2:2", "unix:/x"), "1.1.1.1:1,2.2.2.2:2,unix:/x")],
)  # fmt: skip
def test_several_servers_are_told_apart(address: Any, servers: str) -> None:
    assert Client(address).address == servers


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"timeout_s": "5"}, "timeout_s is '5'"),
        ({"timeout_s": None}, "timeout_s is None"),
        ({"connect_timeout_s": None}, "connect_timeout_s is None"),
        ({"retries": 3}, "retries is 3; expected a RetryPolicy"),
        ({"batching": True}, "batching is True; expected a Batching"),
        ({"max_message_bytes": 1.5}, "max_message_bytes is 1.5"),
        ({"metadata": 5}, "metadata is 5; expected keys"),
        ({"token": b"x"}, "token is of bytes; expected text"),
        ({"ca": 5}, "ca is 5; expected the path"),
        ({"server_name": 5}, "server_name is 5; expected text"),
    ],
)
def test_a_setting_of_another_kind_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    for client in (Client, AsyncClient):
        with pytest.raises(errors.InvalidRequestError, match=named):
            client("localhost:1", **settings)


def test_seconds_may_be_numpys(server: ScriptedServer) -> None:
    seconds: Any = np.float32(20)
    with Client(server.address, timeout_s=seconds) as client:
        assert client.server_live()
        assert client.server_live(timeout_s=seconds)


@pytest.mark.parametrize("address", ["localhost:1", "[::1]:8001", "10.0.0.1:8001", "unix:/tmp/socket", "dns:///host:1"])
def test_addresses_as_grpc_knows_them_are_accepted(address: str) -> None:
    Client(address).close()


@pytest.mark.parametrize("name", ["timeout_s", "connect_timeout_s"])
@pytest.mark.parametrize("seconds", [0, -1, 86_401, 1e300, float("inf"), float("nan")])
def test_a_timeout_that_makes_no_sense_is_refused(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is .*; expected more than 0 and up to 86400"):
        Client("localhost:1", **{name: seconds})  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [-2, 2**31])
def test_a_message_size_that_grpc_cannot_be_told_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"max_message_bytes is {size}; expected -1"):
        Client("localhost:1", max_message_bytes=size)


def test_a_day_of_patience_is_accepted(server: ScriptedServer) -> None:
    with Client(server.address, timeout_s=86_400, connect_timeout_s=86_400, max_message_bytes=2**31 - 1) as client:
        assert client.server_live()


def test_every_public_name_exists() -> None:
    for name in inferry_client.__all__:
        assert getattr(inferry_client, name).__name__ == name


@pytest.mark.parametrize("name", inferry_client.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(inferry_client, name).__name__ == name
