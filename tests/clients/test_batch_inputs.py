"""Wherever pictures come from, a batch job gives each the same answer, once, under an id of its own."""

import csv
import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.batch.errors import JobError
from inferry_client.batch.inputs import InputOptions, open_inputs
from inferry_client.batch.unique import UniqueIds
from inferry_client.cli import main
from testkit import brightness_model
from testkit.batch_jobs import read_errors, read_rows, run_batch
from testkit.scripted_server import ScriptedServer

PICTURES = {f"{number:02}.png": brightness_model.picture(number * 20) for number in range(13)}
OPTIONS = InputOptions()


def make_folder(place: Path) -> Path:
    (place / "in").mkdir()
    for name, data in PICTURES.items():
        (place / "in" / name).write_bytes(data)
    return place / "in"


def _tar(path: Path, mode: str) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in PICTURES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            label = tarfile.TarInfo(name.replace(".png", ".cls"))
            archive.addfile(label, io.BytesIO())
    return path


def make_tar(place: Path) -> Path:
    return _tar(place / "in.tar", "w")


def make_packed_tar(place: Path) -> Path:
    return _tar(place / "in.tar.gz", "w:gz")


def make_zip(place: Path) -> Path:
    with zipfile.ZipFile(place / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in PICTURES.items():
            archive.writestr(name, data)
    return place / "in.zip"


def make_parquet_of_bytes(place: Path) -> Path:
    table = pa.table({"image": [{"bytes": data, "path": None} for data in PICTURES.values()], "key": list(PICTURES)})
    pq.write_table(table, place / "in.parquet")
    return place / "in.parquet"


def make_csv_of_paths(place: Path) -> Path:
    make_folder(place)
    with (place / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "key"], *([f"in/{name}", name] for name in PICTURES)])
    return place / "in.csv"


def make_list(place: Path) -> Path:
    folder = make_folder(place)
    (folder / "in.txt").write_text("".join(f"{name}\n" for name in PICTURES))
    return folder / "in.txt"


@pytest.mark.parametrize(
    "make",
    [make_folder, make_tar, make_packed_tar, make_zip, make_parquet_of_bytes, make_csv_of_paths, make_list],
)
def test_every_input_gives_the_same_answers_and_resumes(
    brightness_server: ScriptedServer, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    (tmp_path / "plain").mkdir()
    run_batch(brightness_server, make_folder(tmp_path / "plain"), tmp_path / "expected", all_probabilities=True)
    keyed = make in (make_parquet_of_bytes, make_csv_of_paths)
    source = open_inputs([str(make(tmp_path))], InputOptions(id_column="key" if keyed else None))
    run_batch(brightness_server, source, tmp_path / "out", all_probabilities=True)
    assert read_rows(tmp_path / "out") == read_rows(tmp_path / "expected")
    brightness_server.received.clear()
    assert run_batch(brightness_server, source, tmp_path / "out", all_probabilities=True).resumed == 13
    assert brightness_server.requests("ModelInfer") == []


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_idx_files_hold_pixels_whose_ids_are_row_numbers(
    brightness_server: ScriptedServer, tmp_path: Path, packed: bool, shape: tuple[int, ...]
) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(12, *[1] * len(shape)) * np.full(shape, 20, np.uint8)
    data = struct.pack(f">HBB{1 + len(shape)}I", 0, 8, 1 + len(shape), 12, *shape) + pixels.tobytes()
    path = tmp_path / ("images-ubyte.gz" if packed else "images-ubyte")
    path.write_bytes(gzip.compress(data, mtime=0) if packed else data)
    assert run_batch(brightness_server, open_inputs([str(path)], OPTIONS), tmp_path / "out").classified == 12
    rows = read_rows(tmp_path / "out")
    assert [row["id"] for row in rows] == [str(number) for number in range(12)]
    assert [rows[0]["label"], rows[6]["label"], rows[11]["label"]] == ["dark", "grey", "bright"]
    cut = tmp_path / "cut-ubyte"
    cut.write_bytes(data[: -3 * pixels[0].size])
    summary = run_batch(brightness_server, open_inputs([str(cut)], OPTIONS), tmp_path / "out2")
    assert (summary.classified, summary.bad) == (9, 3)


def test_what_is_wrong_inside_an_archive_is_an_error_of_its_own(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    path = tmp_path / "in.tar"
    good = next(iter(PICTURES.values()))
    with tarfile.open(path, "w") as archive:
        for name, kind, data in (
            ("a.png", tarfile.REGTYPE, good),
            ("a.png", tarfile.REGTYPE, good),
            ("line\nbreak.png", tarfile.REGTYPE, b"no picture"),
            ("link.png", tarfile.SYMTYPE, b""),
            ("fifo.png", tarfile.FIFOTYPE, b""),
            ("last.png", tarfile.REGTYPE, good),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data), "/etc/passwd"
            archive.addfile(info, io.BytesIO(data))
    path.write_bytes(path.read_bytes()[: 512 * 9])  # in the middle of the last picture
    run_batch(brightness_server, open_inputs([str(path)], OPTIONS), tmp_path / "out")
    assert [row["id"] for row in read_rows(tmp_path / "out")] == ["a.png", "a.png#2"]
    found = read_errors(tmp_path / "out")
    assert {"line\nbreak.png", "link.png", "fifo.png"} <= set(found)
    assert any("ends after" in reason or "damaged" in reason for reason in found.values())


@pytest.mark.parametrize("make", [make_tar, make_packed_tar, make_zip, make_parquet_of_bytes])
def test_no_damage_of_an_archive_ends_otherwise_than_with_a_word(
    brightness_server: ScriptedServer, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    whole = path.read_bytes()
    for number, at in enumerate(range(0, len(whole), len(whole) // 12)):
        path.write_bytes(whole[:at] + bytes(byte ^ 0xA5 for byte in whole[at : at + 40]) + whole[at + 40 :])
        out = tmp_path / f"out{number}"
        try:
            summary = run_batch(brightness_server, open_inputs([str(path)], OPTIONS), out)
        except JobError:
            continue
        assert len(read_rows(out)) == summary.classified


def test_giants_in_archives_are_refused_before_they_are_unpacked(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(3000))
        archive.writestr("good.png", PICTURES["00.png"])
    make_packed_tar(tmp_path)
    source = open_inputs([str(tmp_path / "in.zip")], OPTIONS)
    assert run_batch(brightness_server, source, tmp_path / "out", max_file_bytes=2000).classified == 1
    assert read_errors(tmp_path / "out") == {"bomb.png": "it has 3000 bytes; expected at most 2000"}
    packed = open_inputs([str(tmp_path / "in.tar.gz")], InputOptions(max_file_bytes=10))
    assert run_batch(brightness_server, packed, tmp_path / "out2", max_file_bytes=10).bad == 13


def test_several_inputs_and_patterns_are_joined_under_their_names(
    brightness_server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make_tar(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.png").write_bytes(PICTURES["00.png"])
    source = open_inputs(["*/in.tar", "one.png"], OPTIONS)
    assert run_batch(brightness_server, source, tmp_path / "out").classified == 27
    ids = [row["id"] for row in read_rows(tmp_path / "out")]
    assert ids == [*(f"{name}/in.tar/{key}" for name in "ab" for key in PICTURES), "one.png"]
    assert source.left_out == {".cls": 26}
    with pytest.raises(JobError, match=r"one.png is named twice"):
        open_inputs(["one.png", "*.png"], OPTIONS)
    for again in ("./one.png", str(tmp_path / "one.png")):
        with pytest.raises(JobError, match=r"one.png is named twice"):
            open_inputs(["one.png", again], OPTIONS)
    with pytest.raises(JobError, match=r"the input a lies in the input \.; expected each picture once"):
        open_inputs([".", "a"], OPTIONS)
    with pytest.raises(JobError, match=r"a/in.tar lies in the input a; expected each picture once"):
        open_inputs(["a/", "a/in.tar"], OPTIONS)


def test_rows_of_a_table_have_ids_of_their_own_whatever_they_hold(tmp_path: Path) -> None:
    good = PICTURES["00.png"]
    for column in (
        [good, None, good],
        ["1", None, "1", "1#2", ""],
        [{"bytes": good, "path": "1"}, {"path": "0"}, None],
    ):
        pq.write_table(
            pa.table({"image": column, "key": ["0", None, "0", "1", "1"][: len(column)]}), tmp_path / "t.parquet"
        )
        for id_column in (None, "key"):
            source = open_inputs([str(tmp_path / "t.parquet")], InputOptions(id_column=id_column))
            ids = [record.id for record in source.records()]
            assert len(set(ids)) == len(column)


def test_ids_of_bytes_are_the_names_that_they_spell(tmp_path: Path) -> None:
    keys = ["é".encode(), b"\xff", rb"\xff", b"", b"plain"]
    table = pa.table({"image": [PICTURES["00.png"]] * len(keys), "key": pa.array(keys, pa.binary())})
    pq.write_table(table, tmp_path / "t.parquet")
    source = open_inputs([str(tmp_path / "t.parquet")], InputOptions(id_column="key"))
    assert [record.id for record in source.records()] == ["é", r"\xff", r"\\xff", "", "plain"]


@pytest.mark.parametrize(
    ("name", "data", "named"),
    [
        ("a.zip", b"words", "cannot be read as a zip archive"),
        ("a.parquet", b"words", "cannot be read"),
        ("a.csv", b"x,y\n1,2\n", "has no column of pictures that could be told; it has x, y"),
        ("a-ubyte", b"words", "is no IDX file of uint8 pictures"),
        ("a.xyz", b"", "is a file of another kind; expected a folder of pictures"),
    ],
)
def test_what_is_no_such_input_is_named(tmp_path: Path, name: str, data: bytes, named: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(JobError, match=named):
        list(open_inputs([str(tmp_path / name)], OPTIONS).records())


@given(st.lists(st.sampled_from(["a", "a#2", "a#3", "a#2#2", "b"])))
def test_names_that_repeat_have_ids_of_their_own(names: list[str]) -> None:
    ids = UniqueIds()
    given_ids = [ids.of(name) for name in names]
    assert len(set(given_ids)) == len(names)
    assert all(own.startswith(name) for own, name in zip(given_ids, names, strict=True))


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_an_input_without_pictures_is_named_with_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    folders = [tmp_path / "empty", tmp_path / "notes"]
    for folder in folders:
        folder.mkdir()
    (folders[1] / "a.md").touch()
    nobody = ["--server", "127.0.0.1:1", "--out", str(tmp_path / "out"), *options]
    assert main(["batch", str(folders[0]), *nobody]) == 1
    assert capsys.readouterr().err == f"inferry: error: {folders[0]} has no pictures\n"
    assert main(["batch", *map(str, folders), *nobody]) == 1
    err = capsys.readouterr().err
    assert f"{folders[0]}, {folders[1]} has no pictures; left out: 1 .md; expected names that end with .bmp" in err
    assert not (tmp_path / "out").exists()
