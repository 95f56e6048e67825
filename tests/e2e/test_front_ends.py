"""A server with front ends, as processes: each may die, and what that costs stays with it."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import numpy as np
import psutil
import pytest

from bench.attacks.frames import DATA, Peer, frame, headers, message
from inferry_proto.open_inference_pb2 import ModelStatisticsRequest, ModelStreamInferResponse
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.addresses import Address, UnixAddress
from inferry_server.app import Server
from inferry_server.errors import StartError
from inferry_server.settings.settings import Settings
from testkit import onnx_models
from testkit.certificates import Authority
from testkit.policies import save_policy, token_of
from testkit.rpc import Future, call, first_output, infer_request
from testkit.servers import ANY_PORT, running_server
from testkit.waiting import SOON_S, wait_until

ONES = infer_request("doubler", x=np.ones((1, 3), np.float32)).SerializeToString()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path, front_ends="2") as running:
        yield running


def channel_to(server: Server) -> grpc.Channel:
    """A connection of its own, which the system gives to one of the front ends."""
    return grpc.insecure_channel(str(server.grpc_address), options=[("grpc.use_local_subchannel_pool", 1)])


def infer(channel: grpc.Channel) -> Future:
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(OPEN_INFERENCE["ModelInfer"].path)
    return stub.future(ONES, timeout=SOON_S, wait_for_ready=True)


def front_ends_of(pid: int) -> list[int]:
    """The processes of the front ends of a server, the oldest first."""
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # it has just ended
            if "inferry_server.front_ends" in child.cmdline():
                found.append(child.pid)
    return sorted(found)


def metric(server: Server, name: str) -> float:
    with urlopen(f"http://{server.metrics_address}/metrics", timeout=SOON_S) as page:
        found = re.search(rf"^{name} (\S+)$", page.read().decode(), re.MULTILINE)
    assert found, name
    return float(found[1])


def test_connections_are_spread_and_every_one_is_answered_by_the_same_models(server: Server) -> None:
    channels = [channel_to(server) for _ in range(16)]
    futures = [infer(channel) for channel in channels for _ in range(4)]
    assert all(first_output(future).tolist() == [2, 2, 2] for future in futures)
    assert metric(server, "inferry_front_ends") == 2
    counted = 'inferry_requests_received_total{method="' + OPEN_INFERENCE["ModelInfer"].path + '"}'
    assert metric(server, re.escape(counted)) == len(futures)
    for channel in channels:
        channel.close()


def test_front_ends_answer_over_grpcs_public_interface_too(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    policy = save_policy(tmp_path / "policy.toml", caller=("infer",))
    limits: dict[str, Any] = {"max_streams_per_connection": 64, "access_policy": policy}
    with running_server(tmp_path / "models", transport="aio", front_ends="2", **limits) as server:
        stub_path, stream_path = (OPEN_INFERENCE[name].path for name in ("ModelInfer", "ModelStreamInfer"))
        metadata = (("authorization", f"Bearer {token_of('caller')}"),)
        channels = [channel_to(server) for _ in range(8)]
        for channel in channels:
            unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(stub_path)
            futures = [unary.future(ONES, timeout=SOON_S, wait_for_ready=True, metadata=metadata) for _ in range(8)]
            assert all(first_output(future).tolist() == [2, 2, 2] for future in futures)
            stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(stream_path)
            replies = list(stream(iter([ONES] * 3), timeout=SOON_S, metadata=metadata))
            assert [ModelStreamInferResponse.FromString(reply).error_message for reply in replies] == [""] * 3
            refused = unary.future(ONES, timeout=SOON_S)
            assert refused.exception(SOON_S) is not None
            assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
        counted = re.escape(f'inferry_requests_outcome_total{{code="OK",method="{stub_path}",reason=""}}')
        wait_until(lambda: metric(server, counted) == 64, "the calls to be counted by the process with the models")
        os.kill(front_ends_of(os.getpid())[0], signal.SIGKILL)
        wait_until(lambda: metric(server, "inferry_front_end_ends_total") == 1, "the end to be told")
        wait_until(lambda: metric(server, "inferry_front_ends") == 2, "another one")
        for _ in range(4):
            with channel_to(server) as channel:
                unary = channel.unary_unary(stub_path)
                future = unary.future(ONES, timeout=SOON_S, wait_for_ready=True, metadata=metadata)
                assert first_output(future).tolist() == [2, 2, 2]
        for channel in channels:
            channel.close()


def test_over_grpcs_public_interface_a_front_end_cuts_off_who_reads_no_reply(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path, transport="aio", front_ends="1", reply_read_timeout_s=0.1) as server:
        assert isinstance(server.grpc_address, Address)
        peer = Peer(server.grpc_address.port, window=0)
        peer.send(headers(OPEN_INFERENCE["ModelInfer"].path) + frame(DATA, 1, 1, message(ONES)))

        def is_cut_off() -> bool:
            peer.look(0.1)
            return peer.seen["closed"] == 1

        wait_until(is_cut_off, "the connection to end")
        assert peer.seen["reset"] == 0  # over the completion queue the call alone would be
        wait_until(lambda: metric(server, "inferry_replies_unread_total") == 1, "the reply to be counted")


def test_a_front_end_that_dies_is_replaced_and_the_server_goes_on(server: Server) -> None:
    first, second = front_ends_of(os.getpid())
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: metric(server, "inferry_front_end_ends_total") == 1, "the end to be told")
    wait_until(lambda: metric(server, "inferry_front_ends") == 2, "another one")
    assert second in front_ends_of(os.getpid())
    for _ in range(8):  # of each of them, most likely
        with channel_to(server) as channel:
            assert first_output(infer(channel)).tolist() == [2, 2, 2]
    assert server.readiness.is_ready()


def test_a_front_end_that_is_replaced_uses_what_the_server_uses_and_not_what_the_files_hold(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    authority = Authority(tmp_path, "authority")
    own = authority.issue("localhost", "DNS:localhost")
    policy = save_policy(tmp_path / "policy.toml", old=("infer",))
    settings: dict[str, Any] = {"access_policy": policy, "tls_certificate": own.certificate, "tls_private_key": own.key}
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())

    def code(server: Server, caller: str) -> str:
        assert isinstance(server.grpc_address, Address)
        target = f"localhost:{server.grpc_address.port}"
        with grpc.secure_channel(target, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(OPEN_INFERENCE["ModelInfer"].path)
            metadata = (("authorization", f"Bearer {token_of(caller)}"),)
            future = stub.future(ONES, timeout=SOON_S, wait_for_ready=True, metadata=metadata)
            future.exception(SOON_S)
            return str(future.code().name)

    with running_server(tmp_path / "models", front_ends="1", **settings) as server:
        policy.write_text('anonymous = ["infer"]\ncallers = 1\n')  # which is refused as a whole
        own.key.unlink()
        for _ in range(2):
            server._watcher.look()
        os.kill(front_ends_of(os.getpid())[0], signal.SIGKILL)
        wait_until(lambda: metric(server, "inferry_front_end_ends_total") == 1, "the end to be told")
        wait_until(lambda: metric(server, "inferry_front_ends") == 1, "another one")
        assert [code(server, caller) for caller in ("old", "new")] == ["OK", "UNAUTHENTICATED"]
        save_policy(policy, new=("infer",))
        for _ in range(2):
            server._watcher.look()
        assert [code(server, caller) for caller in ("old", "new")] == ["UNAUTHENTICATED", "OK"]


def test_calls_of_a_front_end_that_dies_fail_and_no_others(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path, front_ends="2") as server:
        channels = [channel_to(server) for _ in range(12)]
        for channel in channels:
            infer(channel).result(SOON_S)
        streams: list[grpc.StreamStreamMultiCallable[bytes, bytes]] = [
            channel.stream_stream(OPEN_INFERENCE["ModelStreamInfer"].path) for channel in channels
        ]
        never = threading.Event()

        def wait() -> Iterator[bytes]:
            yield ONES
            never.wait(SOON_S)

        opened = [stream(wait(), timeout=SOON_S) for stream in streams]
        for stream in opened:
            next(stream)
        os.kill(front_ends_of(os.getpid())[0], signal.SIGKILL)
        wait_until(lambda: metric(server, "inferry_front_end_ends_total") == 1, "the end to be told")
        cancelled = sum(stream.code() == grpc.StatusCode.UNAVAILABLE for stream in opened if not stream.is_active())
        going_on = [channel for channel, stream in zip(channels, opened, strict=True) if stream.is_active()]
        assert cancelled + len(going_on) == len(channels)
        for channel in going_on:
            assert first_output(infer(channel)).tolist() == [2, 2, 2]
        open_streams = 'inferry_open_streams{method="' + OPEN_INFERENCE["ModelStreamInfer"].path + '"}'
        wait_until(
            lambda: metric(server, re.escape(open_streams)) == len(going_on), "the others' streams to be counted"
        )
        never.set()
        for channel in channels:
            channel.close()


@contextmanager
def process(repository: Path, *options: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    command = [sys.executable, "-m", "inferry_server", "--repository", str(repository), "--provider", "cpu"]
    command += ["--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--front-ends", "2", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield server, server.stdout.readline().split("gRPC ")[1].split(",")[0]
        finally:
            server.kill()


def test_the_end_of_the_owner_is_the_end_of_its_front_ends(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with process(tmp_path) as (server, address):
        front_ends = front_ends_of(server.pid)
        assert len(front_ends) == 2
        server.kill()
        server.wait(SOON_S)
        wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in front_ends), "their end")
        with socket.socket() as probe:  # and the port is free
            host, _, port = address.rpartition(":")
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))


def test_an_interrupt_of_the_whole_group_stops_the_server_in_order(tmp_path: Path) -> None:
    """As a terminal sends it: to every process, and the owner alone decides."""
    onnx_models.save_doubler(tmp_path)
    with process(tmp_path) as (server, address), grpc.insecure_channel(address) as channel:
        infer(channel).result(SOON_S)
        for pid in front_ends_of(server.pid):
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        assert first_output(infer(channel)).tolist() == [2, 2, 2]
        server.send_signal(signal.SIGTERM)
        assert server.wait(SOON_S) == 0


def test_a_port_is_not_shared_with_another_server(server: Server, tmp_path: Path) -> None:
    assert isinstance(server.grpc_address, Address)
    for front_ends in ("0", "1"):
        other = Server(
            Settings(
                repository=tmp_path,
                grpc_address=server.grpc_address,
                http_address=ANY_PORT,
                provider="cpu",
                front_ends=front_ends,
            )
        )
        with pytest.raises(StartError, match=r"gRPC address .* cannot be bound"):
            other.start()


def test_a_unix_socket_and_front_ends_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="front_ends is 2 and grpc_address is unix:"):
        Settings(repository=tmp_path, grpc_address=UnixAddress("unix", "inferry.sock"), front_ends="2")


@pytest.mark.parametrize(("cores", "count"), [(1, 0), (2, 0), (4, 0), (8, 1), (16, 3), (64, 8)])
def test_front_ends_are_chosen_for_machines_with_many_cores(tmp_path: Path, cores: int, count: int) -> None:
    assert Settings(repository=tmp_path, front_ends="auto").front_end_count(cores) == count
    assert Settings(repository=tmp_path).front_end_count(cores) == 0


@pytest.mark.parametrize("text", ["-1", "65", "two", "", "1.5", "٣"])
def test_a_number_of_front_ends_that_cannot_be_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(StartError, match=r"setting front_ends is .*; expected auto, or 0 to 64"):
        Settings(repository=tmp_path, front_ends=text)


def test_large_requests_and_replies_come_whole_and_each_to_its_caller(tmp_path: Path) -> None:
    width = 1 << 20
    onnx_models.save_negative(tmp_path, width=width)
    random = np.random.default_rng(0)
    with running_server(tmp_path, front_ends="1", max_batch_size=4) as server:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(str(server.grpc_address), options) as channel:
            unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(OPEN_INFERENCE["ModelInfer"].path)
            for rows in (1, 2, 6):
                sent = [random.integers(-127, 128, (rows, width), np.int8) for _ in range(3)]
                messages = [infer_request("negative", x=pixels).SerializeToString() for pixels in sent]
                futures = [unary.future(message, timeout=SOON_S) for message in messages]
                for pixels, future in zip(sent, futures, strict=True):
                    assert np.array_equal(first_output(future, np.int8).reshape(rows, width), -pixels)
            stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
                OPEN_INFERENCE["ModelStreamInfer"].path
            )
            requests = (infer_request("negative", x=np.full((1, width), level, np.int8)) for level in range(20))
            answers = stream((request.SerializeToString() for request in requests), timeout=SOON_S)
            replies = [ModelStreamInferResponse.FromString(answer).infer_response for answer in answers]
            levels = [np.frombuffer(reply.raw_output_contents[0], np.int8) for reply in replies]
            assert [(each.min(), each.max(), each.size) for each in levels] == [(-n, -n, width) for n in range(20)]


def test_statistics_over_a_front_end_are_those_of_all(server: Server) -> None:
    channels = [channel_to(server) for _ in range(8)]
    for channel in channels:
        infer(channel).result(SOON_S)
    for channel in channels:
        statistics = call(channel, "ModelStatistics", ModelStatisticsRequest(name="doubler"))
        assert statistics.model_stats[0].inference_count == 8
        channel.close()
