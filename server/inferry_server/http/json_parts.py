"""The JSON of an infer request in parts: what differs in requests of a kind, and all the rest."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from inferry_server.http.infer_request import MOST_JSON_BYTES
from inferry_server.http.json_text import orjson

_OF_NUMBERS = b"0123456789+-., \t\r\n[]"
"""Leaves the letter of exponents, and every word whole."""

_ID = re.compile(rb'\{"id"[ \t\r\n]*:[ \t\r\n]*"([ !#-\[\]-~]{0,256})"[ \t\r\n]*,')
"""An id at the very beginning, where clients write it, that stands for itself: ASCII without escapes."""

_NO_ID = {"id": ""}
_BEGINS_WITH_ID = b'{"id"'

Parts = tuple[str, Sequence[Any], bytes]
"""The id of a request, the data of its inputs that have some, and bytes for all the rest of it."""


def without_id(text: bytes) -> tuple[str, bytes]:
    """The id with which a JSON object begins, and the text of all that it has besides.

    Whether there is another id in the rest, which would then be the object's, is not looked at.

    Returns:
        An empty id and the text itself, where it begins otherwise.
    """
    if text[: len(_BEGINS_WITH_ID)] != _BEGINS_WITH_ID or len(text) > MOST_JSON_BYTES:
        return "", text
    found = _ID.match(text)
    return ("", text) if found is None else (found[1].decode(), b"{" + text[found.end() :])


def quickly_parsed(text: bytes) -> dict[str, Any] | None:
    """The JSON object that a text is; None where orjson is not there or does not take it, or it is no object."""
    if orjson is None or len(text) > MOST_JSON_BYTES:
        return None
    try:
        value = orjson.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def parts_of(request: Mapping[str, Any]) -> Parts | None:
    """The parts of a request.

    Returns:
        None where it has another form than the protocol's, or something in it has no bytes of its own.
    """
    request_id, inputs = request.get("id", ""), request.get("inputs")
    if type(request_id) is not str or type(inputs) is not list:  # guard: rest-plans-form
        return None
    data: list[Any] = []
    bare: list[Mapping[str, Any]] = []
    for tensor in inputs:
        if type(tensor) is not dict:
            return None
        if "data" in tensor:
            data.append(tensor["data"])
            tensor = {**tensor, "data": 0}
        bare.append(tensor)
    try:
        # The id first, wherever it stood or not: what a request with one has besides is the same as without.
        rest: bytes = orjson.dumps({**_NO_ID, **request, **_NO_ID, "inputs": bare})
    except TypeError:  # nested more deeply than it writes
        return None
    return None if b"null" in rest else (request_id, data, rest)  # so it writes numbers that are infinite, too


def has_truths(header: bytes, rest: bytes) -> bool:
    """Whether there may be true or false in a request's data, by its JSON with data and without.

    Outside of the data both words may stand in any text, there only as themselves. They are counted in what is left
    when numbers and lists are taken out: that is short.
    """
    if b"\\" in header:
        return True
    told, besides = header.translate(None, _OF_NUMBERS), rest.translate(None, _OF_NUMBERS)
    return told.count(b"true") != besides.count(b"true") or told.count(b"false") != besides.count(b"false")
