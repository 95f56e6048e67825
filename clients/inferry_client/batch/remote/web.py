"""Files of web servers: read whole or in part, with connections kept, redirects followed and failures tried again."""

import time
from functools import lru_cache
from typing import Any

from inferry_client.batch.addresses import Address
from inferry_client.batch.errors import JobError
from inferry_client.batch.remote.objects import ChangedError, Found, ObjectError
from inferry_proto.extras import how_to_install

try:
    import urllib3
except ModuleNotFoundError as missing:
    raise JobError(f"web addresses need more: {how_to_install('batch-stores')}") from missing

_PIECE_BYTES = 1 << 20
_TOTAL_S = 300.0
"""Of one answer: a server that sends a byte now and then ends as an error, and no job."""
_TIMEOUT = urllib3.Timeout(connect=10.0, read=30.0)
_RETRIES = urllib3.Retry(
    total=5,
    connect=2,
    redirect=5,
    backoff_factor=0.3,
    status_forcelist=(429, 500, 502, 503, 504),
    raise_on_status=False,
)
_NO_RANGES = "the server sends no part of a file alone (no byte ranges); download it first"


def read_web(address: Address, *, most_bytes: int) -> bytes:
    """A whole file.

    Raises:
        OSError: the server has none, or does not send it whole, in time and within the limit.
    """
    return _read(address, {}, most_bytes=most_bytes, wanted=(200,))[0]


def read_web_range(address: Address, start: int, size: int, *, tag: str) -> bytes:
    """Some bytes of a file that must still have its tag; errors as of `read_web`."""
    if size == 0:
        return b""
    span = {"Range": f"bytes={start}-{start + size - 1}"}
    data, headers = _read(address, span, most_bytes=size, wanted=(206,))
    if not headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise ObjectError(0, "the server sent another part than was asked for")
    if _tag(headers) != tag:
        raise ChangedError(0, "it was replaced while the job ran")
    return data


def look_at_web(address: Address) -> Found:
    """What a file is; it must be one that can be read in parts.

    Raises:
        OSError: it is not there, or the server sends no parts.
    """
    data, headers = _read(address, {"Range": "bytes=0-0"}, most_bytes=1, wanted=(206,))
    total = headers.get("Content-Range", "").rpartition("/")[2]
    if len(data) != 1 or not total.isascii() or not total.isdecimal():
        raise ObjectError(0, _NO_RANGES)
    return Found(address.key, int(total), _tag(headers))


def _read(address: Address, headers: dict[str, str], *, most_bytes: int, wanted: tuple[int, ...]) -> tuple[bytes, Any]:
    ends_at = time.monotonic() + _TOTAL_S
    for last in (False, True):
        try:
            return _read_once(address, headers, most_bytes, wanted, ends_at)
        except urllib3.exceptions.HTTPError as error:  # among them: the connection ended within the file
            if last or isinstance(error, urllib3.exceptions.MaxRetryError):  # which was tried again already
                raise ObjectError(0, f"it cannot be read: {str(error)[:300]}") from error
    raise AssertionError


def _read_once(
    address: Address, headers: dict[str, str], most_bytes: int, wanted: tuple[int, ...], ends_at: float
) -> tuple[bytes, Any]:
    answer = _pool().request(
        "GET", str(address), headers={"Accept-Encoding": "identity"} | headers, preload_content=False
    )
    try:
        _check_status(answer.status, wanted)
        pieces, size = [], 0
        for piece in answer.stream(_PIECE_BYTES):
            size += len(piece)
            if size > most_bytes:
                raise ObjectError(0, f"it has more than {most_bytes} bytes")
            if time.monotonic() > ends_at:
                raise ObjectError(0, f"the server took more than {_TOTAL_S:.0f} s for it")
            pieces.append(piece)
    except BaseException:
        answer.close()
        raise
    answer.release_conn()
    return b"".join(pieces), answer.headers


def _check_status(status: int, wanted: tuple[int, ...]) -> None:
    if status == 404:
        raise FileNotFoundError(2, "the server has no such file (404)")
    if status == 200 and 206 in wanted:
        raise ObjectError(0, _NO_RANGES)
    if status not in wanted:
        raise ObjectError(0, f"the server answered {status}")


def _tag(headers: Any) -> str:
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return f"{headers.get('ETag', '')}-{headers.get('Last-Modified', '')}-{total}"


@lru_cache(maxsize=1)
def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(maxsize=32, timeout=_TIMEOUT, retries=_RETRIES)
