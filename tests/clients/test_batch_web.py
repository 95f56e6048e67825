"""Pictures that batch jobs read from web servers, good ones and others."""

import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inferry_client.batch.decode import Decoded, DecodeSettings, decode_chunk
from inferry_client.batch.errors import JobError
from inferry_client.batch.inputs import InputOptions, open_inputs
from inferry_client.batch.remote import web
from testkit import brightness_model
from testkit.batch_jobs import read_rows, run_batch
from testkit.scripted_server import ScriptedServer

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def web_server(files: dict[str, bytes], odd: dict[str, Answer], *, ranges: bool = True) -> Iterator[str]:
    """Files by their paths, and paths that are answered oddly."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path in odd:
                odd[path](self)
                return
            data = files.get(path)
            if data is None:
                self.send_error(404)
                return
            span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if ranges else None
            first, last = (int(span[1]), min(int(span[2]), len(data) - 1)) if span else (0, len(data) - 1)
            self.send_response(206 if span else 200)
            if span:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.send_header("ETag", f'"{hash(data)}"')
            self.send_header("Content-Length", str(last + 1 - first))
            self.end_headers()
            self.wfile.write(data[first : last + 1])

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def decode(address: str, *, most_bytes: int = 1 << 20) -> Decoded:
    (record,) = open_inputs([address], InputOptions()).records()
    return decode_chunk(
        [record.content], DecodeSettings(brightness_model.PREPROCESSING.SerializeToString(), most_bytes)
    )


def test_archives_and_tables_of_a_web_server_give_the_answers_of_files(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    paths = brightness_model.write_pictures(tmp_path / "in", 12)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for path in paths:
            tar.add(path, path.name)
    pq.write_table(pa.table({"image": [path.read_bytes() for path in paths]}), tmp_path / "b.parquet")
    files = {f"/x/{path.name}": path.read_bytes() for path in (*paths, tmp_path / "a.tar", tmp_path / "b.parquet")}
    with web_server(files, {}) as address:
        (tmp_path / "c.txt").write_text("".join(f"{address}/x/{path.name}?signed=%2Fa\n" for path in paths))
        files["/x/d.lst"] = "".join(f"../x/{path.name}\n" for path in paths).encode()
        expected: list[str] = []
        for name, where in (
            ("in", str(tmp_path / "in")),
            ("a.tar", f"{address}/x/a.tar?signature=abc"),
            ("b.parquet", f"{address}/x/b.parquet"),
            ("c.txt", str(tmp_path / "c.txt")),
            ("d.lst", f"{address}/x/d.lst"),
        ):
            run_batch(brightness_server, open_inputs([where], InputOptions()), tmp_path / f"{name}.out")
            labels = [row["label"] for row in read_rows(tmp_path / f"{name}.out")]
            expected = expected or labels
            assert labels == expected
            assert len(labels) == 12


def test_a_server_without_byte_ranges_sends_pictures_and_no_archives(tmp_path: Path) -> None:
    (path,) = brightness_model.write_pictures(tmp_path, 1)
    with web_server({"/a.png": path.read_bytes(), "/a.tar": bytes(20_000)}, {}, ranges=False) as address:
        assert not decode(f"{address}/a.png").faults
        with pytest.raises(JobError, match="no byte ranges"):
            open_inputs([f"{address}/a.tar"], InputOptions())
        with pytest.raises(JobError, match="cannot be listed"):
            open_inputs([f"{address}/folder/"], InputOptions())


def test_what_a_web_server_does_to_one_picture_is_an_error_of_that_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = brightness_model.write_pictures(tmp_path, 1)
    data = path.read_bytes()
    monkeypatch.setattr(web, "_RETRIES", web._RETRIES.new(total=2, backoff_factor=0.0))
    web._pool.cache_clear()
    failures = iter([503, 429])

    def fail_at_first(call: BaseHTTPRequestHandler) -> None:
        status = next(failures, 200)
        call.send_response(status)
        call.send_header("Content-Length", str(len(data) if status == 200 else 0))
        call.end_headers()
        call.wfile.write(data if status == 200 else b"")

    def end_early(call: BaseHTTPRequestHandler) -> None:
        call.send_response(200)
        call.send_header("Content-Length", str(len(data)))
        call.end_headers()
        call.wfile.write(data[:20])
        call.close_connection = True

    def send_without_end(call: BaseHTTPRequestHandler) -> None:
        call.send_response(200)
        call.end_headers()
        call.close_connection = True
        try:
            while True:
                call.wfile.write(bytes(1 << 16))
        except OSError:
            return

    def go_in_circles(call: BaseHTTPRequestHandler) -> None:
        call.send_response(302)
        call.send_header("Location", "/circle.png")
        call.send_header("Content-Length", "0")
        call.end_headers()

    odd: dict[str, Answer] = {
        "/late.png": fail_at_first,
        "/short.png": end_early,
        "/endless.png": send_without_end,
        "/circle.png": go_in_circles,
        "/gone.png": lambda call: call.send_error(403),
    }
    with web_server({"/page.png": b"<html>log in</html>"}, odd) as address:
        assert not decode(f"{address}/late.png").faults
        for name, reason in (
            ("short", "it cannot be read: .*IncompleteRead"),
            ("endless", "more than 1048576 bytes"),
            ("circle", "too many redirects"),
            ("gone", "the server answered 403"),
            ("none", "no such file"),
            ("page", "."),
        ):
            (fault,) = decode(f"{address}/{name}.png").faults.values()
            assert re.search(reason, fault.reason), (name, fault)
    web._pool.cache_clear()
