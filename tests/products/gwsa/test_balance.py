"""The coarse field: the water balance by another way, its errors, what is filled, and where it is kept."""

import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client
from numpy.typing import NDArray

from services.core.catalog import Run, Version
from services.core.dataset import Dataset
from services.core.errors import InputRefused
from services.core.grid import Window
from services.core.settings import StoreSettings
from services.core.store import Store
from services.pipeline.recipe import Here
from services.pipeline.run import cluster, each
from services.products.gwsa import gaps
from services.products.gwsa.balance import balance
from services.products.gwsa.coarse import Coarse, prepare
from services.products.gwsa.declaration import BASE_MONTHS, COARSE, FACTOR, FINE, PRODUCT
from services.products.gwsa.inputs import SETTINGS, Inputs, LandModelSettings
from services.products.gwsa.reach import Reach
from services.products.gwsa.validation.land_models import land_models
from services.products.gwsa.validation.published import Published
from services.sample.groundwater import Groundwater
from services.sources.gldas import open_gldas
from services.validation.report import NotComputed

pytestmark = pytest.mark.slow  # as a whole


def cell(coarse: Coarse, longitude: float, latitude: float) -> tuple[int, int]:
    row, column = COARSE.locate(longitude, latitude)
    return row - coarse.window.row, column - coarse.window.column


WATER = (
    "SoilMoi0_10cm_inst",
    "SoilMoi10_40cm_inst",
    "SoilMoi40_100cm_inst",
    "SoilMoi100_200cm_inst",
    "SWE_inst",
    "CanopInt_inst",
)
PLACES = ((70.6, 22.9), (72.9, 24.1), (73.4, 21.2))


@pytest.fixture(scope="module")
def modelled(written: Path, opened: Inputs) -> NDArray[np.float64]:
    """Soil moisture, snow and canopy water of the places as xarray reads them, kg m-2, ``(month, place)``."""
    longitude, latitude = (xr.DataArray(list(values), dims="place") for values in zip(*PLACES, strict=True))
    months = range(opened.months.starts[0], opened.months.starts[-1] + 1)
    stores = np.zeros((len(months), len(PLACES)))
    for position, month in enumerate(months):
        name = f"GLDAS_NOAH025_M.A{str(np.datetime64(month, 'M')).replace('-', '')}.021.nc4"
        with xr.open_dataset(written / name, engine="h5netcdf", decode_times=False) as file:
            here = file[list(WATER)].isel(time=0).sel(lat=latitude, lon=longitude, method="nearest").load()
        stores[position] = sum(here[variable].values.astype(float) for variable in WATER)
    return stores


@pytest.mark.parametrize("place", PLACES)
def test_a_cell_is_grace_less_gldas_as_xarray_reads_them(
    place: tuple[float, float], opened: Inputs, coarse: Coarse, written: Path, modelled: NDArray[np.float64]
) -> None:
    longitude, latitude = place
    (name,) = written.glob("CSR_GRACE*.nc")
    with xr.open_dataset(name, engine="h5netcdf", decode_times=False) as file:
        solutions = file["lwe_thickness"].sel(lat=latitude, lon=longitude, method="nearest").values.astype(float)
    months = np.arange(opened.months.starts[0], opened.months.starts[-1] + 1)
    total = np.full(len(months), np.nan)
    total[np.searchsorted(months, opened.solution_months)] = solutions
    stores = modelled[:, PLACES.index(place)]
    base = np.isin(months, BASE_MONTHS)
    known = ~np.isnan(total)
    expected = total - total[base].mean() - (stores - stores[base].mean()) / 10
    row, column = cell(coarse, longitude, latitude)
    found = coarse.read_all("gwsa")[:, row, column]
    np.testing.assert_allclose(found[known], expected[known], atol=2e-5)
    assert np.isfinite(found).all()
    assert known.sum() == 192
    assert [not coarse.read_filled(int(month)) for month in months] == known.tolist()


def test_it_is_the_truth_with_graces_noise(opened: Inputs, coarse: Coarse, world: Groundwater) -> None:
    off = []
    for month in opened.solution_months[::24]:
        truth = world.coarse(month)
        window = Reach(row=(90 - 25) * 4, column=(180 + 68) * 4, height=20, width=24)
        found = coarse.read("gwsa", month, window)
        some = np.isfinite(truth) & np.isfinite(found)
        assert some.mean() > 0.5
        off.append((found - truth)[some])
    assert 0.5 < np.concatenate(off).std() < 2.0, "the noise is stated as about 1 cm"


def test_filled_months_are_less_certain_and_the_error_adds_up(opened: Inputs, coarse: Coarse) -> None:
    error = coarse.read_all("gwsa_uncertainty")
    filled = np.array([coarse.read_filled(month) for month in coarse.months])
    some = np.isfinite(error[0])
    assert filled.sum() == 33
    assert (error[filled][:, some].min(axis=0) > error[~filled][:, some].max(axis=0)).all()
    # within known months nothing depends on time: the other centre's difference and shares of what varies
    assert np.ptp(error[~filled][:, some], axis=0).max() < 1e-5
    stores = [coarse.read_all(name)[:, some] for name in ("soil_moisture", "snow", "canopy")]
    shares = sum((opened.settings.gldas.uncertainty * one.std(axis=0)) ** 2 for one in stores)
    rest = error[~filled][0, some] ** 2 - shares
    assert (rest > 0).all(), "what is left is GRACE's"


def test_bands_and_windows_give_the_same_cells(opened: Inputs, coarse: Coarse) -> None:
    part = Window(row=coarse.window.row + 9, column=coarse.window.column + 11, height=4, width=5)
    found = balance(opened, part)
    whole = coarse.read_all("gwsa")[:, 9:13, 11:16]
    np.testing.assert_allclose(found.gwsa, whole, atol=2e-5)
    np.testing.assert_allclose(found.gwsa, found.twsa - sum(found.stores.values()), atol=1e-9)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with cluster(2) as made:
        assert made is not None
        yield made


@pytest.mark.cluster
def test_workers_prepare_the_same_bytes(opened: Inputs, coarse: Coarse, client: Client, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(coarse.directory, kept)
    shutil.rmtree(coarse.directory)
    said: list[str] = []
    again = prepare(opened, each(client), said.append)
    assert again == coarse
    assert any("water balance" in line for line in said)
    for name in ("gwsa", "gwsa_uncertainty", "region"):
        for path in sorted((kept / "coarse.zarr" / name).rglob("*")):
            if path.is_file():
                assert path.read_bytes() == (coarse.directory / path.relative_to(kept)).read_bytes(), path


def test_it_is_kept_and_found_again(opened: Inputs, coarse: Coarse) -> None:
    said: list[str] = []
    assert prepare(opened, Here(), said.append) == coarse
    assert said == []
    assert pickle.loads(pickle.dumps(coarse)) == coarse  # noqa: S301 - our own bytes
    assert not list(coarse.directory.parent.glob(".*part"))
    with xr.open_zarr(coarse.directory / "coarse.zarr", consolidated=False) as shown:
        assert shown["gwsa"].dims == ("time", "y", "x")
        assert str(shown["time"].values[0])[:7] == "2002-04"
        assert shown["gwsa"].attrs["units"] == "cm"


def test_ways_of_filling_differ_where_there_is_no_solution_only(opened: Inputs, written: Path) -> None:
    part = Window(row=266, column=1005, height=2, width=3)
    found = balance(opened, part)
    settings = opened.settings
    linear = settings.model_copy(update={"grace": settings.grace.model_copy(update={"fill": "linear"})})
    other = balance(Inputs(**{**vars(opened), "settings": linear}), part)
    filled = found.filled.any(axis=(1, 2))
    assert filled.sum() == 33
    assert not np.allclose(found.gwsa[filled], other.gwsa[filled], atol=0.1)
    np.testing.assert_allclose(found.gwsa[~filled], other.gwsa[~filled], atol=1e-9)
    assert set(gaps.METHODS) >= {"linear", "ssa", settings.grace.fill}
    assert written.is_dir()


def spoilt(written: Path, tmp_path: Path, old: str, new: str) -> Path:
    """The inputs by links, with another gwsa.toml."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    for path in written.iterdir():
        if path.name not in {SETTINGS, "prepared"}:
            (folder / path.name).symlink_to(path)
    text = (written / SETTINGS).read_text()
    assert old in text
    (folder / SETTINGS).write_text(text.replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'files = "elevation.tif"',
            'files = "height.tif"',
            r"predictor elevation names 'height\.tif', and .* holds no",
        ),
        ('units = "K"', 'units = "degC"', r"air_temperature is in 'K', and 'degC' is asked for"),
        ('files = "CSR_GRACE*.nc"', 'files = "*.nc"', r"grace must be one file"),
        ("[grace]", '[grace]\nfill = "guess"', r"no way of filling called 'guess'; there are climatology_trend_ar1"),
        (
            "synthetic = true",
            "synthetic = true\ncolour = 1",
            r"gwsa\.toml: colour: there is no such entry; there are grace, gldas",
        ),
        ("synthetic = true", "synthetic = ", r"gwsa\.toml is no TOML"),
        ('name = "slope"', 'name = "elevation"', r"predictor 'elevation' stands twice"),
        ('name = "slope"', 'name = "year"', r"predictor 'year' stands twice, or has a name that is taken"),
        ('name = "name"', 'name = "label"', r"aquifers\.geojson"),
        ("area = [66, 18, 76, 27]", "area = [66, 27, 76, 18]", r"area is west, south, east, north within"),
        ("area = [66, 18, 76, 27]", "area = [66, -70, 76, 27]", r"within -180, -60, 180, 90, not \[66\.0, -70\.0"),
    ],
)
def test_settings_that_do_not_hold_are_refused_by_name(
    old: str, new: str, said: str, written: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputRefused, match=said) as refusal:
        Inputs.find(spoilt(written, tmp_path, old, new))
    assert "\n" not in str(refusal.value)


def test_a_month_of_gldas_that_lacks_is_named(written: Path, tmp_path: Path) -> None:
    folder = spoilt(written, tmp_path, "synthetic", "synthetic")
    (folder / "GLDAS_NOAH025_M.A200707.021.nc4").unlink()
    with pytest.raises(InputRefused, match="2007-07"):
        Inputs.find(folder)


def test_an_area_without_values_is_refused(written: Path, tmp_path: Path) -> None:
    folder = spoilt(written, tmp_path, "area = [66, 18, 76, 27]", "area = [-40, 30, -30, 40]")
    inputs = Inputs.find(folder).hashed()
    with pytest.raises(InputRefused, match="no cell has both GRACE and GLDAS values"):
        prepare(inputs, Here(), lambda _: None)
    assert list((folder / "prepared").iterdir()) == []


def test_another_file_is_another_preparation(written: Path, tmp_path: Path, coarse: Coarse) -> None:
    folder = spoilt(written, tmp_path, "synthetic = true", "synthetic = true\ndetail = false")
    other = Coarse.of(Inputs.find(folder).hashed())
    assert other.directory.name != coarse.directory.name
    same = Coarse.of(Inputs.find(written).hashed())
    assert same.directory.name == coarse.directory.name
    assert json.loads((coarse.directory / "facts.json").read_text())["months_filled"] == 33


SOIL = ("SoilMoi0_30cm_inst", "SoilMoi_depth2_inst", "SoilMoi_depth3_inst")
MODELLED = np.arange(400, 500)
"""Months that the other land model has, the baseline among them."""


def water(month: int, latitudes: NDArray[np.float64], longitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """kg m-2 of another land model's soil: a plane in every month, which linear interpolation keeps."""
    wave = np.sin(2 * np.pi * month / 12) + 0.3 * np.cos(month)
    plane: NDArray[np.float64] = 300 + 40 * wave + wave * (2 * (latitudes[:, None] - 20) + (longitudes - 70))
    return plane


@pytest.fixture(scope="module")
def other_land(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with three layers on 1 degree, without a canopy, that has no values east of 74.5 E."""
    place = tmp_path_factory.mktemp("vic")
    latitudes, longitudes = np.linspace(-59.5, 89.5, 150), np.linspace(-179.5, 179.5, 360)
    for month in MODELLED.tolist():
        days = (np.array([month, month + 1], dtype="datetime64[M]") - np.datetime64("2000-01-01", "D")).astype(float)
        soil = water(month, latitudes, longitudes)
        soil[:, longitudes > 74.5] = np.nan
        fields = {name: soil * share for name, share in zip(SOIL, (0.2, 0.3, 0.5), strict=True)}
        fields["SWE_inst"] = np.full_like(soil, 3.0)
        made = xr.Dataset(
            {
                name: (("time", "lat", "lon"), values[None].astype(np.float32), {"units": "kg m-2"})
                for name, values in fields.items()
            }
            | {"time_bnds": (("time", "bnds"), days[None])},
            coords={
                "time": ("time", days[:1], {"units": "days since 2000-01-01 00:00:00", "bounds": "time_bnds"}),
                "lat": ("lat", latitudes, {"units": "degrees_north"}),
                "lon": ("lon", longitudes, {"units": "degrees_east"}),
            },
        )
        name = str(np.datetime64(month, "M")).replace("-", "")
        made.to_netcdf(place / f"GLDAS_VIC10_M.A{name}.021.nc4", engine="h5netcdf")
    return place


def test_another_land_model_tells_the_error_of_the_stores_where_it_has_values(
    written: Path, opened: Inputs, other_land: Path, tmp_path: Path
) -> None:
    place = tmp_path / "inputs"
    place.mkdir()
    for one in written.iterdir():
        if one.name != "prepared":
            (place / one.name).symlink_to(one)
    text = (written / SETTINGS).read_text()
    (place / SETTINGS).unlink()
    entry = f"""
[[gldas.other]]
name = "vic"
files = "{other_land}/GLDAS_VIC10_M.A*.nc4"
soil = {list(SOIL)}
canopy = ""
"""
    (place / SETTINGS).write_text(text + entry)
    inputs = Inputs.find(place)
    assert len(list(inputs.sources())) == len(list(opened.sources())) + len(MODELLED)
    part = Window(row=266, column=1010, height=3, width=20)
    found, plain = balance(inputs, part), balance(opened, part)
    for name in ("gwsa", "twsa"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    grid = COARSE.subgrid(part)
    noah = np.stack([sum(opened.gldas.read(int(month), part).values()) for month in MODELLED]) / 10
    vic = np.stack([water(int(month), grid.latitudes, grid.longitudes) + 3 for month in MODELLED]) / 10
    base = np.isin(MODELLED, BASE_MONTHS)
    apart = (vic - vic[base].mean(axis=0)) - (noah - noah[base].mean(axis=0))
    expected = (apart**2).mean(axis=0)
    shares = sum((opened.settings.gldas.uncertainty * one.std(axis=0)) ** 2 for one in plain.stores.values())
    valid = np.isfinite(plain.gwsa[0])
    there = grid.longitudes < 74.5
    stated = found.uncertainty**2 - plain.uncertainty**2
    some = valid & there
    assert some.sum() > 20
    np.testing.assert_allclose(
        stated[:, some], np.broadcast_to((expected - shares)[some], (225, some.sum())), rtol=1e-3
    )
    beyond = valid & (grid.longitudes > 75.0)
    assert beyond.any()
    np.testing.assert_array_equal(found.uncertainty[:, beyond], plain.uncertainty[:, beyond])
    assert not found.untold[some].any()
    assert found.untold[beyond].all()
    (place / SETTINGS).write_text(text + entry.replace("depth2", "depth9"))
    with pytest.raises(InputRefused, match=r"GLDAS_VIC10_M.* has no SoilMoi_depth9_inst"):
        Inputs.find(place)


def test_the_report_tells_how_far_land_models_lie_apart(opened: Inputs, coarse: Coarse, other_land: Path) -> None:
    settings = opened.settings
    entry = LandModelSettings(name="vic", files="-", soil=list(SOIL), canopy="")
    model = open_gldas([str(other_land / "*.nc4")], entry.variables, any_grid=True)
    gldas = settings.gldas.model_copy(update={"other": [entry]})
    inputs = replace(opened, other_land=(model,), settings=settings.model_copy(update={"gldas": gldas}))
    area = Window(row=264 * FACTOR, column=1004 * FACTOR, height=4 * FACTOR, width=6 * FACTOR)
    product = replace(PRODUCT, id="gwsa_part", grid=FINE.subgrid(area))
    runs = (Run(segment="made-up", periods=opened.months),)
    version = Version(
        product=product,
        time=opened.months,
        segments={"made-up": "0" * 64},
        maps=runs,
        series=runs,
        cogs=(),
        anchor=opened.months.starts[0],
        parent=None,
    )
    dataset = Dataset(Store.open("memory://land-models", StoreSettings()), version)
    published = Published(dataset=dataset, source=inputs, coarse=coarse, row=area.row, column=area.column)
    told, rows, apart = land_models(published)
    grid, cells = COARSE.subgrid(published.cells), published.cells
    noah = np.stack([sum(opened.gldas.read(int(month), cells).values()) for month in MODELLED]) / 10
    vic = np.stack([water(int(month), grid.latitudes, grid.longitudes) for month in MODELLED]) / 10
    base = np.isin(MODELLED, BASE_MONTHS)
    difference = (vic - vic[base].mean(axis=0)) - (noah - noah[base].mean(axis=0))
    valid = np.isfinite(apart)
    assert told["models"]["vic"]["cells"] == valid.sum() > 10
    assert told["models"]["vic"]["months"] == len(rows) == len(MODELLED)
    np.testing.assert_allclose(apart[valid], np.sqrt((difference**2).mean(axis=0))[valid], rtol=1e-4)
    weight = np.broadcast_to(grid.row_areas[:, None], valid.shape)[valid]
    overall = np.sqrt(np.average((difference[:, valid] ** 2).mean(axis=0), weights=weight))
    assert told["models"]["vic"]["rms_difference_cm"] == pytest.approx(overall, rel=1e-4)
    with pytest.raises(NotComputed, match="names no other land surface model"):
        land_models(replace(published, source=opened))
