"""The live page in a real browser that reaches nothing but this machine."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inferry_proto.version_labels import write_version_labels
from inferry_server.app import Server
from testkit import onnx_models
from testkit.http_client import ask_http
from testkit.servers import running_server

pytest.importorskip("uvicorn")
pytest.importorskip("simple_websocket")
from testkit.browser import CHROMIUM, Browser, browser

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]

LOOKS = [(360, "light"), (800, "dark"), (1600, "light"), (1600, "dark")]
REQUEST = b'{"inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}]}'
LATE = REQUEST[:-1] + b', "parameters": {"timeout": 1}}'


@contextmanager
def load(server: Server) -> Iterator[None]:
    """Requests one after another, some of them hopeless."""
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.01):
            for body in (REQUEST, REQUEST, LATE):
                ask_http(server, "/v2/models/doubler/infer", body)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def draw(page: Browser) -> None:
    """A stroke with the mouse across the pad."""
    page.ask("document.getElementById('pad').scrollIntoView({block: 'center'})")
    left, top, size = page.ask(
        "(b => [b.left, b.top, b.width])(document.getElementById('pad').getBoundingClientRect())"
    )
    page.mouse("mousePressed", left + size / 2, top + size / 5)
    for part in range(2, 9):
        page.mouse("mouseMoved", left + size / 2, top + size * part / 10)
    page.mouse("mouseReleased", left + size / 2, top + size * 0.8)


def text(page: Browser, where: str) -> str:
    return str(page.ask(f"document.getElementById('{where}').innerText"))


def test_the_page_shows_load_versions_and_refusals_and_classifies_a_drawing(tmp_path: Path) -> None:
    models = tmp_path / "models"
    onnx_models.save_doubler(models)
    for version in (1, 2):
        onnx_models.save_brightness(models, side=28, version=version)
    write_version_labels(models / "brightness", {"stable": 1, "canary": 2}, {"stable": 95, "canary": 5})
    (models / "broken" / "1").mkdir(parents=True)
    (models / "broken" / "1" / "model.onnx").write_bytes(b"junk")
    pictures = Path(os.environ.get("INFERRY_SCREENSHOTS", tmp_path))
    with browser(tmp_path / "browser") as page:
        page.looks(width=1600, height=1000, scheme="light")
        with running_server(models) as server, load(server):
            page.open(f"http://{server.http_address}/")
            page.wait_for("document.getElementById('state').innerText.endsWith('ready')")
            page.wait_for("/[1-9]/.test(document.querySelector('figcaption b').innerText)")
            page.wait_for("document.getElementById('refused').innerText.includes('deadline_at_admission')")
            page.wait_for("document.querySelectorAll('#late .fall').length > 2")
            late = text(page, "late")
            assert "ms left when it came" in late or "had passed" in late
            shown = text(page, "versions")
            assert all(word in shown for word in ("doubler", "stable", "canary", "CPU", "UNAVAILABLE", "broken"))
            draw(page)
            page.wait_for("document.querySelectorAll('.answer meter').length === 4")
            answers = text(page, "answers")
            assert "brightness 1 (stable)" in answers
            assert "brightness 2 (canary)" in answers
            for width, scheme in LOOKS:
                page.looks(width=width, height=1100, scheme=scheme)
                assert page.ask("document.documentElement.scrollWidth <= innerWidth"), f"it does not fit in {width} px"
                page.photograph(pictures / f"live-{width}-{scheme}.png")
            address = server.http_address
        page.wait_for("document.getElementById('state').className === 'bad'")
        assert address is not None
        with running_server(models, http_address=address):
            page.wait_for("document.getElementById('state').innerText.endsWith('ready')")
