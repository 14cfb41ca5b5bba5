"""A real Chromium, driven by the WebDriver protocol (JSON over HTTP) of chromedriver, and a service to look at."""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from services.core.catalog import Version, current_version, read_pointer
from services.core.grid import Grid, Window
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.settings import StoreSettings
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import TimeAxis
from services.pipeline.code import this_code
from services.pipeline.plan import plan
from services.pipeline.publish import compose, publish
from services.pipeline.recipe import Input
from services.pipeline.run import run

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
KEYS = {
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "ArrowLeft": "\ue012",
    "ArrowRight": "\ue014",
    "Space": " ",
    "Tab": "\ue004",
}


@dataclass(kw_only=True)
class Browser:
    """One browser window, and everything it asked the network for."""

    session: httpx.Client
    """Requests below ``/session/{id}``."""

    seen: list[dict[str, Any]] = field(default_factory=list)
    """DevTools events so far."""

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One WebDriver command; fails with the browser's own message."""
        answer = self.session.request(method, path, json=body if method == "POST" else None)
        value = answer.json()["value"]
        if answer.is_error:
            pytest.fail(f"{method} {path}: {value['error']}: {value['message']}")
        return value

    def open(self, url: str) -> None:
        """Go to an address and wait for its load event."""
        self.call("POST", "/url", {"url": url})

    def js(self, body: str, *arguments: object) -> Any:
        """The value that the body of a function returns in the page."""
        return self.call("POST", "/execute/sync", {"script": body, "args": list(arguments)})

    def wait(self, expression: str, seconds: float = 20.0) -> Any:
        """Wait until an expression is true in the page; its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.js(f"return {expression}")):
            if time.monotonic() > deadline:
                said = self.js("return document.getElementById('says')?.textContent")
                pytest.fail(
                    f"{expression} was not true within {seconds} s; the page says {said!r}; {self.complaints()}"
                )
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
        actions = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
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

    def devtools(self, command: str, **parameters: object) -> Any:
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
        """What the console complained about since it was last asked: errors, policy violations, failed loads."""
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
                client.delete(session)


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
        # a browser outlives its driver when the session was not ended: an interrupted run must leave none behind
        browsers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        process.wait(timeout=20)
        for browser in browsers:
            with contextlib.suppress(psutil.NoSuchProcess):
                browser.kill()


@pytest.fixture(scope="session")
def window(chromedriver: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that starts once for all tests, with a profile of its own."""
    address, chromium = chromedriver
    profile = tmp_path_factory.mktemp("profile")
    with start(address, chromium, profile) as browser:
        yield browser


@pytest.fixture
def blind_browser(chromedriver: tuple[str, str], tmp_path: Path) -> Iterator[Browser]:
    """A browser that has no WebGL."""
    with start(*chromedriver, tmp_path, "--disable-3d-apis") as browser:
        yield browser


@pytest.fixture
def browser(window: Browser) -> Browser:
    """The browser, on an empty page and with nothing remembered of the test before."""
    window.open("about:blank")
    window.resize(1000, 700)
    window.scheme("light")
    window.forget()
    return window


type Field = Callable[[int, NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""Values at a period's place, latitudes ``(y, 1)`` and longitudes ``(1, x)``."""


@dataclass(frozen=True, kw_only=True)
class Formula:
    """A recipe whose values follow from where and when they are."""

    product: Product
    time: TimeAxis
    fields: dict[str, Field]

    def periods(self) -> TimeAxis:
        return self.time

    def inputs(self) -> tuple[Input, ...]:
        return ()

    def models(self) -> Mapping[str, str]:
        return {"formula": "0123456789abcdef" * 4}

    def model_directories(self) -> Mapping[str, Path]:
        return {}

    def facts(self) -> Mapping[str, Any]:
        return {}

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        grid = self.product.grid
        y, x = grid.latitudes[window.rows, np.newaxis], grid.longitudes[np.newaxis, window.columns]
        places = [self.time.starts.index(start) for start in periods.starts]
        zeros = np.zeros((len(y), x.shape[1]))
        return {
            quantity.name: quantity.pack(
                np.stack([self.fields[quantity.name](place, y, x) + zeros for place in places])
            )
            for quantity in self.product.quantities
        }


class Quiet:
    """Progress that nobody watches."""

    def start(self, stage: str, total: int, done: int) -> None:
        pass

    def advance(self, stage: str, task: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def publish_formula(store: Store, recipe: Formula) -> Version:
    """Render and publish."""
    current = None if read_pointer(store, recipe.product.id) is None else current_version(store, recipe.product.id)[1]
    work = plan(
        product=recipe.product,
        available=recipe.time,
        current=current,
        code=this_code(),
        models=dict(recipe.models()),
        periods="../.." if current else None,
    )
    version = compose(work, run(store, work, recipe, None, Quiet()), current)
    publish(store, version)
    return version


MARKUP = "Halves <img src=x onerror=window.broken=1> & <b>more</b>"


def halves(title: str = MARKUP, rise: float = 0.5) -> Formula:
    """West 10, east 30, both rising with each month; missing south of 60 S; one month is absent."""
    product = Product(
        id="halves",
        title=title,
        description="Made up **for the tests**.\n\n"
        "- one [kind](https://example.org/) of link\n- [another](javascript:broken)",
        grid=Grid.of(west=-180, north=90, step_x="1", width=360, height=180),
        step="P1M",
        quantities=(
            Quantity(
                name="level",
                units="1e-6",
                long_name="level of halves",
                dtype="int16",
                scale_factor=0.01,
                fill_value=-32768,
                style=Style(colormap_name="viridis", minimum=0.0, maximum=50.0),
            ),
            Quantity(
                name="level_uncertainty",
                units="1e-6",
                long_name="standard uncertainty of level",
                dtype="int16",
                scale_factor=0.01,
                fill_value=-32768,
                role="uncertainty",
                ancillary_of="level",
            ),
        ),
        synthetic=True,
    )
    every = TimeAxis.regular("2015-01", "P1M", 25)
    kept = every.take([place for place in range(25) if place != 7])
    middles = kept.bounds.astype("datetime64[us]").astype(np.int64).mean(axis=1).astype(np.int64)
    time = TimeAxis(step=kept.step, starts=kept.starts, times=tuple(middles.tolist()))

    def level(place: int, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(y < -60, np.nan, np.where(x < 0, 10.0, 30.0) + place * rise)

    def spread(place: int, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        return level(place, y, x) * 0 + 1.25

    return Formula(product=product, time=time, fields={"level": level, "level_uncertainty": spread})


def pacific() -> Formula:
    """A grid across the antimeridian, hourly over three days: values tell their longitude, 0..360."""
    product = Product(
        id="pacific",
        title="Pacific",
        description="Across the antimeridian.",
        grid=Grid.of(west=165, north="20", step_x="1/2", width=60, height=60),
        step="PT1H",
        quantities=(Quantity(name="east", units="g m-2 s-1", long_name="how far east"),),
        series_block=None,
        map_block=24,
        cog_period=None,
    )
    return Formula(
        product=product,
        time=TimeAxis.regular("2001-01-30T06", "PT1H", 72),
        fields={"east": lambda place, y, x: x % 360 + place + y * 0},
    )


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """``cenote serve`` over a directory; yields its address.

    A process of its own: in ours warnings are errors, and rio-tiler silences one for each picture, which holds for all
    threads at once, so that of pictures drawn at the same time one would fail now and then.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store, log = folder / "store", folder / "log"
    command: list[str | Path] = [
        Path(sysconfig.get_path("scripts")) / "cenote",
        "--store",
        store,
        "serve",
        "--port",
        str(port),
    ]
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as messages:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=messages, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{address}/healthz").is_success:
                    break
            except httpx.TransportError:
                if time.monotonic() > deadline or process.poll() is not None:
                    pytest.fail(f"cenote serve does not answer: {log.read_text(errors='replace')}")
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def directory(folder: Path) -> Store:
    """The store that ``serving`` serves."""
    return Store.open(str(folder / "store"), StoreSettings())


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the service over the two published collections."""
    folder = tmp_path_factory.mktemp("served")
    for recipe in (halves(), pacific()):
        publish_formula(directory(folder), recipe)
    with serving(folder) as address:
        yield address


@pytest.fixture
def empty_service(tmp_path: Path) -> Iterator[str]:
    """Address of a service over a store with nothing in it."""
    (tmp_path / "store").mkdir()
    with serving(tmp_path) as address:
        yield address


@pytest.fixture
def changing_service(tmp_path: Path) -> Iterator[tuple[str, Callable[[str, float], Version]]]:
    """Address of a service over a store of its own, and a function that publishes to it with a title and a rise."""
    (tmp_path / "store").mkdir()
    with serving(tmp_path) as address:
        yield address, lambda title, rise: publish_formula(directory(tmp_path), halves(title, rise))
