"""JSON that comes again but for a list of numbers in it: only the list is parsed.

A client writes its requests alike, so that what stands before and behind the data of its tensor are the same bytes
again and again. Where a text was parsed, and these bytes around another list are a text too whose other parts are the
same, any list may stand there: JSON has no construct that reaches from the one into the other.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from inferry_server.http.infer_request import MOST_JSON_BYTES
from inferry_server.http.json_parts import parts_of, quickly_parsed
from inferry_server.http.json_text import orjson

P = TypeVar("P")

_NAME = b'"data":'
_NUMBERS = re.compile(rb"[ \t\r\n]*(\[[0-9eE+\-., \t\r\n\[\]]*\])")
_PROBES: Sequence[tuple[bytes, Any]] = ((b"[]", []), (b"[0]", [0]))

_Key = tuple[str, str, bytes]
"""Model and version of the path, and the text before the list."""


@dataclass(frozen=True, slots=True)
class _Around(Generic[P]):
    """What stands behind the list, and the plan of requests that have this around it."""

    behind: bytes
    plan: P


class RepeatedTexts(Generic[P]):
    """Finds the plan of a request by the text around its data. Any thread may call; at worst a text is learnt twice.

    Args:
        most: texts that are known; where there are more, all are forgotten.
        longest: bytes before a list, and behind it.
    """

    def __init__(self, most: Callable[[], int], longest: int) -> None:
        self._most = most
        self._longest = longest
        self._known: dict[_Key, _Around[P] | None] = {}  # None: nothing is to be learnt of it

    def __len__(self) -> int:
        return len(self._known)

    def find(self, model: str, version: str, text: bytes) -> tuple[P, list[Any]] | None:
        """The plan of a request, and its data: a list without true, false, null and texts.

        Args:
            model: from the path.
            version: from the path; empty for none.
            text: the request, all of it JSON, without the id that it begins with.
        """
        start = _start(text)
        around = self._known.get((model, version, text[:start])) if 0 < start <= self._longest else None
        if around is None or not text.endswith(around.behind) or len(text) > MOST_JSON_BYTES:  # guard: texts-behind
            return None
        data = text[start : len(text) - len(around.behind)]
        if b"u" in data or b"s" in data:  # guard: texts-numbers
            return None
        try:
            return around.plan, orjson.loads(data)
        except ValueError:  # reading all of it tells why
            return None

    def learn(self, model: str, version: str, text: bytes, rest: bytes, plan: P) -> None:
        """Keep a text, if only its list differs from others that have this plan.

        Args:
            model: from the path.
            version: from the path; empty for none.
            text: of a request, all of it JSON, without the id that it begins with.
            rest: its parts but for the data.
            plan: of it.
        """
        start = _start(text)
        key = (model, version, text[:start])
        if not 0 < start <= self._longest or key in self._known:
            return
        if len(self._known) >= self._most():
            self._known.clear()
        behind = _behind(text, start)
        known = behind is not None and len(behind) <= self._longest and _is_around(text[:start], behind, rest)
        self._known[key] = _Around(behind, plan) if known and behind is not None else None


def _start(text: bytes) -> int:
    """Where the first list behind the name `data` begins; below 1: nowhere."""
    name = text.find(_NAME)
    return text.find(b"[", name) if name > 0 else 0


def _behind(text: bytes, start: int) -> bytes | None:
    """What stands behind the list of numbers that begins there; None where it is none, or not that of the name."""
    found = _NUMBERS.match(text, text.find(_NAME) + len(_NAME))
    return text[found.end() :] if found is not None and found.start(1) == start else None


def _is_around(before: bytes, behind: bytes, rest: bytes) -> bool:
    """Whether a list between them is all the data of a request that has these other parts, and no id anywhere."""
    for written, value in _PROBES:
        request = quickly_parsed(before + written + behind)
        if request is None or "id" in request:  # guard: texts-id
            return False
        if parts_of(request) != ("", [value], rest):  # guard: texts-around
            return False
    return True
