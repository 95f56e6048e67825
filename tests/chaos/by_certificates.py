"""Certificates, authorities and tokens are exchanged under mutual TLS; who shows the old ones is refused afterwards."""

import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from chaos.models import SIDE
from chaos.scene import FaultError, Scene, Setup
from chaos.traffic import NoAnswerError, Way, over_grpc, over_http
from rehearsal.rotation import Secret
from testkit.certificates import Authority, Certificate
from testkit.policies import save_policy, token_of

_NAMES = ("DNS:localhost", "IP:127.0.0.1")
_APPLIED_S = 3.0  # two looks, a second apart, and one more
_FIRST, _SECOND = "first", "second"
_OPEN = 'metrics = "open"'
_ANSWERED = "answered"
# What a caller sees of a handshake that the server ends: over gRPC; over HTTP, where it ends after the client's part.
_NO_HANDSHAKE = frozenset(("UNAVAILABLE", "SSLError", "SSLEOFError", "ConnectionResetError", "RemoteDisconnected",
                           "BrokenPipeError"))  # fmt: skip
_NO_ROLE = frozenset(("UNAUTHENTICATED", "HTTP 401"))
_WAYS = (over_grpc, over_http)


@dataclass
class Changing:
    """What is exchanged.

    Attributes:
        secret: what the server reads.
        issued: the server's certificates, from two authorities.
        clients: the authorities of callers.
        identities: of callers, by name, each from an authority of its own.
        caller: whose token and certificate the callers show now.
        shown: the server's certificate now.
        puts: how often the secret's contents were exchanged.
    """

    secret: Secret
    issued: tuple[Certificate, Certificate]
    clients: dict[str, Authority]
    identities: dict[str, Certificate]
    policy: Path
    shown: Certificate
    caller: str = _FIRST
    puts: int = 0

    def token(self) -> str:
        """For the next request."""
        return token_of(self.caller)

    def identity(self) -> Certificate:
        """For the next connection."""
        return self.identities[self.caller]

    def let_in(self, callers: Sequence[str]) -> None:
        """Have the authorities of these callers alone let clients in."""
        authorities = b"".join(self.clients[name].certificate.read_bytes() for name in callers)
        self.puts += 1
        self.secret.put(self.shown, str(self.puts), authorities=authorities)

    def know(self, callers: Sequence[str]) -> None:
        """Have the policy know the tokens of these callers alone."""
        save_policy(self.policy, _OPEN, **{name: ["infer"] for name in callers})


def mutual(folder: Path) -> Setup:
    """A server with mutual TLS and tokens, whose files are those of a mounted Secret; callers trust two authorities."""
    authorities = [Authority(folder, name) for name in ("authority1", "authority2")]
    first, second = (one.issue(f"server{number}", *_NAMES) for number, one in enumerate(authorities))
    clients = {name: Authority(folder, f"clients-{name}") for name in (_FIRST, _SECOND)}
    identities = {name: one.issue(f"client-{name}", f"DNS:{name}.test") for name, one in clients.items()}
    secret, policy = Secret(folder / "tls"), folder / "policy.toml"
    changing = Changing(secret, (first, second), clients, identities, policy, first)
    changing.let_in([_FIRST])
    changing.know([_FIRST])
    trusted = b"".join(one.certificate.read_bytes() for one in authorities)
    context = ssl.create_default_context(cadata=trusted.decode())
    options = ("--tls-certificate", str(secret.certificate), "--tls-private-key", str(secret.key),
               "--tls-client-ca", str(secret.authorities), "--access-policy", str(policy),
               "--metrics-without-certificate")  # fmt: skip
    way = {"authorities": trusted, "token": changing.token, "identity": changing.identity}
    return Setup(folder / "models", options, {"tls": context}, way, state=changing)


def exchange(scene: Scene) -> str:
    """The server's certificate with its authority, some times over; then the callers' authority and token."""
    changing: Changing = scene.setup.state
    rounds = scene.times(4)
    for number in range(rounds):
        changing.shown = changing.issued[(number + 1) % 2]
        changing.let_in([_FIRST])
        scene.wait_for(lambda: _shows(scene, changing.shown), "shown: the new certificate")
        time.sleep(1.0)
    changing.let_in([_FIRST, _SECOND])
    changing.know([_FIRST, _SECOND])
    time.sleep(_APPLIED_S)
    changing.caller = _SECOND
    time.sleep(1.0)
    changing.let_in([_SECOND])
    changing.know([_SECOND])
    scene.over()
    first, second = (changing.identities[name] for name in (_FIRST, _SECOND))
    attempts = (
        ("a certificate of the authority that is gone", first, _SECOND, _NO_HANDSHAKE),
        ("certificate and token that are gone", first, _FIRST, _NO_HANDSHAKE),
        ("the token that was revoked", second, _FIRST, _NO_ROLE),
        ("no certificate", None, _SECOND, _NO_HANDSHAKE | _NO_ROLE),
    )
    for what, identity, token, expected in attempts:
        way = replace(scene.way, identity=partial(_same, identity), token=partial(token_of, token))
        scene.wait_for(partial(_end_as, way, expected), f"refused: {what}")
    if _outcomes(scene.way) != {_ANSWERED}:
        raise FaultError("the new certificate and token are refused")
    return (
        f"the server's certificate and authority are exchanged {rounds} times, then the clients' authority and token; "
        f"{', '.join(what for what, *_ in attempts)}: refused over gRPC and HTTP"
    )


def _same(identity: Certificate | None) -> Certificate | None:
    return identity


def _end_as(way: Way, expected: frozenset[str]) -> bool:
    return _outcomes(way) <= expected


def _shows(scene: Scene, issued: Certificate) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    identity: Certificate = scene.setup.state.identity()
    context.load_cert_chain(identity.certificate, identity.key)
    where = (scene.way.grpc_port.host, scene.way.grpc_port.port)
    with socket.create_connection(where) as plain, context.wrap_socket(plain) as encrypted:
        shown = ssl.DER_cert_to_PEM_cert(encrypted.getpeercert(binary_form=True) or b"")
    return shown.strip() in issued.certificate.read_text()


def _outcomes(way: Way) -> set[str]:
    """Of one request over gRPC and one over HTTP, each over a new connection."""
    seen = set()
    for how in _WAYS:
        with how(way) as ask:
            try:
                ask(np.zeros((1, SIDE, SIDE, 1), np.uint8))
            except NoAnswerError as error:
                seen.add(str(error))
            else:
                seen.add(_ANSWERED)
    return seen
