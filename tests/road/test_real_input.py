"""The whole road on every real set: ingested by the command, every layout and the service give the source's values."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from services.sources.ingest import inspect
from services.sources.options import IngestOptions
from services.sources.recipe import IngestRecipe
from tiler.app import create_app


@dataclass(frozen=True)
class RealSet:
    """A set, as a user would name it on the command line."""

    id: str
    files: str
    options: dict[str, str]
    point: tuple[float, float]
    """A place that has values."""

    slow: bool = False

    @property
    def said(self) -> IngestOptions:
        told = self.options
        return IngestOptions(variable=told.get("variable"), units=told.get("units"), time=told.get("time"))


SETS = (
    RealSet("seasia", "xco2/oco2_seasia_idw_monthly/*.nc", {"units": "ppm"}, (101.3, 3.1)),
    RealSet(
        "turbidity", "rasters/linke_turbidity_12month_cog.tif", {"time": "2001-01/P1M", "units": "1"}, (10.5, 52.3)
    ),
    RealSet("grace", "groundwater/grace_csr_rl05_lwe_1deg_2002-2010.nc", {}, (-60.2, -3.4)),
    RealSet("ostia", "rasters/ostia_monthly.nc", {}, (-140.1, 0.2)),
    RealSet("bcsd_pr", "rasters/bcsd_obs_1999.nc", {"variable": "pr"}, (-80.1, 35.2)),
    RealSet("bcsd_tas", "rasters/bcsd_obs_1999.nc", {"variable": "tas"}, (-80.1, 35.2)),
    RealSet("uk", "rasters/era5-2mt-2019-03-uk.grib", {}, (-1.3, 52.2)),
    RealSet("oco3", "xco2/oco3_la_sams_post_qf_nearest.zarr", {"variable": "xco2"}, (-118.2, 34.1), slow=True),
)


@dataclass(frozen=True)
class Road:
    """A published real set and the recipe that reads its source again."""

    real: RealSet
    store: Store
    folder: Path | None
    """Directory of the store, where it is one."""

    version: Version
    recipe: IngestRecipe

    def source(self, position: int, window: Window) -> NDArray[Any]:
        """Stored values that the source has; tests/sources hold them against independent readings."""
        name = self.recipe.product.quantities[0].name
        values: NDArray[Any] = self.recipe.compute(self.version.time.take([position]), window)[name][0]
        return values


def ingested(real: RealSet, data: Path, url: str, environment: dict[str, str]) -> None:
    names = sorted(str(path) for path in data.glob(real.files))
    options = [word for name, value in real.options.items() for word in (f"--{name}", value)]
    words = ["--store", url, "ingest", real.id, *names, *options, "--workers", "0"]
    result = CliRunner().invoke(command, words, env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture(
    scope="module",
    params=[pytest.param(real, id=real.id, marks=[pytest.mark.slow] if real.slow else []) for real in SETS],
)
def road(request: pytest.FixtureRequest, realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Road:
    real: RealSet = request.param
    folder = tmp_path_factory.mktemp(real.id)
    ingested(real, realdata, str(folder), {})
    store = Store.open(str(folder), StoreSettings())
    names = sorted(str(path) for path in realdata.glob(real.files))
    recipe = inspect(names, real.said).recipe(real.id)
    return Road(real=real, store=store, folder=folder, version=current_version(store, real.id)[1], recipe=recipe)


def test_layouts_hold_equal_values_and_every_checksum_holds(road: Road) -> None:
    report = verify(road.store, road.real.id)
    assert report.findings == ()
    assert report.periods == len(road.version.time)


def test_maps_equal_the_source_everywhere_and_missing_stays_missing(road: Road) -> None:
    segment = next(iter(road.version.segments))
    path = f"{road.folder}/{layout.segment_prefix(road.real.id, segment)}maps.zarr"
    quantity = road.version.product.quantities[0]
    with xr.open_zarr(path, group="0", mask_and_scale=False, chunks=None) as maps:
        stored = maps[quantity.name]
        valid = 0
        for position in range(len(road.version.time)):
            for window in road.version.product.grid.shards():
                expected = road.source(position, window)
                found = stored[position, window.rows, window.columns].to_numpy()
                np.testing.assert_array_equal(found, expected)
                valid += int((~quantity.missing(expected)).sum())
        np.testing.assert_array_equal(maps.time.to_numpy().astype("datetime64[us]"), road.recipe.periods().instants)
        assert maps.rio.crs.to_epsg() == 4326
        np.testing.assert_allclose(maps.rio.transform()[:6], road.version.product.grid.transform, rtol=0, atol=1e-9)
    assert valid > 0


def test_series_and_cogs_open_by_path_with_the_right_values_and_georeference(road: Road) -> None:
    segment = next(iter(road.version.segments))
    base = f"{road.folder}/{layout.segment_prefix(road.real.id, segment)}"
    grid, quantity = road.version.product.grid, road.version.product.quantities[0]
    row, column = grid.locate(*road.real.point)
    window = Window(row=row, column=column, height=1, width=1)
    expected = np.array([road.source(position, window)[0, 0] for position in range(len(road.version.time))])
    assert (~quantity.missing(expected)).any()
    with xr.open_zarr(f"{base}series.zarr", mask_and_scale=False, chunks=None) as series:
        np.testing.assert_array_equal(series[quantity.name][:, row, column].to_numpy(), expected)
        lon, lat = series.x.to_numpy()[column], series.y.to_numpy()[row]
        assert abs(lon - road.real.point[0]) <= float(grid.step_x) / 2 + 1e-9
        assert abs(lat - road.real.point[1]) <= float(grid.step_y) / 2 + 1e-9
    for listed in road.version.cogs[:: max(1, len(road.version.cogs) // 6)]:
        with rasterio.open(f"{base}{listed.cog.path}") as cog:
            assert cog.descriptions == listed.cog.periods
            np.testing.assert_allclose(cog.transform[:6], grid.transform, rtol=0, atol=1e-9)
            place = road.version.time.ids.index(listed.cog.periods[0])
            assert next(cog.sample([(lon, lat)]))[0] == pytest.approx(expected[place], nan_ok=True, abs=0)
        opened = rioxarray.open_rasterio(f"{base}{listed.cog.path}")
        assert isinstance(opened, xr.DataArray)
        with opened:
            assert opened.rio.crs.to_epsg() == 4326
            np.testing.assert_allclose(opened.x.to_numpy(), grid.longitudes, rtol=0, atol=1e-9)
            np.testing.assert_allclose(opened.y.to_numpy(), grid.latitudes, rtol=0, atol=1e-9)


@pytest.fixture(scope="module")
def client(road: Road) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(store=str(road.folder)), road.store)) as found:
        yield found


def read_csv(text: str, name: str) -> list[float]:
    rows = list(csv.reader(io.StringIO(text)))
    column = next(i for i, head in enumerate(rows[0]) if head.split(" ")[0] == name)
    return [float(row[column]) if row[column] else np.nan for row in rows[1:]]


def read_coverage(text: str, name: str) -> list[float]:
    document = json.loads(text)
    Coverage.model_validate(document)
    return [np.nan if v is None else v for v in document["ranges"][name]["values"]]


def read_geojson(text: str, name: str) -> list[float]:
    document = json.loads(text)
    feature = document["features"][0] if document["type"] == "FeatureCollection" else document
    return [np.nan if v is None else v for v in feature["properties"][name]]


@pytest.mark.parametrize(
    ("form", "read"), [("CoverageJSON", read_coverage), ("CSV", read_csv), ("GeoJSON", read_geojson)]
)
def test_position_equals_the_source(
    road: Road, client: TestClient, form: str, read: Callable[[str, str], list[float]]
) -> None:
    quantity = road.version.product.quantities[0]
    lon, lat = road.real.point
    answer = client.get(f"/collections/{road.real.id}/position", params={"coords": f"POINT({lon} {lat})", "f": form})
    assert answer.status_code == 200, answer.text
    row, column = road.version.product.grid.locate(lon, lat)
    window = Window(row=row, column=column, height=1, width=1)
    stored = np.array([road.source(position, window)[0, 0] for position in range(len(road.version.time))])
    expected = quantity.decode(stored)
    tolerance = (
        10.0**-quantity.decimals / 2 + 1e-9 if quantity.decimals is not None else 1e-6 * np.nanmax(np.abs(expected))
    )
    np.testing.assert_allclose(read(answer.text, quantity.name), expected, rtol=0, atol=tolerance)
    assert answer.headers["Cenote-Version"] == road.version.id


def test_a_projected_grid_is_refused_with_what_to_do(realdata: Path, tmp_path: Path) -> None:
    words = ["--store", str(tmp_path / "store"), "ingest", "landsat", str(realdata / "rasters" / "L7_ETMs.tif")]
    result = CliRunner().invoke(command, [*words, "--workers", "0"])
    assert result.exit_code == 1
    assert "gdalwarp -t_srs EPSG:4326" in str(result.exception)
    assert not (tmp_path / "store" / "landsat").exists()


def test_a_quantum_is_kept(realdata: Path, tmp_path: Path) -> None:
    real = RealSet("fine", "rasters/bcsd_obs_1999.nc", {"variable": "tas", "quantum": "0.01"}, (-80.1, 35.2))
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
@pytest.mark.parametrize("name", ["seasia", "grace"])
def test_minio_gives_what_a_directory_gives(name: str, realdata: Path, tmp_path: Path, minio: Any) -> None:
    real = next(one for one in SETS if one.id == name)
    url = f"s3://{minio.new_bucket()}/road"
    ingested(real, realdata, str(tmp_path), {})
    ingested(real, realdata, url, minio.environment())
    settings = StoreSettings(
        endpoint=minio.endpoint,
        region=minio.region,
        access_key_id=minio.access_key,
        secret_access_key=minio.secret_key,
    )
    there, here = Store.open(url, settings), Store.open(str(tmp_path), StoreSettings())
    assert current_version(there, name)[1].id == current_version(here, name)[1].id
    lon, lat = real.point
    paths = (
        f"/collections/{name}/position?coords=POINT({lon} {lat})&f=CSV",
        f"/collections/{name}/tiles/WebMercatorQuad/1/1/1.png",
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
