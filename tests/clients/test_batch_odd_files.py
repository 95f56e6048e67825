"""Ten thousand files with all that is wrong with files: exactly the wrong ones are in the dead-letter file."""

import csv
import json
import os
import random
from pathlib import Path

import pytest

from inferry_client.cli import main
from testkit.onnx_models import save_brightness
from testkit.pictures import encode_picture, grey

FILES = 10_000


@pytest.mark.slow
def test_exactly_the_broken_of_ten_thousand_odd_files_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_odd_files(tmp_path, capsys, FILES)


def test_exactly_the_broken_of_five_hundred_odd_files_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_odd_files(tmp_path, capsys, 500)


def check_odd_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int) -> None:
    version = save_brightness(tmp_path / "models", side=8)
    good, bad = make_odd_files(tmp_path / "in", count)
    command = ["batch", str(tmp_path / "in"), "--onnx", str(version), "--format=jsonl", "--follow-links"]
    out = tmp_path / "out"
    assert main([*command, "--out", str(out), "--max-file-bytes", str(1 << 20)]) == 0, capsys.readouterr().err
    rows = [json.loads(line) for part in sorted(out.glob("part-*")) for line in part.open()]
    with (out / "errors.csv").open(newline="", encoding="utf-8") as file:
        errors = {row["id"]: (row["kind"], row["reason"]) for row in csv.DictReader(file)}
    assert set(errors) == bad
    assert all(kind and reason for kind, reason in errors.values())
    assert {row["id"] for row in rows} == good
    assert len(rows) == len(good)
    told = json.loads((out / "_SUCCESS").read_text())
    assert told == {"pictures": len(good) + len(bad), "classified": len(good), "errors": len(bad)}


def make_odd_files(folder: Path, count: int) -> tuple[set[str], set[str]]:
    """Files of every kind in folders of every kind; to the ids of good ones and of broken ones."""
    rng = random.Random(1)
    pictures = [encode_picture(grey(level)) for level in (10, 120, 240)]
    broken = [b"", b"no picture", pictures[0][:40], b"\x89PNG\r\n\x1a\n" + bytes(20), b"GIF89a" + bytes(9)]
    names = [
        lambda n: f"{n}.png".encode(),
        lambda n: f"line\nbreak\r{n}.png".encode(),
        lambda n: b"\xff\xfe %d.png" % n,
        lambda n: rb"\xff\xfe %d.png" % n,  # letter by letter what the one before is shown as
        lambda n: (f"{n}" + "x" * 190 + ".png").encode(),
        lambda n: f"same-{n % 7}.png".encode(),  # duplicate, in other folders
        lambda n: f'a,"b";=cmd{n}.PNG'.encode(),
        lambda n: f"ünï©ødé{n}.png".encode(),
    ]
    good: set[str] = set()
    bad: set[str] = set()
    for number in range(count):
        below = b"folder%d\n" % (number // 100) if number % 8 != 5 else b"folder%d/%d" % (number // 100, number)
        name = below + b"/" + names[number % 8](number)
        path = os.fsencode(folder) + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        is_bad = rng.random() < 0.01
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(rng.choice(broken) if is_bad else rng.choice(pictures))
        (bad if is_bad else good).add(shown(name))
    links = {"loop": ".", "folder0\n/up": "..", "nowhere.png": "not there", "itself.png": "itself.png"}
    for link, target in links.items():
        (folder / link).symlink_to(target)
        bad.add(shown(link.encode()) + ("" if link.endswith(".png") else "/"))
    os.mkfifo(folder / "pipe.png")
    (folder / "null.png").symlink_to("/dev/zero")
    with (folder / "giant.png").open("wb") as file:
        file.truncate(1 << 33)
    return good, bad | {"pipe.png", "null.png", "giant.png"}


def shown(name: bytes) -> str:
    return name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
