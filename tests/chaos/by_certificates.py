"""Certificates, their authority and tokens are exchanged."""

import ssl
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from chaos.models import SIDE
from chaos.scene import FaultError, Scene, Setup
from chaos.traffic import NoAnswerError, over_grpc
from rehearsal.rotation import Secret
from testkit.certificates import Authority, Certificate
from testkit.policies import save_policy, token_of

_NAMES = ("DNS:localhost", "IP:127.0.0.1")
_APPLIED_S = 3.0  # two looks, a second apart, and one more
_FIRST, _SECOND = "first", "second"
_OPEN = 'metrics = "open"'


@dataclass
class Changing:
    """What is exchanged.

    Attributes:
        caller: whose token the callers show now.
    """

    secret: Secret
    issued: tuple[Certificate, Certificate]
    policy: Path
    caller: str = _FIRST

    def token(self) -> str:
        """For the next request."""
        return token_of(self.caller)


def encrypted(folder: Path) -> Setup:
    """A server with TLS and tokens, whose files are those of a mounted Secret; callers trust two authorities."""
    authorities = [Authority(folder, name) for name in ("authority1", "authority2")]
    first, second = (one.issue(f"server{number}", *_NAMES) for number, one in enumerate(authorities))
    secret = Secret(folder / "tls")
    secret.put(first, "start")
    policy = save_policy(folder / "policy.toml", _OPEN, first=["infer"])
    changing = Changing(secret, (first, second), policy)
    trusted = b"".join(one.certificate.read_bytes() for one in authorities)
    context = ssl.create_default_context(cadata=trusted.decode())
    options = ("--tls-certificate", str(secret.certificate), "--tls-private-key", str(secret.key),
               "--access-policy", str(policy))  # fmt: skip
    way = {"authorities": trusted, "token": changing.token}
    return Setup(folder / "models", options, {"tls": context}, way, state=changing)


def exchange(scene: Scene) -> str:
    """Another authority's certificate and back, some times over; then another token, and the first one is revoked."""
    changing: Changing = scene.setup.state
    rounds = scene.times(4)
    for number in range(rounds):
        issued = changing.issued[(number + 1) % 2]
        changing.secret.put(issued, str(number))
        scene.wait_for(lambda issued=issued: _shows(scene, issued), "shown: the new certificate")  # type: ignore[misc]
        time.sleep(1.0)
    save_policy(changing.policy, _OPEN, first=["infer"], second=["infer"])
    time.sleep(_APPLIED_S)
    changing.caller = _SECOND
    time.sleep(1.0)
    save_policy(changing.policy, _OPEN, second=["infer"])
    scene.over()
    scene.wait_for(lambda: _outcome_of(scene, _FIRST) == "UNAUTHENTICATED", "refused: the token that was revoked")
    if _outcome_of(scene, _SECOND) != "":
        raise FaultError("the new token is refused")
    return f"certificate and authority are exchanged {rounds} times, then the token; the old one is refused"


def _shows(scene: Scene, issued: Certificate) -> bool:
    shown = ssl.get_server_certificate((scene.way.grpc_port.host, scene.way.grpc_port.port))
    return shown.strip() in issued.certificate.read_text()


def _outcome_of(scene: Scene, caller: str) -> str:
    """Of one request with a caller's token; empty: an answer."""
    with over_grpc(replace(scene.way, token=lambda: token_of(caller))) as ask:
        try:
            ask(np.zeros((1, SIDE, SIDE, 1), np.uint8))
        except NoAnswerError as error:
            return str(error)
    return ""
