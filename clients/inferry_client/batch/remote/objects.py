"""Objects of a bucket, through obstore: whole or in part, listed, and put under a condition.

Keys and endpoints come from the environment, by the names that the stores' own tools use (`AWS_ACCESS_KEY_ID`,
`AWS_REGION`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`, ...), or from the role
of the machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

from inferry_client.batch.addresses import Address
from inferry_client.batch.errors import JobError
from inferry_proto.extras import how_to_install
from inferry_proto.foreign_errors import first_line

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError
    from obstore.store import from_url
except ModuleNotFoundError as missing:
    raise JobError(f"object stores need more: {how_to_install('batch-stores')}") from missing

_TIMEOUT_S = "120 seconds"
_RETRIES = {"max_retries": 8}
_SHOWN = 300  # characters of what a store says


class ObjectError(OSError):
    """A store did not do what it was asked; `strerror` says what it said."""


class ChangedError(ObjectError):
    """An object is there that should not be, or is another than it was."""


@dataclass(frozen=True)
class Found:
    """An object.

    Attributes:
        key: in its bucket.
        size_bytes: of it.
        tag: another one whenever the bytes are others.
        version: of it, where the store counts them.
    """

    key: str
    size_bytes: int
    tag: str
    version: str | None = None


def read_object(address: Address, *, most_bytes: int | None = None, tag: str | None = None) -> bytes:
    """A whole object.

    Args:
        address: of it.
        most_bytes: one with more is refused before it is read.
        tag: that it must still have.

    Raises:
        OSError: it is not there, too large, another by now, or cannot be read.
    """
    try:
        found = obstore.get(_store(address.root), address.key, options={"if_match": tag} if tag else {})
        size = found.meta["size"]
        if most_bytes is not None and size > most_bytes:
            raise ObjectError(0, f"it has {size} bytes; expected at most {most_bytes}")
        return bytes(found.bytes())
    except (BaseError, FileNotFoundError, PermissionError) as error:
        raise _as_os_error(error) from error


def read_range(address: Address, start: int, size: int, *, tag: str) -> bytes:
    """Some bytes of an object that must still have its tag; errors as of `read_object`."""
    if size == 0:
        return b""
    try:
        options: dict[str, Any] = {"range": (start, start + size), "if_match": tag}
        return bytes(obstore.get(_store(address.root), address.key, options=options).bytes())  # type: ignore[arg-type]
    except (BaseError, FileNotFoundError, PermissionError) as error:
        raise _as_os_error(error) from error


def look_at(address: Address) -> Found:
    """What an object is; errors as of `read_object`."""
    try:
        return _found(obstore.head(_store(address.root), address.key))
    except (BaseError, FileNotFoundError, PermissionError) as error:
        raise _as_os_error(error) from error


def list_below(folder: Address) -> Iterator[Found]:
    """All objects whose keys begin with a folder's, in the store's order; errors as of `read_object`."""
    try:
        for page in obstore.list(_store(folder.root), prefix=folder.key or None, chunk_size=1000):
            for meta in page:
                yield _found(meta)
    except (BaseError, FileNotFoundError, PermissionError) as error:
        raise _as_os_error(error) from error


def list_folder(folder: Address) -> tuple[list[Found], list[str]]:
    """The objects directly in a folder, and the keys of the folders in it; errors as of `read_object`."""
    try:
        listed = obstore.list_with_delimiter(_store(folder.root), prefix=folder.key or None)
    except (BaseError, FileNotFoundError, PermissionError) as error:
        raise _as_os_error(error) from error
    return [_found(meta) for meta in listed["objects"]], list(listed["common_prefixes"])


def put_object(address: Address, data: bytes, *, replaces: Found | None) -> Found:
    """Put an object where none is, or in the place of the one that is named.

    Raises:
        ChangedError: another is there.
        ObjectError: it cannot be put.
    """
    mode: Any = "create"
    if replaces:
        mode = {"e_tag": replaces.tag} | ({"version": replaces.version} if replaces.version else {})
    try:
        done = obstore.put(_store(address.root), address.key, data, mode=mode, use_multipart=False)
    except (AlreadyExistsError, PreconditionError, FileExistsError) as error:
        raise ChangedError(0, "another job has written it") from error
    except NotSupportedError as error:
        raise ObjectError(0, "the store knows no conditional writes, which keep two jobs apart") from error
    except (BaseError, FileNotFoundError, PermissionError) as error:
        raise _as_os_error(error) from error
    return Found(address.key, len(data), done["e_tag"] or "", done["version"])


def put_long(address: Address, file: IO[bytes]) -> None:
    """Put an object of any size, whatever is there; errors as of `put_object`."""
    try:
        obstore.put(_store(address.root), address.key, file, mode="overwrite")
    except (BaseError, FileNotFoundError, PermissionError) as error:
        raise _as_os_error(error) from error


def delete_object(address: Address) -> None:
    """Delete an object that is there or not; errors as of `put_object`."""
    try:
        obstore.delete(_store(address.root), address.key)
    except FileNotFoundError:
        return
    except (BaseError, PermissionError) as error:
        raise _as_os_error(error) from error


@lru_cache(maxsize=16)
def _store(root: str) -> Any:
    try:
        return from_url(root, client_options={"timeout": _TIMEOUT_S, "allow_http": True}, retry_config=_RETRIES)  # type: ignore[call-overload]
    except (BaseError, ValueError) as error:
        raise JobError(f"{root} cannot be used: {_said(error)}") from error


def _found(meta: Any) -> Found:
    tag = meta["e_tag"] or f"{meta['last_modified'].isoformat()}-{meta['size']}"
    return Found(meta["path"], meta["size"], tag, meta["version"])


def _as_os_error(error: Exception) -> OSError:
    if isinstance(error, PreconditionError):
        return ChangedError(0, "it was replaced while the job ran")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(2, "no such object")
    return ObjectError(0, _said(error))


def _said(error: Exception) -> str:
    return first_line(error)[:_SHOWN]
