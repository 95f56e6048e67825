"""Access policies with callers whose tokens a test knows."""

import hashlib
from collections.abc import Sequence
from pathlib import Path


def token_of(caller: str) -> str:
    """The token of a caller."""
    return f"the-token-of-{caller}"


def digest_of(token: str) -> str:
    """As `sha256sum` prints it."""
    return hashlib.sha256(token.encode()).hexdigest()


def save_policy(path: Path, *lines: str, **callers: Sequence[str]) -> Path:
    """A policy: lines of its own, and callers by name with their roles, each with the token of its name."""
    text = "\n".join(lines) + "\n"
    for name, roles in callers.items():
        text += f'[callers.{name}]\nroles = {list(roles)}\ntokens_sha256 = ["{digest_of(token_of(name))}"]\n'
    path.write_text(text)
    return path
