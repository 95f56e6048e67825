"""A receipt commits a part: what its pictures were, what became of each, and the digest of the file beside it.

A part file without its receipt does not count; it is made again, with the same bytes.
"""

import json
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _text
from typing import NamedTuple

from inferry_client.batch.priority import in_turns
from inferry_client.batch.records import Fault

_ENTRY_TYPES = [str, int, str, str, str, str]


class Entry(NamedTuple):
    """One picture of a part.

    Attributes:
        id: of its record.
        size_bytes: as listed.
        stamp: of its record, when it was read.
        digest: half a sha256 of the bytes that were classified; empty where none could be read.
        kind: of its error; empty where it was answered.
        reason: of its error.
    """

    id: str
    size_bytes: int
    stamp: str
    digest: str
    kind: str = ""
    reason: str = ""

    @property
    def fault(self) -> Fault | None:
        """Why it has no answer; None if it has."""
        return Fault(self.kind, self.reason) if self.kind else None


@dataclass(frozen=True)
class Receipt:
    """A part that is complete.

    Attributes:
        sha256: of the part file.
        size_bytes: of the part file.
        model_version: that answered.
        entries: its pictures, in order.
    """

    sha256: str
    size_bytes: int
    model_version: str
    entries: Sequence[Entry]

    @property
    def bad(self) -> int:
        """Pictures without an answer."""
        return sum(1 for entry in self.entries if entry.kind)


def write_receipt(receipt: Receipt) -> bytes:
    """The receipt as JSON, a picture a line."""
    head = {"sha256": receipt.sha256, "size_bytes": receipt.size_bytes, "model_version": receipt.model_version}
    lines = ",\n".join(map(_line, in_turns(receipt.entries)))
    return f'{json.dumps(head)[:-1]}, "entries": [\n{lines}\n]}}\n'.encode()


def _line(entry: Entry) -> str:
    """As `json.dumps` writes it, which makes an encoder anew for every list: four times the time."""
    size = entry.size_bytes
    own_id, stamp, digest, kind, reason = map(_text, (entry.id, entry.stamp, entry.digest, entry.kind, entry.reason))
    return f"[{own_id}, {size}, {stamp}, {digest}, {kind}, {reason}]"


def read_receipt(data: bytes) -> Receipt:
    """The receipt that `write_receipt` wrote.

    Raises:
        ValueError: it is not one.
    """
    document = json.loads(data)
    try:
        rows = document.pop("entries")
        for row in rows:
            if list(map(type, row)) != _ENTRY_TYPES:
                raise ValueError(f"it has an entry that is none: {reprlib.repr(row)}")
        return Receipt(entries=[Entry(*row) for row in rows], **document)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"it is no receipt: {error}") from error
