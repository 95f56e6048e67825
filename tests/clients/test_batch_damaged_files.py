"""What is damaged in zip archives, tables, lists and IDX files is told; what is whole around it is read."""

import gzip
import io
import struct
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inferry_client.batch import tables
from inferry_client.batch.errors import InputError
from inferry_client.batch.inputs import InputOptions, open_inputs
from inferry_client.batch.records import MOST_LOST, ContentError
from testkit import brightness_model

GOOD = brightness_model.picture(7)


def read(path: Path, options: InputOptions | None = None) -> tuple[list[str], dict[str, str]]:
    """The pictures that can be read, and why others cannot."""
    good, bad = [], {}
    for record in open_inputs([str(path)], options or InputOptions()).records():
        try:
            record.content.read(most_bytes=1 << 20)
            good.append(record.id)
        except ContentError as error:
            bad[record.id] = str(error)
    return good, bad


def zip_of(*names: str, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name in names:
            archive.writestr(name, GOOD)
    return file.getvalue()


def test_a_member_of_a_zip_archive_with_another_sum_is_an_error_alone(tmp_path: Path) -> None:
    data = bytearray(zip_of("a.png", "b.png", "c.png"))
    at = data.index(b"b.png") + 40
    data[at] ^= 0x55
    (tmp_path / "in.zip").write_bytes(data)
    good, bad = read(tmp_path / "in.zip")
    assert (good, set(bad)) == (["a.png", "c.png"], {"b.png"})
    assert "Bad CRC-32" in bad["b.png"]


def test_members_before_those_that_a_zip_archive_lists_are_told(tmp_path: Path) -> None:
    path = tmp_path / "in.zip"
    path.write_bytes(zip_of("a.png") + zip_of("b.png"))
    good, bad = read(path)
    assert good == ["b.png"]
    assert "begins with members that its directory does not list" in bad["(members not listed)"]
    path.write_bytes(b"#!/bin/sh\nexit\n" + zip_of("a.png"))  # one that unpacks itself
    assert read(path) == (["a.png"], {})


@pytest.mark.parametrize("comment", [b"", b"a comment"])
def test_a_zip_archive_that_promises_more_members_than_it_lists_is_damaged(tmp_path: Path, comment: bytes) -> None:
    data = zip_of("a.png", "b.png")[:-2] + bytes([len(comment), 0]) + comment
    path = tmp_path / "in.zip"
    path.write_bytes(data)
    assert read(path) == (["a.png", "b.png"], {})
    last, end = data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    size = last - data.index(b"PK\x01\x02")
    path.write_bytes(data[:last] + data[end : end + 12] + struct.pack("<I", size) + data[end + 16 :])
    good, bad = read(path)
    assert good == ["a.png"]
    assert bad == {
        "(members not listed)": "the archive is damaged: its directory lists 1 members, and its end promises 2"
    }


@pytest.mark.parametrize("at", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_a_zip_archive_whose_directory_is_damaged_cannot_be_read(tmp_path: Path, at: float) -> None:
    data = bytearray(zip_of("a.png", "b.png"))
    start = data.index(b"PK\x01\x02")
    place = start + int(at * (data.index(b"PK\x05\x06") - start))
    data[place : place + 20] = bytes(20)
    (tmp_path / "in.zip").write_bytes(data)
    try:
        assert read(tmp_path / "in.zip")[1]
    except InputError as error:
        assert "cannot be read as a zip archive" in str(error)  # noqa: PT017


@pytest.mark.parametrize("keys", [False, True])
def test_rows_of_a_damaged_row_group_are_errors_and_others_are_read(tmp_path: Path, keys: bool) -> None:
    path = tmp_path / "in.parquet"
    pictures = [GOOD + bytes([number]) * 3000 for number in range(30)]
    table = pa.table({"image": pictures, "key": [f"k{number}" for number in range(30)]})
    pq.write_table(table, path, row_group_size=10, compression="zstd", use_dictionary=False)
    group = pq.read_metadata(path).row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[group.data_page_offset : group.data_page_offset + 60] = b"\xa5" * 60
    path.write_bytes(data)
    good, bad = read(path, InputOptions(id_column="key" if keys else None))
    name = "k{}" if keys else "{}"
    assert good == [name.format(number) for number in (*range(10), *range(20, 30))]
    assert set(bad) == {str(number) for number in range(10, 20)}
    assert all(reason.startswith("row group 1 of the file is damaged: ") for reason in bad.values())


def test_a_page_whose_sum_is_another_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table({"path": [f"{number:03}.png" for number in range(10)]})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[data.index(b"005.png") + 2] = ord("6")  # another picture's name
    path.write_bytes(data)
    good, bad = read(path)
    assert (good, len(bad)) == ([], 10)
    assert all("CRC checksum" in reason for reason in bad.values())


def test_lines_of_a_csv_file_that_cannot_be_read_are_an_error_and_the_others_are_read(tmp_path: Path) -> None:
    for number in range(1, 8):
        (tmp_path / f"{number}.png").write_bytes(GOOD)
    path = tmp_path / "in.csv"
    path.write_text(
        'path,caption\n1.png,a dog\n2.png,"a cat\n3.png,a bird\n4.png,"a cow"\n5.png,"two\nlines"\n6.png\n7.png,"a'
    )
    good, bad = read(path)
    assert good == ["1.png", "5.png", "6.png"]
    assert {name: reason.partition(":")[0] for name, reason in bad.items()} == {
        "(lines 3 to 5)": "lines 3 to 5 of the file cannot be read",
        "(line 9)": "line 9 of the file cannot be read",
    }
    path.write_text('caption,path\n"a ""dog""",1.png\nshort\n,2.png\n')
    good, bad = read(path)
    assert good == ["1.png", "2.png"]
    assert bad == {"1": "the row holds NoneType; expected a path or bytes"}


def test_names_in_csv_files_and_lists_may_have_any_bytes(tmp_path: Path) -> None:
    name = "käse.png".encode("latin-1")
    (tmp_path / name.decode("utf-8", "surrogateescape")).write_bytes(GOOD)
    (tmp_path / "in.csv").write_bytes(b"\xef\xbb\xbfpath\n" + name + b"\n")
    (tmp_path / "in.txt").write_bytes(b"\xef\xbb\xbf" + name + b"\n\n")
    assert read(tmp_path / "in.csv") == read(tmp_path / "in.txt") == (["k\\xe4se.png"], {})
    (tmp_path / "in.csv").write_bytes(b"pfad\xe4\nx\n")
    with pytest.raises(Exception, match=r"it has pfad\\xe4: name them"):
        read(tmp_path / "in.csv")


@pytest.mark.parametrize("name", ["in.csv", "in.txt"])
def test_text_that_is_none_is_named_with_the_way_out(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes("path\na.png\n".encode("utf-16"))
    with pytest.raises(InputError, match="it is UTF-16; save the file as UTF-8"):
        read(tmp_path / name)
    monkeypatch.setattr(tables, "_MOST_LINE", 1000)
    (tmp_path / name).write_bytes(b"path\n" + b"x" * 999 + b"\n" + bytes(5000))
    with pytest.raises(InputError, match="line 2 has 1000 characters or more"):
        read(tmp_path / name)


def test_a_line_of_a_list_that_begins_like_a_comment_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "#1.png").write_bytes(GOOD)
    (tmp_path / "in.txt").write_text("# pictures\n#1.png\n")
    assert read(tmp_path / "in.txt") == (["#1.png"], {"# pictures": "No such file or directory"})


def idx_of(promised: int, there: int) -> bytes:
    return struct.pack(">HBBIII", 0, 8, 3, promised, 8, 8) + bytes(64 * there)


@pytest.mark.parametrize("suffix", ["-ubyte", "-ubyte.gz"])
def test_an_idx_file_with_another_length_than_it_promises_says_so(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"

    def put(data: bytes) -> Path:
        path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
        return path

    assert read(put(idx_of(3, 3))) == (["0", "1", "2"], {})
    good, bad = read(put(idx_of(5, 3) + bytes(10)))
    assert (good, set(bad)) == (["0", "1", "2"], {"3", "4"})
    good, bad = read(put(idx_of(3, 4)))
    assert good == ["0", "1", "2"]
    assert "follow that the file's header does not promise" in bad["(after the last picture)"]
    with pytest.raises(InputError, match=r"its header promises 1048580 pictures, and 3 are there"):
        read(put(idx_of(3 + MOST_LOST + 1, 3)))


def test_the_end_of_a_packed_idx_file_is_looked_at(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(idx_of(3, 3), mtime=0))
    path = tmp_path / "in-ubyte.gz"
    path.write_bytes(packed[:-8])
    assert "(after the last picture)" in read(path)[1]
    packed[-6] ^= 1  # of the sum of all bytes
    path.write_bytes(packed)
    good, bad = read(path)
    assert good == ["0", "1", "2"]
    assert "CRC check failed" in bad["(after the last picture)"]
