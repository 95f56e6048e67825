"""Which input is meant: by what lies at a path and how it is called."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Protocol

from inferry_client.batch.addresses import Address, is_address, name_of, read_address
from inferry_client.batch.archives import PACKED_SUFFIXES, TAR_SUFFIXES, TarInput, ZipInput
from inferry_client.batch.errors import InputError, JobError
from inferry_client.batch.folder import SUFFIXES, FolderInput, file_record
from inferry_client.batch.idx import IdxInput
from inferry_client.batch.records import MissingContent, Record, printable_name
from inferry_client.batch.settings import DEFAULT_MAX_FILE_BYTES
from inferry_client.batch.sources import LocalFile, Source
from inferry_client.batch.tables import TableInput

_TABLE_SUFFIXES = (".parquet", ".csv", ".txt", ".lst", ".list")
_IDX_SUFFIXES = ("-ubyte", "-ubyte.gz", ".idx", ".idx.gz")
_MANY = (*TAR_SUFFIXES, *PACKED_SUFFIXES, ".zip", *_TABLE_SUFFIXES, *_IDX_SUFFIXES)
"""How files end that hold many pictures, or name them."""
_NAMED = 3  # inputs in a message; a pattern may mean thousands


class Input(Protocol):
    """Where a job's pictures are. Each pass yields the same records in the same order, and keeps none.

    Its text is what the user called it.

    Attributes:
        left_out: what is no picture, by kind; of the latest pass.
    """

    left_out: Counter[str]

    def records(self) -> Iterator[Record]:
        """Every picture.

        Raises:
            JobError: the input cannot be read.
        """


@dataclass(frozen=True)
class InputOptions:
    """How inputs are read; each where it has a meaning."""

    recursive: bool = True
    follow_links: bool = False
    max_file_bytes: int = DEFAULT_MAX_FILE_BYTES
    column: str | None = None
    id_column: str | None = None


class OneInput:
    """One picture that an argument names."""

    def __init__(self, record: Callable[[], Record]) -> None:
        self._record = record
        self.left_out: Counter[str] = Counter()

    def records(self) -> Iterator[Record]:
        """It."""
        yield self._record()


class LostInput:
    """What nobody can look at, as a link to nothing that a pattern matches."""

    def __init__(self, path: str, reason: str) -> None:
        self._path = path
        self._reason = reason
        self.left_out: Counter[str] = Counter()

    def __str__(self) -> str:
        return self._path

    def records(self) -> Iterator[Record]:
        """None.

        Raises:
            InputError: always.
        """
        raise InputError(f"{self._path} {self._reason}")


class JoinedInput:
    """Several inputs, one after the other; an id begins with the name that its input was given by.

    One that cannot be read is an error of its own, and ends no job.
    """

    def __init__(self, inputs: Sequence[tuple[str, Input]]) -> None:
        self._inputs = inputs
        self.left_out: Counter[str] = Counter()

    def __str__(self) -> str:
        names = [name for name, _ in self._inputs]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return ", ".join(names[:_NAMED]) + more

    def records(self) -> Iterator[Record]:
        """Of the first, of the second, ..."""
        self.left_out.clear()
        lost: list[Record] = []  # held back until a picture is found: where there is none, an error ends the job
        found, why = False, None
        for name, source in self._inputs:
            prefix = printable_name(name)
            try:
                for record in source.records():
                    if lost:
                        yield from lost
                        lost.clear()
                    found = True
                    own_id = prefix if isinstance(source, OneInput) else f"{prefix}/{record.id}"
                    yield record._replace(id=own_id)
            except InputError as error:  # guard: batch-inputs-go-on
                why = why or error
                lost.append(Record(f"{prefix}/(what cannot be read)", 0, "", MissingContent(str(error))))
            self.left_out.update(source.left_out)
        if why and not found:
            raise why
        yield from lost


def open_inputs(texts: Sequence[str], options: InputOptions) -> Input:
    """What the arguments name: folders, archives, tables, lists, IDX files, pictures, or patterns of such.

    Raises:
        JobError: nothing is there, it is none of them, or two are the same.
    """
    named = [name.rstrip("/") or name for text in texts for name in _expand(text)]
    places = [name if is_address(name) else os.path.abspath(name) for name in named]  # noqa: PTH100 - as they were given
    everything = dict(zip(places, named, strict=True))
    if len(everything) != len(named):
        twice = next(place for place, times in Counter(places).items() if times > 1)
        raise JobError(f"the input {everything[twice]} is named twice; expected each once")
    for inner in places:
        for end in (place for place, letter in enumerate(inner) if letter == "/"):
            if (outer := inner[:end]) in everything:  # guard: batch-inputs-apart
                raise JobError(
                    f"the input {everything[inner]} lies in the input {everything[outer]}; expected each picture once"
                )
    if len(named) == 1:
        return _open(named[0], options)
    return JoinedInput([(name, _open(name, options)) for name in named])


def _expand(text: str) -> list[str]:
    if is_address(text):
        found: list[str] = _remote().match_addresses(text) if glob.has_magic(text) else [text]
        return found
    if os.path.exists(text) or not glob.has_magic(text):  # noqa: PTH110 - which may lie where nobody may look
        return [text]
    found = sorted(_match(text))
    if not found:
        raise JobError(f"no file is called like {text}")
    return found


def _match(pattern: str) -> set[str]:
    """Paths that are called like a pattern, in words that begin like it.

    `**/` stands for folders in folders, but for links to some: `glob` follows them, in circles too.
    """
    before, stars, after = pattern.partition("**/")
    if not stars or not (before.endswith("/") or not before):
        return set(glob.glob(pattern))  # noqa: PTH207 - of the names as they were given
    found: set[str] = set()
    for root in _match(before) if glob.has_magic(before) else [before]:
        for folder, folders, _ in os.walk(root or "."):  # guard: batch-patterns-end
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = os.path.join(folder, "") if root else os.path.join(folder, "").removeprefix("./")  # noqa: PTH118
            found |= _match(glob.escape(inside) + after)
    return found


def _open(text: str, options: InputOptions) -> Input:
    if is_address(text):
        return _open_address(read_address(text), options)
    path, name = Path(text), Path(text).name.lower()
    if os.path.isdir(text):  # noqa: PTH112 - which may lie where nobody may look
        return FolderInput(path, recursive=options.recursive, follow_links=options.follow_links)
    if why := _why_hidden(text):
        if not os.path.lexists(text):
            raise JobError(f"{text} {why}; expected a folder of pictures, an archive, a table or a list")
        if not name.endswith(SUFFIXES):
            return LostInput(text, why)
    if name.endswith(SUFFIXES):
        return OneInput(partial(file_record, str(path), path.name))
    if name.endswith(_MANY):
        return _open_file(LocalFile(text), options)
    raise JobError(f"{text} is a file of another kind; expected a folder of pictures, {', '.join(_MANY)} or a picture")


def _why_hidden(path: str) -> str:
    """What keeps anybody from looking at a path, to be said of it; empty if nothing does."""
    try:
        os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return "is a link to nothing" if os.path.lexists(path) else "is nothing"
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    except ValueError as error:
        return f"is no path: {error}"
    return ""


def _open_address(address: Address, options: InputOptions) -> Input:
    name = name_of(address).lower()
    if name.endswith(SUFFIXES):
        return OneInput(partial(_remote().addressed_record, printable_name(name_of(address)), address))
    if name.endswith(_MANY):
        source: Source = _remote().open_remote_file(address)
        return _open_file(source, options)
    if address.is_web:
        raise JobError(f"{address} cannot be listed; expected the address of {', '.join(_MANY)} or of a picture")
    folder: Input = _remote().RemoteFolder(address, recursive=options.recursive)
    return folder


def _open_file(source: Source, options: InputOptions) -> Input:
    name = source.name.lower()
    if name.endswith((*TAR_SUFFIXES, *PACKED_SUFFIXES)):
        return TarInput(source, options.max_file_bytes)
    if name.endswith(".zip"):
        return ZipInput(source)
    if name.endswith(_IDX_SUFFIXES):
        return IdxInput(source)
    return TableInput(source, options.column, options.id_column)


def _remote() -> ModuleType:
    from inferry_client.batch.remote import source

    return source
