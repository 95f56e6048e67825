"""A real browser without a window, told what to do over its debugging protocol."""

import base64
import itertools
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simple_websocket import Client

from inferry_server.addresses import Address
from testkit.http_client import ask_http
from testkit.waiting import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One page. Every call waits for its answer."""

    def __init__(self, socket: Client, port: int) -> None:
        self._socket = socket
        self._port = port
        self._ids = itertools.count(1)

    def send(self, method: str, **arguments: Any) -> Any:
        """Call a method of the protocol; returns its result."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": arguments}))
        while (said := json.loads(self._socket.receive(timeout=30) or "null")).get("id") != number:
            pass
        assert "error" not in said, said
        return said["result"]

    def new_tab(self, url: str) -> "Browser":
        """Another page, before this one; it stays open until the browser is closed."""
        target = self.send("Target.createTarget", url=url)["targetId"]
        return Browser(Client(f"ws://127.0.0.1:{self._port}/devtools/page/{target}"), self._port)

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)

    def ask(self, expression: str) -> Any:
        """What an expression is, on the page; of a promise, what it comes to."""
        told = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return told["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression holds on the page."""
        wait_until(lambda: bool(self.ask(expression)), expression)

    def mouse(self, kind: str, x: float, y: float) -> None:
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def type(self, text: str) -> None:
        """Into what has the focus; then Enter."""
        self.send("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13
            )

    def looks(self, *, width: int, height: int, scheme: str) -> None:
        """Another size, and light or dark."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def photograph(self, path: Path) -> None:
        picture = self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(picture))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser that can reach this machine alone, closed on leaving."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={folder}", "about:blank",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            told = folder / "DevToolsActivePort"
            wait_until(lambda: told.exists() and told.read_text().count("\n") > 0, "the browser listens")
            port = int(told.read_text().splitlines()[0])
            pages = ask_http(Address("127.0.0.1", port), "/json", host=f"127.0.0.1:{port}").json
            socket = Client(next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"))
            yield Browser(socket, port)
            socket.close()
        finally:
            process.terminate()
