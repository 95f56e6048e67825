"""What a front end is told before it begins: where to listen, with which limits, and which methods there are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from inferry_server.front_ends.used_files import UsedFiles
from inferry_server.transport.options import TransportOptions

_FILES = ("certificate", "private_key", "client_ca")
_OF_THE_PROCESS = {"report", "watch", "contents", "client_certificates"}


@dataclass(frozen=True, kw_only=True)
class FrontEndPlan:
    """How one front end serves; the same for all of a server.

    Attributes:
        address: to listen at, HOST:PORT with a port that is known.
        transport: its name, as `make_transport` takes it.
        options: of the connections; without what belongs to the owner's process.
        unary: the paths of unary methods.
        streams: the paths of streaming methods.
        sheddable: paths whose calls may be refused unread while the owner sheds.
        reports_load: whether replies carry the load in their trailers.
        files: what the owner has read, and uses.
        most_unsent_bytes: of requests that the owner has not taken; further ones are refused.
        log_format: as the setting of that name.
        log_level: as the setting of that name.
    """

    address: str
    transport: str
    options: TransportOptions
    unary: Sequence[str] = ()
    streams: Sequence[str] = ()
    sheddable: Sequence[str] = ()
    reports_load: bool = False
    files: UsedFiles = field(default_factory=UsedFiles)
    most_unsent_bytes: int = 256 << 20
    log_format: str = "text"
    log_level: str = "info"

    @property
    def paths(self) -> Sequence[str]:
        """Of all methods; calls name a method by its number here."""
        return (*self.unary, *self.streams)


def write_plan(plan: FrontEndPlan) -> bytes:
    """The body of PLAN."""
    options = {name: getattr(plan.options, name) for name in _names(TransportOptions) - _OF_THE_PROCESS}
    table = {name: getattr(plan, name) for name in _names(FrontEndPlan)}
    return json.dumps(table | {"options": options, "files": plan.files.to_table()}, default=str).encode()


def read_plan(body: bytes) -> FrontEndPlan:
    """What `write_plan` wrote."""
    table = json.loads(body)
    options = TransportOptions(**_with_paths(table["options"], _FILES))
    return FrontEndPlan(**table | {"options": options, "files": UsedFiles.from_table(table["files"])})


def _names(kind: type[Any]) -> set[str]:
    return {field.name for field in fields(kind)}


def _with_paths(table: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {**table, **{name: Path(table[name]) for name in names if table[name] is not None}}
