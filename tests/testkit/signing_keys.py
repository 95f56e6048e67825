"""Keys for signed models, made where a test needs them."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


@dataclass(frozen=True)
class KeyPair:
    """PEM files."""

    private: Path
    public: Path


def make_keys(folder: Path, name: str) -> KeyPair:
    """A pair of elliptic curve keys."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = KeyPair(folder / f"{name}.key", folder / f"{name}.pem")
    made.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    made.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return made
