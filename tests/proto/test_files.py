"""What may lie where a file is expected, and what an .npz may claim."""

import io
import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from inferry_proto.files import open_file, read_file, read_text
from inferry_proto.golden import GoldenSamplesError, load_golden_samples
from inferry_proto.npz import NpzError, read_arrays


def test_a_regular_file_is_read_whole_and_text_without_its_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert read_file(path, most_bytes=7) == b"\xef\xbb\xbfa\r\nb"
    assert read_text(path) == "a\nb"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("katze\r\nk\u00e4se".encode("utf-16"), "it is UTF-16: save the file as UTF-8"),
        ("k\u00e4se".encode("latin-1"), "expected UTF-8: save the file as UTF-8"),
    ],
)
def test_a_text_in_another_encoding_is_refused_with_the_way_out(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "labels.txt").write_bytes(data)
    with pytest.raises(UnicodeDecodeError, match=said):
        read_text(tmp_path / "labels.txt")


def test_what_is_no_regular_file_is_refused_and_nobody_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name, kind in (("fifo", "a FIFO"), ("socket", "a socket"), (".", "a folder"), ("/dev/zero", "a device")):
            with pytest.raises(OSError, match=f"it is {kind}; expected a regular file"):
                read_file(tmp_path / name)
            with pytest.raises(OSError, match=f"it is {kind}; expected a regular file"):
                open_file(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "absent")
    with open_file(__file__) as file:
        assert file.read(3) == b'"""'


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_no_file_can_have_is_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="its name is none that a file can have"):
        read_file(tmp_path / name)


def test_a_file_larger_than_expected_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "six").write_bytes(b"123456")
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(OSError, match="it has 6 bytes; expected at most 5"):
        read_file(tmp_path / "six", most_bytes=5)


def test_a_file_that_is_written_in_place_while_it_is_read_is_said_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = tmp_path / "weights", os.read
    path.write_bytes(b"old" * 100)
    os.utime(path, ns=(0, 0))

    def read_beside_a_writer(descriptor: int, size: int) -> bytes:
        data = read(descriptor, min(size, 150))
        with path.open("r+b") as file:
            file.write(b"new" * 100)
        return data

    monkeypatch.setattr(os, "read", read_beside_a_writer)
    with pytest.raises(OSError, match="changed while it was read"):
        read_file(path)


def test_a_file_without_a_size_is_said_to_change(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="changed while it was read"):
        read_file(Path("/proc/self/status"))


NUMBERS = st.one_of(
    st_numpy.integer_dtypes(), st_numpy.unsigned_integer_dtypes(), st_numpy.floating_dtypes(sizes=(16, 32, 64))
)


@given(st_numpy.arrays(NUMBERS, st_numpy.array_shapes(min_dims=0, max_side=4)), st.booleans())
def test_what_numpy_writes_is_read_back(array: np.ndarray, fortran: bool) -> None:
    written = np.asfortranarray(array) if fortran else array
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **{"inputs/x": written})
    ((name, came),) = read_arrays(file.getvalue(), most_bytes=1 << 20)
    assert name == "inputs/x"
    assert came.dtype == array.dtype
    np.testing.assert_array_equal(came, written)


def npz(content: bytes, *, encrypted: bool = False) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inputs/x.npy", content)
    data = bytearray(file.getvalue())
    if encrypted:
        for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            data[data.index(signature) + at] |= 1
    return bytes(data)


def npy(descr: str, shape: str) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (npz(npy("'<f8'", "(206158430208,)")), r"is said to be float64 \[206158430208\], and has 8 bytes"),
        (npz(npy("'<f8'", "(-1,)")), "has the shape"),
        (npz(npy("'<U3'", "(1,)")), "holds '<U3'; expected numbers"),
        (npz(npy("'|O'", "(1,)")), r"holds '\|O'; expected numbers"),
        (npz(npy("[('a', '<f8')]", "(1,)")), "expected numbers"),
        (npz(npy("'<f77'", "(1,)")), "TypeError"),
        (npz(npy("(" * 300, "(1,)")), "Error"),
        (npz(npy("'<f8'", "(1,)"), encrypted=True), "encrypted"),
        (npz(b"\x93NUMPY\x09\x00"), "no array in NumPy's format"),
        (npz(b""), "no array in NumPy's format"),
        (npz(bytes(2 << 20)), "its arrays have 2097152 bytes; expected at most 1048576"),
        (npz(npy("'<f8'", "(1,)"))[:-10], "BadZipFile"),
        (b"", "BadZipFile"),
    ],
)
def test_damaged_and_hostile_samples_are_refused_before_anything_is_allocated(data: bytes, said: str) -> None:
    with pytest.raises(NpzError, match=said):
        list(read_arrays(data, most_bytes=1 << 20))


@given(st.data())
def test_samples_with_any_byte_changed_are_read_or_refused(data: st.DataObject) -> None:
    spoiled = bytearray(npz(npy("'<f8'", "(1,)")))
    spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    try:
        list(read_arrays(bytes(spoiled), most_bytes=1 << 20))
    except NpzError:
        return


def test_a_fifo_is_no_file_of_samples(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "golden.npz")
    with pytest.raises(GoldenSamplesError, match="it is a FIFO"):
        load_golden_samples(tmp_path / "golden.npz")
