"""Encoders by themselves: rounding, missing values, times, quoting."""

import csv
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from covjson_pydantic.coverage import Coverage

from services.core.grid import Grid
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.time_axis import TimeAxis
from tiler.cells import cells_touching
from tiler.coverage import (
    Contents,
    Points,
    Raster,
    Source,
    Spot,
    coverage_json,
    geojson,
    points_csv,
    raster_csv,
)
from tiler.formats import EDR_FORMATS, POINTS_FORMATS, Format, chosen_format
from tiler.netcdf import netcdf
from tiler.numbers import mean_numbers, numbers

GRID = Grid.of(west=0, north=10, step_x="1", width=4, height=3)
FLOAT = Quantity(name="depth", units="m, below ground", long_name='depth "to water"', dtype="float32")


def source(quantity: Quantity, axis: TimeAxis) -> Source:
    product = Product(
        id="wells", title="Wells", description="Of the tests.", grid=GRID, step=str(axis.step), quantities=(quantity,)
    )
    contents = Contents(product=product, version="0" * 20, models={}, time=axis, quantities=(quantity,))
    return Source(contents=contents, query={"a": "b"})


def points(quantity: Quantity, axis: TimeAxis, stored: Any) -> Points:
    spot = Spot(asked=(0.4, 9.6), longitude=0.5, latitude=9.5, distance_km=15.7)
    values = {quantity.name: np.asarray(stored, dtype=quantity.dtype)[np.newaxis]}
    return Points(source=source(quantity, axis), spots=(spot,), values=values, several=False)


@pytest.mark.parametrize(
    ("quantity", "stored", "shown"),
    [
        (FLOAT, [0.1, np.nan], [0.1, None]),
        (FLOAT, [394.3771667480469, -1e-30, 16777216, 1 / 3], [394.37717, -1e-30, 16777216.0, 0.33333334]),
        (replace(FLOAT, quantum=0.05), [0.126, np.nan], [0.13, None]),
        (replace(FLOAT, quantum=10.0), [126.4], [126.0]),
        (replace(FLOAT, dtype="float64"), [1e-17, 1e300], [1e-17, 1e300]),
        (replace(FLOAT, dtype="int16", fill_value=-1, scale_factor=0.01), [123, -1, 7], [1.23, None, 0.07]),
        (replace(FLOAT, dtype="uint8", fill_value=255), [0, 255, 254], [0, None, 254]),
        (replace(FLOAT, dtype="int64", fill_value=-1), [2**53 + 1], [2**53 + 1]),
    ],
)
def test_numbers_are_rounded_to_the_quantum_and_missing_is_null(quantity: Quantity, stored: Any, shown: Any) -> None:
    axis = TimeAxis.regular("2004-01", "P1M", len(stored))
    found = points(quantity, axis, stored)
    text = coverage_json(found).decode()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["ranges"]["depth"]["values"] == shown
    assert json.loads(geojson(found))["features"][0]["properties"]["depth"] == shown
    rows = list(csv.DictReader(io.StringIO(b"".join(points_csv(found)).decode(), newline="")))
    assert [row["depth [m, below ground]"] for row in rows] == ["" if one is None else str(one) for one in shown]
    file = xr.load_dataset(io.BytesIO(netcdf(found)), engine="h5netcdf", mask_and_scale=False)
    assert file.depth.dtype == quantity.dtype
    np.testing.assert_array_equal(file.depth.values[0], np.asarray(stored, dtype=quantity.dtype))


def test_a_mean_shows_more_places_than_its_values() -> None:
    packed = replace(FLOAT, dtype="int16", fill_value=-1, scale_factor=0.01)
    assert mean_numbers(packed, np.array([1.234567])) == [1.2346]
    assert mean_numbers(replace(FLOAT, dtype="uint8", fill_value=255), np.array([3.14159])) == [3.14]
    assert mean_numbers(FLOAT, np.array([1 / 3])) == [0.33333334]
    assert mean_numbers(replace(FLOAT, dtype="float64"), np.array([1 / 3])) == [1 / 3]


def test_numbers_keep_the_shape() -> None:
    stored = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert numbers(FLOAT, stored) == [[0, 1, 2], [3, 4, 5]]


def test_times_with_fractions_are_told_to_the_microsecond() -> None:
    plain = TimeAxis.regular("2004-01-01T00:00", "PT1M", 2)
    axis = TimeAxis(step=plain.step, starts=plain.starts, times=(1072915200_250000, 1072915260_000000))
    found = points(FLOAT, axis, [1, 2])
    document = json.loads(coverage_json(found))
    assert document["domain"]["axes"]["t"]["values"] == ["2004-01-01T00:00:00.250000Z", "2004-01-01T00:01:00.000000Z"]
    assert document["domain"]["axes"]["t"]["bounds"][:2] == ["2004-01-01T00:00:00Z", "2004-01-01T00:01:00Z"]
    file = xr.load_dataset(io.BytesIO(netcdf(found)), engine="h5netcdf")
    assert (file.time.values.astype("datetime64[us]") == axis.instants).all()


def test_a_very_long_axis_leaves_its_bounds_out() -> None:
    axis = TimeAxis.regular("2000-01-01T00", "PT1H", 10_001)
    text = coverage_json(points(FLOAT, axis, np.zeros(10_001)))
    found = Coverage.model_validate_json(text).domain.axes.t
    assert found is not None
    assert found.bounds is None
    assert len(found.values) == 10_001


def test_headings_with_commas_and_quotes_follow_rfc_4180() -> None:
    axis = TimeAxis.regular("2004", "P1Y", 1)
    text = b"".join(points_csv(points(FLOAT, axis, [2.5]))).decode()
    assert text == 'longitude,latitude,time,"depth [m, below ground]"\r\n0.5,9.5,2004-01-01T00:00:00Z,2.5\r\n'


def test_a_raster_is_written_period_by_period() -> None:
    axis = TimeAxis.regular("2004", "P1Y", 3)
    cells = cells_touching(GRID, [(1, 8, 3, 10)])
    stored = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    inside = np.array([[True, False], [True, True]])
    blocks = [(range(2), {"depth": stored[:2]}), (range(2, 3), {"depth": stored[2:]})]
    parts = list(raster_csv(source(FLOAT, axis), cells, inside, blocks))
    assert len(parts) == 3
    rows = list(csv.reader(io.StringIO(b"".join(parts).decode(), newline="")))[1:]
    assert [(row[0][:4], float(row[1]), float(row[2]), float(row[3])) for row in rows] == [
        (str(2004 + period), x, y, period * 4 + number)
        for period in range(3)
        for number, x, y in ((0, 1.5, 9.5), (2, 1.5, 8.5), (3, 2.5, 8.5))
    ]


def test_a_grid_has_the_bounds_of_its_cells() -> None:
    axis = TimeAxis.regular("2004", "P1Y", 1)
    cells = cells_touching(GRID, [(1, 8, 3, 10)])
    values = {"depth": np.zeros((1, 2, 2), dtype=np.float32)}
    found = json.loads(coverage_json(Raster(source=source(FLOAT, axis), cells=cells, inside=None, values=values)))
    axes = found["domain"]["axes"]
    assert axes["x"] == {"values": [1.5, 2.5], "bounds": [1, 2, 2, 3]}
    assert axes["y"] == {"values": [9.5, 8.5], "bounds": [10, 9, 9, 8]}


@pytest.mark.parametrize(
    ("name", "accept", "wanted"),
    [
        (None, "", Format.COVERAGE_JSON),
        ("covjson", "text/csv", Format.COVERAGE_JSON),
        ("NETCDF", "", Format.NETCDF),
        ("application/geo+json", "", Format.GEOJSON),
        ("json", "", Format.COVERAGE_JSON),
        (None, "text/csv;q=0", Format.COVERAGE_JSON),
        (None, "text/csv;q=x, application/geo+json;q=0.1", Format.GEOJSON),
    ],
)
def test_encoding_is_chosen_by_f_then_by_accept(name: str | None, accept: str, wanted: Format) -> None:
    assert chosen_format(name, accept, EDR_FORMATS) is wanted


def test_a_batch_is_plain_json_where_nothing_is_asked_for() -> None:
    assert chosen_format("json", "", POINTS_FORMATS) is Format.JSON
    assert chosen_format(None, "application/json", POINTS_FORMATS) is Format.JSON
