"""The background against closed forms: what it can hold it finds, and goes on with beyond its months."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Window
from services.products.xco2_global import background
from services.products.xco2_global.background import Background, Fitted, fit
from services.products.xco2_global.inputs import SETTINGS, BackgroundSettings, Inputs
from services.sources.noaa_monthly import open_noaa_monthly

FIRST = int(np.datetime64("2015-01", "M").astype(int))
MAUNA_LOA = "xco2/noaa/co2_mlo_surface-insitu_1_ccgg_MonthlyData.txt"

type Values = NDArray[np.float64]
type Whole = NDArray[np.int64]
type Places = tuple[Whole, Whole, Whole]
"""Months, rows and columns."""


def of_kind(inputs: Inputs, kind: str, **more: Any) -> Inputs:
    settings = inputs.settings.model_copy(
        update={
            "background": BackgroundSettings.model_validate({"kind": kind, "files": None if kind == "zonal" else "x"})
        }
    )
    return replace(inputs, settings=settings, **more)


def cells(months: int, seed: int = 0, first: int = FIRST) -> Places:
    """Months, rows and columns of 2 degree cells."""
    generator = np.random.default_rng(seed)
    return (
        first + generator.integers(0, months, 6000),
        generator.integers(0, 90, 6000),
        generator.integers(0, 180, 6000),
    )


def season(month: Values | NDArray[np.int64], latitude: Values) -> Values:
    """Two harmonics by latitude, as polynomials of its sine of degree 2."""
    angle, sine = 2 * np.pi * ((month % 12) + 0.5) / 12, np.sin(np.radians(latitude))
    found: Values = (1.5 + 2.0 * sine + 0.8 * sine**2) * np.cos(angle) - 0.7 * sine * np.sin(2 * angle)
    return found


def zonal(inputs: Inputs, where: Places, values: Values) -> Background:
    return fit(inputs, *where, values, np.ones(len(values)))


def test_trend_gradient_and_season_are_found_and_go_on(opened: Inputs) -> None:
    inputs, grid = of_kind(opened, "zonal"), opened.settings.grid
    month, row, column = cells(60)

    def truth(months: NDArray[np.int64], latitude: Values) -> Values:
        sine = np.sin(np.radians(latitude))
        grown: Values = 400 + (2.4 + 0.1 * sine) * (months - FIRST) / 12 + 1.1 * sine + season(months, latitude)
        return grown

    found = zonal(inputs, (month, row, column), truth(month, grid.latitudes[row]))
    assert found.fitted.kind == "zonal"
    assert found.fitted.rmse < 0.01
    window = Window(row=3, column=5, height=80, width=4)
    latitude = grid.latitudes[window.rows]
    for asked in (FIRST, FIRST + 31, FIRST + 59, FIRST + 83):
        expected = truth(np.full(80, asked), latitude)
        field = found.field(asked, grid, window)
        assert field.shape == (80, 4)
        np.testing.assert_allclose(field, np.broadcast_to(expected[:, None], (80, 4)), atol=0.05)
    # one by one as a field
    at = found.at(np.array([FIRST + 31, FIRST + 83]), np.array([3, 82]), np.array([5, 8]), grid)
    np.testing.assert_allclose(at[0], found.field(FIRST + 31, grid, window)[0, 0], rtol=1e-12)
    np.testing.assert_allclose(at[1], found.field(FIRST + 83, grid, window)[79, 3], rtol=1e-12)


def test_a_swing_of_the_growth_is_followed_and_stays_what_it_was_beyond(opened: Inputs) -> None:
    inputs, grid = of_kind(opened, "zonal"), opened.settings.grid
    month, row, column = cells(72)
    swing = np.interp(month, FIRST + np.array([0, 36, 71]), [0.0, 1.0, 0.0])
    found = zonal(inputs, (month, row, column), 400 + 0.2 * (month - FIRST) + swing)
    one = Window(row=45, column=0, height=1, width=1)
    middle, end, beyond = (float(found.field(FIRST + ahead, grid, one)[0, 0]) for ahead in (36, 71, 95))
    assert middle == pytest.approx(400 + 0.2 * 36 + 1.0, abs=0.15)
    assert end == pytest.approx(400 + 0.2 * 71, abs=0.15)
    # 24 months on: the same place in the season, the trend alone is added
    before = float(found.field(FIRST + 71, grid, one)[0, 0])
    assert beyond - before == pytest.approx(0.2 * 24, abs=0.25)


def test_mauna_loa_carries_the_growth(opened: Inputs, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    levels = 395 + np.cumsum(generator.uniform(0.05, 0.35, 120))
    lines = [
        f"MLO {2014 + place // 12} {place % 12 + 1} 1 {level:.4f} 0.1 30 ..." for place, level in enumerate(levels)
    ]
    path = tmp_path / "mlo.txt"
    path.write_text(
        "# site_name : Mauna Loa, Hawaii\n# site_latitude : 19.5\n# dataset_calibration_scale : CO2_X2019\n"
        "# value:units : micromol mol-1\n#\nsite_code year month day value value_std_dev nvalue qcflag\n"
        + "\n".join(lines)
        + "\n"
    )
    inputs = of_kind(opened, "mauna_loa", mauna_loa=open_noaa_monthly(str(path)))
    grid = opened.settings.grid
    month, row, column = cells(48)
    trailing = np.convolve(levels, np.full(12, 1 / 12), mode="valid")  # that of 2014-12 is first

    def truth(months: NDArray[np.int64], latitude: Values) -> Values:
        return trailing[months - FIRST + 1] - 3.0 + season(months, latitude)

    found = zonal(inputs, (month, row, column), truth(month, grid.latitudes[row]))
    assert found.fitted.rmse < 0.01
    # two years that were not fitted: the series knows them
    later = np.full(90, FIRST + 70)
    field = found.field(FIRST + 70, grid, Window(row=0, column=0, height=90, width=1))[:, 0]
    np.testing.assert_allclose(field, truth(later, grid.latitudes), atol=0.05)
    with pytest.raises(InputRefused, match="lacks one of the twelve months up to 2025-06"):
        found.field(int(np.datetime64("2025-06", "M").astype(int)), grid, Window(row=0, column=0, height=1, width=1))


def test_the_real_mauna_loa(opened: Inputs, realdata: Path) -> None:
    inputs = of_kind(opened, "mauna_loa", mauna_loa=open_noaa_monthly(str(realdata / MAUNA_LOA)))
    table = pd.read_csv(realdata / MAUNA_LOA, sep=r"\s+", comment="#")
    table = table[table.site_code == "MLO"]
    starts = pd.to_datetime({"year": table.year.astype(int), "month": table.month.astype(int), "day": 1})
    rolling = pd.Series(table.value.to_numpy(dtype=float), index=starts).rolling(12).mean()
    months = np.arange(FIRST, FIRST + 84)
    series = Background(
        fitted=Fitted(
            kind="mauna_loa", co2_scale="X2019", first_month=FIRST, last_month=FIRST + 83, coefficients=[0.0], rmse=0.0
        ),
        inputs=inputs,
    ).series(months)
    expected = rolling.reindex(pd.date_range("2015-01-01", "2021-12-01", freq="MS")).to_numpy()
    np.testing.assert_allclose(series, expected, rtol=1e-10)
    assert np.polyfit(months / 12, series, 1)[0] == pytest.approx(2.5, abs=0.15)
    month, row, column = cells(84)
    values = expected[month - FIRST] + 1.0 + season(month, opened.settings.grid.latitudes[row])
    assert zonal(inputs, (month, row, column), values).fitted.rmse < 0.01


def test_columns_of_carbontracker_and_one_offset(written: Path, inputs: Path) -> None:
    latitudes, longitudes = np.arange(-89.0, 90, 2), np.arange(-178.5, 180, 3)
    base = 400 + 3 * np.sin(np.radians(latitudes))[:, None] + 0.01 * longitudes
    for held in ("2019-08", "2019-09"):
        with h5netcdf.File(inputs / f"CT2022.molefrac_glb3x2_{held}.nc", "w") as file:
            file.dimensions = {"time": 1, "level": 2, "boundary": 3, "latitude": 90, "longitude": 120}
            moment = np.datetime64(f"{held}-15", "D") - np.datetime64("2000-01-01", "D")
            interfaces = np.array([1e5, 5e4, 0.0])[None, :, None, None] * np.ones((1, 3, 90, 120))
            for name, over, values, said in (
                (
                    "time",
                    ("time",),
                    np.array([float(moment.astype(int))]),
                    {"units": "days since 2000-01-01 00:00:00 UTC"},
                ),
                ("level", ("level",), np.array([1.0, 2.0]), {"positive": "up"}),
                ("boundary", ("boundary",), np.array([1.0, 2.0, 3.0]), {"positive": "up"}),
                ("latitude", ("latitude",), latitudes, {"units": "degrees_north"}),
                ("longitude", ("longitude",), longitudes, {"units": "degrees_east"}),
                ("co2", ("time", "level", "latitude", "longitude"), np.stack([base, base])[None], {"units": "ppm"}),
                ("pressure", ("time", "boundary", "latitude", "longitude"), interfaces, {"units": "Pa"}),
            ):
                file.create_variable(name, over, data=values).attrs.update(said)
    toml = inputs / SETTINGS
    text = (written / SETTINGS).read_text()
    toml.unlink()
    toml.write_text(text.replace('kind = "zonal"', 'kind = "carbontracker"\nfiles = "CT2022*.nc"'))
    found = Inputs.find(inputs)
    assert [str(np.datetime64(month, "M")) for month in found.periods.starts] == ["2019-08", "2019-09"]
    grid = found.settings.grid
    month, row, column = cells(2, first=found.periods.starts[0])
    sine, east = np.sin(np.radians(grid.latitudes)), grid.longitudes
    inner = (row > 1) & (row < 88) & (column > 1) & (column < 178)
    month, row, column = month[inner], row[inner], column[inner]
    # the column of a level's constant is that constant; bilinear of a plane is the plane
    truth = 400 + 3 * np.interp(grid.latitudes[row], latitudes, np.sin(np.radians(latitudes))) + 0.01 * east[column]
    made = zonal(found, (month, row, column), truth - 0.8)
    assert made.fitted.coefficients == pytest.approx([-0.8], abs=0.01)
    field = made.field(found.periods.starts[1], grid, Window(row=40, column=50, height=3, width=3))
    expected = 400 + 3 * sine[40:43, None] + 0.01 * east[50:53] - 0.8
    np.testing.assert_allclose(field, expected, atol=0.01)
    whole = np.stack(
        [made.field(of, grid, Window(row=0, column=0, height=90, width=180)) for of in found.periods.starts]
    )
    np.testing.assert_array_equal(made.at(month, row, column, grid), whole[month - month.min(), row, column])


def test_chunks_are_one_least_squares_fit(opened: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against numpy's, which gets the whole weighted design, the roughness and the ridge as rows of its own."""
    inputs, grid = of_kind(opened, "zonal"), opened.settings.grid
    month, row, column = cells(60, seed=4)
    generator = np.random.default_rng(5)
    values, weights = 400 + generator.normal(size=6000), generator.uniform(0.2, 3, 6000)
    like = Fitted(
        kind="zonal", co2_scale="X2019", first_month=0, last_month=0, degree=5, smoothness=0.02, coefficients=[], rmse=0
    )
    whole = fit(inputs, month, row, column, values, weights, like=like)
    monkeypatch.setattr(background, "CHUNK", 700)  # the last is shorter
    found = fit(inputs, month, row, column, values, weights, like=like)
    design = background._zonal(found.fitted, month, grid.latitudes[row], found.series)
    assert design.shape == (6000, 6 + 2 + 2 * 3 + 4 * 6)
    # the sphere's Laplacian of a zonal function, by finite differences in the sine of latitude, and its mean square
    sine = np.linspace(-1, 1, 20001)
    columns = background._zonal(found.fitted, np.full(20001, FIRST), np.degrees(np.arcsin(sine)), found.series)[:, :6]
    laplacian = np.gradient((1 - sine[:, None] ** 2) * np.gradient(columns, sine, axis=0), sine, axis=0)
    rough = np.mean(laplacian[5:-5] ** 2, axis=0)
    rough = np.concatenate([rough, rough[:2], np.repeat(rough[:2], 3), np.tile(rough, 4)])
    scale, middle = np.sqrt(weights / weights.mean()), np.average(values, weights=weights)
    held = np.diag(np.sqrt(6000 * (1e-6 + 0.02 * rough)))[1:]
    expected = np.linalg.lstsq(
        np.concatenate([design * scale[:, None], held]), np.append((values - middle) * scale, np.zeros(len(held)))
    )[0]
    expected[0] += middle
    for one in (whole, found):
        np.testing.assert_allclose(one.fitted.coefficients, expected, rtol=5e-3, atol=1e-5)
        left = values - design @ expected
        assert one.fitted.rmse == pytest.approx(np.sqrt(np.average(left**2, weights=weights)), rel=1e-6)
    np.testing.assert_allclose(whole.fitted.coefficients, found.fitted.coefficients, rtol=1e-9, atol=1e-11)
    made = np.array(found.fitted.coefficients)
    np.testing.assert_allclose(found.at(month, row, column, grid), design @ made, rtol=1e-10)


def test_where_nothing_is_seen_it_does_not_go_anywhere(opened: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Winters of the poles unseen: the season of the caps comes from what lies around, and the best weight is taken."""
    monkeypatch.setattr(background, "DEGREE", 8)  # has more to go anywhere with
    inputs, grid = of_kind(opened, "zonal"), opened.settings.grid
    month, row, column = cells(48, seed=8)
    latitude, angle = grid.latitudes[row], 2 * np.pi * (month % 12 + 0.5) / 12
    dark = latitude * np.cos(angle) > 40  # no light near the pole that has winter

    def truth(months: Whole, latitudes: Values) -> Values:
        sine = np.sin(np.radians(latitudes))
        made: Values = (
            400 + np.tanh(2 * sine) + 3 * np.clip(sine, 0, None) * np.cos(2 * np.pi * (months % 12 + 0.5) / 12)
        )
        return made

    seen = month[~dark], row[~dark], column[~dark]
    noise = np.random.default_rng(9).normal(0, 1.5, len(seen[0]))
    values, weights = truth(seen[0], latitude[~dark]) + noise, np.ones(len(noise))
    found = fit(inputs, *seen, values, weights)
    assert found.fitted.degree == background.DEGREE
    assert found.fitted.smoothness in background.SMOOTHNESS
    free = fit(inputs, *seen, values, weights, like=found.fitted.model_copy(update={"smoothness": 0.0}))

    def off(one: Background, where: NDArray[np.bool_]) -> float:
        said = one.at(month[where], row[where], column[where], grid)
        return float(np.sqrt(np.mean((said - truth(month[where], latitude[where])) ** 2)))

    assert off(found, dark) < 0.5 * off(free, dark)
    assert off(found, ~dark) < 1.02 * off(free, ~dark)
    # that of the others which says the dark best is no better than what was taken without knowing the dark
    others = [
        off(fit(inputs, *seen, values, weights, like=found.fitted.model_copy(update={"smoothness": one})), dark)
        for one in background.SMOOTHNESS
    ]
    assert off(found, dark) < min(others) + 0.3 * (max(others) - min(others))


def test_nothing_near_the_poles_takes_the_usual_smoothness(opened: Inputs) -> None:
    month, row, column = cells(24, seed=8)
    inner = np.abs(opened.settings.grid.latitudes[row]) < 40
    found = fit(
        of_kind(opened, "zonal"),
        month[inner],
        row[inner],
        column[inner],
        np.full(inner.sum(), 400.0),
        np.ones(inner.sum()),
    )
    assert found.fitted.smoothness == background.USUAL


def test_memory_does_not_grow_with_the_design(opened: Inputs) -> None:
    inputs = of_kind(opened, "zonal")
    generator, count = np.random.default_rng(6), 400_000
    month, row, column = (
        generator.integers(low, high, count) for low, high in ((FIRST, FIRST + 60), (0, 90), (0, 180))
    )
    values = 400 + generator.normal(size=count)
    tracemalloc.start()
    found = fit(inputs, month, row, column, values, np.ones(count))
    found.at(month, row, column, opened.settings.grid)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.6 * 8 * count * len(found.fitted.coefficients)


def test_too_few_cells(opened: Inputs) -> None:
    month, row, column = cells(12)
    with pytest.raises(InputRefused, match="99 cells with soundings are too few to fit a background to"):
        zonal(opened, (month[:99], row[:99], column[:99]), np.full(99, 400.0))
