"""Regions of POSIX shared memory that clients register, so that tensors need not travel in messages."""

import mmap
import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from inferry_server.errors import InvalidRequestError, NotOfferedError, RegionNotFoundError

FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux shows what shm_open makes
MAX_REGIONS = 1024  # each holds a file descriptor
_LONGEST_NAME = 255  # characters; of an object, the system allows no more either
_SETTING = "system_shared_memory"


@dataclass(frozen=True)
class Region:
    """What a client said of a region: `byte_size` bytes from `offset` of the object that `key` names."""

    name: str
    key: str
    offset: int
    byte_size: int


@dataclass(frozen=True)
class RegionSlice:
    """Some bytes of a region, writable, that stay mapped as long as anything views `memory`.

    Attributes:
        region: its name.
        offset: from the beginning of the region.
    """

    region: str
    offset: int
    memory: memoryview


@dataclass(frozen=True)
class _Mapped:
    """A region in this process. Never closed: the last view of it that goes unmaps it."""

    region: Region
    mapping: mmap.mmap
    identity: tuple[int, int]  # device and inode: a key can come to name another object

    def slice(self, offset: int, byte_size: int) -> RegionSlice:
        start = self.region.offset + offset
        return RegionSlice(self.region.name, offset, memoryview(self.mapping)[start : start + byte_size])

    def is_whole(self) -> bool:
        """Whether the object still has all its bytes; touching what a client cut off would end the process."""
        return self.mapping.size() >= self.region.offset + self.region.byte_size


class SharedMemoryRegions:
    """The regions that are registered. Thread-safe; nothing waits, but `register` reserves the memory.

    A region can be unregistered at any time: requests that were decoded keep the memory mapped until
    they are answered. Clients may write to it meanwhile, and so change what is computed for them.

    Args:
        allowed: the setting; without, there is never a region.
        folder: where shared memory objects are files.
    """

    def __init__(self, *, allowed: bool, folder: Path = FOLDER) -> None:
        self._allowed = allowed
        self._folder = folder
        self._lock = threading.Lock()
        self._regions: dict[str, _Mapped] = {}

    def register(self, region: Region) -> None:
        """Map a region; once more with the same facts changes nothing.

        Raises:
            NotOfferedError: the settings do not allow shared memory.
            InvalidRequestError: no such object, not all of it there, or the name is taken.
        """
        if not self._allowed:  # guard: shared-memory-nothing
            raise NotOfferedError("system shared memory", setting=_SETTING)
        if not region.name:
            raise InvalidRequestError("a shared memory region needs a name, and none came")
        if len(region.name) > _LONGEST_NAME:  # guard: shared-memory-names
            raise InvalidRequestError(
                f"the name of a shared memory region has {len(region.name)} characters; expected at most "
                f"{_LONGEST_NAME}"
            )
        mapped = _map(region, self._folder)
        with self._lock:
            known = self._regions.get(region.name)
            if known is None and len(self._regions) >= MAX_REGIONS:  # guard: shared-memory-regions
                raise InvalidRequestError(
                    f"shared memory region {region.name!r} would be one more than the {MAX_REGIONS} that may be "
                    "registered; unregister some"
                )
            if known is None:
                self._regions[region.name] = mapped
            elif (known.region, known.identity) != (region, mapped.identity):
                raise InvalidRequestError(
                    f"shared memory region {region.name!r} is registered already, as {known.region.byte_size} bytes "
                    f"from offset {known.region.offset} of what was {known.region.key!r} then; unregister it first"
                )

    def unregister(self, name: str) -> None:
        """Forget a region, or all if the name is empty; an unknown one is forgotten already."""
        with self._lock:
            if name:
                self._regions.pop(name, None)
            else:
                self._regions.clear()

    def status(self, name: str) -> list[Region]:
        """One region, or all if the name is empty.

        Raises:
            RegionNotFoundError: that one is not registered.
        """
        with self._lock:
            if not name or not self._allowed:
                return [mapped.region for mapped in self._regions.values()]
            if name not in self._regions:
                raise RegionNotFoundError(name)
            return [self._regions[name].region]

    def slice(self, name: str, *, offset: int, byte_size: int) -> RegionSlice:
        """Bytes of a region.

        Raises:
            InvalidRequestError: no such region, or it does not have them.
        """
        with self._lock:
            mapped = self._regions.get(name)
        if mapped is None:
            hint = "" if self._allowed else f" and cannot be: setting {_SETTING} is off"
            raise InvalidRequestError(f"shared memory region {name!r} is not registered{hint}")
        size = mapped.region.byte_size
        if offset < 0 or byte_size < 0 or offset + byte_size > size:  # guard: shared-memory-tensor, shared-memory-no
            raise InvalidRequestError(
                f"shared memory region {name!r} has {size} bytes; "
                f"{byte_size} bytes from offset {offset} are not all inside"
            )
        if not mapped.is_whole():  # guard: shared-memory-was
            raise InvalidRequestError(f"shared memory region {name!r} was made smaller since it was registered")
        return mapped.slice(offset, byte_size)


def _map(region: Region, folder: Path) -> _Mapped:
    what = f"shared memory region {region.name!r}: key {region.key!r}"
    try:
        # NOFOLLOW: a link could lead out of shared memory. NONBLOCK: a pipe would make the server wait.
        descriptor = os.open(
            folder / _object_name(region), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )  # guard: shared-memory-links
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidRequestError(f"{what} cannot be opened: {reason}") from None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise InvalidRequestError(f"{what} is not a shared memory object")
        end = region.offset + region.byte_size
        if region.byte_size < 1 or end > facts.st_size:  # guard: shared-memory-region
            raise InvalidRequestError(
                f"{what} has {facts.st_size} bytes; {region.byte_size} bytes from offset {region.offset} "
                "are none or not all inside"
            )
        # Clients set sizes without filling them; where memory runs out, touching a page would end the process.
        os.posix_fallocate(descriptor, region.offset, region.byte_size)
        return _Mapped(region, mmap.mmap(descriptor, end), (facts.st_dev, facts.st_ino))
    except (OSError, ValueError) as error:  # ValueError: made smaller just now
        raise InvalidRequestError(f"{what} cannot be mapped: {error}") from None
    finally:
        os.close(descriptor)


def _object_name(region: Region) -> str:
    """The file's name: shm_open takes keys with and without the leading slash."""
    name = region.key.removeprefix("/")
    if not name or "/" in name or name in (".", ".."):  # guard: shared-memory-keys
        raise InvalidRequestError(
            f"shared memory region {region.name!r}: key {region.key!r} is not of the form /name without further slashes"
        )
    return name
