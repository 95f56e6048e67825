"""TLS, client certificates and tokens, against real servers."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferry_client import AsyncClient, CertificateError, Client, errors
from inferry_client.cli import main
from inferry_client.connecting.security import Security, security_from_environment
from inferry_client.messages import questions
from testkit import brightness_model
from testkit.certificates import Authority, Certificate
from testkit.onnx_models import save_brightness
from testkit.scripted_server import serving
from testkit.server_processes import ServerProcess, server_processes
from testkit.servers import running_server


@dataclass(frozen=True)
class Keys:
    ca: Path
    other_ca: Path
    server: Certificate
    named: Certificate
    client: Certificate
    strange: Certificate


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    ours, theirs = Authority(folder, "ours"), Authority(folder, "theirs")
    return Keys(
        ours.certificate,
        theirs.certificate,
        ours.issue("server", "IP:127.0.0.1"),
        ours.issue("named", "DNS:inferry.test"),
        ours.issue("client", "DNS:caller"),
        theirs.issue("strange", "DNS:caller"),
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_brightness(folder, name="mnist", side=8)
    return folder


@pytest.fixture(scope="module")
def mutual(keys: Keys, repository: Path) -> Iterator[str]:
    """The address of a server that lets in whom `ours` knows."""
    tls: dict[str, Any] = {
        "tls_certificate": keys.server.certificate,
        "tls_private_key": keys.server.key,
        "tls_client_ca": keys.ca,
    }
    with running_server(repository, None, **tls) as server:
        yield str(server.grpc_address)


def _caller(keys: Keys) -> dict[str, Any]:
    return {"ca": keys.ca, "certificate": keys.client.certificate, "private_key": keys.client.key}


def test_both_sides_know_each_other(mutual: str, keys: Keys) -> None:
    with Client(mutual, **_caller(keys)) as client:
        assert client.classify("mnist", brightness_model.picture(255)).images[0][0].label == "bright"


def test_the_command_takes_flags_and_variables_that_mean_the_same(
    mutual: str, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--ca", keys.ca, "--certificate", keys.client.certificate, "--private-key", keys.client.key]
    assert main(["models", "--server", mutual, *map(str, flags)]) == 0
    assert main(["models", "--server", mutual]) == 1  # the flags did not stay
    assert main(["load", "--users", "1", "--duration", "1s", "--server", mutual, *map(str, flags)]) == 0
    monkeypatch.setenv("INFERRY_SERVER", mutual)
    for name, path in _caller(keys).items():
        monkeypatch.setenv(f"INFERRY_{name.upper()}", str(path))
    assert main(["models"]) == 0
    with Client() as client:
        assert client.ready()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"ca": "other_ca"}, "is not trusted (unable to get local issuer certificate); give with `ca`"),
        ({"tls": True, "ca": None}, "is not trusted"),
        ({"server_name": "elsewhere.test"}, "is for another name; give with `server_name`"),
        ({"private_key": "strange"}, "give the `private_key` that belongs to `certificate`"),
    ],
)
def test_a_certificate_that_is_wrong_is_an_error_that_says_which(
    mutual: str, keys: Keys, given: dict[str, Any], named: str
) -> None:
    files = {"other_ca": keys.other_ca, "strange": keys.strange.key}
    wrong = _caller(keys) | {name: files.get(value, value) for name, value in given.items()}
    with Client(mutual, **wrong) as client, pytest.raises(CertificateError) as caught:
        client.ready()
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("given", "named"), [((), "it may expect TLS"), (("ca",), "it may not accept the client's certificate")]
)
def test_a_server_that_hangs_up_on_strangers_is_said_to_expect_tls_or_another_certificate(
    mutual: str, keys: Keys, given: tuple[str, ...], named: str
) -> None:
    few = {name: _caller(keys)[name] for name in given}
    with Client(mutual, **few) as client, pytest.raises(errors.ServerUnavailableError, match=named):
        client.ready(timeout_s=0.5)


def test_a_server_without_tls_is_said_so(keys: Keys) -> None:
    with (
        serving(brightness_model.scripts()) as server,
        Client(server.address, ca=keys.ca) as client,
        pytest.raises(CertificateError, match="answers without TLS"),
    ):
        client.ready()


def test_a_server_may_be_known_by_another_name_than_its_address(keys: Keys, repository: Path) -> None:
    tls: dict[str, Any] = {"tls_certificate": keys.named.certificate, "tls_private_key": keys.named.key}
    with running_server(repository, None, **tls) as server:
        address = str(server.grpc_address)
        with Client(address, ca=keys.ca, server_name="inferry.test") as client:
            assert client.ready()
        with Client(address, ca=keys.ca) as client, pytest.raises(CertificateError, match="for another name"):
            client.ready()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ca": "/missing.pem"}, "ca /missing.pem cannot be read: No such file"),
        ({"ca": __file__}, "holds no CERTIFICATE; expected a PEM file"),
        ({"certificate": "x.pem"}, "certificate is set and private_key is not"),
        ({"private_key": "x.pem"}, "private_key is set and certificate is not"),
        ({"tls": False, "ca": "x.pem"}, "tls is False, and ca, which needs TLS, is set"),
        ({"tls": "0"}, "tls is '0'"),
        ({"token": "a\nb"}, "token holds what a header cannot carry"),
    ],
)
def test_settings_that_cannot_be_followed_are_named_at_once(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=named):
        Client("localhost:1", **settings)


def test_a_caller_has_one_authorization_the_nearest_to_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(client: Client, **options: Any) -> list[Any]:
        metadata = client._all_metadata(questions.server_live(**options)) or ()
        return [value for key, value in metadata if key == "authorization"]

    mine, calls = {"authorization": "mine"}, {"Authorization": "the call's", "a": "b"}
    word = "t"
    monkeypatch.setenv("INFERRY_TOKEN", "t")
    assert sent(Client("host:1")) == ["Bearer t"]
    assert sent(Client("host:1", metadata=mine)) == ["mine"]
    assert sent(Client("host:1", metadata=mine), metadata=calls) == ["the call's"]
    assert sent(Client("host:1"), metadata={"a": "b"}) == ["Bearer t"]
    with pytest.raises(errors.InvalidRequestError, match="expected one of the two"):
        Client("host:1", metadata=mine, token=word)


def test_a_token_is_in_no_message_and_no_representation() -> None:
    word = "geheim"
    no_text: Any = word.encode()
    with pytest.raises(errors.InvalidRequestError) as refused:
        Client("host:1", token=no_text)
    assert word not in str(refused.value)
    client = Client("host:1", token=word)
    assert word not in repr(client._settings) + repr(client.bare_channel(0))


def test_what_is_given_goes_before_the_environment() -> None:
    environment = {"INFERRY_CA": "/env/ca", "INFERRY_TOKEN": "of-env", "INFERRY_TLS": "true", "INFERRY_CERTIFICATE": ""}
    found = security_from_environment(Security(ca="/own/ca"), environment)
    assert found == Security(tls=True, ca="/own/ca", token="of-env")  # noqa: S106 - no secret
    with pytest.raises(errors.InvalidRequestError, match="INFERRY_TLS is 'maybe'; expected 1 or 0"):
        security_from_environment(Security(), {"INFERRY_TLS": "maybe"})


def test_no_tls_by_argument_goes_before_every_variable_that_asks_for_it(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERRY_TLS", "1")
    for name, path in _caller(keys).items():
        monkeypatch.setenv(f"INFERRY_{name.upper()}", str(path))
    monkeypatch.setenv("INFERRY_TOKEN", "of-env")
    with serving(brightness_model.scripts()) as server:
        with Client(server.address, tls=False) as client:
            assert client.ready()
            assert dict(client._all_metadata(questions.server_live()) or ()) == {"authorization": "Bearer of-env"}
        with Client(server.address) as client, pytest.raises(CertificateError, match="answers without TLS"):
            client.ready()


def test_no_reply_is_missing_or_wrong_while_one_of_two_replicas_restarts_behind_mutual_tls(
    keys: Keys, repository: Path
) -> None:
    tls = ["--tls-certificate", str(keys.server.certificate), "--tls-private-key", str(keys.server.key)]
    tls += ["--tls-client-ca", str(keys.ca)]
    pictures = [np.full((8, 8), 255 * (number % 2), np.uint8) for number in range(4000)]

    async def classify_all(servers: list[ServerProcess]) -> list[str]:
        restarting = threading.Event()
        room = asyncio.Semaphore(256)

        async def classify(client: AsyncClient, number: int) -> str:
            async with room:
                if number == len(pictures) // 4:
                    restarting.set()
                return (await client.classify("mnist", pictures[number])).images[0][0].label

        def restart() -> None:
            restarting.wait(60)
            servers[1].terminate()
            servers[1].start()

        restarted = asyncio.get_running_loop().run_in_executor(None, restart)
        async with AsyncClient([server.address for server in servers], timeout_s=30, **_caller(keys)) as client:
            labels = await asyncio.gather(*(classify(client, number) for number in range(len(pictures))))
        await restarted
        return labels

    with server_processes(repository, 2, *tls) as servers:
        labels = asyncio.run(classify_all(servers))
    assert labels == [("dark", "bright")[number % 2] for number in range(len(pictures))]
