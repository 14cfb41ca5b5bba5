"""The whole road on every real set: ingested by the command, every layout and the service give the source's values."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from covjson_pydantic.coverage import Coverage
from numpy.typing import NDArray
from starlette.testclient import TestClient
from typer.testing import CliRunner

from services.cli import app as command
from services.core import layout
from services.core.catalog import Version, current_version
from services.core.grid import Window
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from services.pipeline.verify import verify
from tests.realsets import SETS, RealSet, axes, on_grid, rows_and_columns
from tiler.app import create_app

# the first test of a set ingests it: 0.8 GB are, of the largest
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Road:
    """A published real set, and an independent reading of its source."""

    real: RealSet
    store: Store
    folder: Path
    """Directory of the store."""

    version: Version
    stored: xr.DataArray
    """The source on the grid of the collection, packed integers as they are."""

    values: xr.DataArray
    """The source decoded, as its reader gives it."""

    @property
    def segment(self) -> str:
        """Path of its one segment."""
        (name,) = self.version.segments
        return f"{self.folder}/{layout.segment_prefix(self.real.id, name)}"

    def windows(self) -> Iterator[tuple[Window, NDArray[Any]]]:
        """Every window of the grid with the source's values, (time, y, x)."""
        latitude, longitude = axes(self.stored)
        for window in self.version.product.grid.shards():
            part = self.stored.isel({latitude: window.rows, longitude: window.columns})
            yield window, rows_and_columns(part).to_numpy()


def ingested(real: RealSet, data: Path, url: str, environment: dict[str, str], workers: int = 0) -> None:
    names = sorted(str(path) for path in data.glob(real.files))
    options = [word for name, value in real.options.items() for word in (f"--{name}", value)]
    words = ["--store", url, "ingest", real.id, *names, *options, "--workers", str(workers)]
    result = CliRunner().invoke(command, words, env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture(
    scope="module",
    params=[pytest.param(real, id=real.id, marks=[pytest.mark.slow] if real.maps else []) for real in SETS],
)
def road(request: pytest.FixtureRequest, realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Road:
    real: RealSet = request.param
    folder = tmp_path_factory.mktemp(real.id)
    realdata = real.part(realdata, tmp_path_factory.mktemp(f"{real.id}_part"))
    ingested(real, realdata, str(folder), {})
    store = Store.open(str(folder), StoreSettings())
    version = current_version(store, real.id)[1]
    values = real.source(realdata, mask_and_scale=True)
    # integers stay packed; the fill value of floats becomes NaN and nothing else
    is_packed = version.product.quantities[0].is_packed
    stored = real.source(realdata, mask_and_scale=False) if is_packed else values
    return Road(
        real=real,
        store=store,
        folder=folder,
        version=version,
        stored=on_grid(stored, version.product.grid),
        values=values,
    )


def test_layouts_hold_equal_values_and_every_checksum_holds(road: Road) -> None:
    report = verify(road.store, road.real.id)
    assert report.findings == ()
    assert report.periods == len(road.version.time)


def test_maps_equal_the_source_everywhere_and_missing_stays_missing(road: Road) -> None:
    quantity = road.version.product.quantities[0]
    with xr.open_zarr(f"{road.segment}maps.zarr", group="0", mask_and_scale=False, chunks=None) as maps:
        valid = 0
        for window, expected in road.windows():
            found = maps[quantity.name][:, window.rows, window.columns].to_numpy()
            np.testing.assert_array_equal(found, expected)
            valid += int((~quantity.missing(found)).sum())
        times = np.sort(road.stored.time.to_numpy()).astype("datetime64[us]")
        np.testing.assert_array_equal(maps.time.to_numpy().astype("datetime64[us]"), times)
        assert maps.rio.crs.to_epsg() == 4326
        np.testing.assert_allclose(maps.rio.transform()[:6], road.version.product.grid.transform, rtol=0, atol=1e-9)
    assert valid > 0


def test_series_equal_the_source_everywhere(road: Road) -> None:
    grid, quantity = road.version.product.grid, road.version.product.quantities[0]
    latitude, longitude = axes(road.stored)
    path = f"{road.segment}series.zarr" if road.version.series else f"{road.segment}maps.zarr/0"
    with xr.open_zarr(path, mask_and_scale=False, chunks=None) as series:
        for window, expected in road.windows():
            found = series[quantity.name][:, window.rows, window.columns].to_numpy()
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(series.x, road.stored[longitude], rtol=0, atol=1e-3 * float(grid.step_x))
        np.testing.assert_allclose(series.y, road.stored[latitude], rtol=0, atol=1e-3 * float(grid.step_y))


def test_cogs_equal_the_source_everywhere_and_open_with_the_right_georeference(road: Road) -> None:
    grid, quantity = road.version.product.grid, road.version.product.quantities[0]
    assert {name for listed in road.version.cogs for name in listed.cog.periods} == set(road.version.time.ids)
    for listed in road.version.cogs:
        places = [road.version.time.ids.index(name) for name in listed.cog.periods]
        with rasterio.open(f"{road.segment}{listed.cog.path}") as cog:
            assert cog.descriptions == listed.cog.periods
            np.testing.assert_allclose(cog.transform[:6], grid.transform, rtol=0, atol=1e-9)
            np.testing.assert_equal(
                cog.nodata, np.nan if quantity.fill_value is None else quantity.fill_value, strict=False
            )
            np.testing.assert_array_equal(cog.read(), rows_and_columns(road.stored.isel(time=places)).to_numpy())
    opened = rioxarray.open_rasterio(f"{road.segment}{road.version.cogs[0].cog.path}")
    assert isinstance(opened, xr.DataArray)
    with opened:
        assert opened.rio.crs.to_epsg() == 4326
        np.testing.assert_allclose(opened.x.to_numpy(), grid.longitudes, rtol=0, atol=1e-9)
        np.testing.assert_allclose(opened.y.to_numpy(), grid.latitudes, rtol=0, atol=1e-9)


@pytest.fixture(scope="module")
def client(road: Road) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(store=str(road.folder)), road.store)) as found:
        yield found


def read_csv(body: bytes, name: str) -> list[float]:
    rows = list(csv.reader(io.StringIO(body.decode())))
    column = next(i for i, head in enumerate(rows[0]) if head.split(" ")[0] == name)
    return [float(row[column]) if row[column] else np.nan for row in rows[1:]]


def read_coverage(body: bytes, name: str) -> list[float]:
    document = json.loads(body)
    Coverage.model_validate(document)
    return [np.nan if v is None else v for v in document["ranges"][name]["values"]]


def read_geojson(body: bytes, name: str) -> list[float]:
    document = json.loads(body)
    feature = document["features"][0] if document["type"] == "FeatureCollection" else document
    return [np.nan if v is None else v for v in feature["properties"][name]]


def read_netcdf(body: bytes, name: str) -> list[float]:
    with xr.open_dataset(io.BytesIO(body), engine="h5netcdf") as data:
        return [float(v) for v in data[name].to_numpy().ravel()]


@pytest.mark.parametrize(
    ("form", "read"),
    [("CoverageJSON", read_coverage), ("CSV", read_csv), ("GeoJSON", read_geojson), ("NetCDF", read_netcdf)],
)
def test_position_equals_xarray_sel_on_the_source(
    road: Road, client: TestClient, form: str, read: Callable[[bytes, str], list[float]]
) -> None:
    quantity = road.version.product.quantities[0]
    lon, lat = road.real.point
    answer = client.get(f"/collections/{road.real.id}/position", params={"coords": f"POINT({lon} {lat})", "f": form})
    assert answer.status_code == 200, answer.text
    latitude, longitude = axes(road.values)
    expected = road.values.sel({latitude: lat, longitude: lon}, method="nearest").sortby("time").to_numpy()
    assert np.isfinite(expected).any()
    rounding = 10.0**-quantity.decimals / 2 if quantity.decimals is not None else 0.0
    tolerance = rounding + 1e-6 * np.nanmax(np.abs(expected))  # of a reader that decodes to float32
    np.testing.assert_allclose(read(answer.content, quantity.name), expected, rtol=0, atol=tolerance)
    assert answer.headers["Cenote-Version"] == road.version.id


def test_a_projected_grid_is_refused_with_what_to_do(realdata: Path, tmp_path: Path) -> None:
    words = ["--store", str(tmp_path / "store"), "ingest", "landsat", str(realdata / "rasters" / "L7_ETMs.tif")]
    result = CliRunner().invoke(command, [*words, "--workers", "0"])
    assert result.exit_code == 1
    assert "gdalwarp -t_srs EPSG:4326" in str(result.exception)
    assert not (tmp_path / "store" / "landsat").exists()


def test_a_quantum_is_kept(realdata: Path, tmp_path: Path) -> None:
    tas = next(real for real in SETS if real.id == "bcsd_tas")
    real = replace(tas, id="fine", options={"variable": "tas", "quantum": "0.01"})
    ingested(real, realdata, str(tmp_path), {})
    store = Store.open(str(tmp_path), StoreSettings())
    version = current_version(store, "fine")[1]
    quantity = version.product.quantities[0]
    segment = next(iter(version.segments))
    with (
        xr.open_zarr(f"{tmp_path}/{layout.segment_prefix('fine', segment)}series.zarr", chunks=None) as found,
        xr.open_dataset(realdata / "rasters" / "bcsd_obs_1999.nc", engine="scipy") as source,
    ):
        expected = source.tas.to_numpy()[:, ::-1]
        values = found.tas.to_numpy()
    assert quantity.dtype.startswith("int")
    np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
    assert np.nanmax(np.abs(values - expected)) <= 0.005 + 1e-5


@pytest.mark.s3
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("real", [pytest.param(real, id=real.id) for real in SETS if real.id in {"seasia", "grace"}])
def test_workers_writing_to_minio_give_what_one_process_gives_in_a_directory(
    real: RealSet, realdata: Path, tmp_path: Path, minio: Any
) -> None:
    url = f"s3://{minio.new_bucket()}/road"
    ingested(real, realdata, str(tmp_path), {})
    ingested(real, realdata, url, minio.environment(), workers=2)
    settings = StoreSettings(
        endpoint=minio.endpoint,
        region=minio.region,
        access_key_id=minio.access_key,
        secret_access_key=minio.secret_key,
    )
    there, here = Store.open(url, settings), Store.open(str(tmp_path), StoreSettings())
    # its digest stands for every byte of it
    assert current_version(there, real.id)[1].id == current_version(here, real.id)[1].id
    assert verify(there, real.id).findings == ()
    lon, lat = real.point
    paths = (
        *(f"/collections/{real.id}/position?coords=POINT({lon} {lat})&f={form}" for form in ("CSV", "NetCDF")),
        f"/collections/{real.id}/tiles/WebMercatorQuad/1/1/1.png",
    )
    with (
        TestClient(create_app(Settings(store=url), there)) as remote,
        TestClient(create_app(Settings(store=str(tmp_path)), here)) as local,
    ):
        for path in paths:
            one, other = remote.get(path), local.get(path)
            assert (one.status_code, other.status_code) == (200, 200)
            assert one.content == other.content
            assert one.headers["ETag"] == other.headers["ETag"]
