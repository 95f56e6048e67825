"""The JSON of an infer request in parts: what differs in requests of a kind, and all the rest."""

from collections.abc import Mapping, Sequence
from typing import Any

from inferry_server.http.infer_request import MOST_JSON_BYTES
from inferry_server.http.json_text import orjson

_OF_NUMBERS = b"0123456789+-., \t\r\n[]"
"""Leaves the letter of exponents, and every word whole."""

Parts = tuple[str, Sequence[Any], bytes]
"""The id of a request, the data of its inputs that have some, and bytes for all the rest of it."""


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
        rest: bytes = orjson.dumps({**request, "id": "", "inputs": bare})
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
