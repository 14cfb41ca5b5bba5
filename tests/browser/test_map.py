import io
import math
import re
import time
import urllib.parse
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from PIL import Image
from rio_tiler.colormap import cmap

if TYPE_CHECKING:
    from services.core.catalog import Version
    from tests.browser.conftest import Browser

pytestmark = pytest.mark.browser

DRAWN = "document.getElementById('map').dataset.drawn"
WEST, EAST = (-20.0, -45.0), (-20.0, 45.0)
"""A place in either half (latitude, longitude)."""

FIRST, LAST = "2015-01", "2017-01"


def hash_of(browser: "Browser") -> dict[str, str]:
    text = str(browser.js("return location.hash")).removeprefix("#")
    return dict(urllib.parse.parse_qsl(text))


def pixel(browser: "Browser", place: tuple[float, float]) -> tuple[float, float]:
    """Where a place lies in the window, from the address alone (web Mercator, 512 pixels at zoom 0)."""
    zoom, lat, lon = (float(part) for part in hash_of(browser)["map"].split(","))
    width, height = browser.js("return [innerWidth, innerHeight]")

    def world(lat: float, lon: float) -> tuple[float, float]:
        y = math.asinh(math.tan(math.radians(lat))) / math.pi
        return 512 * 2**zoom * (lon + 180) / 360, 512 * 2**zoom * (1 - y) / 2

    (x, y), (x0, y0) = world(*place), world(lat, lon)
    return width / 2 + x - x0, height / 2 + y - y0


def colour(browser: "Browser", place: tuple[float, float]) -> tuple[int, int, int]:
    image = Image.open(io.BytesIO(browser.screenshot())).convert("RGB")
    found: Any = image.getpixel(tuple(round(part) for part in pixel(browser, place)))  # type: ignore[arg-type]
    return found[0], found[1], found[2]


def is_colour(found: tuple[int, int, int], value: float) -> bool:
    """Whether a colour is that of a value: viridis over 0..50."""
    wanted = np.array(cmap.get("viridis")[int(value / 50 * 255)][:3], dtype=float)
    return bool(np.abs(wanted - found).max() <= 4)


def open_map(browser: "Browser", served: str, path: str = "/map/halves") -> None:
    browser.open(f"{served}{path}")
    browser.wait(DRAWN)


def wait_for_colour(browser: "Browser", place: tuple[float, float], value: float) -> None:
    """Wait until the picture, which follows the page's own word by a frame or two, shows a value."""
    for _ in range(40):
        if is_colour(found := colour(browser, place), value):
            return
    pytest.fail(f"the map shows {found} at {place} and {value} would be {cmap.get('viridis')[int(value / 50 * 255)]}")


def look_at(browser: "Browser", place: tuple[float, float]) -> None:
    browser.click(*pixel(browser, place))
    browser.wait("!document.getElementById('panel').hidden && !document.querySelector('.panel.waiting')")


def grave(browser: "Browser") -> list[str]:
    """Complaints of the console, without those of the graphics driver about its own speed."""
    return [complaint for complaint in browser.complaints() if "GL Driver Message" not in complaint]


def test_map_shows_the_published_values_in_their_colours_at_their_places(browser: "Browser", served: str) -> None:
    open_map(browser, served)
    assert hash_of(browser)["t"] == LAST
    wait_for_colour(browser, WEST, 10 + 23 * 0.5)
    wait_for_colour(browser, EAST, 30 + 23 * 0.5)
    for west, east in ((-2.5, 2.5), (-89, 89)):
        assert is_colour(colour(browser, (-20, west)), 21.5)
        assert is_colour(colour(browser, (-20, east)), 41.5)
    assert grave(browser) == []


def test_everything_comes_from_our_own_origin(browser: "Browser", served: str) -> None:
    open_map(browser, served, "/")
    browser.wait("document.getElementById('collection').options.length === 2")
    look_at(browser, EAST)
    browser.press("ArrowLeft")
    browser.press_on("#play")
    browser.press_on(".maplibregl-ctrl-globe")
    browser.wait("location.hash.includes('globe=1')")
    browser.wait("performance.getEntriesByType('resource').some((one) => one.name.includes('countries-50m'))")
    browser.press_on("#play")
    asked = browser.requests()
    elsewhere = [url for url in asked if not url.startswith((f"{served}/", "data:", f"blob:{served}/", "chrome:"))]
    assert elsewhere == []
    for what in ("/static/", "countries-50m.json", "/tiles/WebMercatorQuad/", "/position?", "legend", "gl-worker.mjs"):
        assert any(what in url for url in asked), what
    refused = [
        f"{answer['response']['status']} {answer['response']['url']}"
        for answer in browser.events("Network.responseReceived")
        if answer["response"]["status"] >= 400
    ]
    assert refused == []
    assert grave(browser) == []


def test_click_shows_value_series_and_files_of_the_place(browser: "Browser", served: str) -> None:
    open_map(browser, served)
    look_at(browser, EAST)
    assert browser.text("#reading") == "41.5 ppm ± 1.3"
    assert browser.text("#reading-when") == "January 2017"
    assert re.fullmatch(r"(19\.9|20\.)\d+° S, 4[45]\.\d+° E", browser.text("#panel-place"))
    assert "standard uncertainty of level" in browser.text("#panel-note")
    assert "Synthetic" in browser.text("#panel-note")
    label = browser.js("return document.getElementById('chart').getAttribute('aria-label')")
    assert label == "level of halves from January 2015 to January 2017: between 30.0 and 41.5 ppm"
    inked = browser.js(
        "const c = document.querySelector('#chart canvas');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return d.filter((v, i) => i % 4 === 3 && v > 200).length"
    )
    assert inked > 1000
    for name, start_bytes in (("csv", b""), ("netcdf", b"\x89HDF"), ("covjson", b"{")):
        address = browser.js("return document.getElementById(arguments[0]).href", name)
        answer = httpx.get(address)
        assert answer.status_code == 200
        assert answer.content.startswith(start_bytes)
        assert "/instances/" in address
    coverage = answer.json()
    assert coverage["ranges"]["level"]["values"][-1] == 41.5
    assert coverage["ranges"]["level_uncertainty"]["values"][-1] == 1.25
    browser.press("Escape")
    browser.wait("document.getElementById('panel').hidden")
    assert "at" not in hash_of(browser)


def test_a_place_without_values_says_so(browser: "Browser", served: str) -> None:
    open_map(browser, served)
    browser.js("location.hash = 'c=halves&map=1.5,-60,0&at=-75,20'")
    browser.wait("!document.getElementById('panel').hidden && !document.querySelector('.panel.waiting')")
    assert browser.text("#reading") == "no value"
    assert "no value here in any period" in browser.text("#panel-note")


def test_a_place_outside_the_grid_is_told_in_a_sentence(browser: "Browser", served: str) -> None:
    browser.open(f"{served}/map/pacific#at=50,10")
    browser.wait("!document.getElementById('panel').hidden && !document.querySelector('.panel.waiting')")
    said = httpx.get(f"{served}/collections/pacific/position", params={"coords": "POINT(10 50)"}).json()["detail"]
    assert browser.text("#reading").casefold().rstrip(".") == said.casefold().rstrip(".")


def test_arrow_keys_step_through_the_periods_and_over_the_gap(browser: "Browser", served: str) -> None:
    browser.open(f"{served}/map/halves#t=2015-09")
    browser.wait(f"{DRAWN} === '2015-09'")
    wait_for_colour(browser, EAST, 30 + 7 * 0.5)
    browser.press("ArrowLeft")
    browser.wait(f"{DRAWN} === '2015-07'")
    wait_for_colour(browser, EAST, 30 + 6 * 0.5)
    browser.press("ArrowRight", "ArrowRight")
    browser.wait(f"{DRAWN} === '2015-10'")
    assert browser.js("return document.getElementById('period').value") == "October 2015"
    assert browser.js("return document.getElementById('slider').getAttribute('aria-valuetext')") == "October 2015"
    browser.press(*["ArrowLeft"] * 20)
    browser.wait(f"{DRAWN} === '{FIRST}'")
    wait_for_colour(browser, WEST, 10)
    assert browser.js("return document.querySelectorAll('#ruler .gap').length") == 1


def test_playing_goes_round_and_stops(browser: "Browser", served: str) -> None:
    browser.open(f"{served}/map/halves#t={LAST}")
    browser.wait(f"{DRAWN} === '{LAST}'")
    browser.press("Space")
    browser.wait(f"{DRAWN} < '2015-12'")
    browser.wait(f"{DRAWN} > '2015-02'")
    browser.press("Space")
    stopped = browser.js("return document.getElementById('slider').value")
    browser.js("return new Promise((done) => setTimeout(done, 1200))")
    assert browser.js("return document.getElementById('slider').value") == stopped


def test_typed_date_and_typed_position_need_no_mouse(browser: "Browser", served: str) -> None:
    open_map(browser, served)
    browser.js("document.getElementById('period').focus()")
    browser.press(*"2016-05-20", "Enter")
    browser.wait(f"{DRAWN} === '2016-05'")
    browser.js("document.getElementById('period').focus()")
    browser.press(*"2015-08", "Enter")
    browser.wait(f"{DRAWN} === '2015-09' || {DRAWN} === '2015-07'")
    browser.js("document.getElementById('place').focus()")
    browser.press(*"10 S, 45 W", "Enter")
    browser.wait("document.getElementById('reading').textContent.startsWith('1')")
    assert browser.text("#panel-place") == "10.000° S, 45.000° W"
    browser.js("document.getElementById('place').value = 'nowhere'")
    browser.press("Enter")
    assert "latitude" in browser.wait(
        "!document.getElementById('says').hidden && document.getElementById('says').textContent"
    )


def test_enter_on_the_map_looks_at_its_middle(browser: "Browser", served: str) -> None:
    browser.open(f"{served}/map/halves#map=3,20,60")
    browser.wait(DRAWN)
    browser.js("document.querySelector('.maplibregl-canvas').focus()")
    browser.press("Enter")
    browser.wait("!document.getElementById('panel').hidden && !document.querySelector('.panel.waiting')")
    assert browser.text("#panel-place") == "20.000° N, 60.000° E"


def test_a_copied_address_shows_the_same(browser: "Browser", served: str) -> None:
    browser.open(
        f"{served}/#c=halves&v=level_uncertainty&t=2015-03&map=2.50,12.000,40.000&at=10.5000,45.5000&opacity=60"
    )
    browser.wait(f"{DRAWN} === '2015-03'")
    browser.wait("document.getElementById('reading').textContent === '1.25 ppm'")
    said = hash_of(browser)
    assert said == {
        "c": "halves",
        "v": "level_uncertainty",
        "t": "2015-03",
        "map": "2.50,12.000,40.000",
        "at": "10.5000,45.5000",
        "opacity": "60",
    }
    assert browser.js("return document.getElementById('variable').value") == "level_uncertainty"
    assert browser.js("return document.getElementById('opacity').value") == "60"
    browser.js("location.hash = '#c=pacific&t=2001-02-01T05'")
    browser.wait(f"{DRAWN} === '2001-02-01T05'")
    assert browser.js("return document.getElementById('period').value") == "1 Feb 2001, 05:00 UTC"


def test_a_grid_across_the_antimeridian_is_brought_into_view(browser: "Browser", served: str) -> None:
    open_map(browser, served, "/map/pacific")
    zoom, lat, lon = (float(part) for part in hash_of(browser)["map"].split(","))
    assert zoom > 2
    assert abs(lat - 5) < 5
    assert abs(abs(lon) - 180) < 15
    look_at(browser, (5.0, math.copysign(178, lon)))
    assert browser.text("#reading").split()[0] != "no"
    assert "g m⁻² s⁻¹" in browser.text("#reading")


def test_titles_and_descriptions_stay_text(browser: "Browser", served: str) -> None:
    title = httpx.get(f"{served}/collections/halves").json()["title"]
    assert "onerror" in title
    open_map(browser, served)
    assert browser.js("return document.title") == f"{title} · cenote"
    assert browser.js("const s = document.getElementById('collection'); return s.selectedOptions[0].text") == title
    assert browser.js("return window.broken") is None
    browser.press_on(".about summary")
    assert browser.text("#about strong") == "for the tests"
    assert (
        browser.js("return [...document.querySelectorAll('#about a')].map((a) => a.href)")[0] == "https://example.org/"
    )
    assert "javascript:" not in browser.js("return document.getElementById('about').innerHTML")
    assert browser.js("return document.querySelectorAll('#about img').length") == 0
    assert not browser.js("return document.getElementById('synthetic').hidden")
    assert "formula@0123456789ab" in browser.text("#about")


def test_legend_holds_unit_and_round_ticks(browser: "Browser", served: str) -> None:
    open_map(browser, served)
    assert browser.text("#legend figcaption") == "level of halves ppm"
    assert browser.js("return [...document.querySelectorAll('#ticks span')].map((s) => s.textContent)") == [
        "0", "10", "20", "30", "40", "50",
    ]  # fmt: skip
    low, high = (f"rgb({', '.join(str(part) for part in cmap.get('viridis')[place][:3])})" for place in (0, 255))
    ramp = browser.js("return getComputedStyle(document.getElementById('ramp')).backgroundImage")
    assert ramp.startswith(f"linear-gradient(to right, {low}")
    assert ramp.endswith(f"{high})")


@pytest.mark.parametrize("size", [(390, 800), (360, 640), (768, 1024), (1280, 800)])
def test_nothing_is_cut_off_or_covered_at_any_size(browser: "Browser", served: str, size: tuple[int, int]) -> None:
    browser.resize(*size, mobile=size[0] < 720)
    browser.open(f"{served}/map/halves#at=10.5,45.5")
    browser.wait(DRAWN)
    browser.wait("document.getElementById('reading').textContent.startsWith('41')")
    boxes = browser.js(
        "return ['.chooser', '#timeline', '#panel', '#reading', '#chart', '#csv', '#period', '#slider'].map((name) => {"
        "const b = document.querySelector(name).getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })"
    )
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
    chooser, timeline, panel = boxes[:3]
    for one, other in ((chooser, timeline), (chooser, panel), (timeline, panel)):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)
    assert browser.js("return document.documentElement.scrollWidth") <= size[0]


def test_dark_and_light_follow_the_system(browser: "Browser", served: str) -> None:
    open_map(browser, served, "/map/pacific")
    shown = {}
    for scheme in ("light", "dark"):
        browser.scheme(scheme)
        browser.js("return new Promise((done) => setTimeout(done, 400))")
        image = Image.open(io.BytesIO(browser.screenshot())).convert("L")
        # the card, and the water at the left edge of the window
        shown[scheme] = (image.getpixel((40, 60)), image.getpixel((4, 650)))
    assert all(part > 200 for part in shown["light"])  # type: ignore[operator]
    assert all(part < 60 for part in shown["dark"])  # type: ignore[operator]


def test_unknown_collection_is_told_in_a_sentence(browser: "Browser", served: str) -> None:
    browser.open(f"{served}/map/nothing")
    said = browser.wait("!document.getElementById('says').hidden && document.getElementById('says').textContent")
    assert said == "There is no collection 'nothing'."


def test_empty_store_says_what_to_do(browser: "Browser", empty_service: str) -> None:
    browser.open(f"{empty_service}/")
    said = browser.wait("!document.getElementById('says').hidden && document.getElementById('says').textContent")
    assert "Nothing is published yet" in said


def until_listed(served: str, collection: str) -> None:
    """Wait until a service lists a collection: what is listed may be two seconds old."""
    deadline = time.monotonic() + 5
    while collection not in [one["id"] for one in httpx.get(f"{served}/collections").json()["collections"]]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_version_published_meanwhile_is_shown_without_a_reload(
    browser: "Browser", changing_service: tuple[str, Callable[[str, float], "Version"]]
) -> None:
    served, publish = changing_service
    before = publish("Before", 0.5)
    until_listed(served, "halves")
    open_map(browser, served, "/map/halves#t=2016-01")
    wait_for_colour(browser, WEST, 10 + 11 * 0.5)
    after = publish("After", 1.5)
    assert after.id != before.id
    browser.js("return new Promise((done) => setTimeout(done, 2300))")
    browser.js("document.dispatchEvent(new Event('visibilitychange'))")
    browser.wait("document.title.startsWith('After')")
    wait_for_colour(browser, WEST, 10 + 11 * 1.5)
    assert hash_of(browser)["t"] == "2016-01"
    tiles = [url for url in browser.requests() if "/tiles/" in url]
    assert before.id in tiles[0]
    assert after.id in tiles[-1]


def test_a_browser_without_webgl_is_told_and_still_reads_series(blind_browser: "Browser", served: str) -> None:
    blind_browser.open(f"{served}/map/halves")
    said = blind_browser.wait("!document.getElementById('says').hidden && document.getElementById('says').textContent")
    assert "WebGL" in said
    blind_browser.wait("document.getElementById('collection').value === 'halves'")
    blind_browser.js("document.getElementById('place').focus()")
    blind_browser.press(*"10.5, 45.5", "Enter")
    blind_browser.wait("document.getElementById('reading').textContent.startsWith('41.5')")


UNITS = [
    ("unit('g m-2 s-1')", "g m⁻² s⁻¹"),
    ("unit('1e-6')", "ppm"),
    ("unit('1')", ""),
    ("unit('kg.m-2')", "kg.m⁻²"),
    ("unit('degC')", "°C"),
    ("unit('mm/day')", "mm/day"),
    ("number(-0.04, 1)", "0.0"),
    ("number(-3.25, 2)", "−3.25"),
    ("number(0.00000123, 6)", "1.23×10⁻⁶"),
    ("places([1, 2.5, null, 3.125])", 3),
    ("places([0.1 + 0.2])", 1),
    ("rounds(405, 422, 5).join()", "405,410,415,420"),
    ("rounds(-0.3, 0.3, 5).join()", "-0.2,0,0.2"),
    ("rounds(0, 1e-9, 4).length", 5),
    ("JSON.stringify(readPlace('12.5, -68.9'))", '{"lon":-68.9,"lat":12.5}'),
    ("JSON.stringify(readPlace('33.9 S 151.2 E'))", '{"lon":151.2,"lat":-33.9}'),
    ("JSON.stringify(readPlace('10 200'))", '{"lon":-160,"lat":10}'),
    ("JSON.stringify(readPlace('91 0'))", "null"),
    ("JSON.stringify(readPlace('here'))", "null"),
    ("wrapped(-181)", 179),
    ("wrapped(540)", -180),
    ("wrapped(180)", 180),
]
"""What a function of units.js returns."""


def test_units_and_numbers(browser: "Browser", served: str, subtests: pytest.Subtests) -> None:
    browser.open(f"{served}/static/icon.svg")
    names = "unit, number, places, rounds, readPlace, wrapped"
    for expression, value in UNITS:
        with subtests.test(expression):
            found = browser.js(f"return import('/static/units.js').then(({{ {names} }}) => {expression})")
            assert found == value


YEAR = "Periods.ofRuns([[Date.UTC(2004, 0), 12]], 'P1M')"
GAP = "Periods.ofRuns([[Date.UTC(2004, 0), 3], [Date.UTC(2004, 5), 1]], 'P1M')"
HOURS = "Periods.ofRuns([[Date.UTC(2004, 0, 1, 21), 6]], 'PT1H')"
WEEKS = "Periods.ofRuns([[Date.UTC(2004, 0, 1), 2]], 'P8D')"
SEASONS = "Periods.ofRuns([[Date.UTC(2004, 2), 2]], 'P3M')"
YEARS = "Periods.ofRuns([[Date.UTC(1999, 0), 2]], 'P1Y')"
MIDDLES = "Periods.ofTimes(['2004-01-16T12', '2004-02-15'].map(instantOf), Date.UTC(2004, 0), 'P1M')"
ENDS = "Periods.ofTimes(['2004-02-01', '2004-03-01'].map(instantOf), Date.UTC(2004, 0), 'P1M')"
MIDWEEKS = "Periods.ofTimes(['2004-01-05', '2004-01-13'].map(instantOf), Date.UTC(2004, 0), 'P8D')"


AXES = [
    (GAP, "[p.length, p.follows(1), p.follows(3)]", [4, True, False]),
    (GAP, "[0, 1, 2, 3].map((at) => p.id(at))", ["2004-01", "2004-02", "2004-03", "2004-06"]),
    (HOURS, "[p.id(5), p.label(5)]", ["2004-01-02T02", "2 Jan 2004, 02:00 UTC"]),
    (WEEKS, "[p.id(1), p.label(1)]", ["2004-01-09", "9 Jan 2004, 8 days"]),
    (SEASONS, "p.label(1)", "Jun 2004 – Aug 2004"),
    (YEARS, "[p.id(1), p.label(1)]", ["2000", "2000"]),
    (MIDDLES, "[p.id(0), p.id(1)]", ["2004-01", "2004-02"]),
    (ENDS, "[p.id(0), p.id(1)]", ["2004-01", "2004-02"]),
    (MIDWEEKS, "[p.id(0), p.id(1)]", ["2004-01-01", "2004-01-09"]),
    (YEAR, "['2003', '2004-06-30', '2009'].map((text) => p.nearest(instantOf(text)))", [0, 5, 11]),
    (GAP, "['2004-04-02', '2004-05-20'].map((text) => p.nearest(instantOf(text)))", [2, 3]),
    (YEAR, "p.perYear", 12),
    ("Periods.ofRuns([], 'P1M')", "p.length", 0),
    ("null", "['2004-02-30', '2004-13', 'x', '2004-1'].map(instantOf)", [None] * 4),
]
"""What a time axis p says."""


def test_periods(browser: "Browser", served: str, subtests: pytest.Subtests) -> None:
    browser.open(f"{served}/static/icon.svg")
    for axis, expression, value in AXES:
        with subtests.test(f"{expression} of {axis}"):
            found = browser.js(
                "return import('/static/periods.js').then(({ Periods, instantOf }) => "
                f"{{ const p = {axis}; return {expression}; }})"
            )
            assert found == value


def test_coastlines_cross_the_antimeridian_without_a_line_round_the_world(browser: "Browser", served: str) -> None:
    browser.open(f"{served}/static/icon.svg")
    lines = browser.js(
        "return import('/static/coastlines.js').then(({ readCoastlines }) => readCoastlines()).then((found) => "
        "Object.fromEntries(Object.entries(found).map(([name, { geometry }]) => [name, geometry.coordinates])))"
    )
    rings = [ring for polygon in lines["land"] for ring in polygon]
    for line in [*rings, *lines["coast"], *lines["borders"]]:
        points = np.array(line)
        steps = np.abs(np.diff(points[:, 0]))[points[1:, 1] > -90]
        assert steps.max(initial=0) < 15
    assert all(ring[0] == ring[-1] for ring in rings)
    along = [abs(abs(a[0]) - 180) < 0.01 > abs(abs(b[0]) - 180) for line in lines["coast"] for a, b in pairwise(line)]
    assert not any(along)
    assert len(lines["land"]) > 1000
    # Chukotka is one piece that goes on past 180 degrees, and Antarctica reaches the pole all the way round
    assert any(max(lon for lon, _ in ring) > 185 and max(lat for _, lat in ring) > 65 for ring in rings)
    assert any({lat for _, lat in ring} >= {-90} and np.ptp([lon for lon, _ in ring]) > 359 for ring in rings)


def test_land_lies_where_land_is(browser: "Browser", served: str) -> None:
    open_map(browser, served, "/map/pacific#map=1.2,-10,130")
    land, water = (0xD5, 0xDA, 0xD8), (0xE8, 0xED, 0xEE)
    for _ in range(60):
        if colour(browser, (-25, 134)) == land:
            break
    for place in ((-25, 134), (-24, 118), (-6, 143), (-42, 146.5), (25, 103)):
        assert colour(browser, place) == land, place
    for place in ((-40, 90), (-14, 139.5), (-38, 160), (0, 90)):
        assert colour(browser, place) == water, place


def test_hash_without_the_globe_flattens_it(browser: "Browser", served: str) -> None:
    open_map(browser, served, "/map/halves#globe=1&map=1,0,0")
    browser.wait("document.querySelector('.maplibregl-ctrl-globe-enabled') !== null")
    browser.js("location.hash = 'c=halves&map=1,0,0'")
    browser.wait("document.querySelector('.maplibregl-ctrl-globe-enabled') === null")
