"""The answers of one part, gathered chunk by chunk in the order of its records."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inferry_client.batch.decode import Decoded
from inferry_client.batch.formats import Answers
from inferry_client.batch.priority import let_others_go
from inferry_client.batch.receipts import Entry
from inferry_client.batch.records import NO_ANSWER, Fault, Record

_NOT_FINITE = Fault(NO_ANSWER, "the model's probabilities are no finite numbers")


@dataclass
class PartRows:
    """What is known of a part's pictures so far.

    Attributes:
        entries: one for each picture.
        ids: of those that are answered.
        probabilities: `(N, K)` arrays, in the order of `ids`.
    """

    entries: list[Entry] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    probabilities: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, records: Sequence[Record], decoded: Decoded, probabilities: NDArray[np.float32]) -> None:
        """Add a chunk.

        Args:
            records: of the chunk.
            decoded: from their contents.
            probabilities: `(N, K)` of those without a fault, in order.
        """
        finite = np.all(np.isfinite(probabilities), axis=1)
        answered = iter(finite.tolist())
        for position, (record, digest) in enumerate(zip(records, decoded.digests, strict=True)):
            fault = decoded.faults.get(position) or (None if next(answered) else _NOT_FINITE)
            kind, reason = (fault.kind, fault.reason) if fault else ("", "")
            self.entries.append(Entry(record.id, record.size_bytes, record.stamp, digest, kind, reason))
            if fault is None:
                self.ids.append(record.id)
        let_others_go()
        if finite.any():
            self.probabilities.append(probabilities[finite])

    @property
    def bad(self) -> int:
        """Pictures without an answer."""
        return len(self.entries) - len(self.ids)

    def answers(self, labels: tuple[str, ...]) -> Answers:
        """Of those that have some."""
        none = np.empty((0, max(1, len(labels))), np.float32)
        return Answers(self.ids, np.concatenate(self.probabilities) if self.probabilities else none, labels)
