"""`make bench-attacks`: what it sends is what it says, and what it writes is where readers look."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.attacks import frames
from bench.attacks.__main__ import main, read, write
from bench.attacks.frames import Peer, block, frame, headers, message
from bench.attacks.measure import Outcome
from bench.attacks.report import BEGIN, END, line_of, table_of, write_table
from bench.attacks.table import ATTACKS
from testkit.waiting import SOON_S

ROOT = Path(__file__).parents[2]
WINDOW = 65_535


class Listener:
    """Plays a server: keeps what it gets, and sends what the test says."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def accept(self) -> socket.socket:
        connection, _ = self._socket.accept()
        connection.settimeout(SOON_S)
        return connection

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def received(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (more := connection.recv(1 << 16)):
        got += more
    return got


def kinds(content: bytes) -> list[int]:
    found = []
    while content:
        found.append(content[3])
        content = content[9 + int.from_bytes(content[:3], "big") :]
    return found


def test_headers_that_fill_several_frames_are_continued() -> None:
    small, large = headers("/a/B"), headers("/a/B", 1, {"x": "y" * 40_000})
    assert kinds(small) == [frames.HEADERS]
    assert kinds(large) == [frames.HEADERS, frames.CONTINUATION, frames.CONTINUATION]
    assert [large[4], large[-len(block("/a/B", {"x": "y" * 40_000})) + 2 * frames.LARGEST - 9 + 4]] == [0, 4]


@pytest.mark.parametrize(("size", "coded"), [(126, b"\x7e"), (127, b"\x7f\x00"), (255, b"\x7f\x80\x01")])
def test_lengths_of_headers_are_written_as_hpack_writes_them(size: int, coded: bytes) -> None:
    assert block("/a/B", {"x": "y" * size}).endswith(b"\0\x01x" + coded + b"y" * size)


def test_a_message_may_announce_more_than_comes() -> None:
    assert message(b"abc", announced=9, compressed=True) == b"\1\0\0\0\x09abc"


def test_data_waits_for_the_servers_window(listener: Listener) -> None:
    peer = Peer(listener.port)
    server = listener.accept()
    content = bytes(WINDOW + 100)
    sent: list[bool] = []
    thread = threading.Thread(target=lambda: sent.append(peer.send_data(1, content)))
    thread.start()
    hello = 24 + 9 + 6
    first = received(server, hello + 9 * 4 + WINDOW)
    assert len(first) == hello + 9 * 4 + WINDOW
    server.sendall(frame(frames.WINDOW_UPDATE, 0, 0, (100).to_bytes(4, "big")))
    server.sendall(frame(frames.WINDOW_UPDATE, 0, 1, (100).to_bytes(4, "big")))
    assert len(received(server, 109)) == 109
    thread.join(SOON_S)
    assert sent == [True]
    server.close()
    peer.close()


def test_frames_of_a_stream_are_counted_once_and_settings_are_acknowledged(listener: Listener) -> None:
    peer = Peer(listener.port)
    server = listener.accept()
    received(server, 39)
    server.sendall(frame(frames.SETTINGS, 0, 0) + 2 * frame(frames.RST_STREAM, 0, 1, bytes(4)))
    server.sendall(frame(frames.RST_STREAM, 0, 3, bytes(4)))
    server.close()
    peer.look(SOON_S)
    assert peer.seen == {"reset": 2, "closed": 1}
    assert not peer.open


def test_every_attack_says_what_it_does() -> None:
    assert [one.name for one in ATTACKS if not one.cases] == []
    assert len({one.name for one in ATTACKS}) == len(ATTACKS)


def test_an_unknown_attack_is_not_played(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "earthquake"])
    assert "rapid reset" in capsys.readouterr().err


def test_the_table_takes_its_place_in_a_page_and_leaves_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{BEGIN}old\n{END}below\n")
    held = Outcome(12.4, 1.2, slowest_ms=20.3, answered=9, lost=Counter(UNAVAILABLE=1), seen=Counter(held=3))
    gone = Outcome(3600.0, 0.0, ended="it took 3,500 MB")
    write_table(page, [("floods", "3 of them", {"triton": gone, "inferry": held})])
    text = page.read_text()
    assert text.startswith("above\n")
    assert text.endswith(f"{END}below\n")
    assert "old" not in text
    assert "| floods | 3 of them | Inferry | 12, 1 MB | 20 ms, 1 UNAVAILABLE of 10 | 3 held |" in text
    assert "3,600 MB, it took 3,500 MB" in table_of([("floods", "", {"triton": gone})])
    assert "12, 1 MB" in line_of("floods", "inferry", held)


def test_rows_of_attacks_that_were_not_played_stay_in_their_places(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}{END}")
    first, again = (Outcome(peak, 0.0, answered=1) for peak in (1.0, 2.0))
    both = {"inferry": first, "triton": first}
    write_table(page, [("a", "A", both), ("b", "B", both), ("gone", "", both)])
    before = page.read_text()
    write_table(page, [("a", "A", {}), ("new", "N", {"inferry": again}), ("b", "B", {})])
    lines = page.read_text().splitlines()[3:-1]
    assert [line.split("|")[1].strip() for line in lines] == ["a", "", "new", "b", ""]
    assert [line for line in lines if "| new |" not in line] == before.splitlines()[3:7]


def test_what_was_measured_is_kept_for_the_next_call(tmp_path: Path) -> None:
    file = tmp_path / "made" / "attacks.json"
    assert read(file) == {}
    outcomes = {"floods": {"inferry": Outcome(12.4, 1.2, lost=Counter(UNAVAILABLE=1), seen=Counter(held=3))}}
    write(file, outcomes)
    assert read(file) == outcomes


def test_the_page_has_every_attack() -> None:
    table = (ROOT / "SECURITY.md").read_text().partition(BEGIN)[2].partition(END)[0]
    assert [one.name for one in ATTACKS if f"| {one.name} | {one.cases} | Inferry |" not in table] == []
