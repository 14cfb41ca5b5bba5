"""Tiles drawn without the routes, against those of the routes: the same pictures, headers and errors."""

import asyncio
import io
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.core.grid import Grid
from services.core.quantity import Quantity
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import TimeAxis
from tests.tiler.conftest import GRIDS, XCO2, Arrays, World, a_product, publish_arrays, xco2_values
from tiler.app import create_app
from tiler.fast_tiles import FastTiles

pytestmark = pytest.mark.slow  # as a whole

FIRST = "/collections/xco2/tiles/WebMercatorQuad/2/1/1"

KINDS = (
    Quantity(name="byte", units="1", long_name="b", dtype="uint8", fill_value=255, style=Style(minimum=0, maximum=250)),
    Quantity(name="small", units="1", long_name="s", dtype="int8", fill_value=-1, style=Style(minimum=-99, maximum=99)),
    Quantity(
        name="packed",
        units="K",
        long_name="p",
        dtype="uint16",
        scale_factor=0.1,
        add_offset=-30.0,
        fill_value=0,
        style=Style(minimum=10, maximum=600.7, colormap_name="plasma"),  # no two colours are the same
    ),
    Quantity(name="single", units="1", long_name="f", dtype="float32"),
    Quantity(name="whole", units="1", long_name="w", dtype="int32", fill_value=7),
    Quantity(name="double", units="1", long_name="d", dtype="float64"),
)
"""Every way in which values are stored."""


def kinds_values(grid: Grid, periods: int) -> dict[str, NDArray[Any]]:
    """Values up to the ends of each type, noise and holes, and a tile's worth of nothing."""
    rng = np.random.default_rng(3)
    shape = (periods, *grid.shape)
    out: dict[str, NDArray[Any]] = {}
    for quantity in KINDS:
        if quantity.is_integer:
            info = np.iinfo(quantity.dtype)
            values: NDArray[Any] = rng.integers(info.min, info.max, shape, dtype=quantity.dtype, endpoint=True)
            values[:, :, ::2] //= 16 if info.bits > 8 else 2
        else:
            values = (rng.normal(size=shape) * 100).astype(quantity.dtype)
        values[rng.random(shape) < 0.1] = quantity.fill
        values[:, : grid.height // 2, : grid.width // 3] = quantity.fill
        out[quantity.name] = values
    return out


@dataclass(frozen=True)
class Both:
    """A service, and the same without its fast layer."""

    fast: TestClient
    slow: TestClient
    counted: list[bool]
    """One entry for each request that the fast layer let pass."""

    def same(self, path: str, *, is_fast: bool = True, **options: Any) -> Any:
        """Ask both; the answers must be equal."""
        before = len(self.counted)
        quick, plain = self.fast.get(path, **options), self.slow.get(path, **options)
        assert (len(self.counted) == before) == is_fast, path
        assert quick.status_code == plain.status_code, path
        mine, theirs = dict(quick.headers), dict(plain.headers)
        if quick.status_code == 200:
            np.testing.assert_array_equal(rgba(quick.content), rgba(plain.content), err_msg=path)
            assert int(mine.pop("content-length")) == len(quick.content)
            del theirs["content-length"]
        else:
            assert quick.content == plain.content
        assert mine == theirs, path
        return quick


def rgba(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


class Watched:
    """Counts what the fast layer lets pass."""

    def __init__(self, app: ASGIApp, counted: list[bool]) -> None:
        self._app, self._counted = app, counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._counted.append(True)
        await self._app(scope, receive, send)


class Without:
    """No fast layer."""

    def __init__(self, app: ASGIApp, *_: object) -> None:
        self._app = app

    def again(self, _: Scope) -> None:
        """Nothing is kept."""

    def at_once(self, _: Scope) -> None:
        """Nothing is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def both_of(store: Store, url: str, patch: pytest.MonkeyPatch, **more: Any) -> Both:
    chosen = Settings(store=url, warm_share=0, **more)
    counted: list[bool] = []
    patch.setattr("tiler.app.FastTiles", lambda app, *rest: FastTiles(Watched(app, counted), *rest))
    fast = create_app(chosen, store)
    fast.middleware_stack = fast.build_middleware_stack()
    patch.setattr("tiler.app.FastTiles", Without)
    slow = create_app(chosen, store)
    slow.middleware_stack = slow.build_middleware_stack()
    patch.undo()
    return Both(fast=TestClient(fast), slow=TestClient(slow), counted=counted)


@pytest.fixture(scope="module")
def both(world: World) -> Iterator[Both]:
    with pytest.MonkeyPatch.context() as patch:
        made = both_of(world.store, world.url, patch, tile_cache_mb=0)
    with made.fast, made.slow:
        yield made


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Both, Mapping[str, str]]]:
    """Every stored type, in two versions; ids of both."""
    url = str(tmp_path_factory.mktemp("kinds"))
    store = Store.open(url, StoreSettings())
    grid = GRIDS["global"]
    product = a_product("kinds", grid, *KINDS)
    axis = TimeAxis.regular("2020-01", "P1M", 2)
    values = kinds_values(grid, 2)
    first = publish_arrays(store, Arrays(product=product, axis=axis, values=values))
    turned = {name: np.ascontiguousarray(array[:, ::-1]) for name, array in values.items()}
    second = publish_arrays(
        store, Arrays(product=product, axis=axis, values=turned, origin="turned"), periods="2020-01/2020-02", keep=False
    )
    assert first != second
    with pytest.MonkeyPatch.context() as patch:
        made = both_of(store, url, patch)
    with made.fast, made.slow:
        yield made, {"first": first, "second": second}


MATRIX_SETS = (
    "WebMercatorQuad",
    "WorldCRS84Quad",
    "WorldMercatorWGS84Quad",
    "UPSArcticWGS84Quad",
    "EuropeanETRS89_LAEAQuad",
    "CDB1GlobalGrid",
    "GNOSISGlobalGrid",
    "CanadianNAD83_LCC",
)


@pytest.mark.parametrize("matrix_set", MATRIX_SETS)
@pytest.mark.parametrize("collection", ["xco2", "place_nodes", "place_region", "place_seam", "place_fine"])
def test_every_matrix_set_over_every_grid(both: Both, collection: str, matrix_set: str) -> None:
    for z, x, y in ((0, 0, 0), (1, 1, 0), (2, 1, 1), (5, 17, 13)):
        path = f"/collections/{collection}/tiles/{matrix_set}/{z}/{x}/{y}"
        exists = both.slow.get(path).status_code == 200
        both.same(path, is_fast=exists)
        if z in {1, 5}:
            both.same(f"{path}.png?resampling=bilinear", is_fast=exists)
            both.same(f"{path}.png?resampling=average", is_fast=exists)


@pytest.mark.parametrize("collection", ["xco2", "place_nodes", "place_seam"])
def test_both_sides_of_the_antimeridian_at_every_zoom(both: Both, collection: str) -> None:
    for z in range(9):
        last = 2**z - 1
        for x, y in ((0, last // 2), (last, last // 2), (last // 2, 0), (last, last)):
            both.same(f"/collections/{collection}/tiles/WebMercatorQuad/{z}/{x}/{y}.png")
            both.same(f"/collections/{collection}/tiles/WebMercatorQuad/{z}/{x}/{y}.png?resampling=bilinear")
            both.same(f"/collections/{collection}/tiles/WebMercatorQuad/{z}/{x}/{y}.png?resampling=average")


@pytest.mark.parametrize("quantity", [quantity.name for quantity in KINDS])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"rescale": "-20,77.7"},
        {"colormap_name": "rdbu_r", "return_mask": "false"},
        {"colormap_name": "magma", "tilesize": "512"},
        {"resampling": "bilinear"},
        {"resampling": "average"},
        {"minus": "2020-01"},
        {"minus": "2020-01", "rescale": "-3,5", "resampling": "bilinear"},
        {"rescale": "-8192.844136552325,-8192.781636552325", "return_mask": "false"},  # no float32
        {"format": "webp", "return_mask": "true"},
        {"format": "webp", "return_mask": "0", "tilesize": "256"},
    ],
)
def test_every_stored_type(kinds: tuple[Both, Mapping[str, str]], quantity: str, more: dict[str, str]) -> None:
    both, _ = kinds
    query = urlencode({"variable": quantity, "datetime": "2020-02", **more}, safe=",:")
    for place in ("0/0/0", "2/0/1", "2/3/2", "4/11/4", "7/90/70"):
        both.same(f"/collections/kinds/tiles/WebMercatorQuad/{place}?{query}")


def test_differences_of_versions(kinds: tuple[Both, Mapping[str, str]]) -> None:
    both, versions = kinds
    for minus in (f"version:{versions['first']}", f"version:{versions['first']}@2020-01"):
        for name in ("packed", "single"):
            both.same(f"/collections/kinds/tiles/WebMercatorQuad/1/0/1?minus={minus}&variable={name}")
    answer = both.same(f"/collections/kinds/instances/{versions['first']}/tiles/WebMercatorQuad/1/0/1.png")
    assert answer.headers["cache-control"].endswith("immutable")
    assert answer.headers["cenote-version"] == versions["first"]
    other = both.same("/collections/kinds/tiles/WebMercatorQuad/1/0/1.png")
    assert other.headers["etag"] != answer.headers["etag"]


def test_all_colours_and_missing_pixels_in_one_tile(kinds: tuple[Both, Mapping[str, str]]) -> None:
    # plasma has no colour twice: none of its 256 is left for what is missing
    answer = kinds[0].same("/collections/kinds/tiles/WebMercatorQuad/2/2/2.png?variable=packed&rescale=-30,6500")
    assert Image.open(io.BytesIO(answer.content)).mode == "RGBA"
    picture = rgba(answer.content)
    assert len(np.unique(picture.reshape(-1, 4), axis=0)) == 257
    assert (picture[..., 3] == 0).any()


def test_ogc_addresses_and_instances(both: Both, world: World) -> None:
    for base in ("/collections/xco2", f"/collections/xco2/instances/{world.versions['xco2']}"):
        for query in ("", "?f=png", "?format=webp", "?format=png&f=png", "?datetime=latest"):
            both.same(f"{base}/map/tiles/WebMercatorQuad/3/2/5{query}")
        both.same(f"{base}/tiles/WorldCRS84Quad/3/9/2.webp?datetime=2020-01-15")
        both.same(f"{base}/tiles/WebMercatorQuad/03/02/05")


def test_tags_and_304(both: Both, world: World) -> None:
    path = f"{FIRST}.png?datetime=2020-01&rescale=390,410"
    tag = both.same(path).headers["etag"]
    for held in (tag, f"W/{tag}", f'"other", {tag}'):
        answer = both.same(path, headers={"If-None-Match": held})
        assert (answer.status_code, answer.content) == (304, b"")
    assert both.same(path, headers={"If-None-Match": '"other"'}).status_code == 200
    named = path.replace("/xco2/", f"/xco2/instances/{world.versions['xco2']}/")
    assert both.same(named).headers["etag"] == tag
    assert both.same(f"{FIRST}.png?rescale=390,410&datetime=2020-01").headers["etag"] == tag
    assert both.same(f"{FIRST}.png?rescale=390,411&datetime=2020-01").headers["etag"] != tag


def test_the_same_address_again_is_neither_parsed_nor_chosen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(create_app(Settings(store=world.url), world.store), client=("127.0.0.1", 50000)) as client:
        path = f"{FIRST}.png?datetime=2020-01"
        first = client.get(path)
        answers: list[bool] = []
        inner = FastTiles.answer

        def counted(self: FastTiles, *given: Any, **named: Any) -> Any:
            answers.append(True)
            return inner(self, *given, **named)

        monkeypatch.setattr(FastTiles, "answer", counted)
        again = client.get(path)
        assert (again.content, again.headers, answers) == (first.content, first.headers, [])
        # what a header changes is looked at
        assert client.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
        assert client.get(path, headers={"X-Forwarded-Prefix": "/co2"}).headers["etag"] != first.headers["etag"]
        assert client.head(path).content == b""
        assert len(answers) == 3
        # and what is not kept is made again
        assert client.get(f"{path}&rescale=390,410").content != first.content
        assert len(answers) > 3


def test_head_and_proxies(both: Both) -> None:
    fast, slow = both.fast.head(f"{FIRST}.png"), both.slow.head(f"{FIRST}.png")
    assert fast.content == slow.content == b""
    assert fast.headers["content-length"] == str(len(both.fast.get(f"{FIRST}.png").content))
    assert {**fast.headers, "content-length": ""} == {**slow.headers, "content-length": ""}
    told = {"X-Forwarded-Prefix": "/earth", "X-Forwarded-Host": "maps.example.org", "X-Forwarded-Proto": "https"}
    quick, plain = (TestClient(client.app, client=("127.0.0.1", 1)) for client in (both.fast, both.slow))
    near = Both(fast=quick, slow=plain, counted=both.counted)
    assert near.same(f"{FIRST}.png", headers=told).headers["etag"] != near.same(f"{FIRST}.png").headers["etag"]


@pytest.mark.parametrize(
    "path",
    [
        f"{FIRST}.png?unknown=1",
        f"{FIRST}.png?format=png",
        f"{FIRST}?format=gif",
        f"{FIRST}?f=png",
        f"{FIRST}?rescale=1",
        f"{FIRST}?rescale=3,2",
        f"{FIRST}?rescale=nan,2",
        f"{FIRST}?colormap_name=nothing",
        f"{FIRST}?tilesize=300",
        f"{FIRST}?tilesize=99999999999",
        f"{FIRST}?resampling=wrong",
        f"{FIRST}?return_mask=maybe",
        f"{FIRST}?variable=nothing",
        f"{FIRST}?variable=",
        f"{FIRST}?datetime=1900-01",
        f"{FIRST}?datetime=2019/2020",
        f"{FIRST}?datetime=2019-13",
        f"{FIRST}?minus=1900-01",
        f"{FIRST}?minus=version:0000",
        f"{FIRST}?minus=version:{'0' * 16}",
        f"{FIRST}?variable=xco2&variable=xco2_std&unknown=%00",
        f"{FIRST}.bmp",
        "/collections/xco2/tiles/WebMercatorQuad/2/4/1",
        "/collections/xco2/tiles/WebMercatorQuad/2/1/99999999",
        "/collections/xco2/tiles/WebMercatorQuad/99/1/1",
        "/collections/xco2/tiles/WebMercatorQuad/-1/1/1",
        "/collections/xco2/tiles/WebMercatorQuad/2/1/1/1",
        "/collections/xco2/tiles/Nothing/2/1/1",
        "/collections/xco2/map/tiles/WebMercatorQuad/nothing/1/1",
        "/collections/xco2/map/tiles/WebMercatorQuad/2/1/9",
        "/collections/xco2/map/tiles/WebMercatorQuad/2/1/1?f=gif",
        "/collections/nothing/tiles/WebMercatorQuad/2/1/1",
        "/collections/xco2/instances/0000/tiles/WebMercatorQuad/2/1/1",
        f"/collections/xco2/instances/{'0' * 16}/tiles/WebMercatorQuad/2/1/1.png",
        "/collections/XCO2/tiles/WebMercatorQuad/2/1/1",
    ],
)
def test_what_is_refused_is_refused_by_the_routes(both: Both, path: str) -> None:
    answer = both.same(path, is_fast=False)
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"] == "application/problem+json"


def test_what_it_cannot_draw_is_drawn_by_the_routes(both: Both) -> None:
    for query in ("resampling=cubic", "algorithm=slope", "rescale=380,400&rescale=380,420", "return_mask=yes"):
        assert both.same(f"{FIRST}?{query}", is_fast=False).status_code == 200


def test_too_many_cells_are_told_by_the_routes(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch:
        made = both_of(world.store, world.url, patch, max_cells=1000)
    with made.fast, made.slow:
        assert made.same(FIRST, is_fast=False).status_code == 413


COLOURS = st.sampled_from(["viridis", "plasma", "rdbu_r", "ylorrd", "greys", "Turbo", "gist_ncar"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_requests(kinds: tuple[Both, Mapping[str, str]], data: st.DataObject) -> None:
    both, _ = kinds
    z = data.draw(st.integers(0, 9))
    x, y = data.draw(st.integers(0, 2**z - 1)), data.draw(st.integers(0, 2**z - 1))
    low = data.draw(st.floats(-40000, 40000, allow_subnormal=False))
    width = data.draw(st.floats(1e-3, 70000))
    query = data.draw(
        st.fixed_dictionaries(
            {"variable": st.sampled_from([quantity.name for quantity in KINDS])},
            optional={
                "datetime": st.sampled_from(["2020-01", "2020-02", "latest", "2020-01-31T23:59:59Z"]),
                "minus": st.sampled_from(["2020-01", "2020-02"]),
                "rescale": st.just(f"{low!r},{low + width!r}"),
                "colormap_name": COLOURS,
                "resampling": st.sampled_from(["nearest", "bilinear", "average"]),
                "tilesize": st.sampled_from(["256", "512"]),
                "return_mask": st.sampled_from(["true", "false", "1", "0"]),
                "format": st.sampled_from(["png", "webp"]),
            },
        )
    )
    both.same(f"/collections/kinds/tiles/WebMercatorQuad/{z}/{x}/{y}?{urlencode(query, quote_via=quote)}")


def counts_of(client: TestClient) -> dict[str, float]:
    lines = (line.split(" ") for line in client.get("/metrics").text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines if "{" not in name}


def test_encoded_tiles_are_kept_and_bounded(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch:
        made = both_of(world.store, world.url, patch, tile_cache_mb=1)
    with made.fast, made.slow:
        made.fast.get(FIRST)
        before = counts_of(made.fast)
        assert made.fast.get(FIRST).content == made.fast.get(FIRST).content
        after = counts_of(made.fast)
        assert after["cenote_tile_cache_hits_total"] == before["cenote_tile_cache_hits_total"] + 2
        assert after["cenote_tile_cache_misses_total"] == before["cenote_tile_cache_misses_total"]
        for number in range(150):
            made.fast.get(f"{FIRST}?rescale=380,{400 + number}")
        assert 0 < counts_of(made.fast)["cenote_tile_cache_bytes"] <= 2**20
        answered = made.fast.get("/metrics").text
        route = 'route="/collections/{collection_id}/tiles/{tileMatrixSetId}/{z}/{x}/{y}"'
        assert f'cenote_requests_total{{method="GET",{route},status="200"}} 153.0' in answered
        assert 'route="none"' not in answered


def test_no_encoded_tile_is_kept_where_none_may_be(both: Both) -> None:
    both.fast.get(FIRST)
    assert counts_of(both.fast)["cenote_tile_cache_bytes"] == 0


def test_a_fault_of_the_layer_is_logged_and_the_routes_answer(
    both: Both, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("made up")

    monkeypatch.setattr(FastTiles, "_picture", broken)
    both.same(FIRST, is_fast=False)
    assert "was left to the routes" in caplog.text
    assert "made up" in caplog.text
    caplog.clear()
    assert both.fast.get(f"{FIRST}?variable=none").status_code == 404  # no fault: told by the routes
    assert "left to the routes" not in caplog.text


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, world: World) -> list[str]:
    """Keys of the objects that are read from the store of the world."""
    keys: list[str] = []
    kind = type(world.store)
    for name in ("get", "get_ranges", "get_suffix", "get_tagged"):
        inner = getattr(kind, name)

        def counted(self: Store, key: str, *more: Any, inner: Any = inner) -> Any:
            keys.append(key)
            return inner(self, key, *more)

        monkeypatch.setattr(kind, name, counted)
    return keys


def test_a_cold_tile_reads_its_shards_and_a_hot_one_nothing(world: World, reads: list[str]) -> None:
    with TestClient(create_app(Settings(store=world.url, tile_cache_mb=0, warm_share=0), world.store)) as client:
        client.get(f"{FIRST}?datetime=2019-11")  # opens version and segment
        reads.clear()
        client.get(f"{FIRST}?datetime=2019-12")
        shards = [key for key in reads if "/c/" in key]
        assert 1 <= len(shards) == len(set(shards)) <= 2
        assert len(reads) - len(shards) <= 1  # the pointer, if it is read again just now
        for query in ("", "&rescale=390,410", "&tilesize=512", "&resampling=bilinear"):
            reads.clear()
            assert client.get(f"{FIRST}?datetime=2019-12{query}").status_code == 200
            assert [key for key in reads if not key.endswith("current.json")] == []
        tag = client.get(FIRST).headers["etag"]
    reads.clear()
    with TestClient(create_app(Settings(store=world.url, warm_share=0), world.store)) as client:
        assert client.get(FIRST, headers={"If-None-Match": tag}).status_code == 304
        assert not [key for key in reads if "/segments/" in key]


def test_many_at_once_give_the_same_tiles(both: Both) -> None:
    paths = [f"/collections/xco2/tiles/WebMercatorQuad/3/{n % 8}/{n // 8}?datetime=2020-03" for n in range(64)]
    wanted = [rgba(both.slow.get(path).content) for path in paths[:16]]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: both.fast.get(path).content, paths * 2))
    for place, picture in enumerate(wanted):
        np.testing.assert_array_equal(rgba(found[place]), picture)
        assert found[place] == found[place + len(paths)]


def test_a_hot_tile_is_drawn_without_a_thread(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(Settings(store=world.url, tile_cache_mb=0, warm_share=0), world.store)
    with TestClient(app) as client:
        assert client.get(f"{FIRST}.png").status_code == 200

        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError

        monkeypatch.setattr("anyio.to_thread.run_sync", refuse)
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request", "body": b""}

        scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": f"{FIRST}.png",
            "query_string": b"",
            "headers": [],
            "client": None,
        }
        asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 200


def test_damage_is_told_as_before(directory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = GRIDS["global"]
    axis = TimeAxis.regular("2020-01", "P1M", 1)
    values = XCO2.pack(xco2_values(grid, 1))
    publish_arrays(directory, Arrays(product=a_product("hurt", grid, XCO2), axis=axis, values={"xco2": values}))
    shards = [entry.key for entry in directory.list("hurt/segments/") if "/xco2/c/" in entry.key]
    for key in shards:
        directory.overwrite(key, bytes(1000))
    made = both_of(directory, directory.url, monkeypatch)
    with made.fast, made.slow:
        for query in ("", "?resampling=bilinear", "?minus=2020-01"):
            answer = made.same(f"/collections/hurt/tiles/WebMercatorQuad/1/0/0{query}", is_fast=False)
            assert answer.status_code == 502
            assert answer.json()["key"] in shards
