"""Heads of requests that come again: a whole request that repeats one is taken apart without being parsed.

A client's requests on a connection differ in their bodies; their heads are the same bytes, but for the digits of the
body's length. What the parser made of the first holds for each that repeats it, as a head says nothing of what came
before it.
"""

from collections.abc import Sequence

from inferry_server.http.direct_calls import Head, RawHeaders

_MOST_DIGITS = 5  # as many as the longest body has that goes the direct way
_LINE_END = b"\r\n"


class RepeatedHead:
    """The bytes of a head that was parsed, but for the digits of its body's length.

    Args:
        head: what is known of requests with these bytes.
        before: the digits.
        behind: the digits, up to the body.

    Attributes:
        head: as the argument.
    """

    __slots__ = ("_at", "_before", "_behind", "head")

    def __init__(self, head: Head, before: bytes, behind: bytes) -> None:
        self.head = head
        self._before = before
        self._behind = behind
        self._at = len(before)

    def body(self, data: bytes) -> bytes | None:
        """The body of the one whole request that came, if it has this head.

        Args:
            data: all that came since the request before.

        Returns:
            None where that is anything else: another head, a part of a request, or more than one.
        """
        if not data.startswith(self._before):  # guard: repeated-head
            return None
        at = self._at
        end = data.find(b"\r", at, at + _MOST_DIGITS + 1)
        digits = data[at:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self._behind, end):  # guard: repeated-behind
            return None
        start = end + len(self._behind)
        return data[start:] if int(digits) == len(data) - start else None  # guard: repeated-length


def repeated_head(data: bytes, head: Head, headers: RawHeaders) -> RepeatedHead | None:
    """The head of a request that was parsed, to be found again.

    Args:
        data: all that came since the request before; the parser has found one request or more in it.
        head: of the first of them.
        headers: of the first of them, as the parser has them, names in lower case.

    Returns:
        None where the head is written in an unusual way, or something else came besides this request.
    """
    stated = headers[head.length_at][1]
    size = int(stated)
    text = data[: len(data) - size]
    first, *lines = text.split(_LINE_END)
    # It ends with an empty line, so that nothing else stands in it: what the parser found is all that it says.
    is_alone = lines[len(headers) :] == [b"", b""] and _fields(lines[: len(headers)]) == list(headers)
    if not is_alone or first != b"POST %b HTTP/1.1" % head.url or len(stated) > _MOST_DIGITS:  # guard: repeated-alone
        return None
    before = _LINE_END.join((first, *lines[: head.length_at + 1]))[: -len(stated)]
    return RepeatedHead(head, before, text[len(before) + len(stated) :])


def _fields(lines: Sequence[bytes]) -> RawHeaders:
    """Headers as the parser has them, of lines without an end."""
    cut = [line.partition(b":") for line in lines]
    return [(name.lower(), value.lstrip(b" \t")) for name, _, value in cut]
