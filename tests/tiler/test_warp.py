"""Drawn pixels against rasterio.warp.reproject on the level that was used, and against their own coordinates."""

from collections.abc import Iterator

import morecantile
import numpy as np
import pytest
from affine import Affine
from morecantile import Tile
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.errors import RequestTooLarge
from services.core.grid import Grid, Window
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from services.core.time_axis import TimeAxis
from tests.tiler.conftest import GRIDS, PLACE, XCO2, Arrays, a_product, own_coordinates, publish_arrays, xco2_values
from tiler.catalogue import Served
from tiler.reader import MapReader, MapSource, draw_values, native_zoom
from tiler.request import Requested
from tiler.warp import Gather, Level, Target, columns_under, rows_under

pytestmark = pytest.mark.slow  # as a whole

MATRICES = ("WebMercatorQuad", "WorldCRS84Quad", "UPSArcticWGS84Quad")
PLACED = (*MATRICES, "WorldMercatorWGS84Quad")
"""Matrix sets that show most of the Earth, so that tiles can be asked for by place."""

EDGE = 1e-6
"""A pixel whose centre is this near to a cell's edge, in cells, may go either way."""


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """One map of each grid whose values are their own coordinates, and one with holes."""
    store = Store.open(str(tmp_path_factory.mktemp("grids")), StoreSettings())
    out = {}
    for name, grid in GRIDS.items():
        product = a_product(f"place_{name}", grid, PLACE)
        axis = TimeAxis.regular("2020-01", "P1M", 1)
        publish_arrays(store, Arrays(product=product, axis=axis, values={"place": own_coordinates(grid, 1)}))
        out[name] = Dataset(store, current_version(store, product.id)[1])
    grid = GRIDS["global"]
    product = a_product("holes", grid, XCO2)
    values = {"xco2": XCO2.pack(xco2_values(grid, 1))}
    publish_arrays(store, Arrays(product=product, axis=TimeAxis.regular("2020-01", "P1M", 1), values=values))
    out["holes"] = Dataset(store, current_version(store, product.id)[1])
    return out


def requested(dataset: Dataset) -> Requested:
    served = Served(dataset=dataset, version=dataset.version.id, seq=1, is_current=True)
    return Requested(served=served, quantity=dataset.product.quantities[0], positions=range(1))


def tile_target(matrix_set: str, tile: Tile, size: int = 256) -> Target:
    tms = morecantile.tms.get(matrix_set)
    return Target(crs=tms.rasterio_crs, bounds=tms.xy_bounds(tile), width=size, height=size)


def whole_level(dataset: Dataset, number: int) -> tuple[Grid, NDArray[np.floating]]:
    grid = dataset.product.grid.level(number)
    window = Window(row=0, column=0, height=grid.height, width=grid.width)
    quantity = dataset.product.quantities[0]
    return grid, quantity.decode(dataset.read_map(quantity, 0, number, window)).astype(np.float64)


def by_gdal(grid: Grid, values: NDArray[np.floating], target: Target, method: Resampling) -> NDArray[np.floating]:
    """The level warped by GDAL with an exact transformer, at its own place and one turn east and west of it."""
    out = np.full((target.height, target.width), np.nan)
    for turn in (0, -360, 360):
        a, b, c, d, e, f = grid.transform
        drawn = np.full_like(out, np.nan)
        reproject(
            values,
            drawn,
            src_transform=Affine(a, b, c + turn, d, e, f),
            src_crs="EPSG:4326",
            src_nodata=np.nan,
            dst_transform=target.transform,
            dst_crs=target.crs,
            dst_nodata=np.nan,
            resampling=method,
            tolerance=0,
        )
        out = np.where(np.isnan(out), drawn, out)
    return out


def near_an_edge(grid: Grid, target: Target) -> NDArray[np.bool_]:
    """Pixels whose centre lies within EDGE of a cell's edge, ``(y, x)``."""
    longitudes, latitudes = target.centres
    if target.is_separable:
        longitudes, latitudes = np.meshgrid(longitudes, latitudes)
    x = (longitudes - float(grid.west)) / float(grid.step_x)
    y = (float(grid.north) - latitudes) / float(grid.step_y)
    turn = 360 / float(grid.step_x)
    x_edges = np.abs(x - np.rint(x)) < EDGE
    for shift in (-turn, turn):
        x_edges |= np.abs(x + shift - np.rint(x + shift)) < EDGE
    near: NDArray[np.bool_] = x_edges | (np.abs(y - np.rint(y)) < EDGE)
    return near


def tiles_of(matrix_set: str, grid: Grid) -> Iterator[Tile]:
    """Tiles at the first, the native and a deeper zoom: in the grid's middle, at its corner and on the antimeridian."""
    tms = morecantile.tms.get(matrix_set)
    west, south, east, north = grid.bounds
    native = native_zoom(tms, float(min(grid.step_x, grid.step_y)))
    places = [((west + east) / 2, (south + north) / 2 + 0.3), (west + 1e-3, min(north, 85) - 1e-3), (179.999, 10.0)]
    for zoom in (tms.minzoom, native, native + 3):
        matrix = tms.matrix(zoom)
        seen = set()
        if matrix_set not in PLACED:
            yield Tile(matrix.matrixWidth // 2, matrix.matrixHeight // 2, zoom)
            continue
        for longitude, latitude in places:
            tile = tms.tile((longitude + 180) % 360 - 180, latitude, zoom)
            column, row = min(tile.x, matrix.matrixWidth - 1), min(max(tile.y, 0), matrix.matrixHeight - 1)
            if (column, row) not in seen:
                seen.add((column, row))
                yield Tile(column, row, zoom)


@pytest.mark.parametrize("matrix_set", MATRICES)
@pytest.mark.parametrize("name", [*GRIDS, "holes"])
def test_nearest_equals_gdal_on_the_level_used(datasets: dict[str, Dataset], name: str, matrix_set: str) -> None:
    dataset = datasets[name]
    compared = drawn = 0
    for tile in tiles_of(matrix_set, dataset.product.grid):
        target = tile_target(matrix_set, tile)
        got = draw_values(requested(dataset), target, "nearest", Settings())
        grid, values = whole_level(dataset, dataset.product.grid.coarsest(target.pixel_degrees))
        expected = by_gdal(grid, values, target, Resampling.nearest)
        certain = ~near_an_edge(grid, target)
        np.testing.assert_array_equal(got[certain], expected[certain], err_msg=f"{tile}")
        compared += int(certain.sum())
        drawn += int(np.isfinite(got).sum())
    assert compared > 100_000
    assert drawn > 10_000


@pytest.mark.parametrize("matrix_set", [*MATRICES, "EuropeanETRS89_LAEAQuad", "WorldMercatorWGS84Quad", "NZTM2000Quad"])
@pytest.mark.parametrize("name", ["global", "nodes", "seam", "fine"])
def test_no_pixel_is_shifted(datasets: dict[str, Dataset], name: str, matrix_set: str) -> None:
    """At full resolution a pixel's value says where its cell lies: nowhere more than half a cell away."""
    dataset = datasets[name]
    grid = dataset.product.grid
    tms = morecantile.tms.get(matrix_set)
    native = native_zoom(tms, float(grid.step_x))
    seen = 0
    for tile in [tile for tile in tiles_of(matrix_set, grid) if tile.z >= native]:
        target = tile_target(matrix_set, tile)
        chosen = requested(dataset)
        level = Level(dataset=dataset, quantity=PLACE, position=0, number=0, name=PLACE.name)
        values = Gather(level, target, Settings().max_cells).nearest()
        longitudes, latitudes = target.centres
        if target.is_separable:
            longitudes, latitudes = np.meshgrid(longitudes, latitudes)
        there = np.isfinite(values)
        seen += int(there.sum())
        latitude = np.rint(values[there] / 10_000 / float(grid.step_y) * 2) * float(grid.step_y) / 2
        longitude = values[there] - 10_000 * latitude
        away = np.abs((longitude - longitudes[there] + 180) % 360 - 180)
        assert float(away.max(initial=0)) <= float(grid.step_x) / 2 + 1e-6
        assert float(np.abs(latitude - latitudes[there]).max(initial=0)) <= float(grid.step_y) / 2 + 1e-6
        assert chosen.period == "2020-01"
    if name in {"global", "nodes"}:
        assert seen > 50_000


def test_a_global_map_has_no_gap_at_the_antimeridian(datasets: dict[str, Dataset]) -> None:
    for name in ("global", "nodes", "odd"):
        for tile in (Tile(0, 3, 3), Tile(7, 3, 3)):
            target = tile_target("WebMercatorQuad", tile)
            assert np.isfinite(draw_values(requested(datasets[name]), target, "nearest", Settings())).all(), name


def test_a_box_across_the_antimeridian_equals_its_two_halves(datasets: dict[str, Dataset]) -> None:
    chosen = requested(datasets["global"])
    longlat = CRS.from_epsg(4326)
    both, west, east = (
        draw_values(chosen, Target(crs=longlat, bounds=bounds, width=width, height=40), "nearest", Settings())
        for bounds, width in (((170, -10, 190, 10), 80), ((170, -10, 180, 10), 40), ((-180, -10, -170, 10), 40))
    )
    np.testing.assert_array_equal(both, np.concatenate([west, east], axis=1))


@pytest.mark.parametrize(
    ("matrix_set", "zoom", "expected"),
    [
        # 0.5 degree cells: a pixel of zoom z is 360 / 256 / 2^z degrees wide
        ("WebMercatorQuad", 0, 1),
        ("WebMercatorQuad", 1, 0),
        ("WebMercatorQuad", 2, 0),
        ("WorldCRS84Quad", 0, 0),
        ("UPSArcticWGS84Quad", 0, 1),
    ],
)
def test_the_level_is_the_coarsest_that_is_no_wider_than_a_pixel(
    datasets: dict[str, Dataset], matrix_set: str, zoom: int, expected: int
) -> None:
    target = tile_target(matrix_set, Tile(0, 0, zoom))
    level = Level.for_target(datasets["global"], PLACE, 0, target)
    assert level.number == expected


def test_a_polar_pixel_is_as_wide_as_its_ground_at_that_latitude() -> None:
    """A pixel of 1 km at 60 N is 1 / (111.3 cos 60) degrees of longitude wide, whichever way it is turned."""
    crs = CRS.from_epsg(3413)
    for x, y in ((0.0, -3.3e6), (2.3e6, 2.3e6), (-3.3e6, 0.0)):
        target = Target(crs=crs, bounds=(x - 500, y - 500, x + 500, y + 500), width=1, height=1)
        longitude, latitude = (float(part.flat[0]) for part in target.centres)
        assert np.isfinite(longitude)
        # 3413 is true to scale at 70 N
        scale = (1 + np.sin(np.radians(latitude))) / (1 + np.sin(np.radians(70)))
        expected = 1000 * scale / (6378137 * np.cos(np.radians(latitude))) * 180 / np.pi
        assert target.pixel_degrees == pytest.approx(expected, rel=0.02)


def test_cells_are_half_open_and_the_seam_is_closed() -> None:
    grid = GRIDS["nodes"]
    places = np.array([-180.25, -180.0, -179.75 - 1e-9, -179.75, 179.75, 179.75 - 1e-9, 180.0, 539.75, np.inf, np.nan])
    assert columns_under(grid, places).tolist() == [0, 0, 0, 1, 0, 719, 0, 0, -1, -1]
    rows = rows_under(grid, np.array([90.25, 90.0, 89.75, 89.75 + 1e-9, -90.0, -90.26, np.inf]))
    assert rows.tolist() == [0, 0, 1, 0, 360, -1, -1]
    region = GRIDS["region"]
    assert columns_under(region, np.array([72.25, 72.2499, 102.2499, 102.25])).tolist() == [0, -1, 299, -1]


def test_chunks_are_touched_once_and_only_where_needed(datasets: dict[str, Dataset]) -> None:
    """One tile of a global grid touches two chunks at most (DESIGN 3)."""
    dataset = datasets["global"]
    for zoom in range(6):
        for column in range(min(2**zoom, 8)):
            target = tile_target("WebMercatorQuad", Tile(column, 2**zoom // 2, zoom))
            gather = Gather(Level.for_target(dataset, PLACE, 0, target), target, 10**9)
            assert len(gather._chunks) <= 2


def test_bilinear_is_exact_on_a_plane_and_keeps_the_coast(datasets: dict[str, Dataset]) -> None:
    target = Target(crs=CRS.from_epsg(4326), bounds=(-20, -15, 20, 15), width=333, height=251)
    got = draw_values(requested(datasets["global"]), target, "bilinear", Settings())
    longitudes, latitudes = target.centres
    plane = longitudes[np.newaxis, :] + 10_000 * latitudes[:, np.newaxis]
    np.testing.assert_allclose(got, plane, atol=1e-6)
    holes = requested(datasets["holes"])
    smooth, sharp = (draw_values(holes, target, method, Settings()) for method in ("bilinear", "nearest"))
    np.testing.assert_array_equal(np.isnan(smooth), np.isnan(sharp))
    _, everywhere = whole_level(datasets["holes"], 0)
    assert np.nanmin(smooth) >= np.nanmin(everywhere)
    assert np.nanmax(smooth) <= np.nanmax(everywhere)


def test_bilinear_equals_gdal_away_from_holes(datasets: dict[str, Dataset]) -> None:
    target = tile_target("WebMercatorQuad", Tile(8, 5, 4))
    chosen = requested(datasets["global"])
    got = draw_values(chosen, target, "bilinear", Settings())
    grid, values = whole_level(datasets["global"], 0)
    np.testing.assert_allclose(got, by_gdal(grid, values, target, Resampling.bilinear), rtol=1e-9)


@pytest.mark.parametrize("method", ["cubic", "cubic_spline", "lanczos", "average", "mode", "max", "med", "q1", "rms"])
@pytest.mark.parametrize(
    ("matrix_set", "tile"), [("WebMercatorQuad", Tile(5, 3, 3)), ("WorldCRS84Quad", Tile(2, 1, 2))]
)
def test_gdals_filters_see_the_same_cells_in_a_window(
    datasets: dict[str, Dataset], method: str, matrix_set: str, tile: Tile
) -> None:
    dataset = datasets["holes"]
    target = tile_target(matrix_set, tile)
    got = draw_values(requested(dataset), target, method, Settings())
    grid, values = whole_level(dataset, dataset.product.grid.coarsest(target.pixel_degrees))
    expected = by_gdal(grid, values, target, Resampling[method])
    inner = (slice(8, -8), slice(8, -8))
    np.testing.assert_array_equal(np.isnan(got)[inner], np.isnan(expected)[inner])
    np.testing.assert_allclose(got[inner], expected[inner], rtol=1e-6)


@pytest.mark.parametrize("method", ["average", "cubic"])
@pytest.mark.parametrize("name", ["global", "seam"])
def test_gdals_filters_cross_the_antimeridian(datasets: dict[str, Dataset], name: str, method: str) -> None:
    dataset = datasets[name]
    target = Target(crs=CRS.from_epsg(4326), bounds=(175, -10, 185, 5), width=40, height=60)
    got = draw_values(requested(dataset), target, method, Settings())
    assert np.isfinite(got).all()
    other = Target(crs=CRS.from_epsg(4326), bounds=(-180, -10, -175, 5), width=20, height=60)
    np.testing.assert_allclose(
        draw_values(requested(dataset), other, method, Settings())[2:-2, 2:-2], got[2:-2, 22:-2], rtol=1e-9
    )


@pytest.mark.parametrize("method", ["average", "cubic", "lanczos"])
def test_gdals_filters_see_across_the_seam_around_a_pole(datasets: dict[str, Dataset], method: str) -> None:
    """Against GDAL on three turns of the level, side by side."""
    dataset = datasets["holes"]
    target = tile_target("UPSArcticWGS84Quad", Tile(2, 1, 2))  # the antimeridian runs through it
    got = draw_values(requested(dataset), target, method, Settings())
    grid, values = whole_level(dataset, dataset.product.grid.coarsest(target.pixel_degrees))
    expected = np.full_like(got, np.nan)
    a, b, c, d, e, f = grid.transform
    reproject(
        np.concatenate([values] * 3, axis=1),
        expected,
        src_transform=Affine(a, b, c - 360, d, e, f),
        src_crs="EPSG:4326",
        src_nodata=np.nan,
        dst_transform=target.transform,
        dst_crs=target.crs,
        dst_nodata=np.nan,
        resampling=Resampling[method],
        tolerance=0,
    )
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_too_many_cells_are_refused_before_anything_is_read(datasets: dict[str, Dataset]) -> None:
    dataset = datasets["global"]
    target = tile_target("WebMercatorQuad", Tile(0, 0, 0))
    level = Level.for_target(dataset, PLACE, 0, target)
    cells = (
        len(Gather(level, target, 10**9)._chunks) * level.stored[0].layout.chunk[1] * level.stored[0].layout.chunk[2]
    )
    Gather(level, target, cells)
    with pytest.raises(RequestTooLarge, match=str(cells)):
        Gather(level, target, cells - 1)
    with pytest.raises(RequestTooLarge):
        draw_values(requested(dataset), target, "average", Settings(max_cells=1000))


def test_a_reader_speaks_rio_tiler(datasets: dict[str, Dataset]) -> None:
    source = MapSource(requested=requested(datasets["global"]), settings=Settings())
    with MapReader(source) as reader:
        assert reader.minzoom == 0
        assert reader.maxzoom == 2
        image = reader.tile(0, 0, 0)
        assert image.array.shape == (1, 256, 256)
        assert reader.preview(max_size=100).array.shape == (1, 50, 100)
        assert reader.part((0, 0, 10, 5)).array.shape == (1, 10, 20)
        assert reader.point(10.2, 20.3).array.tolist() == [10.25 + 10_000 * 20.25]
        assert reader.info().band_descriptions == [("b1", "place")]
        assert set(reader.statistics()) == {"b1"}
        square = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 0]]]}
        clipped = reader.feature(square)
        assert clipped.array.shape == (1, 8, 8)
        assert 0 < int(clipped.array.mask.sum()) < 32
