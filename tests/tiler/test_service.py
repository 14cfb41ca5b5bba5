"""The map routes over HTTP, on a directory and on MinIO: the same answers."""

import io
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import morecantile
import numpy as np
import pytest
import rasterio
from fastapi.testclient import TestClient
from morecantile import Tile
from numpy.typing import NDArray
from owslib.wmts import WebMapTileService
from PIL import Image

from services.core.dataset import Dataset
from services.core.grid import Grid, Window
from services.core.quantity import Quantity
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import TimeAxis
from tests.tiler.conftest import GRIDS, XCO2, Arrays, World, a_product, publish_arrays
from tiler.reader import native_zoom
from tiler.warp import Target, columns_under, rows_under

pytestmark = pytest.mark.slow  # as a whole

C = "/collections/xco2"
TILE = f"{C}/tiles/WebMercatorQuad/2/1/1"
SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [20, 0], [20, 10], [0, 10], [0, 0]]]}


def values_of(client: TestClient, path: str) -> NDArray[np.float64]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    array: NDArray[np.float64] = np.load(io.BytesIO(answer.content))
    return array


def pixels_of(client: TestClient, path: str) -> NDArray[np.uint8]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))


def detail(client: TestClient, path: str, status: int) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert document["status"] == status
    assert document["detail"]
    return str(document["detail"])


def source_values(world: World, collection: str, quantity: str, period: int) -> NDArray[np.float64]:
    recipe = world.recipes[collection]
    return recipe.product.quantity(quantity).decode(recipe.values[quantity][period]).astype(np.float64)


@pytest.mark.parametrize("matrix_set", ["WebMercatorQuad", "WorldCRS84Quad", "UPSArcticWGS84Quad"])
@pytest.mark.parametrize("collection", ["xco2", "place_nodes", "place_seam"])
def test_values_at_native_zoom_are_those_of_the_source(
    client: TestClient, world: World, collection: str, matrix_set: str
) -> None:
    tms = morecantile.tms.get(matrix_set)
    product = world.recipes[collection].product
    zoom = native_zoom(tms, float(product.grid.step_x))
    x, y = (1, 1) if matrix_set == "WorldCRS84Quad" else (2 ** (zoom - 1), 2 ** (zoom - 1))
    if collection == "place_seam":
        x, y = (tms.tile(179, 5, zoom).x, tms.tile(179, 5, zoom).y) if matrix_set != "UPSArcticWGS84Quad" else (x, y)
    target = Target(crs=tms.rasterio_crs, bounds=tms.xy_bounds(Tile(x, y, zoom)), width=256, height=256)
    longitudes, latitudes = target.centres
    if target.is_separable:
        longitudes, latitudes = np.meshgrid(longitudes, latitudes)
    rows, columns = rows_under(product.grid, latitudes), columns_under(product.grid, longitudes)
    quantity = product.quantities[0].name
    for place, period in enumerate(world.recipes[collection].axis.ids):
        source = source_values(world, collection, quantity, place)
        expected = np.where((rows >= 0) & (columns >= 0), source[rows, columns], np.nan)
        path = f"/collections/{collection}/tiles/{matrix_set}/{zoom}/{x}/{y}.npy?datetime={period}"
        np.testing.assert_array_equal(values_of(client, path)[0], expected)


@pytest.mark.parametrize("matrix_set", morecantile.tms.list())
def test_every_matrix_set_of_titiler_draws(client: TestClient, matrix_set: str) -> None:
    tms = morecantile.tms.get(matrix_set)
    for zoom in (tms.minzoom, tms.minzoom + 2):
        matrix = tms.matrix(zoom)
        path = f"{C}/tiles/{matrix_set}/{zoom}/{matrix.matrixWidth // 2}/{matrix.matrixHeight // 2}"
        picture = pixels_of(client, path)
        assert picture.shape == (matrix.tileHeight, matrix.tileWidth, 4)


def test_a_picture_is_the_values_in_the_quantitys_colours(client: TestClient) -> None:
    values = values_of(client, f"{TILE}.npy")[0]
    picture = pixels_of(client, TILE)
    np.testing.assert_array_equal(picture[..., 3] == 0, np.isnan(values))
    legend = client.get(f"{C}/legend").json()
    assert (legend["minimum"], legend["maximum"], legend["units"]) == (380.0, 420.0, "1e-6")
    colors = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in legend["colors"]])
    drawn = ~np.isnan(values)
    place = np.clip((values[drawn] - 380) / 40 * 255, 0, 255).astype("uint8")
    np.testing.assert_array_equal(picture[drawn][:, :3], colors[place])


def test_titilers_parameters(client: TestClient) -> None:
    plain = client.get(TILE).content
    assert client.get(f"{TILE}.png").content == plain
    assert client.get(f"{TILE}?format=png").content == plain
    assert client.get(f"{TILE}?rescale=380,420&colormap_name=viridis&resampling=nearest&tilesize=256").content == plain
    assert client.get(f"{TILE}?rescale=390,410").content != plain
    assert client.get(f"{TILE}?colormap_name=plasma").content != plain
    assert client.get(f"{TILE}?datetime=2019-11").content != plain
    assert client.get(f"{TILE}?variable=xco2_std").content != plain
    assert pixels_of(client, f"{TILE}?tilesize=512").shape == (512, 512, 4)
    image = Image.open(io.BytesIO(client.get(f"{TILE}?return_mask=false").content))
    assert image.mode == "P"
    assert not image.has_transparency_data
    for suffix, kind in (("jpg", "JPEG"), ("jpeg", "JPEG"), ("webp", "WEBP"), ("jp2", "JPEG2000"), ("pngraw", "PNG")):
        assert Image.open(io.BytesIO(client.get(f"{TILE}.{suffix}").content)).format == kind
    values = values_of(client, f"{TILE}.npy?return_mask=true")
    assert values.shape == (2, 256, 256)
    np.testing.assert_array_equal(values[1] == 255, ~np.isnan(values[0]))


def test_a_geotiff_says_where_it_lies(client: TestClient) -> None:
    answer = client.get(f"{TILE}.tif?datetime=2020-01")
    with rasterio.MemoryFile(answer.content) as file, file.open() as image:
        assert image.crs.to_epsg() == 3857
        assert image.bounds == pytest.approx(tuple(morecantile.tms.get("WebMercatorQuad").xy_bounds(Tile(1, 1, 2))))
        assert np.isnan(image.nodata)
        np.testing.assert_array_equal(image.read(), values_of(client, f"{TILE}.npy?datetime=2020-01"))
    assert answer.headers["content-crs"] == "<http://www.opengis.net/def/crs/EPSG/0/3857>"


@pytest.mark.parametrize("algorithm", ["hillshade", "slope", "contours", "terrarium", "terrainrgb"])
def test_algorithms(client: TestClient, algorithm: str) -> None:
    assert pixels_of(client, f"{TILE}?algorithm={algorithm}").shape == (256, 256, 4)
    params = json.dumps({"buffer": 10} if algorithm in {"hillshade", "slope"} else {})
    assert pixels_of(client, f"{TILE}?algorithm={algorithm}&algorithm_params={params}").shape == (256, 256, 4)


@pytest.mark.parametrize(
    "params", ["[1]", "x", '{"buffer": 1000}', '{"nope": 1}', '{"output_dtype": "object"}', '{"buffer": "a"}']
)
def test_parameters_of_algorithms_are_checked(client: TestClient, params: str) -> None:
    assert "algorithm_params" in detail(client, f"{TILE}?algorithm=hillshade&algorithm_params={params}", 400)


def test_a_difference_of_two_periods(client: TestClient) -> None:
    now, then = (values_of(client, f"{TILE}.npy?datetime={period}") for period in ("2020-03", "2019-11"))
    difference = values_of(client, f"{TILE}.npy?datetime=2020-03&minus=2019-11")
    np.testing.assert_array_equal(difference, now - then)
    legend = client.get(f"{C}/legend?datetime=2020-03&minus=2019-11").json()
    assert (legend["minimum"], legend["maximum"]) == (-20.0, 20.0)
    assert "2020-03 minus 2019-11" in legend["title"]
    middle = client.get(f"{C}/legend?minus=2019-11").json()["colors"][127]
    assert all(int(middle[i : i + 2], 16) > 230 for i in (1, 3, 5)), "no difference is white"
    assert client.get(f"{C}/point/10,20?datetime=2020-03&minus=2019-11").json()["values"] == [3.0]


def test_outside_of_the_data_is_transparent_and_outside_of_the_matrix_is_not_there(client: TestClient) -> None:
    picture = pixels_of(client, "/collections/place_region/tiles/WebMercatorQuad/3/0/6")
    assert not picture[..., 3].any()
    assert "1 x 1 tiles at zoom 0" in detail(client, f"{C}/tiles/WebMercatorQuad/0/1/0", 404)
    for place in ("2/-1/0", "2/4/0", "2/0/4", "25/0/0", "-1/0/0", "99999999999999999999/0/0", "1/0/a", "1.5/0/0"):
        detail(client, f"{C}/tiles/WebMercatorQuad/{place}", 404)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/collections/nope/tiles/WebMercatorQuad/0/0/0", 404, "no collection 'nope'"),
        ("/collections/..%2Fxco2/info", 404, ""),
        (f"{C}/instances/0123456789abcdef0123/info", 404, "no version"),
        (f"{C}/instances/latest/info", 404, "no version"),
        (f"{TILE}?datetime=2020-02", 404, "2020-01 and 2020-03"),
        (f"{TILE}?datetime=2050-01-01", 404, "2020-03"),
        (f"{TILE}?datetime=yesterday", 400, "ISO 8601"),
        (f"{TILE}?datetime=2019-11/2020-03", 400, "choose one"),
        (f"{TILE}?datetime=2020-02-30", 400, "not a date"),
        (f"{TILE}?variable=co3", 404, "xco2, xco2_std"),
        (f"{TILE}?tilesize=8192", 400, "256 or 512"),
        (f"{TILE}?tilesize=257", 400, "256 or 512"),
        (f"{TILE}?tilesize=x", 400, "256 or 512"),
        (f"{TILE}?rescale=5,1", 400, "min,max"),
        (f"{TILE}?rescale=1", 400, "min,max"),
        (f"{TILE}?rescale=nan,2", 400, "finite"),
        (f"{TILE}?rescale=0,inf", 400, "finite"),
        *(
            (f"{C}/{route}rescale={limits}", 400, said)
            for route in ("tiles/WebMercatorQuad/2/1/1?", "legend?", "legend.png?", "WebMercatorQuad/tilejson.json?")
            for limits, said in (
                ("-1e308,1e308", "too wide"),
                ("1,1.0000000000000002", "too narrow"),
                ("0,5e-324", "too narrow"),
            )
        ),
        (f"{TILE}?rescale=1,2&rescale=1,2&rescale=1,2&rescale=1,2", 400, "rescale"),
        (f"{TILE}?colormap_name=nope", 400, "/colorMaps"),
        (f"{TILE}?colormap=%7B%7D", 400, "no parameter 'colormap'"),
        (f"{TILE}?expression=b1*9**9**9", 400, "no parameter 'expression'"),
        (f"{TILE}?url=/etc/passwd", 400, "no parameter 'url'"),
        (f"{TILE}?resampling=gauss", 400, "nearest"),
        (f"{TILE}?algorithm=cast", 400, "hillshade"),
        (f"{C}/bbox/10,10,10.3,10.3.png?algorithm=hillshade", 400, "needs 7 x 7 at least"),
        (f"{C}/bbox/10,10,10.3,10.3.jpg?algorithm=slope", 400, "as it looks at neighbours"),
        (f"{TILE}?minus=2020-02", 404, "2020-01"),
        (f"{TILE}?minus=version:nope", 404, "no version"),
        (f"{TILE}.bmp", 404, "png"),
        (f"{C}/tiles/NoQuad/0/0/0", 404, "WebMercatorQuad"),
        (f"{C}/map/tiles/WebMercatorQuad/x/0/0", 404, "no tile matrix"),
        (f"{C}/point/10,91", 404, "outside the grid"),
        (f"{C}/point/nan,0", 404, "finite"),
        (f"{C}/point/1e400,0", 404, "finite"),
        ("/collections/place_region/point/10,10", 404, "outside the grid"),
        (f"{C}/point/1,2?coord_crs=%2Bproj%3Dlonglat", 400, "EPSG:4326"),
        (f"{C}/point/1,2?coord_crs=EPSG:99999999", 400, "EPSG:4326"),
        (f"{C}/bbox/10,0,0,91.png", 400, "latitudes"),
        (f"{C}/bbox/0,5,10,5.png", 400, "empty"),
        (f"{C}/bbox/0,0,nan,5.png", 404, "finite"),
        (f"{C}/bbox/-180,-90,180,90/4000x10.png", 413, "2048"),
        (f"{C}/bbox/0,0,1,1/0x10.png", 404, "greater than 0"),
        (f"{C}/preview?max_size=-1", 400, "greater than 0"),
        (f"{C}/preview/3000x3000.png", 413, "2048"),
        (f"{C}/legend.png?width=100000", 400, "2048"),
        (f"{C}/statistics?p=101", 400, "0..100"),
        (f"{C}/statistics?p=nan", 400, "0..100"),
        (f"{C}/statistics?histogram_bins=100000", 400, "1000"),
        (f"{C}/statistics?histogram_range=1", 400, "min,max"),
        (f"{C}/statistics?histogram_range=-1e308,1e308", 400, "too wide"),
        (f"{C}/statistics?histogram_range=1,1.0000000000000002&histogram_bins=1000", 400, "too narrow"),
        (f"{C}/WebMercatorQuad/tilejson.json?minzoom=5&maxzoom=2", 400, "do not fit"),
        (f"{C}/WebMercatorQuad/tilejson.json?maxzoom=99", 400, "0 to 24"),
        (f"{C}/nope", 404, "nothing at this address"),
        ("/nope", 404, "nothing at this address"),
    ],
)
def test_wrong_requests_are_told_what_would_be_right(client: TestClient, path: str, status: int, said: str) -> None:
    assert said in detail(client, path, status)


def test_every_answer_says_what_it_is_made_of(client: TestClient, world: World) -> None:
    answer = client.get(f"{TILE}?datetime=2019-12-24T10:00Z")
    assert answer.headers["cenote-version"] == world.versions["xco2"]
    assert answer.headers["cenote-collection"] == "xco2"
    assert answer.headers["cenote-period"] == "2019-12"
    assert answer.headers["cenote-model"] == "net@abababababab"
    assert answer.headers["cenote-synthetic"] == "1"
    assert "cenote-stale" not in answer.headers
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert "Cenote-Version" in answer.headers["access-control-expose-headers"]
    assert client.get(TILE).headers["cenote-period"] == "2020-03"


DOCUMENTS = ("WebMercatorQuad/tilejson.json", "tiles", "tiles/WebMercatorQuad", "WMTSCapabilities.xml", "map/tiles")
DATA = (
    "tiles/WebMercatorQuad/2/1/1",
    "map/tiles/WebMercatorQuad/2/1/1",
    "point/10,20",
    "bbox/0,0,10,10.png",
    "preview",
    "statistics",
    "legend",
    "legend.png",
    "info",
)


@pytest.mark.parametrize("path", [*DOCUMENTS, *DATA, "WebMercatorQuad/map.html"])
def test_a_client_that_holds_an_answer_gets_304_and_head_gets_no_body(
    client: TestClient, world: World, path: str
) -> None:
    for base, caching in (
        (C, "public, max-age=0, must-revalidate"),
        (f"{C}/instances/{world.versions['xco2']}", "public, max-age=31536000, immutable"),
    ):
        first = client.get(f"{base}/{path}")
        assert first.status_code == 200, first.text
        tag = first.headers["etag"]
        assert tag.startswith('"')
        assert first.headers["cache-control"] == caching
        again = client.get(f"{base}/{path}", headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert again.headers["cache-control"] == caching
        assert again.headers["cenote-version"] == world.versions["xco2"]
        assert client.get(f"{base}/{path}", headers={"If-None-Match": '"other"'}).status_code == 200
        head = client.head(f"{base}/{path}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["etag"] == tag
        if "map.html" not in path:
            assert head.headers["content-length"] == first.headers["content-length"]


def test_tags_differ_where_answers_do(client: TestClient) -> None:
    paths = [
        TILE,
        f"{TILE}?datetime=2020-01",
        f"{TILE}?variable=xco2_std",
        f"{TILE}?rescale=1,2",
        f"{TILE}?format=webp",
        f"{C}/tiles/WebMercatorQuad/2/1/2",
        f"{TILE}?minus=2019-11",
        f"{TILE}?minus=2019-12",
        f"{C}/point/10,20",
    ]
    tags = [client.get(path).headers["etag"] for path in paths]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize("path", DATA)
def test_a_version_answers_as_the_collection_does_while_it_is_current(
    client: TestClient, world: World, path: str
) -> None:
    current, pinned = (client.get(f"{base}/{path}") for base in (C, f"{C}/instances/{world.versions['xco2']}"))
    assert current.content == pinned.content
    assert current.headers["etag"] == pinned.headers["etag"]


@pytest.mark.parametrize(
    ("collection", "matrix_set", "bounds", "maxzoom"),
    [
        # 0.5 degrees: the pixel of zoom 2 is 0.35 wide, of zoom 1 0.70; TileJSON means tiles of 512
        ("xco2", "WebMercatorQuad", [-180, -85.0511287798066, 180, 85.0511287798066], 1),
        ("xco2", "WorldCRS84Quad", [-180, -90, 180, 90], 0),
        ("place_nodes", "WebMercatorQuad", [-180, -85.0511287798066, 180, 85.0511287798066], 1),
        ("place_region", "WebMercatorQuad", [72.25, 35, 102.25, 55], 3),
        ("place_seam", "WebMercatorQuad", [-180, -20, 180, 20], 1),
        ("place_fine", "WebMercatorQuad", [100, 20, 115, 30], 4),
        ("xco2", "UPSArcticWGS84Quad", [-180, -33.12561, 180, 90], 1),
    ],
)
def test_tilejson_has_right_zooms_and_bounds(
    client: TestClient, collection: str, matrix_set: str, bounds: list[float], maxzoom: int
) -> None:
    document = client.get(f"/collections/{collection}/{matrix_set}/tilejson.json").json()
    assert document["tilejson"] == "3.0.0"
    assert document["bounds"] == pytest.approx(bounds, abs=1e-4)
    assert (document["minzoom"], document["maxzoom"]) == (0, maxzoom)
    assert "tilesize=512" in document["tiles"][0]
    smaller = client.get(f"/collections/{collection}/{matrix_set}/tilejson.json?tilesize=256").json()
    assert smaller["maxzoom"] == maxzoom + 1
    for zoom in (document["minzoom"], document["maxzoom"]):
        assert client.get(document["tiles"][0].format(z=zoom, x=0, y=0)).status_code == 200


def test_tilejson_names_version_variable_period_and_style(client: TestClient, world: World) -> None:
    query = "datetime=2019-12-24&rescale=390,410&colormap_name=plasma"
    document = client.get(f"{C}/WebMercatorQuad/tilejson.json?{query}").json()
    url = document["tiles"][0]
    assert url.startswith(
        f"http://testserver{C}/instances/{world.versions['xco2']}/tiles/WebMercatorQuad/{{z}}/{{x}}/{{y}}.png?"
    )
    asked = parse_qs(urlsplit(url).query)
    assert asked == {
        "variable": ["xco2"],
        "datetime": ["2019-12"],
        "rescale": ["390,410"],
        "colormap_name": ["plasma"],
        "tilesize": ["512"],
    }
    direct = client.get(f"{TILE}?datetime=2019-12&rescale=390,410&colormap_name=plasma&tilesize=512")
    assert client.get(url.format(z=2, x=1, y=1)).content == direct.content
    assert client.get(document["legend"]).headers["content-type"] == "image/png"


def test_ogc_tilesets_link_to_tiles_that_are_there(client: TestClient) -> None:
    for prefix in ("tiles", "map/tiles"):
        listed = client.get(f"{C}/{prefix}").json()["tilesets"]
        assert [tileset["tileMatrixSetId"] for tileset in listed] == sorted(morecantile.tms.list())
        one = client.get(f"{C}/{prefix}/WebMercatorQuad?datetime=2019-12").json()
        items = [link for link in one["links"] if link["rel"] == "item"]
        assert [item["type"] for item in items] == ["image/png", "image/jpeg"]
        assert "{tileMatrix}/{tileRow}/{tileCol}?" in items[0]["href"]
        assert all(link.get("templated") or "{" not in link["href"] for link in one["links"])
        picture = client.get(items[0]["href"].format(tileMatrix=2, tileRow=1, tileCol=3))
        assert picture.content == client.get(f"{C}/tiles/WebMercatorQuad/2/3/1?datetime=2019-12").content
        assert (
            client.get(items[1]["href"].format(tileMatrix=2, tileRow=1, tileCol=3)).headers["content-type"]
            == "image/jpeg"
        )
        assert one["tileMatrixSetURI"].endswith("/WebMercatorQuad")
        scheme = next(link["href"] for link in one["links"] if link["rel"].endswith("tiling-scheme"))
        assert client.get(scheme).json()["id"] == "WebMercatorQuad"
        limits = {limit["tileMatrix"]: limit for limit in one["tileMatrixSetLimits"]}
        assert limits["0"] == {"tileMatrix": "0", "minTileRow": 0, "maxTileRow": 0, "minTileCol": 0, "maxTileCol": 0}
    region = client.get("/collections/place_region/map/tiles/WebMercatorQuad").json()["tileMatrixSetLimits"][3]
    tms = morecantile.tms.get("WebMercatorQuad")
    corner, other = tms.tile(72.25, 55, 3), tms.tile(102.25, 35, 3)
    assert region == {
        "tileMatrix": "3",
        "minTileRow": corner.y,
        "maxTileRow": other.y,
        "minTileCol": corner.x,
        "maxTileCol": other.x,
    }


def test_wmts_with_time(client: TestClient) -> None:
    answer = client.get(f"{C}/WMTSCapabilities.xml?SERVICE=WMTS&request=GetCapabilities&Version=1.0.0")
    assert answer.headers["content-type"] == "application/xml"
    service = WebMapTileService(f"http://testserver{C}/WMTSCapabilities.xml", xml=answer.content)
    assert list(service.contents) == ["xco2", "xco2_std"]
    layer = service.contents["xco2"]
    assert layer.boundingBoxWGS84 == (-180.0, -90.0, 180.0, 90.0)
    assert layer.formats == ["image/png", "image/jpeg"]
    assert {"WebMercatorQuad", "WorldCRS84Quad", "UPSArcticWGS84Quad"} <= set(layer.tilematrixsetlinks)
    dimension = layer.dimensions["Time"]
    assert dimension["values"] == ["2019-11/2020-01/P1M", "2020-03"]
    assert dimension["default"] == "2020-03"
    matrices = service.tilematrixsets["WebMercatorQuad"]
    assert matrices.crs == "urn:ogc:def:crs:EPSG::3857"
    assert matrices.tilematrix["2"].matrixwidth == 4
    template = next(r["template"] for r in layer.resourceURLs if r["format"] == "image/png")
    for name, value in (("TileMatrixSet", "WebMercatorQuad"), ("TileMatrix", 2), ("TileRow", 1), ("TileCol", 3)):
        template = template.replace(f"{{{name}}}", str(value))
    tile = client.get(template.replace("{Time}", "2019-12"))
    assert tile.content == client.get(f"{C}/tiles/WebMercatorQuad/2/3/1?datetime=2019-12").content
    assert tile.headers["cenote-period"] == "2019-12"
    style = next(iter(layer.styles.values()))
    assert client.get(style["legend"]).headers["content-type"] == "image/png"
    corner = {
        name: [float(part) for part in service.tilematrixsets[name].tilematrix["0"].topleftcorner]
        for name in ("WorldCRS84Quad", "WGS1984Quad")
    }
    assert corner == {"WorldCRS84Quad": [-180, 90], "WGS1984Quad": [90, -180]}, "in the order of the system's axes"
    other = client.get("/collections/place_seam/WMTSCapabilities.xml")
    assert list(WebMapTileService(str(other.url), xml=other.content).contents) == ["place"]


def test_gdal_opens_the_wmts_layer(client: TestClient, live: str) -> None:
    with rasterio.open(f"WMTS:{live}{C}/WMTSCapabilities.xml,layer=xco2,tilematrixset=WorldCRS84Quad") as image:
        assert image.crs.to_epsg() in {4326, None}
        west, south, east, north = image.bounds
        assert (west, north) == pytest.approx((-180, 90), abs=1)
        row, column = image.index(10.25, 20.25)
        window = rasterio.windows.Window(column, row, 1, 1)
        pixel = image.read(window=window)[:3, 0, 0]
    drawn = pixels_of(client, f"{C}/bbox/10,20,10.5,20.5.png?coord_crs=OGC:CRS84")
    np.testing.assert_array_equal(pixel, drawn[0, 0, :3])
    assert (south, east) == pytest.approx((-90, 180), abs=1)


def test_points(client: TestClient, world: World) -> None:
    grid = GRIDS["global"]
    source = source_values(world, "xco2", "xco2", 2)
    rng = np.random.default_rng(3)
    for longitude, latitude in zip(rng.uniform(-180, 360, 30), rng.uniform(-90, 90, 30), strict=True):
        found = client.get(f"{C}/point/{longitude},{latitude}?datetime=2020-01").json()
        row, column = grid.locate(longitude, latitude)
        expected = source[row, column]
        assert found["values"] == [None if np.isnan(expected) else round(float(expected), 2)]
        assert found["period"] == "2020-01"
        assert found["units"] == "1e-6"
        assert found["cell"] == [grid.longitudes[column], grid.latitudes[row]]
    mercator = client.get(f"{C}/point/1113194.9,2273030.9?coord_crs=EPSG:3857&datetime=2020-01").json()
    assert mercator["cell"] == [10.25, 20.25] or mercator["cell"] == [9.75, 19.75]


def test_boxes_and_areas(client: TestClient, world: World) -> None:
    source = source_values(world, "xco2", "xco2", 3)
    box = values_of(client, f"{C}/bbox/-10,0,10,5.npy")[0]
    np.testing.assert_array_equal(box, source[170:180, 340:380])
    across = values_of(client, f"{C}/bbox/179,0,-179,5.npy")[0]
    np.testing.assert_array_equal(across, np.concatenate([source[170:180, 718:], source[170:180, :2]], axis=1))
    assert values_of(client, f"{C}/bbox/-10,0,10,5/30x20.npy").shape == (1, 20, 30)
    assert values_of(client, f"{C}/bbox/-10,0,10,5.npy?max_size=20").shape == (1, 5, 20)
    assert values_of(client, f"{C}/bbox/-10,0,10,5.npy?width=80").shape == (1, 20, 80)
    mercator = client.get(f"{C}/bbox/-10,0,10,5.png?dst_crs=EPSG:3857")
    assert mercator.headers["content-crs"] == "<http://www.opengis.net/def/crs/EPSG/0/3857>"
    assert values_of(client, f"{C}/preview.npy?max_size=720").shape == (1, 360, 720)
    np.testing.assert_array_equal(values_of(client, f"{C}/preview.npy?max_size=720")[0], source)
    triangle = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [10, 10], [0, 0]]]}
    answer = client.post(f"{C}/feature.npy", json={"type": "Feature", "properties": {}, "geometry": triangle})
    assert answer.headers["cenote-version"] == world.versions["xco2"]
    clipped = np.load(io.BytesIO(answer.content))[0]
    assert clipped.shape == (20, 20)
    assert np.isnan(clipped[0, 0])
    inside = ~np.isnan(clipped)
    np.testing.assert_array_equal(clipped[inside], source[160:180, 360:380][inside])


def test_statistics_are_weighted_by_area(client: TestClient, world: World) -> None:
    recipe = world.recipes["place_fine"]
    values = recipe.values["place"][0]
    areas = np.broadcast_to(recipe.product.grid.row_areas[:, np.newaxis], values.shape)
    fine = client.get("/collections/place_fine/statistics").json()["b1"]
    mean = np.average(values, weights=areas)
    assert abs(mean / values.mean() - 1) > 1e-3, "a mean of pixels is another number"
    assert (fine["level"], fine["mean"]) == (0, pytest.approx(mean, rel=1e-12))
    assert fine["std"] == pytest.approx(np.sqrt(np.average((values - mean) ** 2, weights=areas)), rel=1e-9)
    coarse = client.get("/collections/place_fine/statistics?max_size=100").json()["b1"]
    assert coarse["level"] == 2
    assert coarse["mean"] == pytest.approx(mean, rel=1e-9), "levels keep the mean"
    globe = client.get("/collections/place_global/statistics?max_size=720").json()["b1"]
    assert globe["area_km2"] == pytest.approx(510_065_621.724, rel=1e-9), "the surface of WGS84"
    areas = np.broadcast_to(GRIDS["global"].row_areas[:, np.newaxis], GRIDS["global"].shape)
    holes = client.get(f"{C}/statistics?max_size=720&datetime=2020-01").json()["b1"]
    source = source_values(world, "xco2", "xco2", 2)
    there = ~np.isnan(source)
    assert holes["mean"] == pytest.approx(np.average(source[there], weights=areas[there]), rel=1e-12)
    assert holes["valid_pixels"] == there.sum()
    assert holes["min"] == np.nanmin(source)
    assert sum(holes["histogram"][0]) == there.sum()
    assert {"percentile_2", "percentile_98", "median", "std"} <= set(holes)
    assert holes["valid_percent"] == pytest.approx(100 * areas[there].sum() / areas.sum(), abs=0.01)


def test_a_float32_is_told_as_it_was_written(client: TestClient, world: World) -> None:
    source, grid = source_values(world, "xco2", "xco2_std", 2), GRIDS["global"]
    row, column = np.argwhere(~np.isnan(source))[50_000].tolist()
    x, y = float(grid.longitudes[column]), float(grid.latitudes[row])
    written = float(str(np.float32(source[row, column])))
    assert written != source[row, column]
    query = "datetime=2020-01&variable=xco2_std"
    assert client.get(f"{C}/point/{x},{y}?{query}").json()["values"] == [written]
    ring = [[x + dx / 4, y + dy / 4] for dx, dy in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))]
    box = {"type": "Polygon", "coordinates": [ring]}
    found = client.post(f"{C}/statistics?{query}", json=box).json()["properties"]["statistics"]["b1"]
    assert {found[name] for name in ("min", "max", "median", "majority", "percentile_98")} == {written}
    assert (found["mean"], found["std"]) == (source[row, column], 0.0)


def test_statistics_of_areas(client: TestClient, world: World) -> None:
    source = source_values(world, "xco2", "xco2", 3)
    feature = {"type": "Feature", "id": "a", "properties": {"name": "square"}, "geometry": SQUARE}
    answer = client.post(f"{C}/statistics", json=feature)
    assert answer.status_code == 200, answer.text
    assert answer.json()["properties"]["name"] == "square"
    found = answer.json()["properties"]["statistics"]["b1"]
    cells = source[160:180, 360:400]
    weights = np.broadcast_to(GRIDS["global"].row_areas[160:180, np.newaxis], cells.shape)
    there = ~np.isnan(cells)
    assert found["mean"] == pytest.approx(np.average(cells[there], weights=weights[there]), rel=1e-9)
    assert found["count"] == pytest.approx(there.sum())
    # half a cell in from each side: fractions of cells count by what is inside
    inner = {"type": "Polygon", "coordinates": [[[0.25, 0], [0.75, 0], [0.75, 0.5], [0.25, 0.5], [0.25, 0]]]}
    collection = {"type": "FeatureCollection", "features": [feature, {**feature, "geometry": inner}]}
    both = client.post(f"{C}/statistics", json=collection).json()
    assert both["type"] == "FeatureCollection"
    half = both["features"][1]["properties"]["statistics"]["b1"]
    pair = source[179, 360:362]
    assert half["mean"] == pytest.approx(np.nanmean(pair)) or np.isnan(pair).any()
    assert half["count"] == pytest.approx((~np.isnan(pair)).sum() / 2)
    empty = {"type": "Polygon", "coordinates": [[[-175, 70], [-170, 70], [-170, 75], [-175, 75], [-175, 70]]]}
    nothing = client.post(f"{C}/statistics", json=empty).json()["properties"]["statistics"]["b1"]
    assert (nothing["mean"], nothing["valid_pixels"]) == (None, 0)


@pytest.mark.parametrize(
    ("dtype", "least"),
    [("float64", 1e15), ("float64", 1e17), ("float64", -(2.0**53)), ("float64", 0.0), ("int64", 2**60), ("uint8", 3)],
)
@pytest.mark.parametrize("bins", [1, 10, 1000])
def test_a_histogram_holds_values_that_lie_closer_than_its_bins(
    service: Callable[..., TestClient], directory: Store, dtype: str, least: float, bins: int
) -> None:
    grid = Grid.of(west=0, north=4, step_x="1", width=4, height=4)
    fill = None if dtype == "float64" else 255
    style = Style(minimum=0.0, maximum=1.0)
    quantity = Quantity(name="q", units="1", long_name="Q", dtype=dtype, fill_value=fill, style=style)
    product = a_product("great", grid, quantity)
    values = np.full((1, 4, 4), least, dtype=dtype)
    values[0, 0, 0] += 1
    publish_arrays(directory, Arrays(product=product, axis=TimeAxis.regular("2020-01", "P1M", 1), values={"q": values}))
    client = service(directory)
    for west, north, count in ((0, 4, 1), (3, 1, 1), (0, 4, 16)):
        size = 1 if count == 1 else 4
        ring = [[west, north - size], [west + size, north - size], [west + size, north], [west, north]]
        body = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        answer = client.post(f"/collections/great/statistics?histogram_bins={bins}", json=body)
        assert answer.status_code == 200, answer.text
        found = answer.json()["properties"]["statistics"]["b1"]
        heights, edges = found["histogram"]
        assert (len(heights), sum(heights)) == (bins, count)
        assert edges == sorted(set(edges))
        assert edges[0] <= found["min"] <= found["max"] <= edges[-1]


@pytest.mark.parametrize("properties", [["a"], [], "ab", "", 5, 0, True])
def test_properties_that_are_no_object_are_refused(client: TestClient, properties: Any) -> None:
    feature = {"type": "Feature", "geometry": SQUARE, "properties": properties}
    good = {**feature, "properties": None}
    for body in (feature, {"type": "FeatureCollection", "features": [good, feature]}):
        answer = client.post(f"{C}/statistics", json=body)
        assert answer.status_code == 400, answer.text
        assert "properties" in answer.json()["detail"]
    assert client.post(f"{C}/statistics", json=good).status_code == 200


@pytest.mark.parametrize("path", [f"{C}/statistics", f"{C}/feature.png", f"{C}/area?datetime=2020-01", f"{C}/points"])
@pytest.mark.parametrize("depth", [40, 900, 5_000, 20_000])
def test_bodies_nested_deep_are_refused(client: TestClient, path: str, depth: int) -> None:
    place = json.dumps({"type": "Point", "coordinates": [1, 1]})
    collection = '{"type":"GeometryCollection","geometries":[' * depth + place + "]}" * depth
    deep = "[" * depth + "]" * depth
    for body in (
        deep,
        f'{{"type":"Polygon","coordinates":{deep}}}',
        f'{{"type":"Feature","geometry":{collection}}}',
        f'{{"type":"Feature","geometry":{json.dumps(SQUARE)},"properties":{{"a":{deep}}}}}',
    ):
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, (answer.status_code, answer.text)
        assert answer.json()["detail"]


@pytest.mark.parametrize("path", [f"{C}/statistics", f"{C}/feature.png", f"{C}/area?datetime=2020-01", f"{C}/points"])
@pytest.mark.parametrize(
    "body",
    [
        f'{{"type":"Polygon","coordinates":[[[1{"0" * 400},0],[1,0],[1,1],[0,0]]]}}',
        '{"type":{"a":1},"coordinates":[[[0,0],[1,0],[1,1],[0,0]]]}',
        f'{{"type":"Feature","geometry":{json.dumps(SQUARE)},"properties":{{"a":"\\ud800"}}}}',
        f'{{"type":"Feature","geometry":{json.dumps(SQUARE)},"properties":{{"\\ud800":"a"}}}}',
        '{"type":"FeatureCollection","features":[{"id":"\\ud800","geometry":{"type":"Point","coordinates":[1,1]}}]}',
    ],
)
def test_bodies_that_cannot_be_answered_are_refused(client: TestClient, path: str, body: str) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, (answer.status_code, answer.text)
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"type": "Point", "coordinates": [0, 0]}, 400, "Polygon"),
        ({"type": "Feature", "geometry": None}, 400, "Polygon"),
        ({"type": "FeatureCollection", "features": []}, 400, "no features"),
        ({"type": "FeatureCollection", "features": [1]}, 400, "no features"),
        ({"type": "Polygon", "coordinates": []}, 400, ""),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}, 400, ""),
        ({"type": "Polygon", "coordinates": "x"}, 400, ""),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1000, 0], [0, 1], [0, 0]]]}, 400, "longitude"),
        ([], 400, ""),
        (None, 400, ""),
    ],
)
@pytest.mark.parametrize("path", [f"{C}/statistics", f"{C}/feature.png"])
def test_malformed_areas(client: TestClient, path: str, body: Any, status: int, said: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    if said and not ("no features" in said and "feature" in path):
        assert said in answer.json()["detail"]


def test_too_many_vertices(client: TestClient) -> None:
    angles = np.linspace(0, 2 * np.pi, 5002)
    ring = [[float(np.cos(a)) * 5, float(np.sin(a)) * 5] for a in angles[:-1]]
    body = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    assert client.post(f"{C}/statistics", json=body).status_code == 413
    ring = ring[::2]
    body = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    assert client.post(f"{C}/statistics", json=body).status_code == 200
    many = {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": body}] * 2}
    assert client.post(f"{C}/statistics", json=many).status_code == 413, "all features count together"


def test_a_place_in_an_area_equals_its_point(client: TestClient, world: World) -> None:
    dataset = Dataset(world.store, _version(world))
    window = Window(row=100, column=100, height=1, width=1)
    stored = dataset.read_map(XCO2, 0, 0, window)
    value = client.get(f"{C}/point/-129.75,39.75?datetime=2019-11").json()["values"][0]
    decoded = float(XCO2.decode(stored)[0, 0])
    assert value == (None if np.isnan(decoded) else pytest.approx(decoded, abs=0.005))


def _version(world: World) -> Any:
    from services.core.catalog import current_version  # noqa: PLC0415

    return current_version(world.store, "xco2")[1]


def test_the_viewer_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    for matrix_set in ("WebMercatorQuad", "UPSArcticWGS84Quad"):
        answer = client.get(f"{C}/{matrix_set}/map.html?rescale=390,410")
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "http://testserver/collections/xco2/instances/" in answer.text
        assert answer.text.count("//testserver") == answer.text.count("://"), "no other host is named"
        assert "rescale=390,410" in answer.text
        assert "__" not in answer.text
    assert "<script>" not in client.get(f"{C}/WebMercatorQuad/map.html?rescale=1,2").text


def test_titilers_lists(client: TestClient) -> None:
    assert "viridis" in {entry["id"] for entry in client.get("/colorMaps?f=json").json()["colormaps"]}
    matrix_sets = client.get("/tileMatrixSets?f=json").json()["tileMatrixSets"]
    assert {entry["id"] for entry in matrix_sets} == set(morecantile.tms.list())
    algorithms = client.get("/algorithms?f=json").json()["algorithms"]
    assert {entry["id"] for entry in algorithms} == {"hillshade", "slope", "contours", "terrarium", "terrainrgb"}


def test_the_description_of_the_api_is_complete(client: TestClient) -> None:
    document = client.get("/api").json()
    assert document["openapi"].startswith("3.1")
    for route in ("tiles/{tileMatrixSetId}/{z}/{x}/{y}", "point/{lon},{lat}", "statistics", "legend.png"):
        for prefix in ("/collections/{collection_id}", "/collections/{collection_id}/instances/{version}"):
            assert f"{prefix}/{route}" in document["paths"]
    operations = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    ]
    assert len(set(operations)) == len(operations)


def test_health(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    client.get(TILE)
    text = client.get("/metrics").text
    route = 'route="/collections/{collection_id}/tiles/{tileMatrixSetId}/{z}/{x}/{y}"'
    assert route in text
    assert "cenote_chunk_cache_misses_total" in text


def test_links_honour_a_trusted_proxy(client: TestClient) -> None:
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "maps.example.org", "X-Forwarded-Prefix": "/earth"}
    untrusted = client.get(f"{C}/WebMercatorQuad/tilejson.json", headers=forwarded).json()
    assert untrusted["tiles"][0].startswith("http://testserver/collections/")
    near = TestClient(client.app, client=("127.0.0.1", 50000))
    trusted = near.get(f"{C}/WebMercatorQuad/tilejson.json", headers=forwarded).json()
    assert trusted["tiles"][0].startswith("https://maps.example.org/earth/collections/xco2/")
    tileset = near.get(f"{C}/tiles/WebMercatorQuad", headers=forwarded).json()
    assert all(link["href"].startswith("https://maps.example.org/earth/") for link in tileset["links"])
    forged = {"X-Forwarded-Host": 'evil.example/"><script>', "X-Forwarded-Prefix": "/../x y"}
    assert (
        near.get(f"{C}/WebMercatorQuad/tilejson.json", headers=forged)
        .json()["tiles"][0]
        .startswith("http://testserver/collections/")
    )
