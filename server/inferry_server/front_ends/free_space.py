"""Which parts of a piece of memory are free: the lowest place that is large enough is taken first. Pure."""

from bisect import bisect_left


class FreeSpace:
    """Places in a piece of memory. Not thread-safe.

    The lowest place goes first, so that little of the memory is ever used while little is taken at a time, and what is
    used is still in the processor's cache.

    Args:
        size: of the memory, in bytes.
    """

    def __init__(self, size: int) -> None:
        self._starts, self._stops = [0], [size]  # of the parts that are free, ascending; no two of them touch
        self._taken: dict[int, int] = {}  # where each place ends, by its start

    @property
    def taken_bytes(self) -> int:
        """Of all places that are taken."""
        return sum(stop - start for start, stop in self._taken.items())

    def take(self, size: int) -> int | None:
        """Take a place.

        Args:
            size: in bytes, above 0.

        Returns:
            Where it begins; None where no free part is as large.
        """
        for number, (start, ends) in enumerate(zip(self._starts, self._stops, strict=True)):
            stop = start + size
            if stop <= ends:
                if stop == ends:
                    del self._starts[number], self._stops[number]
                else:
                    self._starts[number] = stop
                self._taken[start] = stop
                return start
        return None

    def give_back(self, start: int) -> None:
        """Free a place.

        Raises:
            KeyError: no place that is taken begins there.
        """
        stop = self._taken.pop(start)  # guard: arena-freed-once
        starts, stops = self._starts, self._stops
        number = bisect_left(starts, start)
        joins_next = number < len(starts) and starts[number] == stop
        joins_last = number > 0 and stops[number - 1] == start
        if joins_last and joins_next:
            stops[number - 1] = stops[number]
            del starts[number], stops[number]
        elif joins_last:
            stops[number - 1] = stop
        elif joins_next:
            starts[number] = start
        else:
            starts.insert(number, start)
            stops.insert(number, stop)
