"""Ids of their own for things whose names may repeat."""

import hashlib


class UniqueIds:
    """Gives each name an id: itself, or where it was given before, itself with `#2`, `#3`. About 80 bytes a name."""

    def __init__(self) -> None:
        self._given: set[bytes] = set()
        self._next: dict[str, int] = {}

    def of(self, name: str) -> str:
        """The id of the next thing of this name."""
        candidate = name
        while (digest := _short(candidate)) in self._given:
            self._next[name] = self._next.get(name, 1) + 1
            candidate = f"{name}#{self._next[name]}"
        self._given.add(digest)
        return candidate


def _short(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
