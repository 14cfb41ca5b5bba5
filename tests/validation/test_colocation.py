"""Co-location rules against loops over every pair, and the real tables' own solar time."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from services.core.errors import InputRefused, PositionOutside
from services.core.grid import Grid
from services.validation.colocation import (
    SOUTHERN,
    USUAL,
    box,
    cells_about,
    daily,
    local_hours,
    match_soundings,
    monthly,
    overpasses,
)

WORLD = Grid.of(west=-180, north=90, step_x="1/20", width=7200, height=3600)
T0 = 1.5e9


def test_boxes() -> None:
    assert (box("ci", 34.1).latitude, box("ci", 34.1).longitude, box("ci", 34.1).land_only) == (0.25, 0.25, True)
    assert (box("df", 34.96).latitude, box("df", 34.96).longitude) == (0.5, 2.5)
    assert (box("or", 47.97).latitude, box("or", 47.97).longitude) == (0.75, 2.5)
    assert (box("tk", 36.05).latitude, box("tk", 36.05).longitude) == (1.25, 0.5)
    assert box("wg", -34.4) is SOUTHERN
    assert box("lr", -45.0) is SOUTHERN
    assert box("db", -12.4) is USUAL
    assert box("pa", 45.9) is USUAL
    assert (USUAL.latitude, USUAL.longitude, SOUTHERN.latitude, SOUTHERN.longitude) == (1.25, 2.5, 5.0, 30.0)


@pytest.mark.parametrize(("site", "place"), [("pa", (45.94, -90.27)), ("wg", (-34.41, 179.0)), ("ci", (34.14, -118.1))])
def test_matches_are_those_of_a_loop(site: str, place: tuple[float, float]) -> None:
    rng = np.random.default_rng(7)
    spectra = (np.sort(T0 + rng.uniform(0, 8 * 3600, 120)), rng.normal(400, 1, 120), rng.uniform(0.3, 0.9, 120))
    spectra[2][3] = np.nan
    reach = box(site, place[0])
    time = T0 + rng.uniform(-7200, 10 * 3600, 500)
    latitude = place[0] + rng.uniform(-1.5, 1.5, 500) * reach.latitude
    longitude = (place[1] + rng.uniform(-1.5, 1.5, 500) * reach.longitude + 180) % 360 - 180
    land = rng.random(500) < 0.5
    found = match_soundings(site, place, spectra, (time, latitude, longitude), land=land)
    expected = []
    for number in range(500):
        east = min(abs(longitude[number] - place[1]), 360 - abs(longitude[number] - place[1]))
        if abs(latitude[number] - place[0]) > reach.latitude or east > reach.longitude:
            continue
        within = np.abs(spectra[0] - time[number]) <= 3600
        if within.sum() > 15 and (land[number] or not reach.land_only):
            expected.append((number, spectra[1][within].mean(), spectra[2][within].mean(), within.sum()))
    assert len(found) == len(expected) > 50
    numbers, means, errors, counts = (np.array(column) for column in zip(*expected, strict=True))
    np.testing.assert_array_equal(found.sounding, numbers)
    np.testing.assert_array_equal(found.spectra, counts)
    np.testing.assert_allclose(found.reference, means, rtol=1e-13)
    np.testing.assert_allclose(found.error, errors, rtol=1e-12)
    assert np.isnan(found.error).any()


def test_fifteen_spectra_are_not_enough() -> None:
    place = (45.94, -90.27)
    for count, matched in ((15, 0), (16, 1)):
        spectra = (T0 + np.arange(count) * 60.0, np.full(count, 400.0), np.full(count, 0.5))
        sounding = (np.array([T0 + 450]), np.array([45.9]), np.array([-90.0]))
        assert len(match_soundings("pa", place, spectra, sounding)) == matched
    with pytest.raises(InputRefused, match="over land only, and nothing says which"):
        match_soundings("ci", (34.1, -118.1), spectra, sounding)


def test_overpasses() -> None:
    time = np.array([0.0, 1.0, 5000.0, 2.0, 5100.0, 90000.0])
    np.testing.assert_array_equal(overpasses(time), [0, 0, 1, 0, 1, 2])


def test_local_time_is_that_of_the_real_tables(realdata: Path) -> None:
    for path in sorted((realdata / "xco2" / "tccon_ggg2014_csv").glob("*.gz")):
        with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))[:200]
        moments = np.array([row["tccon_datetime"].replace(" ", "T") for row in rows], dtype="datetime64[s]")
        east = np.array([float(row["tccon_longitude"]) for row in rows])
        # theirs leaves out the seconds
        theirs = [float(row["tccon_solar_time"]) for row in rows]
        np.testing.assert_allclose(local_hours(moments.astype(float), east), theirs, atol=1 / 60 + 1e-6)


def test_days() -> None:
    time = np.array([0.0, 3600, 86399, 86400, 10 * 86400 + 5])
    found = daily(time, np.array([400.0, 402, 404, 410, 420]), np.array([1.0, 2, 3, 4, np.nan]))
    np.testing.assert_array_equal(found.period, [0, 1, 10])
    np.testing.assert_array_equal(found.xco2, [402, 410, 420])
    np.testing.assert_array_equal(found.error, [2, 4, np.nan])
    np.testing.assert_array_equal(found.spectra, [3, 1, 1])
    # 10 hours west, the first of them is the day before
    np.testing.assert_array_equal(daily(time, time, time, longitude=-150.0).period, [-1, 0, 9])


def test_months_of_noon() -> None:
    """At 150 E noon is 02 UTC; a mean of days, not of spectra."""
    day = 86400.0
    start = float(np.datetime64("2016-03-01", "s").astype(int))
    times, values = [], []
    for number, (count, value) in enumerate([(40, 400.0), (2, 402.0), (2, 404.0)]):
        times += [start + number * day + 2 * 3600 + 60 * n for n in range(count)]
        values += [value] * count
    # in the morning, and a month of two days
    times += [start - 3600, start + 40 * day + 2 * 3600, start + 41 * day + 2 * 3600]
    values += [999.0, 410.0, 411.0]
    order = np.argsort(times)
    found = monthly(np.array(times)[order], np.array(values)[order], 150.0)
    assert [str(np.datetime64(int(month), "M")) for month in found.period] == ["2016-03"]
    assert (found.xco2[0], found.spectra[0], found.days[0]) == (402.0, 44, 3)
    assert found.error[0] == pytest.approx(2 / np.sqrt(3))
    less = monthly(np.array(times)[order], np.array(values)[order], 150.0, least_spectra=1, least_days=1)
    np.testing.assert_array_equal(less.xco2, [402.0, 410.5])
    assert monthly(np.array([0.0]), np.array([400.0]), 0.0).period.size == 0


def test_cells() -> None:
    one = cells_about(WORLD, -90.27, 45.94)
    assert (one.height, one.width) == (1, 1)
    assert WORLD.latitudes[one.row] == pytest.approx(45.925)
    assert WORLD.longitudes[one.column] == pytest.approx(-90.275)
    many = cells_about(WORLD, -90.27, 45.94, size=5)
    assert (many.row, many.column, many.height, many.width) == (one.row - 2, one.column - 2, 5, 5)
    edge = cells_about(WORLD, -179.99, 89.99, size=5)
    assert (edge.row, edge.column, edge.height, edge.width) == (0, 0, 3, 3)
    with pytest.raises(InputRefused, match="2 x 2 cells have no middle"):
        cells_about(WORLD, 0, 0, size=2)
    with pytest.raises(PositionOutside):
        cells_about(WORLD, 0, 95)
