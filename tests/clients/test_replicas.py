"""Real servers that are killed, restarted, stopped and drained while callers ask them."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Semaphore

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from inferry_client import Client, errors
from testkit import brightness_model
from testkit.onnx_models import save_brightness
from testkit.scripted_server import serving
from testkit.server_processes import server_processes
from testkit.servers import running_server

CALLERS = 8
PIXELS = {"images": np.zeros((1, 8, 8, 1), np.uint8)}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    save_brightness(tmp_path / "models", name="mnist", side=8)
    return tmp_path / "models"


@contextmanager
def callers(client: Client) -> Iterator[Callable[[int], None]]:
    """Threads that ask without a pause; what is given waits for so many answers more. Their errors are raised."""
    stop, answered = Event(), Semaphore(0)

    def ask() -> None:
        while not stop.is_set():
            client.infer("mnist", PIXELS, timeout_s=20)
            answered.release()

    def wait_for(count: int) -> None:
        for _ in range(count):
            assert answered.acquire(timeout=60)  # a loaded machine starts servers slowly

    with ThreadPoolExecutor(CALLERS) as pool:
        asking = [pool.submit(ask) for _ in range(CALLERS)]
        try:
            yield wait_for
        finally:
            stop.set()
        for future in asking:
            future.result(30)


def test_callers_do_not_see_replicas_killed_and_restarted(repository: Path) -> None:
    with (
        server_processes(repository, 3) as servers,
        Client([server.address for server in servers]) as client,
        callers(client) as wait_for,
    ):
        wait_for(100)
        servers[0].kill()
        wait_for(100)
        servers[0].start()
        servers[1].terminate()
        wait_for(100)
        servers[1].start()
        servers[2].kill()
        wait_for(100)
        servers[2].start()


def test_a_stream_does_not_see_its_server_restarted(repository: Path) -> None:
    with ExitStack() as running:
        address = running.enter_context(running_server(repository)).grpc_address
        with Client(str(address)) as client:
            results = client.stream("mnist", (PIXELS for _ in range(300)), window=8, timeout_s=20)
            count = 0
            for result in results:
                assert result.outputs["probabilities"].argmax() == 0
                count += 1
                if count == 100:
                    running.close()
                    running.enter_context(running_server(repository, grpc_address=address))
            assert count == 300


def test_callers_do_not_see_the_only_server_restarted(repository: Path) -> None:
    with ExitStack() as running:
        address = running.enter_context(running_server(repository)).grpc_address
        with Client(str(address)) as client, callers(client) as wait_for:
            for _ in range(3):
                wait_for(50)
                running.close()
                running.enter_context(running_server(repository, grpc_address=address))
            wait_for(50)


def test_a_server_that_hangs_costs_callers_one_deadline_each_and_gets_requests_again_when_it_goes_on(
    repository: Path,
) -> None:
    with server_processes(repository, 2) as (good, hung), Client([good.address, hung.address]) as client:

        def ask(_: int, timeout_s: float = 0.5) -> str:
            try:
                client.infer("mnist", PIXELS, timeout_s=timeout_s)
            except errors.DeadlineExceededError as error:
                return f"late: {error.address}"
            return "answered"

        client.wait_until_ready("mnist")
        assert [ask(0, timeout_s=20) for _ in range(4)] == ["answered"] * 4
        hung.hang()
        with ThreadPoolExecutor(CALLERS) as pool:
            outcomes = Counter(pool.map(ask, range(50 * CALLERS)))
        assert set(outcomes) == {"answered", f"late: {hung.address}"}
        assert outcomes[f"late: {hung.address}"] <= CALLERS
        hung.go_on()
        good.kill()
        client.infer("mnist", PIXELS, timeout_s=20)
        good.start()


@contextmanager
def server_with_health() -> Iterator[tuple[str, health.HealthServicer, list[str]]]:
    """A scripted server behind a real health service: its address, the service, and the RPCs that came."""
    came: list[str] = []

    class Counting(grpc.ServerInterceptor):
        def intercept_service(self, continuation, details):  # type: ignore[no-untyped-def]
            came.append(details.method.rsplit("/", 1)[1])
            return continuation(details)

    servicer = health.HealthServicer()
    with serving(
        brightness_model.scripts(),
        interceptors=[Counting()],
        add=lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server),
    ) as scripted:
        yield scripted.address, servicer, came


def test_a_replica_that_says_it_does_not_serve_gets_no_requests() -> None:
    pixels = {"image": np.zeros((1, 8, 8, 1), np.uint8)}
    with server_with_health() as (sick, sick_health, came), server_with_health() as (well, well_health, _):
        sick_health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        well_health.set("", health_pb2.HealthCheckResponse.SERVING)
        with Client([sick, well]) as client:
            for _ in range(20):
                client.infer("brightness", pixels)
            assert "ModelInfer" not in came
            sick_health.set("", health_pb2.HealthCheckResponse.SERVING)
            well_health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
            for _ in range(20):
                client.infer("brightness", pixels)
            assert came.count("ModelInfer") >= 19  # one may have met the other before it heard of its health


def test_questions_about_a_server_reach_it_while_it_does_not_serve() -> None:
    with server_with_health() as (address, servicer, _), serving(brightness_model.scripts()) as other:
        servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        with Client([address, other.address]) as client:
            assert [client.ready() for _ in range(4)] == [True] * 4
    assert len(other.requests("ServerReady")) == 2


def test_more_pictures_than_a_server_takes_in_a_request_are_all_classified(repository: Path) -> None:
    levels = [0, 255, 0] * 100
    pictures = [np.full((8, 8), level, np.uint8) for level in levels]
    with running_server(repository) as server, Client(str(server.grpc_address)) as client:
        images = client.classify("mnist", pictures).images
        outputs = client.infer("mnist", {"images": np.stack(pictures)[..., None]}).outputs
    labels = {0: "dark", 255: "bright"}
    assert [image[0].label for image in images] == [labels[level] for level in levels]
    (probabilities,) = outputs.values()
    assert len(probabilities) == 300
    assert [row.argmax() for row in probabilities] == [image[0].index for image in images]
