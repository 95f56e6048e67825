"""The access policy and the files of TLS, as the owner uses them: front ends read none of them themselves.

A file that the owner refuses is used nowhere, and a front end can begin while one cannot be used.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferry_server.security.watching import Contents


@dataclass(frozen=True)
class UsedFiles:
    """What the files hold.

    Attributes:
        policy: the access policy; None: everybody may do everything.
        tls: the files of TLS; empty where connections are in the clear.
    """

    policy: bytes | None = field(default=None, repr=False)
    tls: Contents = field(default_factory=dict, repr=False)  # a key among them

    def to_table(self) -> dict[str, Any]:
        """For JSON."""
        policy = None if self.policy is None else _text(self.policy)
        return {"policy": policy, "tls": {str(path): _text(content) for path, content in self.tls.items()}}

    @staticmethod
    def from_table(table: Mapping[str, Any]) -> "UsedFiles":
        """What `to_table` made."""
        policy = None if table["policy"] is None else _bytes(table["policy"])
        return UsedFiles(policy, {Path(path): _bytes(text) for path, text in table["tls"].items()})


def write_used_files(files: UsedFiles) -> bytes:
    """The body of FILES."""
    return json.dumps(files.to_table()).encode()


def read_used_files(body: bytes) -> UsedFiles:
    """What `write_used_files` wrote."""
    return UsedFiles.from_table(json.loads(body))


def _text(content: bytes) -> str:
    return content.decode("latin-1")  # each byte a character, whatever it is


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")
