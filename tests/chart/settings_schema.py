"""The schema of the server's settings, from the table that the server checks them by."""

import types
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_args

from inferry_server.settings.settings import MOST_FRONT_ENDS, RANGES, Settings

PLACED = ("repository", "grpc_address", "http_address")  # settings that the pod's mounts and ports go with

_KINDS = {bool: "boolean", int: "integer", float: "number", Path: "string", str: "string"}
_HOST = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?"
_TEXTS: dict[str, dict[str, Any]] = {  # what the server demands of a text, beside its type
    "front_ends": {
        "type": ["string", "integer"], "minimum": 0, "maximum": MOST_FRONT_ENDS,
        "pattern": "^(auto|[0-9]|[1-5][0-9]|6[0-4])$",
    },
    "http_hosts": {"type": "string", "pattern": rf"^ *{_HOST} *(, *{_HOST} *)*$"},
    "trace_endpoint": {"type": "string", "pattern": r"^https?://(\[[0-9a-fA-F:]+\]|[^:/\[\]]+):[1-9][0-9]{0,4}$"},
}  # fmt: skip


def settings_schema() -> dict[str, Any]:
    """A closed object: each setting with its type, choices and range."""
    properties = {
        one.name: {"description": one.metadata["description"]} | _of(one)
        for one in fields(Settings)
        if one.name not in PLACED
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def path_settings() -> list[str]:
    """The settings that name a file."""
    return [one.name for one in fields(Settings) if one.name not in PLACED and _type(one) is Path]


def setting_defaults() -> dict[str, Any]:
    """The server's own defaults, of the settings that have one."""
    return {
        one.name: one.default
        for one in fields(Settings)
        if one.name not in PLACED and one.default is not None and one.default is not MISSING
    }


def _of(one: Field[Any]) -> dict[str, Any]:
    if choices := one.metadata["choices"]:
        return {"enum": list(choices)}
    if one.name in _TEXTS:
        return _TEXTS[one.name]
    kind = _type(one)
    found: dict[str, Any] = {"type": _KINDS[kind]}
    if one.name in RANGES:
        least, most = RANGES[one.name]
        found |= {"minimum": _plain(least), "maximum": _plain(most)}
    if kind is Path:
        found |= {"pattern": "^/.+[^/]$", "not": {"pattern": r"/\.\.?(/|$)"}}
    return found


def _type(one: Field[Any]) -> type:
    """The type, without the None of a setting that may be unset."""
    kinds = get_args(one.type) if isinstance(one.type, types.UnionType) else (one.type,)
    found: type = next(kind for kind in kinds if kind is not type(None))
    return found


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number
