"""The asynchronous client does what the synchronous one does, and both send what they are given."""

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from inferry_client import AsyncClient, Batching, Client, RetryPolicy, errors
from testkit import brightness_model
from testkit.scripted_server import Refusal, ScriptedServer, serving

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PIXELS = {"image": np.zeros((1, 8, 8, 1), np.uint8)}


class Metadata(grpc.ServerInterceptor):
    """Keeps what comes beside requests."""

    def __init__(self) -> None:
        self.came: dict[str, Any] = {}

    def intercept_service(self, continuation, details):  # type: ignore[no-untyped-def]
        self.came = dict(details.invocation_metadata)
        return continuation(details)


@pytest.fixture
def kept() -> Metadata:
    return Metadata()


@pytest.fixture
def server(kept: Metadata) -> Iterator[ScriptedServer]:
    with serving(brightness_model.scripts(), interceptors=[kept]) as scripted:
        yield scripted


def _public(client: type) -> dict[str, Any]:
    return {name: value for name, value in vars(client).items() if not name.startswith("_") and callable(value)}


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    old = {"describe_model", "repository_index", "server_ready", "server_live"}  # earlier names, synchronous only
    blocking, awaitable = _public(Client), _public(AsyncClient)
    assert set(blocking) - old == set(awaitable)
    for name, method in awaitable.items():
        ours, theirs = inspect.signature(method).parameters, inspect.signature(blocking[name]).parameters
        if name != "stream":  # whose items may come asynchronously
            assert list(map(str, ours.values())) == list(map(str, theirs.values())), name
        assert method.__doc__


@pytest.mark.parametrize("awaited", [False, True])
def test_everything_that_a_call_is_given_reaches_the_server(
    server: ScriptedServer, kept: Metadata, awaited: bool
) -> None:
    settings: dict[str, Any] = {"token": "s3cret", "metadata": {"Tenant": "blue"}}
    options: dict[str, Any] = {"metadata": {"X-Call": "7"}, "traceparent": TRACE, "request_id": "r1"}
    parameters: dict[str, Any] = {"flag": True, "count": -3, "share": 0.5, "word": "é"}

    async def ask() -> Any:
        async with AsyncClient(server.address, **settings) as client:
            return await client.infer("brightness", PIXELS, priority=2, parameters=parameters, **options)

    if awaited:
        result = asyncio.run(ask())
    else:
        with Client(server.address, **settings) as client:
            result = client.infer("brightness", PIXELS, priority=2, parameters=parameters, **options)
    assert result.request_id == "r1"
    expected = {"authorization": "Bearer s3cret", "tenant": "blue", "x-call": "7", "traceparent": TRACE}
    assert expected.items() <= kept.came.items()
    (request,) = server.requests("ModelInfer")
    sent = {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in request.parameters.items()}
    assert sent == parameters | {"priority": 2}
    assert request.parameters["priority"].WhichOneof("parameter_choice") == "uint64_param"


def test_tasks_classify_at_the_same_time_and_refusals_are_asked_again(server: ScriptedServer) -> None:
    answer, refusals = server.scripts["Classify"], iter(range(10))

    def refuse_first(request: Any) -> Any:
        if next(refusals, None) is not None:
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "draining")
        return answer(request)

    server.scripts["Classify"] = refuse_first

    async def ask() -> list[str]:
        async with AsyncClient(server.address, retries=RetryPolicy(initial_backoff_s=0.01)) as client:
            await client.wait_until_ready("brightness")
            results = await asyncio.gather(
                *(client.classify("brightness", brightness_model.picture(level)) for level in (0, 255) * 20)
            )
            return [result.images[0][0].label for result in results]

    assert asyncio.run(ask()) == ["dark", "bright"] * 20


def test_a_closed_client_and_a_cancelled_task_end_clearly(server: ScriptedServer) -> None:
    async def ask() -> None:
        client = AsyncClient(server.address)
        assert await client.ready()
        await client.close()
        with pytest.raises(errors.RequestCancelledError):
            await client.ready()
        async with AsyncClient("127.0.0.1:1") as other:
            task = asyncio.create_task(other.run(_live()))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(ask())


@pytest.mark.parametrize("batching", [None, Batching()])
def test_a_call_on_another_event_loop_is_refused_in_words(server: ScriptedServer, batching: Batching | None) -> None:
    client = AsyncClient(server.address, batching=batching)

    async def ask() -> Any:
        return await client.infer(brightness_model.MODEL, PIXELS)

    async def ask_beside() -> Any:
        await ask()
        return await asyncio.get_running_loop().run_in_executor(None, asyncio.run, ask())

    with pytest.raises(errors.InvalidRequestError, match="belongs to that of its first call; make one for each loop"):
        asyncio.run(ask_beside())
    for _ in range(2):
        with pytest.raises(errors.InvalidRequestError, match="make one for each loop"):
            asyncio.run(ask())
    asyncio.run(client.close())


def _live() -> Any:
    from inferry_client.messages import questions

    return questions.server_live()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_a_pil_image_is_answered_as_its_file_is(mode: str) -> None:
    with serving(brightness_model.scripts()) as server, Client(server.address) as client:
        pixels = np.linspace(0, 255, 400).reshape(20, 20).astype(np.uint8)
        image = Image.fromarray(pixels).convert("L")
        image = Image.fromarray(pixels.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
        result = client.classify("brightness", [image, image.convert("L") if mode != "I;16" else pixels], top_k=3)
        first, second = ([c.probability for c in picture] for picture in result.images)
        if mode not in ("1", "P", "CMYK"):  # whose conversion to grey takes another way
            assert first == pytest.approx(second, abs=0.02)


def test_paths_bytes_and_arrays_alone_or_several(tmp_path: Any) -> None:
    path = tmp_path / "bright.png"
    path.write_bytes(brightness_model.picture(255))
    array = np.full((6, 5), 255, np.uint8)
    with serving(brightness_model.scripts()) as server, Client(server.address) as client:
        for one in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), array, array[..., None]):
            assert [image[0].label for image in client.classify("brightness", one).images] == ["bright"]
        several = [path, str(path), array, np.zeros((4, 4, 3), np.uint8)]
        assert len(client.classify("brightness", several).images) == 4
        assert len(client.classify("brightness", np.zeros((3, 8, 8, 1), np.uint8)).images) == 3
