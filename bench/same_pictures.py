"""Whether a variant answers as well as its model, judged on the same pictures: a labelled set, both ways. Pure.

Two loops under load answer different pictures, and each one's accuracy swings with which: their difference says nothing
about a loss of a tenth of a point. Here every picture counts once for the model and once for the variant. Where the
variant answered a picture several times, the mean of its answers counts, so that one wrong answer among them is seen.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Compared:
    """Accuracies on the same pictures, as fractions of 1.

    Attributes:
        pictures: so many.
        model: of the model's own answers.
        variant: of the variant's.
    """

    pictures: int
    model: float
    variant: float

    @property
    def points_lost(self) -> float:
        """Percentage points that the variant loses; below 0: it gains."""
        return 100 * (self.model - self.variant)

    def is_within(self, points: float) -> bool:
        """Whether the variant loses no more than so many points; rounding of the sums forgiven."""
        return self.points_lost <= points + 1e-9


class SamePictures:
    """Right answers by request, of the model and of its variant.

    Args:
        rows: pictures of each request; together the labelled set.
    """

    def __init__(self, rows: Iterable[int]) -> None:
        self._rows = tuple(rows)
        self._by_model: dict[int, int] = {}
        self._by_variant: dict[int, list[int]] = {}

    def add_of_model(self, request: int, right: int) -> None:
        """The model answered a request, so many of its pictures rightly."""
        self._by_model[request] = right

    def add_of_variant(self, request: int, right: int) -> None:
        """The variant answered a request, so many of its pictures rightly."""
        self._by_variant.setdefault(request, []).append(right)

    def without_variant(self) -> list[int]:
        """The requests that the variant has not answered yet."""
        return [request for request in range(len(self._rows)) if request not in self._by_variant]

    def compare(self) -> Compared:
        """Both accuracies.

        Raises:
            ValueError: not every picture was answered both ways.
        """
        for who, answered in (("model", self._by_model), ("variant", self._by_variant)):
            if missing := len(self._rows) - len(answered):
                raise ValueError(f"the {who} answered all but {missing} of {len(self._rows)} requests; expected all")
        pictures = sum(self._rows)
        variant = sum(sum(rights) / len(rights) for rights in self._by_variant.values())
        return Compared(pictures, sum(self._by_model.values()) / pictures, variant / pictures)
