"""A damaged tar archive loses nothing in silence: what is whole is read, and an error names where the rest was."""

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.batch import tar_members
from inferry_client.batch.errors import InputError
from inferry_client.batch.inputs import InputOptions, open_inputs
from inferry_client.batch.records import ContentError, MissingContent
from testkit import brightness_model
from testkit.batch_jobs import read_errors, read_rows, run_batch
from testkit.scripted_server import ScriptedServer

BLOCK = 512
GOOD = brightness_model.picture(7)
MEMBER = 2 * BLOCK  # a header and a picture of less than a block
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
}


def tar_of(*names: str, end: bool = True, form: int = tarfile.USTAR_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(GOOD)
            archive.addfile(info, io.BytesIO(GOOD))
        written = archive.offset
    return file.getvalue() if end else file.getvalue()[:written]


def read(path: Path) -> tuple[list[str], dict[str, str]]:
    """The pictures that can be read, and why others cannot."""
    good, bad = [], {}
    for record in open_inputs([str(path)], InputOptions()).records():
        try:
            assert record.content.read(most_bytes=1 << 20) == GOOD
            good.append(record.id)
        except ContentError as error:
            bad[record.id] = str(error)
    return good, bad


@pytest.fixture(params=PACKERS)
def put(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / f"in{request.param}"
        path.write_bytes(PACKERS[request.param](data))
        return path

    return write


def test_an_archive_without_an_end_was_cut_or_not_closed(put: Callable[[bytes], Path]) -> None:
    whole = tar_of("a.png", "b.png", end=False)
    for zeros in (BLOCK, 2 * BLOCK, 2 * BLOCK + 100, 40 * BLOCK):
        assert read(put(whole + bytes(zeros))) == (["a.png", "b.png"], {})
    good, bad = read(put(whole))
    assert good == ["a.png", "b.png"]
    assert bad == {
        f"(damage at byte {2 * MEMBER})": "the archive is damaged: the archive has no end: it was cut between two "
        "members, or not closed"
    }


def test_an_archive_that_is_cut_says_at_which_byte(put: Callable[[bytes], Path]) -> None:
    data = tar_of("a.png", "b.png", "c.png")
    within_header = read(put(data[: 2 * MEMBER + 100]))
    assert within_header[0] == ["a.png", "b.png"]
    assert "ends within a header, after 100 of 512 bytes" in within_header[1][f"(damage at byte {2 * MEMBER})"]
    good, bad = read(put(data[: 2 * MEMBER + BLOCK + 10]))
    assert good == ["a.png", "b.png"]
    assert set(bad) == {"c.png", f"(damage at byte {3 * MEMBER})"}
    assert "the archive ends within 'c.png'" in bad[f"(damage at byte {3 * MEMBER})"]


@pytest.mark.parametrize("spoil", [b"\xff" * 8, bytes(8), b"0000000\0"])
def test_after_a_damaged_header_the_next_whole_one_is_read(put: Callable[[bytes], Path], spoil: bytes) -> None:
    data = bytearray(tar_of("a.png", "b.png", "c.png"))
    data[MEMBER + 148 : MEMBER + 156] = spoil  # the checksum
    good, bad = read(put(bytes(data)))
    assert good == ["a.png", "c.png"]
    assert bad == {
        f"(damage at byte {MEMBER})": f"the archive is damaged: no header of a member; {MEMBER} bytes were passed over"
    }
    first = bytearray(tar_of("a.png", "b.png"))
    first[:8] = b"\xff" * 8
    assert read(put(bytes(first)))[0] == ["b.png"]


def test_a_header_of_zeros_is_no_end_where_members_follow(put: Callable[[bytes], Path]) -> None:
    data = bytearray(tar_of("a.png", "b.png", "c.png"))
    data[MEMBER : MEMBER + BLOCK] = bytes(BLOCK)
    good, bad = read(put(bytes(data)))
    assert good == ["a.png", "c.png"]
    assert set(bad) == {f"(damage at byte {MEMBER + BLOCK})"}


@pytest.mark.parametrize("blocks", [1, 2, 3, 2047, 2048, 2049, 4096, 10_000])
def test_any_number_of_zeros_may_lie_between_archives(put: Callable[[bytes], Path], blocks: int) -> None:
    data = tar_of("a.png", "b.png", end=False) + bytes(blocks * BLOCK) + tar_of("c.png", "d.png", end=False)
    assert read(put(data + bytes(BLOCK))) == (["a.png", "b.png", "c.png", "d.png"], {})
    assert set(read(put(data + bytes(BLOCK) + b"\n"))[1]) == {f"(damage at byte {len(data) + BLOCK})"}


def test_a_giant_of_zeros_is_passed_over_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "in.tar").open("wb") as file:
        file.write(tar_of("a.png"))
        file.truncate(1 << 30)
        file.seek(1 << 30)
        file.write(tar_of("b.png"))
    looked: list[int] = []
    peek = tar_members._Blocks.peek

    def noted(self: tar_members._Blocks) -> bytes:
        looked.append(1)
        return peek(self)

    monkeypatch.setattr(tar_members._Blocks, "peek", noted)
    assert read(tmp_path / "in.tar") == (["a.png", "b.png"], {})
    assert len(looked) < 10


def test_archives_one_behind_the_other_are_one(put: Callable[[bytes], Path]) -> None:
    assert read(put(tar_of("a.png") + tar_of("b.png", "a.png"))) == (["a.png", "b.png", "a.png#2"], {})


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz"])
def test_an_archive_may_be_packed_in_several_streams(tmp_path: Path, suffix: str) -> None:
    pack, data = PACKERS[suffix], tar_of("a.png", "b.png")
    path = tmp_path / f"in{suffix}"
    path.write_bytes(b"".join(pack(data[at : at + 700]) for at in range(0, len(data), 700)))
    assert read(path) == (["a.png", "b.png"], {})
    path.write_bytes(pack(tar_of("a.png")) + pack(tar_of("b.png")))
    assert read(path) == (["a.png", "b.png"], {})


def test_what_an_archive_is_packed_with_is_told_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "in.tar").write_bytes(gzip.compress(tar_of("a.png")))
    (tmp_path / "in.tgz").write_bytes(tar_of("a.png"))
    assert read(tmp_path / "in.tar") == read(tmp_path / "in.tgz") == (["a.png"], {})


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_packed_archive_that_is_cut_or_spoilt_is_damaged(tmp_path: Path, suffix: str) -> None:
    noise = random.Random(1).randbytes(40_000)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in (("a.png", GOOD), ("noise.bin", noise), ("b.png", GOOD)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    packed = PACKERS[suffix](file.getvalue())
    path = tmp_path / f"in{suffix}"
    spoilt = bytearray(packed)
    spoilt[len(packed) // 2] ^= 0x55
    for data in (packed[: len(packed) // 2], packed[:-6], bytes(spoilt)):
        path.write_bytes(data)
        try:
            assert read(path)[1], "no error was told"
        except InputError as error:
            assert "damaged" in str(error)  # noqa: PT017
    path.write_bytes(packed)
    assert read(path) == (["a.png", "b.png"], {})


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_long_name_that_is_cut_is_damage_and_a_whole_one_is_read(put: Callable[[bytes], Path], form: int) -> None:
    long = "x" * 150 + ".png"
    data = tar_of("a.png", long, "b.png", form=form)
    assert read(put(data)) == (["a.png", long, "b.png"], {})
    for blocks in (1, 2):  # the header of the long name, and that with the name
        good, bad = read(put(data[: MEMBER + blocks * BLOCK]))
        assert good == ["a.png"]
        assert set(bad) == {f"(damage at byte {MEMBER})"}
    spoilt = bytearray(data)
    spoilt[MEMBER + 2 * BLOCK + 148 : MEMBER + 2 * BLOCK + 156] = bytes(8)  # of the header that has the long name
    good, bad = read(put(bytes(spoilt)))
    assert good == ["a.png", "b.png"]
    assert set(bad) == {f"(damage at byte {MEMBER})"}


def header(name: bytes, *, kind: bytes = b"0", size: bytes = b"00000000000\0") -> bytes:
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"K"])
@pytest.mark.parametrize(
    "size", [-600, -BLOCK, -2 * BLOCK, -3 * BLOCK, 1 << 40, (1 << 63) - 1, 1 << 90], ids=lambda size: f"{size:.0e}"
)
def test_no_size_that_a_header_claims_keeps_the_job_or_eats_its_memory(
    put: Callable[[bytes], Path], kind: bytes, size: int
) -> None:
    claimed = (b"\x80" if size >= 0 else b"\xff") + (size % (1 << 88)).to_bytes(11, "big")
    bad = header(b"evil.bin", kind=kind, size=claimed if size < 1 << 88 else b"\x80" + b"\xff" * 11)
    good, errors = read(put(tar_of("a.png", end=False) + bad + tar_of("b.png")))
    assert good[0] == "a.png"
    assert errors or good == ["a.png", "b.png"]


def test_a_size_below_nothing_is_no_header(put: Callable[[bytes], Path]) -> None:
    data = tar_of("a.png", end=False) + header(b"evil.png", size=b"\xff" * 12) + tar_of("b.png")
    good, errors = read(put(data))
    assert good == ["a.png", "b.png"]
    assert set(errors) == {f"(damage at byte {MEMBER})"}


def test_a_name_of_megabytes_is_damage(put: Callable[[bytes], Path]) -> None:
    data = header(b"x", kind=b"L", size=b"%011o\0" % (2 << 20)) + b"y" * (2 << 20)
    good, errors = read(put(tar_of("a.png", end=False) + data + tar_of("b.png")))
    assert good == ["a.png", "b.png"]
    assert set(errors) == {f"(damage at byte {MEMBER})"}


def test_a_chain_of_headers_for_a_header_is_damage(put: Callable[[bytes], Path]) -> None:
    chain = (header(b"x", kind=b"L", size=b"00000000001\0") + b"y".ljust(BLOCK, b"\0")) * 3000
    good, errors = read(put(tar_of("a.png", end=False) + chain + tar_of("b.png")))
    assert good[0] == "a.png"
    assert errors


@given(cut=st.integers(0, 3 * MEMBER - 1))
def test_no_cut_of_an_archive_loses_a_picture_without_a_word(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.tar"
    path.write_bytes(tar_of("a.png", "b.png", "c.png")[:cut])
    try:
        good, bad = read(path)
    except InputError:
        assert cut < BLOCK
    else:
        assert bad
        assert good == ["a.png", "b.png", "c.png"][: len(good)]


@given(at=st.integers(0, 3 * MEMBER - 1), data=st.binary(min_size=1, max_size=600))
def test_no_spoilt_bytes_of_headers_lose_a_picture_without_a_word(
    tmp_path_factory: pytest.TempPathFactory, at: int, data: bytes
) -> None:
    whole = tar_of("a.png", "b.png", "c.png")
    path = tmp_path_factory.getbasetemp() / "spoilt.tar"
    path.write_bytes((whole[:at] + data)[: 3 * MEMBER] + whole[at + len(data) :])
    records = list(open_inputs([str(path)], InputOptions()).records())
    lost = sum(isinstance(record.content, MissingContent) for record in records)
    assert len(records) - lost == 3 or lost


def test_a_job_over_a_damaged_archive_classifies_what_is_whole_and_says_what_is_not(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    path = tmp_path / "in.tar"
    path.write_bytes(tar_of(*(f"{number}.png" for number in range(20)))[: 15 * MEMBER])
    source = open_inputs([str(path)], InputOptions())
    summary = run_batch(brightness_server, source, tmp_path / "out")
    assert (summary.classified, summary.bad) == (15, 1)
    assert len(read_rows(tmp_path / "out")) == 15
    assert set(read_errors(tmp_path / "out")) == {f"(damage at byte {15 * MEMBER})"}
    assert run_batch(brightness_server, source, tmp_path / "out").resumed == 16


def test_an_archive_without_members_is_empty_and_a_file_of_other_bytes_is_none(tmp_path: Path) -> None:
    path = tmp_path / "in.tar"
    path.write_bytes(bytes(20 * BLOCK))
    assert read(path) == ([], {})
    doubles = struct.pack("600d", *range(600))
    for data, named in ((b"", "it is empty"), (b"words", "within a header"), (doubles, "no header")):
        path.write_bytes(data)
        with pytest.raises(InputError, match=named):
            read(path)
