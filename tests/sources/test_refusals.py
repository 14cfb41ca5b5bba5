"""What is missing, ambiguous or inconsistent is refused with a sentence that names file, fact and the way out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import pytest
import rasterio
import rasterio.control
import rasterio.crs
import zarr
from affine import Affine

from services.core.errors import InputRefused, SettingsError
from services.core.grid import Window
from services.core.product import Product
from services.sources.ingest import inspect
from services.sources.options import IngestOptions

Write = Callable[..., str]
MONTHS = {"units": "days since 2001-01-01"}


@pytest.fixture
def basic(raster: Any) -> Callable[..., Any]:
    def make(**changes: Any) -> Any:
        values = changes.pop("values", np.random.default_rng(1).normal(size=(3, 6, 8)).astype("float32"))
        plain = raster(
            values=values,
            longitudes=10.25 + 0.5 * np.arange(values.shape[-1]),
            latitudes=20.75 - 0.5 * np.arange(values.shape[-2]),
            times=np.asarray([0, 31, 59])[: values.shape[0]],
        )
        return replace(plain, **changes)

    return make


def refused(match: str, *names: str, like: Product | None = None, **options: Any) -> None:
    with pytest.raises(InputRefused, match=match) as caught:
        inspect(names, IngestOptions(**options), like)
    text = str(caught.value)
    assert "\n" not in text
    assert any(Path(name).name.split("*")[0] in text for name in names) or like is not None


def test_no_unit(basic: Any, write: Write) -> None:
    path = write("netcdf4", basic(attributes={}))
    refused(r"file\.nc states no unit; say it with --units", path)
    assert inspect([path], IngestOptions(units="m")).quantity.units == "m"
    path = write("geotiff", basic(attributes={}))
    refused(r"file\.tif states no unit; say it with --units", path, time="2001-01/P1M")


def test_units_that_differ(basic: Any, write: Write) -> None:
    paths = [
        write(
            "netcdf3", basic(values=np.ones((1, 6, 8), "f4"), times=np.asarray([day]), attributes={"units": unit}), unit
        )
        for day, unit in ((0, "mm"), (31, "cm"))
    ]
    refused(r"cm\.nc is in 'cm' and .*mm\.nc in 'mm'.*--units", *paths)


def test_a_unit_that_some_files_leave_out(basic: Any, write: Write) -> None:
    paths = [
        write(
            "netcdf3", basic(values=np.ones((1, 6, 8), "f4"), times=np.asarray([day]), attributes=attributes), f"d{day}"
        )
        for day, attributes in ((0, {"units": "mm"}), (31, {"comment": "none"}))
    ]
    conclusion = inspect(paths, IngestOptions())
    assert conclusion.quantity.units == "mm"
    assert "units: mm (stated by 1 of 2 files)" in conclusion.lines()
    assert (
        "units: cm (--units); the files say mm; nothing is converted"
        in inspect(paths, IngestOptions(units="cm")).lines()
    )


def test_no_time(basic: Any, write: Write) -> None:
    refused(r"file\.tif holds 3 maps and does not say of when; say it with --time", write("geotiff", basic()))
    refused(r"file\.nc holds 3 maps and does not say of when; say it with --time", write("netcdf4", basic(times=None)))
    labels = ["red", "green", "blue"]
    refused(r"holds 3 maps \(red, green, blue\)", write("geotiff", basic(options={"labels": labels}), "rgb"))


def test_months_without_a_year(basic: Any, write: Write) -> None:
    path = write("geotiff", basic(options={"labels": ["January", "February", "March"]}))
    refused(r"file\.tif: its bands are months .* name does not hold one year", path)


def test_one_time_alone(basic: Any, write: Write) -> None:
    path = write("netcdf4", basic(values=np.ones((1, 6, 8), "f4")))
    refused(r"file\.nc: one time alone \(2001-01-01T00:00:00Z\).*--time STEP", path)


def test_more_than_one_variable(basic: Any, write: Write) -> None:
    more = {"depth": (("time", "lat", "lon"), np.ones((3, 6, 8), "f4"), {"units": "m"})}
    path = write("netcdf4", basic(more=more))
    refused(r"file\.nc has 2 raster variables; choose one with --variable: depth, height", path)
    refused(r"file\.nc has no raster variable 'width'; it has .*--variable", path, variable="width")
    assert inspect([path], IngestOptions(variable="depth")).quantity.name == "depth"


def test_what_does_not_vary_in_time_is_no_candidate(basic: Any, write: Write) -> None:
    more = {"mask": (("lat", "lon"), np.ones((6, 8), "f4"), {"units": "1"})}
    assert inspect([write("netcdf4", basic(more=more))], IngestOptions()).quantity.name == "height"


def test_a_further_dimension(basic: Any, write: Write) -> None:
    written = basic(values=np.ones((3, 4, 6, 8), "f4"), dimensions=("time", "level", "lat", "lon"))
    refused(r"file\.nc: height has more than time, latitude and longitude: level \(4\)", write("netcdf4", written))
    written = basic(values=np.ones((3, 1, 6, 8), "f4"), dimensions=("time", "level", "lat", "lon"))
    conclusion = inspect([write("netcdf4", written, "one")], IngestOptions())
    assert "note: level: of one element, left out" in conclusion.lines()


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian"])
def test_another_calendar(calendar: str, basic: Any, write: Write) -> None:
    path = write("netcdf4", basic(time_attributes={**MONTHS, "calendar": calendar}))
    refused(rf"file\.nc: time: its calendar is '{calendar}'", path)


def test_two_files_for_one_period(basic: Any, write: Write) -> None:
    one, other = write("netcdf3", basic(), "one"), write("netcdf3", basic(), "other")
    refused(r"one\.nc and .*other\.nc both hold a map of the time 2001-01-01T00:00:00Z", one, other)
    later = write("netcdf3", basic(times=np.asarray([5, 100, 200])), "later")
    refused(r"one\.nc and .*later\.nc both hold a map of the period 2001-01 \(P1M\)", one, later, time="P1M")
    refused(r"one\.nc and .*one\.nc both hold", one, one)
    same = [write("geotiff", basic(values=np.ones((1, 6, 8), "f4")), name) for name in ("a_200401_v1", "b_200401_v2")]
    refused(
        r"a_200401_v1\.tif and .*b_200401_v2\.tif both hold a map of the period 2004-01", *same, time="_{year}{month}_"
    )


def test_two_maps_of_one_file_for_one_period(basic: Any, write: Write) -> None:
    path = write("netcdf4", basic(times=np.asarray([0, 31, 31])))
    refused(r"maps 2 and 3 of .*file\.nc are both maps of the time 2001-02-01", path)
    path = write("geotiff", basic(options={"labels": ["2001-01", "2001-01", "2001-02"]}))
    refused(r"file\.tif: two of its bands are described with the same date", path)


def test_a_grid_that_changes(basic: Any, write: Write) -> None:
    later = {"times": np.asarray([90, 120, 151])}
    first = write("netcdf3", basic(), "first")
    moved = write("netcdf3", basic(longitudes=10.5 + 0.5 * np.arange(8), **later), "moved")
    refused(r"moved\.nc has another grid than .*first\.nc: 8 x 6 cells .* from 10.25 E", first, moved)
    wider = write("netcdf3", basic(values=np.ones((3, 6, 9), "f4"), **later), "wider")
    refused(r"wider\.nc has another grid than .*first\.nc: 9 x 6 cells", first, wider)


def test_a_variable_that_changes(basic: Any, write: Write) -> None:
    first = write("netcdf3", basic(), "first")
    other = write("netcdf3", basic(name="depth", times=np.asarray([90, 120, 151])), "other")
    refused(r"other\.nc has no raster variable 'height'; it has depth", first, other)


def test_a_stored_type_that_changes(basic: Any, write: Write) -> None:
    first = write("netcdf3", basic(), "first")
    other = write("netcdf3", basic(values=np.ones((3, 6, 8), "i2"), times=np.asarray([90, 120, 151])), "other")
    refused(r"other\.nc stores values as int16 and .*first\.nc as float32", first, other)


def test_curvilinear_coordinates(basic: Any, write: Write) -> None:
    lon, lat = np.meshgrid(np.arange(8.0), np.arange(6.0))
    more = {
        "nav_lon": (("y", "x"), lon, {"units": "degrees_east"}),
        "nav_lat": (("y", "x"), lat, {"units": "degrees_north"}),
    }
    path = write(
        "netcdf4",
        basic(dimensions=("time", "y", "x"), more=more, attributes={"units": "m", "coordinates": "nav_lon nav_lat"}),
    )
    refused(r"file\.nc: height lies on a curvilinear grid \(nav_lat and nav_lon have two dimensions\)", path)


def test_uneven_coordinates(basic: Any, write: Write) -> None:
    latitudes = 20.75 - 0.5 * np.arange(6)
    latitudes[3] += 0.006
    refused(r"file\.nc: its latitudes are uneven", write("netcdf4", basic(latitudes=latitudes)))


def test_projected_and_rotated_coordinates(basic: Any, write: Write) -> None:
    metres = {"units": "m", "standard_name": "projection_x_coordinate"}
    path = write("netcdf4", basic(longitudes=1e5 + 5000.0 * np.arange(8), lon_attributes=metres))
    refused(r"file\.nc: height lies on a map projection.*gdalwarp -t_srs EPSG:4326", path)
    turned = {"units": "degrees", "standard_name": "grid_longitude"}
    refused(r"file\.nc: height lies on a rotated pole.*gdalwarp", write("netcdf4", basic(lon_attributes=turned)))
    crs = {"crs": ((), np.asarray(0, "i4"), {"grid_mapping_name": "lambert_conformal_conic"})}
    path = write("netcdf4", basic(more=crs, attributes={"units": "m", "grid_mapping": "crs"}))
    refused(r"file\.nc: height lies on a map projection \(lambert_conformal_conic\)", path)


def test_no_coordinates(basic: Any, write: Write) -> None:
    path = write("netcdf4", basic(dimensions=("time", "row", "column")))
    refused(r"file\.nc: height has no coordinate of latitude and longitude \(dimensions time, row, column\)", path)


def test_a_file_without_rasters(tmp_path: Path) -> None:
    path = tmp_path / "flat.nc"
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"n": 5}
        file.create_variable("a", ("n",), "f4")[:] = 1
    refused(r"flat\.nc has no variable along latitude and longitude", str(path))
    path = tmp_path / "deep.nc"
    with h5netcdf.File(path, "w") as file:
        file.create_group("science")
    refused(r"deep\.nc has no raster at its top level, only groups: science", str(path))
    group = zarr.open_group(tmp_path / "deep.zarr", mode="w")
    group.create_group("0")
    refused(r"deep\.zarr has no raster at its top level, only groups: 0", str(tmp_path / "deep.zarr"))
    zarr.create_array(tmp_path / "array.zarr", shape=(2, 2), dtype="f4")
    refused(r"array\.zarr is a Zarr array, not a group", str(tmp_path / "array.zarr"))


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        (
            {"crs": "EPSG:32648"},
            r"is on a projected grid \(EPSG:32648\).*gdalwarp -t_srs EPSG:4326 .*file\.tif new\.tif",
        ),
        ({"crs": None}, "has no georeference: no coordinate system"),
        ({"transform": Affine.identity()}, "has no georeference: its geotransform is the identity"),
        ({"transform": Affine(0.5, 0.1, 10, 0.1, -0.5, 20)}, r"geotransform is rotated \(0.1, 0.1\)"),
        ({"crs": "EPSG:4807"}, "its coordinates are in .*, not in degrees"),
        ({"crs": "+proj=longlat +ellps=WGS84 +pm=paris"}, "another meridian than Greenwich"),
        ({"photometric": "rgb", "alpha": "yes", "dtype": "uint8"}, "band 4 is marked as transparency"),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_geotiffs_that_do_not_lie_on_longitudes_and_latitudes(
    options: dict[str, Any], fact: str, basic: Any, write: Write
) -> None:
    options = dict(options)
    values = np.ones((4, 6, 8), options.pop("dtype", "float32"))
    refused(
        rf"file\.tif.*{fact}", write("geotiff", basic(values=values, times=None, options=options)), time="2001-01/P1M"
    )


def test_another_geographic_system_is_told(basic: Any, write: Write) -> None:
    path = write("geotiff", basic(options={"crs": "EPSG:4269"}))
    assert (
        "note: coordinate system: EPSG:4269, taken for EPSG:4326"
        in inspect([path], IngestOptions(time="2001-01/P1M")).lines()
    )


def test_ground_control_points(basic: Any, write: Write) -> None:
    path = write("geotiff", basic(options={"crs": None}))
    with rasterio.open(path, "r+") as dataset:
        points = [
            rasterio.control.GroundControlPoint(row, col, 10 + col, 20 - row) for row, col in ((0, 0), (0, 8), (6, 8))
        ]
        dataset.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
    refused(r"file\.tif.*(ground control points|no georeference)", path, time="2001-01/P1M")


def test_a_quantum_is_for_floats(basic: Any, write: Write) -> None:
    path = write("netcdf4", basic(values=np.ones((3, 6, 8), "i2")))
    refused(r"file\.nc: int16 widened.*--quantum is for floats", path, quantum=0.1)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    refused("nothing.nc does not exist", str(tmp_path / "nothing.nc"))
    refused(r"no file matches .*none\*\.nc", str(tmp_path / "none*.nc"))
    refused(r"is a folder and no Zarr store", str(tmp_path))
    with pytest.raises(InputRefused, match="no input file"):
        inspect([], IngestOptions())


def test_options_that_cannot_be_meant() -> None:
    with pytest.raises(SettingsError, match="--quantum must be a positive number, not -1"):
        IngestOptions(quantum=-1)
    with pytest.raises(SettingsError, match="--units is empty"):
        IngestOptions(units=" ")


def test_what_continues_a_collection_must_be_like_it(basic: Any, write: Write) -> None:
    like = inspect([write("netcdf4", basic(), "first")], IngestOptions()).product("heights")
    later = {"times": np.asarray([90]), "values": np.ones((1, 6, 8), "f4")}
    conclusion = inspect([write("netcdf4", basic(**later), "later")], IngestOptions(), like)
    assert conclusion.axis.ids == ("2001-04",)  # one time alone: the collection says its period
    assert conclusion.product("heights") == like
    assert conclusion.recipe("heights").product == like

    def refuse(match: str, name: str, changes: dict[str, Any], **options: Any) -> None:
        refused(match, write("netcdf4", basic(**{**later, **changes}), name), like=like, **options)

    refuse("grid.nc has another grid than the collection heights", "grid", {"longitudes": 0.5 * np.arange(8)})
    refuse("unit.nc is in 'cm' and the collection heights in 'm'", "unit", {"attributes": {"units": "cm"}})
    refuse("name.nc holds depth and the collection heights height", "name", {"name": "depth"})
    refuse("type.nc has another packing than the collection heights", "type", {"values": np.ones((1, 6, 8), "i2")})
    refuse("heights was published with no --quantum", "quantum", {}, quantum=0.1)
    refuse("step.nc: periods are P1D long, and those of the collection P1M", "step", {}, time="2001-04-01/P1D")


def test_what_continues_a_quantised_collection_is_quantised_alike(basic: Any, write: Write) -> None:
    like = inspect([write("netcdf4", basic(), "first")], IngestOptions(quantum=0.01)).product("heights")
    path = write("netcdf4", basic(times=np.asarray([90]), values=np.ones((1, 6, 8), "f4")), "later")
    refused("published with --quantum 0.01", path, like=like)
    recipe = inspect([path], IngestOptions(quantum=0.01), like).recipe("heights")
    values = recipe.compute(recipe.periods(), _whole(like))["height"]
    np.testing.assert_array_equal(like.quantities[0].decode(values), np.ones((1, 6, 8)))


def _whole(product: Product) -> Window:
    return Window(row=0, column=0, height=product.grid.height, width=product.grid.width)


def test_what_continues_a_collection_of_several_variables_is_refused(basic: Any, write: Write) -> None:
    like = inspect([write("netcdf4", basic(), "first")], IngestOptions()).product("heights")
    second = replace(like.quantities[0], name="sigma", role="uncertainty", ancillary_of="height")
    like = replace(like, quantities=(*like.quantities, second))
    refused("heights has 2 variables", write("netcdf4", basic(times=np.asarray([90, 120, 151])), "later"), like=like)
