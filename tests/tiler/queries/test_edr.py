"""position, area and cube over HTTP against xarray on the source, in every encoding; and what is refused, and how."""

import csv
import io
import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import shapely
import xarray as xr
from covjson_pydantic.coverage import Coverage, CoverageCollection
from covjson_pydantic.ndarray import NdArrayFloat, NdArrayInt
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from numpy.typing import NDArray
from owslib.ogcapi.edr import EnvironmentalDataRetrieval
from starlette.testclient import TestClient

from services.core.settings import Settings
from tiler.app import create_app
from tiler.edr import distance_km

pytestmark = pytest.mark.slow  # as a whole

FORMATS = ("CoverageJSON", "GeoJSON", "CSV", "NetCDF")

PLACES = {
    "xco2_test": [(10.2, 20.3), (-179.99, 89.9), (179.99, -12.5), (350.25, -33.75), (0.5, -80.5)],
    "pacific-days": [(165.1, 20.4), (179.9, 4.1), (-179.9, 4.1), (194.9, 3.05), (181.3, 11.3)],
    "flux_hours": [(78.0, 41.0), (83.26, 39.01), (88.6, 36.9)],
}

QUANTUM = {"xco2": 0.01, "xco2_uncertainty": 0.01, "soundings": 1, "flux": 1e-4}


def exact(answer: Any) -> Any:
    """A successful answer."""
    assert answer.status_code == 200, answer.text
    return answer


def series_of_covjson(document: dict[str, Any]) -> dict[str, NDArray[np.float64]]:
    return {
        name: np.array([np.nan if v is None else v for v in found["values"]], dtype=float).reshape(found["shape"])
        for name, found in document["ranges"].items()
    }


def decode_points(kind: str, answer: Any) -> list[dict[str, NDArray[Any]]]:
    """Series per place: times and values by variable."""
    match kind:
        case "CoverageJSON":
            document = answer.json()
            coverages = document.get("coverages", [document])
            return [
                {
                    "time": times(coverage["domain"]["axes"]["t"]["values"]),
                    "x": np.array(coverage["domain"]["axes"]["x"]["values"]),
                    "y": np.array(coverage["domain"]["axes"]["y"]["values"]),
                    **series_of_covjson(coverage),
                }
                for coverage in coverages
            ]
        case "GeoJSON":
            document = answer.json()
            return [
                {
                    "time": times(feature["properties"]["datetime"]),
                    "x": np.array(feature["geometry"]["coordinates"][:1]),
                    "y": np.array(feature["geometry"]["coordinates"][1:]),
                    **{
                        name: np.array([np.nan if v is None else v for v in feature["properties"][name]], dtype=float)
                        for name in document["parameters"]
                    },
                }
                for feature in document["features"]
            ]
        case "CSV":
            return decode_csv(answer.text)
        case "NetCDF":
            found = xr.load_dataset(io.BytesIO(answer.content), engine="h5netcdf")
            assert found.attrs["featureType"] == "timeSeries"
            return [
                {
                    "time": found.time.values.astype("datetime64[us]"),
                    "x": found.x.values[[place]],
                    "y": found.y.values[[place]],
                    **{
                        str(name): found[name].values[place]
                        for name in found.data_vars
                        if "time" in found[name].dims[1:]
                    },
                }
                for place in range(found.sizes["point"])
            ]
    raise AssertionError(kind)


def decode_csv(text: str) -> list[dict[str, NDArray[Any]]]:
    assert text.endswith("\r\n")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    found = []
    for _, members in itertools.groupby(rows, key=lambda row: row.get("point")):
        group = list(members)
        found.append(
            {
                "time": times([row["time"] for row in group]),
                "x": np.array([float(group[0]["longitude"])]),
                "y": np.array([float(group[0]["latitude"])]),
                **{
                    name.split(" [")[0]: np.array([float(row[name] or "nan") for row in group])
                    for name in group[0]
                    if " [" in name
                },
            }
        )
    return found


def times(texts: list[str]) -> NDArray[np.datetime64]:
    assert all(text.endswith("Z") for text in texts)
    return np.array([text[:-1] for text in texts], dtype="datetime64[us]")


def check_values(kind: str, name: str, found: NDArray[Any], wanted: NDArray[Any]) -> None:
    """NetCDF as stored; text to the quantum, with the missing values in the same places."""
    assert found.shape == wanted.shape
    assert (np.isnan(found) == np.isnan(wanted)).all()
    if name == "anomaly":  # text reads back as the float32 that is stored
        np.testing.assert_array_equal(found.astype(np.float32), wanted)
        return
    half = 0.0 if kind == "NetCDF" else QUANTUM[name] / 2
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=half)


# position


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", PLACES)
def test_position_equals_xarray_sel_on_the_source(world: Any, name: str, kind: str) -> None:
    source = world.sources[name].xarray
    for lon, lat in PLACES[name]:
        url = f"/collections/{name}/position?coords=POINT({lon} {lat})&f={kind}"
        (found,) = decode_points(kind, exact(world.client.get(url)))
        # the nearest centre on the circle: xarray knows no antimeridian
        wrapped = min((lon + turn for turn in (-360, 0, 360)), key=lambda x: float(np.abs(source.x - x).min()))
        wanted = source.sel(x=wrapped, y=lat, method="nearest")
        assert (found["time"] == wanted.time.values.astype("datetime64[us]")).all()
        assert float(found["y"][0]) == float(wanted.y)
        assert (float(found["x"][0]) - float(wanted.x)) % 360 == 0
        for variable in source.data_vars:
            check_values(kind, str(variable), found[str(variable)], wanted[variable].values)


@pytest.mark.parametrize("kind", FORMATS)
def test_several_places_are_answered_in_the_order_asked(world: Any, kind: str) -> None:
    source = world.sources["xco2_test"].xarray
    places = [(100.5, -3.5), (-60.5, 7.5), (100.5, -3.5), (100.6, -4.4)]
    points = ",".join(f"({x} {y})" for x, y in places)
    url = f"/collections/xco2_test/position?coords=MULTIPOINT({points})&parameter-name=xco2&datetime=2015-09/2016-02"
    found = decode_points(kind, exact(world.client.get(f"{url}&f={kind}")))
    assert len(found) == 4
    for (x, y), series in zip(places, found, strict=True):
        wanted = source.xco2.sel(x=x, y=y, method="nearest").sel(time=slice("2015-09-01", "2016-02-29"))
        check_values(kind, "xco2", series["xco2"], wanted.values)


def test_position_tells_the_cell_and_the_distance_to_it(world: Any) -> None:
    answer = exact(world.client.get("/collections/xco2_test/position?coords=POINT(10.2 20.3)&datetime=latest"))
    told = answer.json()["cenote"]
    assert told["asked"] == {"longitude": 10.2, "latitude": 20.3}
    assert told["cell"] == {"longitude": 10.5, "latitude": 20.5}
    # 0.2 degrees of latitude and 0.3 degrees of longitude at 20.4 north
    assert told["distance_km"] == pytest.approx(111.195 * math.hypot(0.2, 0.3 * math.cos(math.radians(20.4))), rel=1e-4)


def test_distance_is_that_of_a_geodesic_library() -> None:
    from pyproj import Geod  # noqa: PLC0415

    sphere = Geod(a=6371008.8, b=6371008.8)
    for first, second in (((0, 0), (180, 0)), ((10, 80), (-170, 80)), ((3, 4), (3.01, 4.02)), ((5, 5), (5, 5))):
        wanted = sphere.inv(*first, *second)[2] / 1000
        assert distance_km(first, second) == pytest.approx(wanted, abs=1e-6)


def test_a_gap_is_absent_and_missing_values_are_null(world: Any) -> None:
    source = world.sources["xco2_test"]
    text = exact(world.client.get("/collections/xco2_test/position?coords=POINT(0.5 -80.5)")).text
    document = Coverage.model_validate_json(text)
    assert document.domain.axes.t is not None
    assert len(document.domain.axes.t.values) == 30
    assert "2015-08" not in {f"{moment:%Y-%m}" for moment in document.domain.axes.t.values}
    series = document.ranges["xco2"]
    assert isinstance(series, NdArrayFloat)
    assert series.values == [None] * 30
    assert "NaN" not in text
    bounds = document.domain.axes.t.bounds
    assert bounds is not None
    wanted = source.time.bounds.astype("datetime64[s]").ravel()
    assert [np.datetime64(b.replace(tzinfo=None), "s") for b in bounds] == list(wanted)


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("2015-03", ["2015-03"]),
        ("2015-03-31T23:59:59Z", ["2015-03"]),
        ("2015-07/2015-09", ["2015-07", "2015-09"]),
        ("../2015-02", ["2015-01", "2015-02"]),
        ("2017-06/..", ["2017-06", "2017-07"]),
        ("latest", ["2017-07"]),
    ],
)
def test_datetime_picks_the_periods_that_the_header_names(world: Any, expression: str, ids: list[str]) -> None:
    url = f"/collections/xco2_test/position?coords=POINT(1 1)&parameter-name=xco2&datetime={expression}"
    answer = exact(world.client.get(url))
    assert answer.headers["Cenote-Period"] == (ids[0] if len(ids) == 1 else f"{ids[0]}/{ids[-1]}")
    shown = [text[:7] for text in answer.json()["domain"]["axes"]["t"]["values"]]
    assert shown == ids


# CoverageJSON as a standard


@pytest.mark.parametrize(
    "query",
    [
        "xco2_test/position?coords=POINT(10 20)",
        "flux_hours/position?coords=POINT(80 40)",
        "xco2_test/cube?bbox=0,0,5,5&datetime=2015",
        "pacific-days/cube?bbox=178,5,-178,6",
        "xco2_test/area?coords=POLYGON((0 0,9 0,9 9,0 0))&datetime=2016-01",
        "xco2_test/area?coords=POLYGON((0 0,9 0,9 9,0 0))&aggregate=mean",
        "xco2_test/area?coords=MULTIPOLYGON(((0 0,9 0,9 9,0 0)),((20 0,29 0,29 9,20 0)))&aggregate=mean",
    ],
)
def test_every_coverage_is_valid(world: Any, query: str) -> None:
    document = Coverage.model_validate_json(exact(world.client.get(f"/collections/{query}")).content)
    assert document.parameters is not None
    for name, found in document.ranges.items():
        assert document.parameters[name].unit is not None
        assert isinstance(found, NdArrayFloat | NdArrayInt)
        assert math.prod(found.shape or ()) == len(found.values)


def test_a_coverage_collection_is_valid(world: Any) -> None:
    url = "/collections/xco2_test/position?coords=MULTIPOINT((10 20),(11 21))"
    document = CoverageCollection.model_validate_json(exact(world.client.get(url)).content)
    assert len(document.coverages) == 2


def test_ancillary_quantities_are_linked(world: Any) -> None:
    document = exact(world.client.get("/collections/xco2_test/position?coords=POINT(10 20)&datetime=latest")).json()
    (group,) = document["parameterGroups"]
    assert group["members"] == ["xco2", "xco2_uncertainty", "soundings"]
    assert document["cenote"]["ancillary"] == {"xco2": ["xco2_uncertainty", "soundings"]}
    assert document["ranges"]["soundings"]["dataType"] == "integer"
    file = exact(world.client.get("/collections/xco2_test/position?coords=POINT(10 20)&datetime=latest&f=netcdf"))
    found = xr.load_dataset(io.BytesIO(file.content), engine="h5netcdf")
    assert found.xco2.attrs["ancillary_variables"] == "xco2_uncertainty soundings"


# cube


def decode_raster(kind: str, answer: Any, shape: tuple[int, int, int], name: str) -> NDArray[Any]:
    match kind:
        case "CoverageJSON":
            return series_of_covjson(answer.json())[name]
        case "NetCDF":
            found: NDArray[Any] = xr.load_dataset(io.BytesIO(answer.content), engine="h5netcdf")[name].values
            return found
        case "CSV":
            rows = list(csv.DictReader(io.StringIO(answer.text)))
            column = next(key for key in rows[0] if key.startswith(f"{name} ["))
            return np.array([float(row[column] or "nan") for row in rows]).reshape(shape)
        case "GeoJSON":
            features = answer.json()["features"]
            values = [[np.nan if v is None else v for v in one["properties"][name]] for one in features]
            return np.array(values, dtype=float).T.reshape(shape)
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("bbox", "columns", "rows"),
    [("10,20,15,23", range(190, 195), slice(67, 70)), ("177.5,-2,-178.5,0.5", [357, 358, 359, 0, 1], slice(89, 92))],
)
def test_cube_equals_the_source(world: Any, kind: str, bbox: str, columns: Any, rows: slice) -> None:
    source = world.sources["xco2_test"].xarray
    url = f"/collections/xco2_test/cube?bbox={bbox}&datetime=2015-06/2015-10&parameter-name=xco2&f={kind}"
    answer = exact(world.client.get(url))
    wanted = source.xco2.sel(time=slice("2015-06-01", "2015-10-31")).values[:, rows][:, :, list(columns)]
    check_values(kind, "xco2", decode_raster(kind, answer, wanted.shape, "xco2"), wanted)


@pytest.mark.parametrize(
    ("bbox", "columns"),
    [("190,10,170,12", range(10, 50)), ("-170,10,170,12", range(10, 50)), ("-166.9,10,165.1,10", range(1, 56))],
)
def test_cells_between_the_two_ends_of_a_cube_are_missing_as_in_an_area(world: Any, bbox: str, columns: range) -> None:
    # the box goes round the Earth from one end of the regional grid to the other
    source = world.sources["pacific-days"]
    rows = slice(34, 42) if bbox.endswith("12") else slice(42, 43)
    wanted = np.array(source.values["anomaly"][:1, rows])
    wanted[:, :, list(columns)] = np.nan
    asked = f"/collections/pacific-days/cube?bbox={bbox}&datetime=2019-12-20"
    found = decode_raster("CoverageJSON", exact(world.client.get(asked)), wanted.shape, "anomaly")
    np.testing.assert_array_equal(found.astype(np.float32), wanted)
    found = decode_raster("NetCDF", exact(world.client.get(f"{asked}&f=NetCDF")), wanted.shape, "anomaly")
    np.testing.assert_array_equal(found, wanted)
    left = wanted.shape[1] * (60 - len(columns))
    assert len(exact(world.client.get(f"{asked}&f=GeoJSON")).json()["features"]) == left
    assert len(exact(world.client.get(f"{asked}&f=CSV")).text.splitlines()) == left + 1


def test_cube_in_netcdf_is_cf_with_its_packing(world: Any) -> None:
    url = "/collections/xco2_test/cube?bbox=170,-10,-170,10&datetime=2016-01/2016-03&f=NetCDF"
    content = exact(world.client.get(url)).content
    found = xr.load_dataset(io.BytesIO(content), engine="h5netcdf", decode_coords="all")
    source = world.sources["xco2_test"]
    assert found.xco2.dims == ("time", "y", "x")
    assert found.xco2.encoding["dtype"] == np.int16
    assert found.xco2.encoding["scale_factor"] == 0.01
    assert found.xco2.attrs["standard_name"] == "dry_atmosphere_mole_fraction_of_carbon_dioxide"
    assert found.xco2.attrs["units"] == "1e-6"
    assert (np.diff(found.x.values) == 1).all()
    assert found.x.values[-1] == 189.5
    assert (found.time_bnds.values[:, 0] == np.array(["2016-01", "2016-02", "2016-03"], dtype="datetime64[ns]")).all()
    assert found.attrs["version"] == source.version.id
    assert found.attrs["models"] == f"made_up@{'0123456789abcdef' * 4}"
    assert found.rio.crs.to_epsg() == 4326


def test_csv_is_streamed_beyond_what_other_encodings_hold(world: Any) -> None:
    app = create_app(Settings(store=world.url, max_values=1000), world.store)
    url = "/collections/xco2_test/cube?bbox=0,0,10,10&datetime=2015-01/2015-11&parameter-name=xco2&f={}"
    with TestClient(app) as client:
        refused = client.get(url.format("CoverageJSON"))
        assert refused.status_code == 200, "1000 values are the limit"
        refused = client.get(url.format("CoverageJSON").replace("2015-11", "2015-12"))
        assert refused.status_code == 413
        assert "1100 values and at most 1000" in refused.json()["detail"]
        assert "f=CSV" in refused.json()["detail"]
        streamed = exact(client.get(url.format("CSV").replace("2015-11", "2015-12")))
        assert len(streamed.text.splitlines()) == 1101
        assert "content-length" not in streamed.headers


# area


TRIANGLE = "POLYGON((172.3 -1.2,188.8 3.3,176.1 14.9,172.3 -1.2))"


@pytest.mark.parametrize("kind", ["CoverageJSON", "NetCDF"])
def test_area_holds_the_cells_that_share_ground_and_null_outside(world: Any, kind: str) -> None:
    source = world.sources["pacific-days"].xarray
    url = f"/collections/pacific-days/area?coords={TRIANGLE}&datetime=2020-01-01/2020-01-03&f={kind}"
    answer = exact(world.client.get(url))
    triangle = shapely.from_wkt(TRIANGLE)
    x, y = np.meshgrid(source.x, source.y)
    cells = shapely.box(x - 0.25, y - 0.125, x + 0.25, y + 0.125)
    inside = shapely.area(shapely.intersection(cells, triangle)) > 0.125 * 1e-6
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    wanted = np.where(inside, source.anomaly.sel(time=slice("2020-01-01", "2020-01-03")).values, np.nan)
    wanted = wanted[:, window[0], window[1]]
    check_values(kind, "anomaly", decode_raster(kind, answer, wanted.shape, "anomaly"), wanted)


@pytest.mark.parametrize("kind", ["CSV", "GeoJSON"])
def test_area_in_rows_and_features_leaves_out_what_is_outside(world: Any, kind: str) -> None:
    url = f"/collections/pacific-days/area?coords={TRIANGLE}&datetime=2020-01-01&f={kind}"
    answer = exact(world.client.get(url))
    whole = exact(world.client.get(url.replace(f"f={kind}", "f=NetCDF")))
    grid = xr.load_dataset(io.BytesIO(whole.content), engine="h5netcdf").anomaly
    if kind == "CSV":
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        shown = {(float(row["longitude"]), float(row["latitude"])): row["anomaly [cm]"] for row in rows}
    else:
        shown = {
            (one["properties"]["longitude"], one["properties"]["latitude"]): one["properties"]["anomaly"][0]
            for one in answer.json()["features"]
        }
    assert 500 < len(shown) < grid.size
    for (x, y), value in shown.items():
        wanted = grid.sel(x=x, y=y).values[0]
        assert (np.isnan(wanted) and value in {"", None}) or str(wanted) == str(value)


def mean_of(answer: Any) -> dict[str, list[float]]:
    return {name: found["values"] for name, found in answer.json()["ranges"].items()}


@pytest.mark.parametrize(
    ("south", "north", "west", "east"),
    [(0, 30, -180, 180), (-90, 90, -180, 180), (-12.3, 71.7, 11.1, 57.9), (40, 41.5, 170, 190), (10.2, 10.3, 1, 1.1)],
)
def test_mean_of_the_sine_of_latitude_has_its_closed_form(
    world: Any, south: float, north: float, west: float, east: float
) -> None:
    area = f"POLYGON(({west} {south},{east} {south},{east} {north},{west} {north},{west} {south}))"
    found = mean_of(exact(world.client.get(f"/collections/sines/area?coords={area}&aggregate=mean")))
    low, high = math.sin(math.radians(south)), math.sin(math.radians(north))
    aligned = (south / 1.5).is_integer() and (north / 1.5).is_integer()
    # a cell cut by the edge gives its own mean for its part: within the change of the sine in one cell of 1.5 degrees
    within = 1e-12 if aligned else 0.5 * math.radians(1.5) * 3 / max(north - south, 3)
    assert found["sine"] == [pytest.approx((low + high) / 2, abs=within)]
    assert found["sine_valid_share"] == [1.0]
    share = (high - max(low, 0)) / (high - low)
    assert found["half_valid_share"] == [pytest.approx(share, abs=1e-6 if aligned or low > 0 else 0.01)]
    assert found["half"] == [1.0]


def test_mean_equals_exactextract(world: Any) -> None:
    source = world.sources["pacific-days"].xarray
    area = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shapely.from_wkt(TRIANGLE))}
    found = mean_of(exact(world.client.get(f"/collections/pacific-days/area?coords={TRIANGLE}&aggregate=mean")))
    extent = (165.0, 3.0, 195.0, 20.5)
    edges = np.sin(np.radians(20.5 - 0.25 * np.arange(71)))
    weights = np.broadcast_to((edges[:-1] - edges[1:])[:, np.newaxis], (70, 60))
    for place in range(source.sizes["time"]):
        values = NumPyRasterSource(source.anomaly.values[place].astype(float), *extent, nodata=np.nan)
        (wanted,) = exact_extract(values, area, ["weighted_mean"], weights=NumPyRasterSource(weights, *extent))
        # exactextract splits a cell by degrees, ours by area on the sphere
        assert found["anomaly"][place] == pytest.approx(wanted["properties"]["weighted_mean"], abs=2e-3)
    # the triangle leaves the grid in the south
    assert max(found["anomaly_valid_share"]) < 0.95


def test_mean_is_the_same_in_every_encoding(world: Any) -> None:
    url = f"/collections/xco2_test/area?coords={TRIANGLE}&aggregate=mean&parameter-name=xco2&f="
    wanted = np.array(mean_of(exact(world.client.get(f"{url}CoverageJSON")))["xco2"])
    feature = exact(world.client.get(f"{url}GeoJSON")).json()["features"][0]["properties"]
    rows = list(csv.DictReader(io.StringIO(exact(world.client.get(f"{url}CSV")).text)))
    file = xr.load_dataset(io.BytesIO(exact(world.client.get(f"{url}NetCDF")).content), engine="h5netcdf")
    assert feature["xco2"] == wanted.tolist()
    assert [float(row["xco2 [1e-6]"]) for row in rows] == wanted.tolist()
    assert [float(row["xco2_valid_share [1]"]) for row in rows] == feature["xco2_valid_share"]
    np.testing.assert_allclose(file.xco2.values, wanted, atol=0.5e-4)
    assert feature["area_km2"] == pytest.approx(float(file.attrs["area_km2"]), abs=1e-3)


def test_a_mean_tells_its_largest_error(world: Any) -> None:
    url = f"/collections/xco2_test/area?coords={TRIANGLE}&aggregate=mean&datetime=2016-01&f="
    told = exact(world.client.get(f"{url}CoverageJSON")).json()["cenote"]["largest_error"]
    assert told["xco2"] == 0  # so small an area is read at full resolution
    assert exact(world.client.get(f"{url}GeoJSON")).json()["features"][0]["properties"]["largest_error"] == told
    file = exact(world.client.get(f"{url}NetCDF"))
    with xr.open_dataset(io.BytesIO(file.content), engine="h5netcdf") as found:
        assert found["xco2"].attrs["largest_error"] == 0.0


def test_an_area_much_smaller_than_a_cell_is_its_cell(world: Any) -> None:
    tiny = "POLYGON((10.3 20.3,10.3001 20.3,10.3001 20.3001,10.3 20.3001,10.3 20.3))"
    query = "parameter-name=xco2&datetime=2016/2016"
    mean = exact(world.client.get(f"/collections/xco2_test/area?coords={tiny}&aggregate=mean&{query}")).json()
    point = exact(world.client.get(f"/collections/xco2_test/position?coords=POINT(10.3 20.3)&{query}")).json()
    assert mean["ranges"]["xco2"]["values"] == point["ranges"]["xco2"]["values"]
    assert {*mean["ranges"]["xco2_valid_share"]["values"]} <= {0.0, 1.0}


def test_area_in_the_body_equals_area_in_the_address(world: Any) -> None:
    geometry = shapely.geometry.mapping(shapely.from_wkt(TRIANGLE))
    asked = "/collections/xco2_test/area?datetime=2016-05&parameter-name=xco2"
    wanted = exact(world.client.get(f"{asked}&coords={TRIANGLE}")).json()
    for body in (geometry, {"type": "Feature", "properties": {}, "geometry": geometry}):
        found = exact(world.client.post(asked, json=body))
        assert found.json()["ranges"] == wanted["ranges"]
        assert found.headers["Cache-Control"] == "no-store"


# what is refused


POINT = "coords=POINT(1 1)"


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        (f"nowhere/position?{POINT}", 404, "no collection 'nowhere'"),
        (f"xco2_test/instances/{'0' * 20}/position?{POINT}", 404, "no version"),
        (f"xco2_test/position?{POINT}&parameter-name=xco3", 404, "no variable 'xco3'; it has xco2, "),
        (f"xco2_test/position?{POINT}&datetime=2015-08", 404, "nearest periods are 2015-07 and 2015-09"),
        (f"xco2_test/position?{POINT}&datetime=1999", 404, "nearest period is 2015-01"),
        (f"xco2_test/position?{POINT}&datetime=2030/2031", 404, "it has 2015-01 to 2017-07"),
        (f"xco2_test/position?{POINT}&datetime=yesterday", 400, "not an ISO 8601"),
        (f"xco2_test/position?{POINT}&datetime=2016/2015", 400, "ends before it starts"),
        (f"xco2_test/position?{POINT}&crs=EPSG:3857", 400, "only CRS84 and EPSG:4326"),
        (f"xco2_test/position?{POINT}&f=xml", 400, "CoverageJSON, GeoJSON, CSV, NetCDF"),
        (f"xco2_test/position?{POINT}&z=3", 400, "no parameter 'z'"),
        (f"xco2_test/position?{POINT}&variable=xco2&parameter-name=xco2", 400, "named twice"),
        ("xco2_test/position", 400, "coords"),
        ("xco2_test/position?coords=POINT(1)", 400, "write POINT(lon lat)"),
        ("xco2_test/position?coords=POINT(1 95)", 400, "latitude 95"),
        ("xco2_test/position?coords=POINT(400 5)", 400, "longitude 400 must lie in -180..360"),
        ("xco2_test/position?coords=POLYGON((0 0,1 0,1 1,0 0))", 400, "position needs POINT"),
        ("pacific-days/position?coords=POINT(0 0)", 404, "outside the grid (165..195 east, 3..20.5 north)"),
        ("pacific-days/position?coords=MULTIPOINT((170 5),(0 0))", 404, "place 1 (from 0) of 2"),
        ("pacific-days/cube?bbox=0,0,10,10", 404, "outside the grid"),
        ("pacific-days/cube?bbox=1,2,3", 400, "west,south,east,north"),
        ("pacific-days/cube", 400, "bbox"),
        ("pacific-days/area?coords=POINT(170 5)", 400, "area needs POLYGON"),
        ("pacific-days/area?coords=POLYGON((0 0,10 10,10 0,0 10,0 0))", 400, "Self-intersection"),
        ("pacific-days/area?coords=POLYGON((0 0,1 0,1 1,0 0))", 404, "outside the grid"),
        ("pacific-days/area?coords=POLYGON((170 5,171 5,171 6,170 5))&aggregate=sum", 400, "aggregate=mean is"),
        ("xco2_test/cube?bbox=-180,-90,180,90", 413, "30 periods x 64800 cells x 3 variables are 5832000 values"),
        ("xco2_test/cube?bbox=-180,-90,180,90&datetime=latest&f=GeoJSON", 413, "f=NetCDF or f=CSV"),
        ("xco2_test/position?coords=MULTIPOINT(" + ",".join(["(1 1)"] * 101) + ")", 413, "at most 100"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_sentence(world: Any, query: str, status: int, said: str) -> None:
    answer = world.client.get(f"/collections/{query}")
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, b'"text"', b'{"type":"Point","coordinates":[1,2]}', b"\xff\xfe"]
)
def test_bodies_that_are_no_area_are_refused(world: Any, body: bytes) -> None:
    answer = world.client.post("/collections/xco2_test/area", content=body)
    assert answer.status_code == 400
    assert "body" in answer.json()["detail"]


def test_values_at_the_limit_are_answered_and_one_more_is_refused(world: Any) -> None:
    app = create_app(Settings(store=world.url, max_values=90), world.store)
    with TestClient(app) as client:
        exact(client.get(f"/collections/xco2_test/position?{POINT}"))
        refused = client.get(
            "/collections/xco2_test/position?coords=MULTIPOINT((1 1),(2 2))&parameter-name=xco2,soundings"
        )
        assert refused.status_code == 413
        assert "30 periods x 2 places x 2 variables are 120 values and at most 90" in refused.json()["detail"]


def test_cells_read_for_a_mean_are_capped(world: Any) -> None:
    # a map has 64 800 cells; sixteen are summed for one that may be held
    app = create_app(Settings(store=world.url, max_cells=6000), world.store)
    whole = "coords=POLYGON((-180 -90,180 -90,180 90,-180 90,-180 -90))&aggregate=mean&parameter-name=xco2"
    with TestClient(app) as client:
        exact(client.get(f"/collections/xco2_test/area?{whole}&datetime=2016-01"))
        refused = client.get(f"/collections/xco2_test/area?{whole}&datetime=2016-01/2016-02")
        assert refused.status_code == 413


# versions, headers, caching


def test_answers_name_collection_version_and_model(world: Any) -> None:
    version = world.sources["xco2_test"].version.id
    answer = exact(world.client.get(f"/collections/xco2_test/position?{POINT}"))
    assert answer.headers["Cenote-Collection"] == "xco2_test"
    assert answer.headers["Cenote-Version"] == version
    assert answer.headers["Cenote-Model"] == "made_up@0123456789ab"
    told = answer.json()["cenote"]
    assert (told["collection"], told["version"], told["synthetic"]) == ("xco2_test", version, True)
    assert told["models"] == {"made_up": "0123456789abcdef" * 4}


@pytest.mark.parametrize("query", [f"position?{POINT}", "cube?bbox=0,0,2,2", f"area?coords={TRIANGLE}&aggregate=mean"])
def test_an_instance_answers_the_same_for_ever(world: Any, query: str) -> None:
    version = world.sources["xco2_test"].version.id
    now = exact(world.client.get(f"/collections/xco2_test/{query}"))
    fixed = exact(world.client.get(f"/collections/xco2_test/instances/{version}/{query}"))
    assert now.content == fixed.content
    assert "immutable" in fixed.headers["Cache-Control"]
    assert "must-revalidate" in now.headers["Cache-Control"]
    again = world.client.get(f"/collections/xco2_test/{query}", headers={"If-None-Match": now.headers["ETag"]})
    assert again.status_code == 304
    assert not again.content


def test_head_tells_what_get_tells(world: Any) -> None:
    url = f"/collections/xco2_test/position?{POINT}"
    wanted, found = world.client.get(url), world.client.head(url)
    assert found.status_code == 200
    assert not found.content
    for name in ("etag", "content-type", "content-length", "cenote-version"):
        assert found.headers[name] == wanted.headers[name]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/vnd.cov+json"),
        ("application/json", "application/vnd.cov+json"),
        ("text/csv", "text/csv; charset=utf-8; header=present"),
        ("application/geo+json;q=0.5, application/x-netcdf", "application/x-netcdf"),
        ("text/html, application/prs.coverage+json;q=0.9", "application/vnd.cov+json"),
    ],
)
def test_accept_chooses_the_encoding_where_f_does_not(world: Any, accept: str, media_type: str) -> None:
    url = f"/collections/xco2_test/position?{POINT}"
    assert exact(world.client.get(url, headers={"Accept": accept})).headers["content-type"] == media_type
    as_csv = exact(world.client.get(f"{url}&f=csv", headers={"Accept": accept}))
    assert as_csv.headers["content-type"].startswith("text/csv")


# a foreign client


@pytest.fixture
def edr(address: str) -> Any:
    """OWSLib's EDR client on a real socket."""
    return EnvironmentalDataRetrieval(address)


def test_owslib_drives_the_collections_and_the_queries(world: Any, edr: Any) -> None:
    assert sorted(edr.data()) == sorted(world.sources)
    assert {one["id"] for one in edr.collections()["collections"]} == set(world.sources)
    described = edr.collection("xco2_test")
    unit = described["parameter_names"]["xco2"]["unit"]
    assert (unit["symbol"]["value"], unit["label"]) == ("1e-6", "ppm"), "for programs, and for people"
    assert any("ogcapi-edr-1" in name for name in edr.conformance()["conformsTo"])
    answer = edr.query_data(
        "xco2_test", "position", coords="POINT(10.2 20.3)", datetime_="2016-01/2016-03", parameter_names=["xco2"]
    )
    found = Coverage.model_validate_json(json.dumps(answer)).ranges["xco2"]
    assert isinstance(found, NdArrayFloat)
    wanted = world.sources["xco2_test"].xarray.xco2.sel(x=10.5, y=20.5).sel(time=slice("2016-01-01", "2016-03-31"))
    shown = np.array([math.nan if v is None else v for v in found.values], dtype=np.float64)
    check_values("CoverageJSON", "xco2", shown, wanted.values)
    cube = edr.query_data("pacific-days", "cube", bbox=[179, 5, 181, 6], datetime_="2020-01-01")
    assert Coverage.model_validate_json(json.dumps(cube)).domain.domainType is not None
