"""What others see of a segment: plain xarray, zarr-python, GDAL, rioxarray and rio-cogeo, opened by path."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
import zarr
from affine import Affine
from rasterio.crs import CRS
from rio_cogeo.cogeo import cog_validate

from services.core import layout
from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.grid import Grid, Window
from services.core.product import Product
from services.core.settings import StoreSettings
from services.core.store import Store
from services.core.time_axis import Step, TimeAxis, start_of
from tests.pipeline.synthetic import PACKED, PLAIN, REGION, Planted, months, product, render

pytestmark = pytest.mark.slow  # as a whole

GLOBE = Grid.of(west=-180, north=90, step_x="1/2", width=720, height=360)
NODES = Grid.of(west="-721/4", north="361/4", step_x="1/2", width=720, height=361)
"""Values on -90, -89.5 ... 90 and -180, -179.5 ...: cells reach past the poles."""

MONTH = Step.parse("P1M")
GAPPED = TimeAxis.with_times(
    MONTH,
    (372, 373, 375),
    # the middle of the month, as many sources have it
    tuple(int(np.datetime64(when, "us").astype(np.int64)) for when in ("2001-01-16T12:00", "2001-02-15", "2001-04-16")),
)

CASES = {
    "region": Planted(product=product(grid=REGION), axis=GAPPED),
    "globe": Planted(product=product(grid=GLOBE, cog_period="P1Y", map_block=2), axis=months(3, "2001-11")),
    "nodes": Planted(product=product(grid=NODES), axis=months(1)),
    "hours": Planted(
        product=product(step="PT1H", series_block=None, map_block=24, cog_period="P1M"),
        axis=TimeAxis.regular("2004-02-29T12", "PT1H", 30),
    ),
    "fixed": Planted(product=product(grid=REGION, fixed_mask=True), axis=months(2)),
}


class Written:
    """A published case and where its one segment lies."""

    def __init__(self, name: str, folder: Path) -> None:
        self.recipe = CASES[name]
        self.store = Store.open(str(folder), StoreSettings())
        render(self.store, self.recipe)
        _, self.version = current_version(self.store, "synthetic")
        self.dataset = Dataset(self.store, self.version)
        (segment,) = self.version.segments
        self.root = folder / layout.segment_prefix("synthetic", segment)
        self.document: dict[str, Any] = json.loads((self.root / "objects.json").read_bytes())

    @property
    def product(self) -> Product:
        return self.recipe.product

    def expected(self, quantity: str) -> Any:
        """Decoded level-0 values."""
        chosen = self.product.quantity(quantity)
        return chosen.decode(self.recipe.stored(chosen, self.recipe.axis))


_written: dict[str, Written] = {}


@pytest.fixture(params=sorted(CASES))
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    name: str = request.param
    if name not in _written:
        _written[name] = Written(name, tmp_path_factory.mktemp(name))
    return _written[name]


def transform_of(grid: Grid) -> Affine:
    return Affine(*grid.transform)


def assert_described(ds: xr.Dataset, grid: Grid, axis: TimeAxis) -> None:
    """Coordinates, time, bounds and place of what plain xarray opened."""
    np.testing.assert_array_equal(ds.x.values, grid.longitudes)
    np.testing.assert_array_equal(ds.y.values, grid.latitudes)
    np.testing.assert_array_equal(ds.time.values.astype("datetime64[us]"), axis.instants)
    np.testing.assert_array_equal(ds.time_bnds.values.astype("datetime64[us]"), axis.bounds.astype("datetime64[us]"))
    for name in ("heat", "flux"):
        assert ds[name].rio.crs == CRS.from_epsg(4326)
        assert ds[name].rio.transform().almost_equals(transform_of(grid), precision=1e-9)
        assert ds[name].dims == ("time", "y", "x")
    assert ds.rio.crs == CRS.from_epsg(4326)


def test_plain_xarray_opens_every_level_of_the_maps(written: Written) -> None:
    for level in range(written.product.grid.levels):
        grid = written.product.grid.level(level)
        with xr.open_zarr(written.root / "maps.zarr", group=str(level)) as ds:
            assert_described(ds, grid, written.recipe.axis)
            whole = Window(row=0, column=0, height=grid.height, width=grid.width)
            for quantity in written.product.quantities:
                ours = [written.dataset.read_map(quantity, place, level, whole) for place in range(len(ds.time))]
                np.testing.assert_array_equal(ds[quantity.name].values, quantity.decode(np.stack(ours)))
                if level == 0:
                    np.testing.assert_array_equal(ds[quantity.name].values, written.expected(quantity.name))
                    continue
                share = ds[layout.valid_fraction(quantity.name)]
                for place in range(len(ds.time)):
                    seen = share.values[0 if written.product.fixed_mask else place]
                    mine = written.dataset.read_valid_fraction(quantity, place, level, whole)
                    np.testing.assert_allclose(seen, mine, rtol=0, atol=1e-12)
                    np.testing.assert_array_equal(mine == 0, np.isnan(ds[quantity.name].values[place]))


def test_plain_xarray_opens_the_series_with_the_same_values(written: Written) -> None:
    if written.product.series_block is None:
        assert not (written.root / "series.zarr").exists()
        assert written.document["series"] is None
        return
    with xr.open_zarr(written.root / "series.zarr") as ds:
        assert_described(ds, written.product.grid, written.recipe.axis)
        for quantity in written.product.quantities:
            np.testing.assert_array_equal(ds[quantity.name].values, written.expected(quantity.name))


def test_the_maps_open_as_a_tree_by_path(written: Written) -> None:
    with xr.open_datatree(written.root / "maps.zarr", engine="zarr") as tree:
        levels = written.product.grid.levels
        assert sorted(tree.groups) == ["/", *(f"/{level}" for level in range(levels))]
        for level in range(levels):
            assert tree[f"/{level}/heat"].shape == (len(written.recipe.axis), *written.product.grid.level(level).shape)
        np.testing.assert_array_equal(tree["/0/heat"].values, written.expected("heat"))


def test_consolidated_metadata_say_what_the_files_say(written: Written) -> None:
    for group in (*written.root.glob("*.zarr"), *written.root.glob("maps.zarr/[0-9]")):
        document = json.loads((group / "zarr.json").read_bytes())
        inline = document["consolidated_metadata"]["metadata"]
        found = {
            str(path.parent.relative_to(group)): json.loads(path.read_bytes()) for path in group.rglob("*/zarr.json")
        }
        assert inline.keys() == found.keys()
        for name, said in inline.items():
            assert said["node_type"] == found[name]["node_type"]
            assert said["attributes"] == found[name]["attributes"]
            if said["node_type"] == "array":
                assert said == found[name]
        with_it = zarr.open_group(group, mode="r", use_consolidated=True)
        without = zarr.open_group(group, mode="r", use_consolidated=False)
        assert sorted(with_it.members()) == sorted(without.members())


def test_fill_values_and_packing_are_cf(written: Written) -> None:
    group = zarr.open_group(written.root / "maps.zarr", mode="r")
    heat, flux = group["0/heat"], group["0/flux"]
    assert isinstance(heat, zarr.Array)
    assert isinstance(flux, zarr.Array)
    assert heat.fill_value == PACKED.fill_value == heat.attrs["_FillValue"]
    assert np.isnan(flux.fill_value)
    assert (heat.attrs["scale_factor"], heat.attrs["add_offset"], heat.attrs["units"]) == (0.01, 20.0, "K")
    assert heat.attrs["standard_name"] == "air_temperature"
    assert "flux" in str(heat.attrs["ancillary_variables"]).split()
    assert heat.attrs["grid_mapping"] == "spatial_ref"
    with xr.open_zarr(written.root / "maps.zarr", group="0", mask_and_scale=False) as raw:
        np.testing.assert_array_equal(raw.heat.values, written.recipe.stored(PACKED, written.recipe.axis))
        assert raw.heat.attrs["_FillValue"] == PACKED.fill_value
        assert np.isnan(raw.flux.attrs["_FillValue"])
    with xr.open_zarr(written.root / "maps.zarr", group="0") as ds:
        assert ds.attrs["Conventions"] == "CF-1.12"
        assert str(ds.attrs["comment"]).startswith("synthetic")
        assert ds.time.encoding["calendar"] == "proleptic_gregorian"
        assert ds.time.attrs["bounds"] == "time_bnds"
        mapping = ds.spatial_ref.attrs
        assert CRS.from_wkt(mapping["crs_wkt"]) == CRS.from_epsg(4326)
        west, width, zero, north, none, height = (float(part) for part in mapping["GeoTransform"].split())
        assert (width, zero, west, none, height, north) == written.product.grid.transform


def test_geozarr_conventions_describe_every_level(written: Written) -> None:
    root = json.loads((written.root / "maps.zarr" / "zarr.json").read_bytes())["attributes"]
    grid = written.product.grid
    assert {one["name"]: one["uuid"] for one in root["zarr_conventions"]} == {
        "multiscales": "d35379db-88df-4056-af3a-620245f8e347",
        "spatial:": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "proj:": "f17cb550-5864-4468-aeb7-f3180cfb622f",
    }
    layers = root["multiscales"]["layout"]
    assert [layer["asset"] for layer in layers] == [str(level) for level in range(grid.levels)]
    for level, layer in enumerate(layers):
        at = grid.level(level)
        array = zarr.open_array(written.root / "maps.zarr" / layer["asset"] / "heat", mode="r")
        assert tuple(layer["spatial:shape"]) == array.shape[1:] == at.shape
        a, b, c, d, e, f = layer["spatial:transform"]
        assert (a, e) == (float(grid.step_x) * 2**level, -float(grid.step_y) * 2**level)
        assert (b, c, d, f) == (0.0, float(grid.west), 0.0, float(grid.north))
        assert layer["transform"]["scale"] == [2.0**level, 2.0**level]
        own = json.loads((written.root / "maps.zarr" / str(level) / "zarr.json").read_bytes())["attributes"]
        assert own["spatial:shape"] == layer["spatial:shape"]
        assert own["spatial:transform"] == layer["spatial:transform"]
        assert own["proj:code"] == "EPSG:4326"
        assert own["spatial:dimensions"] == ["y", "x"]
        west, south, east, north = own["spatial:bbox"]
        assert (west, north) == (c, f)
        assert (east, south) == pytest.approx((c + a * at.width, f + e * at.height))


def cogs(written: Written) -> Iterator[tuple[str, tuple[str, ...], Path]]:
    for listed in written.version.cogs:
        yield listed.cog.quantity, listed.cog.periods, written.root / listed.cog.path


def test_gdal_opens_the_cogs_in_their_place(written: Written) -> None:
    grid = written.product.grid
    names = {name: place for place, name in enumerate(written.recipe.axis.ids)}
    seen: list[str] = []
    for name, periods, path in cogs(written):
        quantity = written.product.quantity(name)
        with rasterio.open(path) as source:
            assert source.crs == CRS.from_epsg(4326)
            assert source.transform.almost_equals(transform_of(grid), precision=1e-9)
            assert source.shape == grid.shape
            assert source.dtypes == (quantity.dtype,) * len(periods)
            assert source.descriptions == periods
            assert source.units == (quantity.units,) * len(periods)
            assert [source.tags(band)["PERIOD"] for band in source.indexes] == list(periods)
            assert source.tags()["VARIABLE"] == name
            assert source.tags()["COMMENT"].startswith("synthetic")
            if quantity.fill_value is None:
                assert np.isnan(source.nodata)
                assert source.scales == (1.0,) * len(periods)
            else:
                assert source.nodata == quantity.fill_value
                assert source.scales == (0.01,) * len(periods)
                assert source.offsets == (20.0,) * len(periods)
            stored = written.recipe.stored(quantity, written.recipe.axis)[[names[period] for period in periods]]
            np.testing.assert_array_equal(source.read(), stored)
            assert "STATISTICS_MEAN" in source.tags(1)
            # a value at a place, by GDAL's own arithmetic
            row, column = grid.height - 2, grid.width - 3
            place = (float(grid.longitudes[column]), float(grid.latitudes[row]))
            (sampled,) = source.sample([place])
            np.testing.assert_array_equal(sampled, stored[:, row, column])
        seen += [f"{name} {period}" for period in periods]
    every = [f"{quantity.name} {period}" for quantity in written.product.quantities for period in names]
    assert sorted(seen) == sorted(every)


def test_rioxarray_decodes_the_cogs_to_the_map_values(written: Written) -> None:
    names = {name: place for place, name in enumerate(written.recipe.axis.ids)}
    for name, periods, path in cogs(written):
        opened = rioxarray.open_rasterio(path, mask_and_scale=True)
        assert isinstance(opened, xr.DataArray)
        with opened:
            assert opened.rio.crs == CRS.from_epsg(4326)
            expected = written.expected(name)[[names[period] for period in periods]]
            np.testing.assert_allclose(opened.values, expected, rtol=1e-6)
            np.testing.assert_allclose(opened.x.values, written.product.grid.longitudes, rtol=0, atol=1e-9)
            np.testing.assert_allclose(opened.y.values, written.product.grid.latitudes, rtol=0, atol=1e-9)


def test_the_cogs_are_cloud_optimized(written: Written) -> None:
    for _, _, path in cogs(written):
        valid, errors, warnings = cog_validate(path, strict=True)
        assert (valid, errors, warnings) == (True, [], [])
        with rasterio.open(path) as source:
            assert source.block_shapes[0] == (512, 512)
            assert bool(source.overviews(1)) is (max(written.product.grid.shape) > 512)


def test_a_period_with_no_value_at_all_is_stored_and_opens(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path), StoreSettings())
    recipe = Planted(product=product(grid=REGION), axis=months(3), empty=("2001-02",))
    render(store, recipe)
    dataset = Dataset(store, current_version(store, "synthetic")[1])
    for level in range(REGION.levels):
        at = REGION.level(level)
        whole = Window(row=0, column=0, height=at.height, width=at.width)
        assert (dataset.read_map(PACKED, 1, level, whole) == PACKED.fill).all()
        assert np.isnan(dataset.read_map(PLAIN, 1, level, whole)).all()
        assert (dataset.read_valid_fraction(PACKED, 1, level, whole) == 0).all()
        assert not (dataset.read_map(PACKED, 0, level, whole) == PACKED.fill).all()
    for path in tmp_path.rglob("2001-02.tif"):
        assert cog_validate(path, strict=True) == (True, [], [])
        with rasterio.open(path) as source:
            assert source.read(1, masked=True).mask.all()
    assert dataset.version.spread(PACKED).valid_share == pytest.approx(2 / 3 * (1 - 1 / 11), rel=0.02)


def test_objects_json_lists_every_object_with_its_size_and_digest(written: Written) -> None:
    files = {
        str(path.relative_to(written.root)): path
        for path in written.root.rglob("*")
        if path.is_file() and path.parent.name != "ledger" and path.name != "objects.json"
    }
    assert files.keys() == written.document["objects"].keys()
    for name, path in files.items():
        data = path.read_bytes()
        assert written.document["objects"][name] == {"size": len(data), "sha256": layout.digest(data)}
    (digest,) = written.version.segments.values()
    assert layout.digest((written.root / "objects.json").read_bytes()) == digest
    arrays = {
        str(path.parent.relative_to(written.root)): json.loads(path.read_bytes())
        for path in written.root.rglob("zarr.json")
    }
    for name, metadata in written.document["arrays"].items():
        assert arrays[name] == metadata


def test_every_shard_exists_and_its_index_is_the_listed_one(written: Written) -> None:
    """An absent shard would read as missing values to zarr: only an inner chunk may be absent, by the checked index."""
    for path, metadata in written.document["arrays"].items():
        array = written.dataset.segment(written.root.name).array(path)
        counts = array.layout.shard_counts
        stored = [one for one in written.document["objects"] if one.startswith(f"{path}/c/")]
        assert len(stored) == int(np.prod(counts)), path
        assert metadata["codecs"][0]["configuration"]["index_codecs"][-1] == {"name": "crc32c"}
        assert metadata["codecs"][0]["configuration"]["codecs"][-1] == {"name": "crc32c"}
        listed = array.indexes
        assert (listed is not None) == path.startswith("maps.zarr/")
        if listed is not None:
            from_shards = replace(array, indexes=None)
            for number in range(int(np.prod(counts))):
                np.testing.assert_array_equal(listed[number], from_shards.index(number))


def test_chunks_and_shards_are_those_of_the_declaration(written: Written) -> None:
    grid = written.product.grid
    array = zarr.open_array(written.root / "maps.zarr/0/heat", mode="r")
    assert array.chunks == (written.product.map_block, grid.chunk_y, grid.chunk_x)
    assert array.shards == (written.product.map_block, *grid.shard_shape)
    if written.product.series_block is not None:
        series = zarr.open_array(written.root / "series.zarr/heat", mode="r")
        assert series.shards == (written.product.series_block, grid.chunk_y, grid.chunk_x)
        assert series.chunks[0] == written.product.series_block


def test_time_is_as_in_the_source_and_bounds_are_the_period(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path), StoreSettings())
    day = Step.parse("P1D")
    axis = TimeAxis.with_times(
        day,
        (start_of("1969-12-31", day), start_of("1970-01-01", day), start_of("2024-02-29", day)),
        # a time that is no whole second
        tuple(
            int(np.datetime64(when, "us").astype(np.int64))
            for when in ("1969-12-31T12:00:00", "1970-01-01T00:00:00", "2024-02-29T13:00:00.250")
        ),
    )
    render(store, Planted(product=product(step="P1D"), axis=axis))
    for path in (*tmp_path.rglob("maps.zarr"), *tmp_path.rglob("series.zarr")):
        with xr.open_zarr(path, group="0" if path.name == "maps.zarr" else None) as ds:
            np.testing.assert_array_equal(ds.time.values.astype("datetime64[us]"), axis.instants)
            np.testing.assert_array_equal(
                ds.time_bnds.values.astype("datetime64[us]"), axis.bounds.astype("datetime64[us]")
            )
    assert sorted(path.stem for path in tmp_path.rglob("cog/heat/*.tif")) == ["1969-12-31", "1970-01-01", "2024-02-29"]
