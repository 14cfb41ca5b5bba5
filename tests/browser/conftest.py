"""A real Chromium, driven by the W3C WebDriver protocol that chromedriver speaks: JSON over HTTP."""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # WebGL without a graphics card.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "ArrowLeft": "\ue012", "ArrowRight": "\ue014", "Space": " ", "Tab": "\ue004"}


@dataclass(kw_only=True)
class Browser:
    """One browser window, and everything it asked the network for."""

    session: httpx.Client
    """Requests below ``/session/{id}``."""

    seen: list[dict[str, Any]] = field(default_factory=list)
    """DevTools events so far."""

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON
        """One WebDriver command; fails with the browser's own message."""
        answer = self.session.request(method, path, json=body if method == "POST" else None)
        value = answer.json()["value"]
        if answer.is_error:
            pytest.fail(f"{method} {path}: {value['error']}: {value['message']}")
        return value

    def open(self, url: str) -> None:
        """Go to an address and wait for its load event."""
        self.call("POST", "/url", {"url": url})

    def js(self, body: str, *arguments: object) -> Any:  # noqa: ANN401 - JSON
        """The value that the body of a function returns in the page."""
        return self.call("POST", "/execute/sync", {"script": body, "args": list(arguments)})

    def wait(self, expression: str, seconds: float = 20.0) -> Any:  # noqa: ANN401 - JSON
        """Wait until an expression is true in the page; its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.js(f"return {expression}")):
            if time.monotonic() > deadline:
                said = self.js("return document.getElementById('says')?.textContent")
                pytest.fail(f"{expression} was not true within {seconds} s; the page says {said!r}; {self.complaints()}")
            time.sleep(0.05)
        return value

    def text(self, selector: str) -> str:
        """Visible text of an element."""
        found: str = self.js("return document.querySelector(arguments[0]).innerText", selector)
        return found

    def click(self, x: float, y: float) -> None:
        """Click at a place of the window, CSS pixels."""
        move = {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y), "origin": "viewport"}
        down, up = ({"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp"))
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": [move, down, up]}
        self.call("POST", "/actions", {"actions": [mouse]})

    def press(self, *keys: str) -> None:
        """Press and release keys, one after the other, wherever the focus is."""
        actions = [
            {"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")
        ]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def press_on(self, selector: str) -> None:
        """Click an element."""
        self.js("document.querySelector(arguments[0]).click()", selector)

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Give the page another size, CSS pixels."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )

    def scheme(self, name: str) -> None:
        """Prefer ``light`` or ``dark`` colours."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def devtools(self, command: str, **parameters: object) -> Any:  # noqa: ANN401 - JSON
        """A DevTools command."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self.call("GET", "/screenshot"))

    def events(self, method: str) -> list[dict[str, Any]]:
        """Parameters of all DevTools events of one kind since the browser was started."""
        for entry in self.call("POST", "/se/log", {"type": "performance"}):
            self.seen.append(json.loads(entry["message"])["message"])
        return [event["params"] for event in self.seen if event["method"] == method]

    def requests(self) -> list[str]:
        """Addresses that pages asked for."""
        return [event["request"]["url"] for event in self.events("Network.requestWillBeSent")]

    def complaints(self) -> list[str]:
        """What the browser's console complained about since it was last asked: errors, policy violations, failed loads."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"})]

    def forget(self) -> None:
        """Drop what was seen so far."""
        self.events("")
        self.seen.clear()
        self.complaints()


@contextlib.contextmanager
def start(address: str, chromium: str, profile: Path, *flags: str) -> Iterator[Browser]:
    """A new browser with an empty profile."""
    options = {"binary": chromium, "args": [*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,800", *flags]}
    logs = {"performance": "ALL", "browser": "ALL"}
    wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs}
    with httpx.Client(timeout=90) as client:
        answer = client.post(f"{address}/session", json={"capabilities": {"alwaysMatch": wanted}})
        if answer.is_error:
            pytest.fail(f"chromium did not start: {answer.json()['value']['message']}")
        session = f"{address}/session/{answer.json()['value']['sessionId']}"
        with httpx.Client(base_url=session, timeout=90) as commands:
            try:
                yield Browser(session=commands)
            finally:
                commands.delete("")


@pytest.fixture(scope="session")
def chromedriver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address of a running chromedriver, and the browser to drive; skips where there is none."""
    chromium = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver on PATH (Debian: apt-get install chromium chromium-driver)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("chromedriver") / "log"
    with log.open("wb") as messages:
        process = subprocess.Popen([driver, f"--port={port}"], stdout=messages, stderr=subprocess.STDOUT)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 20
        while True:
            try:
                if httpx.get(f"{address}/status").json()["value"]["ready"]:
                    break
            except httpx.TransportError:
                if time.monotonic() > deadline or process.poll() is not None:
                    pytest.fail(f"chromedriver does not answer: {log.read_text(errors='replace')}")
                time.sleep(0.05)
        yield address, chromium
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(scope="session")
def window(chromedriver: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that starts once for all tests, with a profile of its own."""
    address, chromium = chromedriver
    profile = tmp_path_factory.mktemp("profile")
    with start(address, chromium, profile) as browser:
        yield browser


@pytest.fixture
def browser(window: Browser) -> Browser:
    """The browser, on an empty page and with nothing remembered of the test before."""
    window.open("about:blank")
    window.resize(1280, 800)
    window.scheme("light")
    window.forget()
    return window
