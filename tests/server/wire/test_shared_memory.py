"""Regions never reach outside the shared memory that a client named, and live as long as they are used."""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.errors import InvalidRequestError, NotOfferedError, RegionNotFoundError
from inferry_server.wire import shared_memory
from inferry_server.wire.shared_memory import Region, SharedMemoryRegions

SIZE = 64
UINT64_MAX = (1 << 64) - 1


@pytest.fixture(scope="module", autouse=True)
def _small_files() -> Iterator[None]:
    """Whoever reserves what a client names, without looking whether it is there, shall not fill the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plays /dev/shm, with one object of SIZE bytes, each of another value, and what is no object."""
    made = tmp_path_factory.mktemp("shm")
    (made / "object").write_bytes(bytes(range(SIZE)))
    (made / "link").symlink_to(made / "object")
    (made / "folder").mkdir()
    os.mkfifo(made / "pipe")
    return made


def register(folder: Path, *, offset: int = 0, byte_size: int = SIZE, key: str = "/object") -> SharedMemoryRegions:
    regions = SharedMemoryRegions(allowed=True, folder=folder)
    regions.register(Region("r", key, offset, byte_size))
    return regions


@given(st.integers(0, UINT64_MAX) | st.integers(0, 2 * SIZE), st.integers(0, UINT64_MAX) | st.integers(0, 2 * SIZE))
def test_a_region_is_mapped_only_if_all_of_it_is_inside_its_object(folder: Path, offset: int, byte_size: int) -> None:
    if byte_size >= 1 and offset + byte_size <= SIZE:
        regions = register(folder, offset=offset, byte_size=byte_size)
        found = regions.slice("r", offset=0, byte_size=byte_size).memory.tobytes()
        assert found == bytes(range(SIZE))[offset : offset + byte_size]
    else:
        with pytest.raises(
            InvalidRequestError, match=f"'/object' has 64 bytes; {byte_size} bytes from offset {offset}"
        ):
            register(folder, offset=offset, byte_size=byte_size)


def test_the_name_of_a_region_is_no_longer_than_an_objects(folder: Path) -> None:
    regions = SharedMemoryRegions(allowed=True, folder=folder)
    regions.register(Region("n" * 255, "/object", 0, SIZE))
    with pytest.raises(InvalidRequestError, match="has 256 characters; expected at most 255"):
        regions.register(Region("n" * 256, "/object", 0, SIZE))
    assert [region.name for region in regions.status("")] == ["n" * 255]


int64 = st.integers(-(1 << 63), (1 << 63) - 1)


@given(int64 | st.integers(-1, SIZE), int64 | st.integers(-1, SIZE))
def test_a_tensor_lies_only_where_its_region_is(folder: Path, offset: int, byte_size: int) -> None:
    regions = register(folder, offset=8, byte_size=16)
    if min(offset, byte_size) >= 0 and offset + byte_size <= 16:
        found = regions.slice("r", offset=offset, byte_size=byte_size)
        assert found.memory.tobytes() == bytes(range(8, 24))[offset : offset + byte_size]
    else:
        with pytest.raises(
            InvalidRequestError, match=f"'r' has 16 bytes; {byte_size} bytes from offset {offset} are not"
        ):
            regions.slice("r", offset=offset, byte_size=byte_size)


@pytest.mark.parametrize(
    "key",
    ["", "/", "//object", "/../shm/object", "..", "/..", ".", "/.", "/a/b", "a/../object", "/nothing", "/object\0",
     "/" + "x" * 300, "/link", "/folder", "/pipe"],
)  # fmt: skip
def test_a_key_that_is_not_a_plain_object_in_shared_memory_is_refused(folder: Path, key: str) -> None:
    with pytest.raises(InvalidRequestError, match="region 'r': key"):
        register(folder, key=key, byte_size=1)


@pytest.mark.parametrize("key", ["/../outside", "/folder/inside", "folder/inside"])
def test_a_key_leads_to_no_file_that_is_elsewhere(tmp_path: Path, key: str) -> None:
    folder = tmp_path / "shm"
    (folder / "folder").mkdir(parents=True)
    for path in ("outside", "shm/folder/inside"):
        (tmp_path / path).write_bytes(bytes(SIZE))
    with pytest.raises(InvalidRequestError, match="not of the form /name"):
        register(folder, key=key, byte_size=1)


def test_a_key_is_taken_without_its_slash_as_well(folder: Path) -> None:
    assert register(folder, key="object").slice("r", offset=1, byte_size=1).memory.tobytes() == b"\1"


def test_registering_again_is_welcome_with_the_same_facts_only(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(bytes(SIZE))
    regions = register(tmp_path)
    regions.register(Region("r", "/object", 0, SIZE))
    with pytest.raises(InvalidRequestError, match="'r' is registered already, as 64 bytes from offset 0 of what was"):
        regions.register(Region("r", "/object", 0, SIZE - 1))
    (tmp_path / "object").rename(tmp_path / "old")  # so that its inode is not used again
    (tmp_path / "object").write_bytes(bytes(SIZE))
    with pytest.raises(InvalidRequestError, match="registered already"):
        regions.register(Region("r", "/object", 0, SIZE))
    regions.unregister("r")
    regions.register(Region("r", "/object", 0, SIZE))
    with pytest.raises(InvalidRequestError, match="needs a name"):
        regions.register(Region("", "/object", 0, SIZE))


def test_regions_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "MAX_REGIONS", 2)
    regions = register(folder)
    regions.register(Region("s", "/object", 0, 1))
    with pytest.raises(InvalidRequestError, match="'t' would be one more than the 2 that may be registered"):
        regions.register(Region("t", "/object", 0, 1))
    assert [region.name for region in regions.status("")] == ["r", "s"]


def test_regions_are_told_one_by_one_or_all_and_forgotten_likewise(folder: Path) -> None:
    regions = register(folder)
    regions.register(Region("s", "/object", 8, 1))
    assert regions.status("s") == [Region("s", "/object", 8, 1)]
    regions.unregister("s")
    regions.unregister("s")
    with pytest.raises(RegionNotFoundError, match="'s' is not registered"):
        regions.status("s")
    with pytest.raises(InvalidRequestError, match="'s' is not registered"):
        regions.slice("s", offset=0, byte_size=0)
    regions.unregister("")
    assert regions.status("") == []


def test_where_it_is_off_nothing_can_be_registered_and_cleaning_up_is_no_error(folder: Path) -> None:
    regions = SharedMemoryRegions(allowed=False, folder=folder)
    with pytest.raises(NotOfferedError, match="--system-shared-memory"):
        regions.register(Region("r", "/object", 0, 1))
    assert regions.status("") == regions.status("r") == []
    regions.unregister("r")
    regions.unregister("")
    with pytest.raises(InvalidRequestError, match="'r' is not registered and cannot be: setting system_shared_memory"):
        regions.slice("r", offset=0, byte_size=1)


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_memory_stays_mapped_until_the_last_view_of_it_is_gone(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(bytes(range(SIZE)))
    regions = register(tmp_path)
    view = np.frombuffer(regions.slice("r", offset=4, byte_size=4).memory, np.uint8)
    regions.unregister("r")
    assert view.tolist() == [4, 5, 6, 7]
    assert mapped(tmp_path / "object")
    del view
    assert not mapped(tmp_path / "object")


def test_an_object_that_was_made_smaller_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(bytes(SIZE))
    regions = register(tmp_path)
    os.truncate(tmp_path / "object", SIZE - 1)
    with pytest.raises(InvalidRequestError, match="'r' was made smaller"):
        regions.slice("r", offset=0, byte_size=1)


def test_descriptors_are_not_leaked(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(bytes(SIZE))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts them, the listing's own included
    for _ in range(20):
        register(tmp_path).unregister("")
        with pytest.raises(InvalidRequestError):
            register(tmp_path, byte_size=SIZE + 1)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_regions_may_come_and_go_on_many_threads(folder: Path) -> None:
    regions = SharedMemoryRegions(allowed=True, folder=folder)
    unexpected: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(200):
                regions.register(Region("r", "/object", 0, SIZE))
                with suppress(InvalidRequestError):  # another thread has unregistered it
                    assert regions.slice("r", offset=1, byte_size=1).memory[0] == 1
                regions.unregister("r")
        except BaseException as error:  # noqa: BLE001 - reported below
            unexpected.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not unexpected
