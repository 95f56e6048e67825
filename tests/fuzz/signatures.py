"""Signatures that were tampered with: refused, unless they still state the same, signed with the same key."""

import base64
import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.mutation import CORPUS, TOKENS, mutated, rng_of
from fuzz.target import Check, Target, expect
from inferry_proto.signing import VERSION_SIGNATURE, SignatureError, verify_version

MODEL = "brightness"
_FOLDER = CORPUS / "signatures"


def statement(signature: bytes) -> bytes:
    """What was signed."""
    return base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"])


def _mutate(seed: int) -> bytes:
    rng = rng_of("signatures", seed)
    whole = (_FOLDER / MODEL / "1" / VERSION_SIGNATURE).read_bytes()
    if rng.random() < 0.5:
        return mutated(whole, rng, tokens=TOKENS)
    bundle = json.loads(whole)
    envelope = bundle["dsseEnvelope"]
    if rng.random() < 0.5:
        envelope["payload"] = _inside(envelope["payload"], rng)
    else:
        envelope["signatures"][0]["sig"] = _inside(envelope["signatures"][0]["sig"], rng)
    return json.dumps(bundle).encode()


def _inside(text: str, rng: random.Random) -> str:
    """Base64 with faults in what it stands for."""
    return base64.b64encode(mutated(base64.b64decode(text), rng)).decode()


@contextmanager
def _opened() -> Iterator[Check]:
    with TemporaryDirectory() as folder:
        version = Path(folder) / MODEL / "1"
        shutil.copytree(_FOLDER / MODEL / "1", version)
        signature, key = version / VERSION_SIGNATURE, _FOLDER / "key.pem"
        signed = statement(signature.read_bytes())
        verify_version(version, key, model=MODEL)

        def check(data: bytes) -> bool:
            signature.write_bytes(data)
            try:
                verify_version(version, key, model=MODEL)
            except SignatureError:
                return False
            expect(statement(data) == signed, "another statement than the signed one was accepted")
            return True

        yield check


SIGNATURES = Target("signatures", _mutate, _opened)
