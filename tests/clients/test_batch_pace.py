"""How a batch job keeps its decoders busy: what is under way, whom its threads let go first, what a picture costs."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from inferry_client.batch import decoding, priority
from inferry_client.batch.decode import Decoded, DecodeSettings, decode_chunk
from inferry_client.batch.decoding import InlineDecoder
from inferry_client.batch.folder import FolderInput
from inferry_client.batch.job import LocalEngine, run_job
from inferry_client.batch.opening import open_job
from inferry_client.batch.plan import list_parts, part_digest
from inferry_client.batch.predict import PictureModel
from inferry_client.batch.priority import give_way, importing_in_turns, in_turns, quick_switches
from inferry_client.batch.receipts import Entry, Receipt, read_receipt, write_receipt
from inferry_client.batch.records import Content, DataContent, FileContent, Record
from inferry_client.batch.settings import BatchSettings, chunks_under_way
from testkit import brightness_model


class _Target:
    """Finds every picture alike."""

    def __init__(self) -> None:
        spec = brightness_model.PREPROCESSING
        self.model = PictureModel("model", "1", "images", "scores", spec, ("dark", "bright"), 100, "digest")

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.full((len(pixels), 2), 0.5, np.float32)

    def check_unchanged(self) -> None: ...

    def stop(self) -> None: ...


class _CountingDecoder:
    """Counts the chunks that were handed out and not taken back."""

    def __init__(self) -> None:
        self._decoder = InlineDecoder(DecodeSettings(brightness_model.PREPROCESSING.SerializeToString(), 10_000))
        self.handed_out = self.taken = self.most = 0

    def start(self, contents: Sequence[Content]) -> Callable[[], Decoded]:
        self.handed_out += 1
        self.most = max(self.most, self.handed_out - self.taken)
        return self._decoder.start(contents)

    def took(self, pictures: int, _: int) -> None:
        self.taken += pictures


def test_no_more_chunks_are_under_way_than_may_be(tmp_path: Path) -> None:
    brightness_model.write_pictures(tmp_path / "in", 60)
    settings = BatchSettings(tmp_path / "out", batch_size=1, part_size=20, workers=2)
    target, decoder = _Target(), _CountingDecoder()
    with open_job(FolderInput(tmp_path / "in"), settings, lambda _: target) as job:
        run_job(job, LocalEngine(decoder), progress=decoder.took)
    assert decoder.handed_out == decoder.taken == 60
    assert decoder.most == chunks_under_way(2, target.model.picture_bytes) == 8


@given(workers=st.integers(1, 1024), chunk_bytes=st.integers(1, 1 << 30))
def test_every_worker_has_a_chunk_and_the_next_one_and_small_chunks_wait_beside_them(
    workers: int, chunk_bytes: int
) -> None:
    most = chunks_under_way(workers, chunk_bytes)
    assert 2 * workers <= most <= 4 * workers
    assert most == 2 * workers or most * chunk_bytes <= 4 << 20


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="there is nothing to call")
text = st.text(st.characters(exclude_categories=()))  # lone surrogates too, as names have that are not UTF-8


@given(st.lists(st.builds(Entry, text, st.integers(0), text, text, text, text), max_size=3))
def test_a_receipt_reads_back_and_has_its_pictures_as_json_writes_them(entries: list[Entry]) -> None:
    receipt = Receipt("sha", 1, "3", entries)
    written = write_receipt(receipt)
    assert read_receipt(written) == receipt
    assert (
        written.decode().splitlines()[1:-1]
        == [json.dumps(list(entry)) + "," * (number < len(entries)) for number, entry in enumerate(entries, 1)]
        or not entries
    )


@given(text)
def test_a_file_is_the_same_one_for_another_process(path: str) -> None:
    assert pickle.loads(pickle.dumps(FileContent(path))) == FileContent(path)  # noqa: S301 - of this test


@on_linux
def test_a_thread_that_gives_way_leaves_the_others_as_they_are() -> None:
    def own() -> int:
        return os.sched_getscheduler(0)

    before = own()
    with ThreadPoolExecutor(1, initializer=give_way) as pool:
        assert pool.submit(own).result() == os.SCHED_IDLE
        pool.submit(give_way).result()
        assert pool.submit(own).result() == os.SCHED_IDLE
    assert own() == before


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows whenever others are let go."""
    found: list[None] = []
    monkeypatch.setattr(os, "sched_yield", lambda: found.append(None))
    return found


@on_linux
@given(count=st.integers(0, 200))
def test_others_go_after_some_of_many_items_and_none_is_lost(count: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        turns: list[None] = []
        patch.setattr(os, "sched_yield", lambda: turns.append(None))
        assert list(in_turns(range(count))) == list(range(count))
    assert len(turns) == -(-count // 64)


@on_linux
def test_others_go_while_pictures_are_decoded(tmp_path: Path, turns: list[None]) -> None:
    contents = [FileContent(os.fspath(path)) for path in brightness_model.write_pictures(tmp_path, 40)]
    settings = DecodeSettings(brightness_model.PREPROCESSING.SerializeToString(), 10_000)
    assert len(decode_chunk(contents, settings).pixels) == 40
    assert len(turns) >= 5


@on_linux
def test_others_go_after_each_large_picture(turns: list[None]) -> None:
    settings = DecodeSettings(brightness_model.PREPROCESSING.SerializeToString(), 10_000)
    assert len(decode_chunk([DataContent(bytes(9000))] * 5, settings).faults) == 5
    assert len(turns) == 5


@on_linux
def test_where_others_cannot_be_let_go_a_job_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "not in this sandbox")

    monkeypatch.setattr(os, "sched_yield", refuse)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    give_way()
    assert list(in_turns(range(100))) == list(range(100))


@on_linux
def test_others_go_while_modules_are_imported(
    tmp_path: Path, turns: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_module_of_this_test.py").write_text("VALUE = 3")
    before = list(sys.meta_path)
    with importing_in_turns():
        assert import_module("a_module_of_this_test").VALUE == 3
    assert turns
    assert sys.meta_path == before
    del sys.modules["a_module_of_this_test"]


@on_linux
def test_a_decoding_process_lets_others_go_before_it_imports_what_it_needs(tmp_path: Path) -> None:
    """The process that decodes is the one that the job starts: its modules are looked for after the finder."""
    code = decoding._PROGRAM.partition("from inferry_client.batch.decoder_process")[0] + (
        "assert 'numpy' not in sys.modules; print(type(sys.meta_path[0]).__name__)"
    )
    command = [sys.executable, "-c", code, "0", *sys.path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == priority._ImportsInTurns.__name__


@on_linux
def test_a_job_lets_others_go_while_it_lists_digests_and_commits(
    tmp_path: Path, turns: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 8)
    list(list_parts(FolderInput(tmp_path / "in").records(), 8))
    listed = len(turns)
    assert listed >= 1
    part_digest([Record(str(number), 1, "", FileContent("x")) for number in range(130)])
    assert len(turns) - listed == 3
    written = len(turns)
    write_receipt(Receipt("", 0, "1", [Entry(str(number), 1, "", "") for number in range(130)]))
    assert len(turns) - written == 3


@on_linux
def test_threads_that_a_job_starts_give_way_whoever_starts_them(tmp_path: Path) -> None:
    program = (
        "import os, sys, threading\n"
        "from inferry_client.cli import main\n"
        "from inferry_client.batch import command\n"
        "found = []\n"
        "def own(*_):\n"
        "    found.append(os.sched_getscheduler(0))\n"
        "def until_stopped(*_):\n"
        "    thread = threading.Thread(target=own)\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "    return 0\n"
        "own()\n"
        "command.run_until_stopped = until_stopped\n"
        f"main(['batch', {str(tmp_path)!r}, '--server', 'localhost:1', '--out', {str(tmp_path / 'out')!r}])\n"
        "sys.exit(found[1] != os.SCHED_IDLE)\n"
    )
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | path)


def test_threads_switch_quickly_while_a_job_runs_and_as_before_afterwards() -> None:
    before = sys.getswitchinterval()
    with quick_switches():
        assert sys.getswitchinterval() == pytest.approx(min(before, 0.0005), rel=0.01)
    assert sys.getswitchinterval() == pytest.approx(before, rel=0.01)
