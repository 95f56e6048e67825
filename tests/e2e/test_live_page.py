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
from testkit.policies import save_policy, token_of
from testkit.servers import running_server

pytest.importorskip("uvicorn")
pytest.importorskip("simple_websocket")
from testkit.browser import CHROMIUM, Browser, browser

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]

LOOKS = [(width, scheme) for width in (360, 400, 800, 1600) for scheme in ("light", "dark")]
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


def photograph(page: Browser, name: str, folder: Path) -> None:
    """At every width, in both schemes; it must fit."""
    for width, scheme in LOOKS:
        page.looks(width=width, height=1100, scheme=scheme)
        assert page.ask("document.documentElement.scrollWidth <= innerWidth"), f"it does not fit in {width} px"
        page.ask("new Promise(requestAnimationFrame)")
        page.photograph(folder / f"{name}-{width}-{scheme}.png")


def give_token(page: Browser, token: str) -> None:
    """As with the keyboard."""
    page.ask("(t => { t.focus(); t.select(); })(document.getElementById('token'))")
    page.type(token)


def test_the_page_shows_load_versions_and_refusals_and_classifies_a_drawing(tmp_path: Path) -> None:
    models = tmp_path / "models"
    onnx_models.save_doubler(models)
    for version in (1, 2):
        onnx_models.save_brightness(models, side=28, version=version)
    write_version_labels(models / "brightness", {"stable": 1, "canary": 2}, {"stable": 95, "canary": 5})
    (models / "broken" / "1").mkdir(parents=True)
    (models / "broken" / "1" / "model.onnx").write_bytes(b"junk")
    folder = Path(os.environ.get("INFERRY_SCREENSHOTS", tmp_path))
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
            photograph(page, "live", folder)
            address = server.http_address
        page.wait_for("document.getElementById('state').className === 'bad'")
        assert address is not None
        with running_server(models, http_address=address):
            page.wait_for("document.getElementById('state').innerText.endsWith('ready')")


def test_with_an_access_policy_the_page_asks_for_a_token_and_keeps_it_in_memory(tmp_path: Path) -> None:
    models = tmp_path / "models"
    onnx_models.save_brightness(models, side=28)
    everybody = {"viewer": ["read"], "user": ["read", "infer"], "batch": ["infer"]}
    policy = save_policy(tmp_path / "policy.toml", **everybody)
    folder = Path(os.environ.get("INFERRY_SCREENSHOTS", tmp_path))
    asks, ready = "!document.getElementById('access').hidden", "document.getElementById('state').className === 'good'"
    with browser(tmp_path / "browser") as page:
        with running_server(models, access_policy=policy) as server:
            address = server.http_address
            page.open(f"http://{address}/")
            page.wait_for(f"{asks} && document.getElementById('state').innerText.includes('asks for a token')")
            assert page.ask("document.getElementById('shown').hidden"), "what is not known is not shown as nothing"
            photograph(page, "token", folder)
            for token, told in (("wrong", "not known"), (token_of("batch"), "batch")):
                give_token(page, token)
                page.wait_for(f"{asks} && document.getElementById('state').innerText.includes('{told}')")
            give_token(page, f" {token_of('viewer')} ")
            page.wait_for(f"{ready} && !({asks})")
            draw(page)
            page.wait_for("document.querySelector('.answer .bad')?.innerText.includes('role infer')")
            save_policy(policy, user=everybody["user"])
            for _ in range(2):
                server._watcher.look()
            page.wait_for(asks)
            give_token(page, token_of("user"))
            page.wait_for(f"{ready} && !({asks})")
            draw(page)
            page.wait_for("document.querySelectorAll('.answer meter').length === 2")
            kept = page.ask("JSON.stringify([location.href, {...localStorage}, {...sessionStorage}, document.cookie])")
            assert "token-of" not in kept
        page.wait_for("document.getElementById('state').className === 'bad'")
        assert address is not None
        with running_server(models, access_policy=policy, http_address=address):
            page.wait_for(ready)  # the token goes on
            page.open(f"http://{address}/")
            page.wait_for(asks)  # a page that is loaded anew knows none


def test_ten_tabs_of_one_browser_all_show_the_server_and_the_last_one_still_asks(tmp_path: Path) -> None:
    """A browser opens six connections to a server at most."""
    models = tmp_path / "models"
    onnx_models.save_brightness(models, side=28)
    with browser(tmp_path / "browser") as page, running_server(models) as server:
        url = f"http://{server.http_address}/"
        page.open(url)
        tabs = [page, *(page.new_tab(url) for _ in range(9))]
        for tab in tabs:
            tab.wait_for("document.getElementById('state').className === 'good'")
        draw(tabs[-1])
        tabs[-1].wait_for("document.querySelectorAll('.answer meter').length === 2")
        seen = tabs[0].ask("before.time")
        tabs[0].wait_for(f"before.time > {seen}")  # a tab that is not seen goes on, too


def test_what_was_counted_of_a_version_that_has_gone_is_taken_from_nothing(tmp_path: Path) -> None:
    models = tmp_path / "models"
    onnx_models.save_doubler(models)
    with browser(tmp_path / "browser") as page, running_server(models, model_control="explicit") as server:
        page.open(f"http://{server.http_address}/")
        page.wait_for("charts.rows.values[0].length > 0")
        ask_http(server, "/v2/models/doubler/infer", REQUEST)
        page.wait_for("charts.rows.values[0].at(-1) > 0 || before.versions[0].rows > 0")
        assert ask_http(server, "/v2/repository/models/doubler/unload", b"{}").code == 200
        page.wait_for("before.versions.every((one) => one.rows === undefined)")
        assert page.ask("Math.min(...charts.rows.values[0])") == 0


def test_a_server_that_counts_anew_is_shown_anew(tmp_path: Path) -> None:
    models = tmp_path / "models"
    onnx_models.save_doubler(models)
    onnx_models.save_brightness(models, side=28)
    late = LATE[:-1] + ', "id": "\u202elive"}'.encode()
    with browser(tmp_path / "browser") as page:
        with running_server(models) as server:
            page.open(f"http://{server.http_address}/")
            page.wait_for("before !== null")
            assert ask_http(server, "/v2/models/doubler/infer", late).code == 504
            page.wait_for("$('refused').innerText.includes('deadline_at_admission')")
            assert page.ask("document.querySelector('#late bdi').textContent") == "\u202elive"
            address = server.http_address
        assert address is not None
        page.wait_for("$('state').className === 'bad'")
        with running_server(models, http_address=address, model_control="explicit") as server:
            page.wait_for("$('refused').innerText.includes('nothing so far')")
            page.ask("show({...before, time: before.time - 3600, versions: []})")
            assert page.ask("$('versions').children.length") == 0, "a clock that was set back does not stop the page"
            assert ask_http(server, "/v2/repository/models/brightness/unload", b"{}").code == 200
            page.wait_for("$('answers').innerText.includes('No model here takes pictures')")
            assert ask_http(server, "/v2/repository/models/brightness/load", b"{}").code == 200
            page.wait_for("$('answers').innerText.includes('Draw a digit')")


def test_a_picture_is_asked_about_again_for_another_model_and_forgotten_when_cleared(tmp_path: Path) -> None:
    models = tmp_path / "models"
    onnx_models.save_doubler(models)
    with browser(tmp_path / "browser") as page:
        with running_server(models) as server:
            page.open(f"http://{server.http_address}/")
            page.wait_for("document.getElementById('answers').innerText.includes('No model here takes pictures')")
        for version in (1, 2):
            onnx_models.save_brightness(models, side=28, version=version)
        (models / "brightness").rename(models / "bright")
        onnx_models.save_brightness(models, side=28)
        with running_server(models) as server:
            page.open(f"http://{server.http_address}/")
            page.wait_for("document.getElementById('model').options.length === 2")
            page.ask("pad.toBlob((blob) => take(new File([blob], 'black.png')))")
            page.wait_for("document.querySelector('.answer h3')?.innerText.startsWith('bright ')")
            page.ask("(s => { s.value = 'brightness'; s.dispatchEvent(new Event('change')); })($('model'))")
            page.wait_for("document.querySelector('.answer h3')?.innerText.startsWith('brightness ')")
            page.ask("(answered => { $('clear').click(); return answered; })(ask(shown))")
            assert page.ask("$('answers').children.length") == 0
