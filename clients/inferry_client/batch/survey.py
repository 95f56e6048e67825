"""Before anything is sent: which pictures there are, and whether those that are done are still the same."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from inferry_client.batch.plan import Listing, list_parts, listing_of, part_digest
from inferry_client.batch.receipts import Entry, Receipt
from inferry_client.batch.records import ContentError, Record, content_digest

_STAMP_BYTES = 8


@dataclass(frozen=True)
class Survey:
    """What a first pass over the input found.

    Attributes:
        listing: of the pictures that are not in parts of earlier runs.
        changed: the id of a picture that is done and has other bytes by now; None if there is none.
    """

    listing: Listing
    changed: str | None


class Known:
    """The pictures of parts of earlier runs, about 150 bytes each.

    Attributes:
        count: of them.
        changed: the id of one that has other bytes by now; None if `compare` found none.
        gone: digests of the ids of those that `compare` did not find in the input.
    """

    def __init__(self, receipts: Iterable[Receipt]) -> None:
        self._entries = {
            _short(entry.id): (_short(entry.stamp)[:_STAMP_BYTES], entry.digest)
            for receipt in receipts
            for entry in receipt.entries
        }
        self.count = len(self._entries)
        self.changed: str | None = None
        self.gone: frozenset[bytes] = frozenset()

    def compare(self, records: Iterable[Record], *, most_bytes: int) -> Iterator[Record]:
        """Those that are not known; to the end, to see what became of those that are."""
        unseen = set(self._entries)
        for record in records:
            name = _short(record.id)
            entry = self._entries.get(name)
            if entry is None:
                yield record
                continue
            unseen.discard(name)
            if _short(record.stamp)[:_STAMP_BYTES] != entry[0] and not _reads_as(record, entry[1], most_bytes):
                self.changed = self.changed or record.id
        self.gone = frozenset(unseen)

    def fresh(self, records: Iterable[Record]) -> Iterator[Record]:
        """Those that are not known."""
        return (record for record in records if _short(record.id) not in self._entries)

    def is_gone(self, own_id: str) -> bool:
        """Whether a picture of earlier runs is not in the input."""
        return _short(own_id) in self.gone


def survey(
    records: Iterable[Record],
    *,
    part_size: int,
    receipt_of: Callable[[int], Receipt | None],
    most_bytes: int,
    found: Callable[[int], object] = lambda _: None,
) -> Survey:
    """List records, and compare those that are done with what they were.

    A picture whose stamp is another is read again: if its bytes are the same, it was only touched.

    Args:
        records: of the input, without those of earlier runs.
        part_size: pictures a part.
        receipt_of: the receipt of the nth part of this plan; None if it is not complete.
        most_bytes: of a picture.
        found: told after each part how many pictures there are so far.
    """
    digests, count, changed = [], 0, None
    for number, part in enumerate(list_parts(records, part_size)):
        digests.append(part_digest(part))
        count += len(part)
        found(count)
        receipt = receipt_of(number)
        if receipt is not None and changed is None:
            changed = _first_changed(part, receipt, most_bytes)
    return Survey(listing_of(digests, count), changed)


def _first_changed(part: list[Record], receipt: Receipt, most_bytes: int) -> str | None:
    for record, entry in zip(part, receipt.entries, strict=False):
        if not _is_same(record, entry, most_bytes):  # guard: batch-contents-bound
            return record.id
    return None


def _is_same(record: Record, entry: Entry, most_bytes: int) -> bool:
    if record.id != entry.id:
        return True  # another listing, which is said better
    return record.stamp == entry.stamp or _reads_as(record, entry.digest, most_bytes)


def _reads_as(record: Record, digest: str, most_bytes: int) -> bool:
    try:
        return content_digest(record.content.read(most_bytes=most_bytes)) == digest
    except ContentError:
        return not digest  # it could not be read then either


def _short(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
