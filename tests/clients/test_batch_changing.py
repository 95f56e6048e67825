"""Archives that change while a job reads them, and a job that is told to stop while it lists one."""

import io
import signal
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferry_client.batch.errors import StopSignal
from inferry_client.batch.inputs import InputOptions, open_inputs
from inferry_client.batch.records import ContentError
from inferry_client.cli import main
from testkit import brightness_model
from testkit.onnx_models import save_brightness

STOPPED = 75


def put_tar(path: Path, pictures: list[bytes], mode: Any = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for number, picture in enumerate(pictures):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(picture)
            archive.addfile(member, io.BytesIO(picture))


def put_packed_tar(path: Path, pictures: list[bytes]) -> None:
    put_tar(path, pictures, "w:gz")


def put_zip(path: Path, pictures: list[bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number, picture in enumerate(pictures):
            archive.writestr(f"{number}.png", picture)


def put_idx(path: Path, pictures: list[bytes]) -> None:
    pixels = [(picture * 8)[:64] for picture in pictures]
    path.write_bytes(struct.pack(">HBBIII", 0, 8, 3, len(pixels), 8, 8) + b"".join(pixels))


PICTURES = [brightness_model.picture(level) for level in (1, 2, 3, 4)]
KINDS = [("in.tar", put_tar), ("in.zip", put_zip), ("in-ubyte", put_idx)]


def replace(path: Path, put: Callable[[Path, list[bytes]], None]) -> None:
    other = path.with_name("other")
    put(other, PICTURES[::-1])
    other.replace(path)


def rewrite(path: Path, put: Callable[[Path, list[bytes]], None]) -> None:
    put(path, PICTURES[::-1])


@pytest.mark.parametrize("change", [replace, rewrite])
@pytest.mark.parametrize(("name", "put"), KINDS, ids=["tar", "zip", "idx"])
def test_pictures_of_an_archive_that_has_changed_since_it_was_listed_are_errors(
    tmp_path: Path,
    name: str,
    put: Callable[[Path, list[bytes]], None],
    change: Callable[[Path, Callable[[Path, list[bytes]], None]], None],
) -> None:
    put(tmp_path / name, PICTURES)
    records = list(open_inputs([str(tmp_path / name)], InputOptions()).records())
    assert len(records) == len(PICTURES)
    change(tmp_path / name, put)
    for record in records:
        with pytest.raises(ContentError, match="has changed since its pictures were listed"):
            record.content.read(most_bytes=1 << 20)


@pytest.mark.parametrize(
    ("name", "put", "reads"),
    [
        ("in.tar", put_tar, (tarfile.TarInfo, "fromtarfile")),
        ("in.tar.gz", put_packed_tar, (tarfile.TarInfo, "fromtarfile")),
        ("in.tgz", put_packed_tar, (tarfile.ExFileObject, "read")),
        ("in.zip", put_zip, (zipfile.ZipFile, "infolist")),
    ],
)
def test_a_job_that_is_told_to_stop_while_it_lists_an_archive_has_no_plan_of_a_part_of_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    put: Callable[[Path, list[bytes]], None],
    reads: tuple[Any, str],
) -> None:
    save_brightness(tmp_path / "models")
    (version,) = (path.parent for path in (tmp_path / "models").rglob("model.onnx"))
    put(tmp_path / name, PICTURES)
    put(tmp_path / "first.zip", PICTURES) if name == "in.zip" else None
    inputs = [str(path) for path in sorted(tmp_path.glob("*.*"))]
    owner, method = reads
    read, calls = getattr(owner, method), [0]

    def told(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            signal.raise_signal(signal.SIGTERM)
        return read(*arguments, **named)

    command = ["batch", *inputs, "--onnx", str(version), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr(owner, method, told)
        assert main(command) == STOPPED
    assert calls[0] == 3
    assert not (tmp_path / "out" / "_plan.json").exists()
    assert main(command) == 0


def test_no_error_of_a_file_is_what_a_signal_raises() -> None:
    assert not issubclass(StopSignal, Exception)
