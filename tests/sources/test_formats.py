"""The same raster in every format, and the ways in which files say what they hold."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import netcdf_file

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.sources import netcdf3
from services.sources.ingest import Conclusion, inspect
from services.sources.options import IngestOptions

Write = Callable[..., str]
Whole = Callable[[Any], np.ndarray]

KINDS = ["netcdf3", "netcdf4", "zarr2", "zarr3"]


def field(count: int = 4, height: int = 12, width: int = 18, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(7).normal(100, 20, (count, height, width)).astype(dtype)


def basic(raster: Any, **changes: Any) -> Any:
    values = changes.pop("values", field())
    plain = raster(
        values=values,
        longitudes=10.25 + 0.5 * np.arange(values.shape[2]),
        latitudes=20.75 - 0.5 * np.arange(values.shape[1]),
        times=np.arange(values.shape[0]),
    )
    return replace(plain, **changes)


def look(*names: str, **options: Any) -> Conclusion:
    return inspect(names, IngestOptions(**options))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_raster_in_every_format(kind: str, raster: Any, write: Write, whole: Whole) -> None:
    written = basic(raster)
    recipe = look(write(kind, written)).recipe("x")
    assert recipe.product.grid == Grid.of(west=10, north=21, step_x="1/2", width=18, height=12)
    assert recipe.periods().ids == ("2001-01-01", "2001-01-02", "2001-01-03", "2001-01-04")
    np.testing.assert_array_equal(whole(recipe), written.values)


@pytest.mark.parametrize("kind", [*KINDS, "geotiff"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_every_stored_type(kind: str, dtype: str, raster: Any, write: Write, whole: Whole) -> None:
    if (kind, dtype) == ("netcdf3", "uint8"):
        pytest.skip("the classic format has no unsigned bytes")
    values = field(dtype=dtype)
    options = {"time": "2001-01-01/P1D"} if kind == "geotiff" else {}
    path = write(kind, basic(raster, values=values, attributes={"units": "m", "_FillValue": values[0, 0, 0]}))
    recipe = look(path, **options).recipe("x")
    quantity = recipe.product.quantities[0]
    assert quantity.dtype == dtype
    expected = np.where(values == values[0, 0, 0], np.nan, values.astype(np.float64))
    np.testing.assert_array_equal(quantity.decode(whole(recipe)), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [("time", "lon", "lat"), ("lat", "lon", "time"), ("lon", "time", "lat")])
def test_any_order_of_axes(kind: str, order: tuple[str, ...], raster: Any, write: Write, whole: Whole) -> None:
    values = field()
    axes = [("time", "lat", "lon").index(name) for name in order]
    path = write(kind, basic(raster, values=values.transpose(axes), dimensions=order, **_axes(values)))
    np.testing.assert_array_equal(whole(look(path).recipe("x")), values)


def _axes(values: np.ndarray) -> dict[str, Any]:
    return {
        "longitudes": 10.25 + 0.5 * np.arange(values.shape[2]),
        "latitudes": 20.75 - 0.5 * np.arange(values.shape[1]),
        "times": np.arange(values.shape[0]),
    }


@pytest.mark.parametrize("kind", [*KINDS, "geotiff"])
@pytest.mark.parametrize("seam", [False, True])
@pytest.mark.parametrize("south_up", [False, True])
def test_longitudes_of_0_to_360_are_rotated(
    kind: str,
    seam: bool,  # noqa: FBT001 - a case
    south_up: bool,  # noqa: FBT001 - a case
    raster: Any,
    write: Write,
    whole: Whole,
) -> None:
    values = field(3, 18, 36)
    longitudes, latitudes = 5.0 + 10 * np.arange(36), 85.0 - 10 * np.arange(18)
    expected = np.roll(values, 18, axis=2)
    if seam:
        values, longitudes = np.concatenate([values, values[..., :1]], axis=2), np.append(longitudes, 365.0)
    if south_up:
        values, latitudes = values[:, ::-1], latitudes[::-1]
    path = write(kind, basic(raster, values=values, longitudes=longitudes, latitudes=latitudes))
    conclusion = look(path, **({"time": "2001-01-01/P1D"} if kind == "geotiff" else {}))
    recipe = conclusion.recipe("x")
    assert recipe.product.grid == Grid.of(west=-180, north=90, step_x="10", width=36, height=18)
    np.testing.assert_array_equal(whole(recipe), expected)
    line = next(line for line in conclusion.lines() if line.startswith("longitudes"))
    assert line.startswith(f"longitudes: centres 5..{365 if seam else 355}")
    assert "rotated to -180..180" in line
    assert ("dropped" in line) == seam


@pytest.mark.parametrize("kind", [*KINDS, "geotiff"])
def test_seam_columns_that_differ_are_refused(kind: str, raster: Any, write: Write) -> None:
    values = field(30, 18, 37)
    values[..., 36] = values[..., 0]
    at = 11  # neither the first nor the last map, which are compared at once
    values[at, 7, 36] += 1
    path = write(
        kind,
        basic(raster, values=values, longitudes=-180.0 + 10 * np.arange(37), latitudes=85.0 - 10 * np.arange(18)),
    )
    recipe = look(path, **({"time": "2001-01-01/P1D"} if kind == "geotiff" else {})).recipe("x")
    with pytest.raises(InputRefused, match=r"file\..*first and last column.* differ in 1 cells, first in row 8"):
        recipe.compute(recipe.periods(), Window(row=0, column=0, height=18, width=10))
    values[29, 7, 36] += 1
    path = write(
        kind,
        basic(raster, values=values, longitudes=-180.0 + 10 * np.arange(37), latitudes=85.0 - 10 * np.arange(18)),
        "other",
    )
    with pytest.raises(InputRefused, match="first and last column"):
        look(path, **({"time": "2001-01-01/P1D"} if kind == "geotiff" else {}))


def test_missing_seam_cells_are_equal(raster: Any, write: Write, whole: Whole) -> None:
    values = field(2, 18, 37)
    values[..., 36] = values[..., 0]
    values[0, 3, [0, 36]] = np.nan
    path = write(
        "netcdf4", basic(raster, values=values, longitudes=10.0 * np.arange(37), latitudes=85 - 10.0 * np.arange(18))
    )
    assert np.isnan(whole(look(path).recipe("x"))).sum() == 1
    values[0, 3, 36] = 5
    path = write(
        "netcdf4",
        basic(raster, values=values, longitudes=10.0 * np.arange(37), latitudes=85 - 10.0 * np.arange(18)),
        "b",
    )
    with pytest.raises(InputRefused, match="differ in 1 cells"):
        look(path)


@pytest.mark.parametrize("kind", ["netcdf4", "zarr2", "zarr3"])
def test_packed_values_keep_their_packing(kind: str, raster: Any, write: Write, whole: Whole) -> None:
    values = field(dtype="int16")
    values[1, 2, 3] = -32767
    attributes = {"units": "K", "scale_factor": 0.01, "add_offset": 273.15, "_FillValue": np.int16(-32767)}
    path = write(kind, basic(raster, values=values, attributes=attributes))
    recipe = look(path).recipe("x")
    quantity = recipe.product.quantities[0]
    assert (quantity.scale_factor, quantity.add_offset, quantity.fill_value, quantity.dtype) == (
        0.01,
        273.15,
        -32767,
        "int16",
    )
    np.testing.assert_array_equal(whole(recipe), values)
    with (
        xr.open_zarr(path, consolidated=False, chunks=None)
        if "zarr" in kind
        else xr.open_dataset(path, engine="h5netcdf") as data
    ):
        np.testing.assert_allclose(quantity.decode(whole(recipe)), data.height.values, rtol=1e-6)
        assert np.isnan(data.height.values).sum() == 1


@pytest.mark.parametrize("kind", ["zarr2", "zarr3"])
def test_float_fill_values_of_zarr(kind: str, tmp_path: Path, whole: Whole) -> None:
    """As xarray writes them: base64 in v3, the array's fill value in v2."""
    values = field()
    values[0, 0, 0] = np.nan
    data = xr.Dataset(
        {"height": (("time", "lat", "lon"), values, {"units": "m"})},
        {
            "time": np.arange("2001-01", "2001-05", dtype="datetime64[M]").astype("datetime64[ns]"),
            "lat": 20.75 - 0.5 * np.arange(12),
            "lon": 10.25 + 0.5 * np.arange(18),
        },
    )
    data.lat.attrs["units"], data.lon.attrs["units"] = "degrees_north", "degrees_east"
    path = tmp_path / "x.zarr"
    data.to_zarr(path, zarr_format=int(kind[-1]), encoding={"height": {"_FillValue": -5.5}}, consolidated=False)
    recipe = look(str(path)).recipe("x")
    assert "values: float32, missing is -5.5 and NaN" in look(str(path)).lines()
    np.testing.assert_array_equal(whole(recipe), values)
    assert recipe.periods().ids == ("2001-01", "2001-02", "2001-03", "2001-04")


def test_zarr_chunks_that_are_not_there_are_missing(raster: Any, write: Write, whole: Whole) -> None:
    values = field(4, 12, 18)
    values[:, :6, :9] = np.nan
    path = Path(
        write(
            "zarr2",
            basic(
                raster,
                values=values,
                attributes={"units": "m", "_FillValue": np.float32(np.nan)},
                options={"chunks": (2, 6, 9)},
            ),
        )
    )
    assert not (path / "height" / "0.0.0").exists()
    np.testing.assert_array_equal(whole(look(str(path)).recipe("x")), values)


@pytest.mark.parametrize("kind", KINDS)
def test_valid_range_is_obeyed(kind: str, raster: Any, write: Write, whole: Whole) -> None:
    values = field()
    path = write(
        kind, basic(raster, values=values, attributes={"units": "m", "valid_range": np.asarray([80, 120], "float32")})
    )
    conclusion = look(path)
    assert any("outside the declared valid range 80..120" in line for line in conclusion.lines())
    np.testing.assert_array_equal(
        whole(conclusion.recipe("x")), np.where((values < 80) | (values > 120), np.nan, values)
    )


def test_undeclared_default_fill_of_netcdf_is_missing(raster: Any, write: Write, whole: Whole) -> None:
    values = field()
    values[0, 0, 0] = 9.969209968386869e36
    expected = values.copy()
    expected[0, 0, 0] = np.nan
    np.testing.assert_array_equal(whole(look(write("netcdf3", basic(raster, values=values))).recipe("x")), expected)
    np.testing.assert_array_equal(whole(look(write("zarr3", basic(raster, values=values))).recipe("x")), values)


def test_big_endian_and_records(raster: Any, write: Write, whole: Whole) -> None:
    for number, options in enumerate(
        [{"version": 1, "record": "time"}, {"version": 2}, {"version": 2, "record": "time"}]
    ):
        written = basic(raster, options=options, values=field(dtype="float64"))
        np.testing.assert_array_equal(whole(look(write("netcdf3", written, f"f{number}")).recipe("x")), written.values)


def test_half_and_bool_become_what_storage_has(raster: Any, write: Write, whole: Whole) -> None:
    recipe = look(write("zarr3", basic(raster, values=field(dtype="float16")))).recipe("x")
    assert recipe.product.quantities[0].dtype == "float32"
    np.testing.assert_array_equal(whole(recipe), field(dtype="float16"))
    flags = field() > 100
    recipe = look(write("zarr3", basic(raster, values=flags, attributes={"units": "1"}), "b")).recipe("x")
    np.testing.assert_array_equal(whole(recipe), flags)


def test_time_bounds_say_the_period(raster: Any, write: Write) -> None:
    bounds = np.asarray([[0, 31], [31, 59], [59, 90], [90, 120]], "float64")
    written = basic(
        raster,
        times=bounds[:, 1],
        bounds=bounds,
        time_attributes={"units": "days since 2001-01-01", "bounds": "time_bnds"},
    )
    axis = look(write("netcdf4", written)).axis
    assert axis.ids == ("2001-01", "2001-02", "2001-03", "2001-04")  # stamped at the end, in the next month
    assert str(axis.instants[0]) == "2001-02-01T00:00:00.000000"


def test_a_single_time_with_bounds_or_a_scalar_time(raster: Any, write: Write, whole: Whole) -> None:
    written = basic(
        raster,
        values=field(1),
        bounds=np.asarray([[0.0, 31.0]]),
        time_attributes={"units": "days since 2001-01-01", "bounds": "time_bnds"},
    )
    assert look(write("netcdf4", written)).axis.ids == ("2001-01",)
    path = write(
        "netcdf4",
        raster(
            values=field(1)[0],
            times=None,
            latitudes=20.75 - 0.5 * np.arange(12),
            longitudes=10.25 + 0.5 * np.arange(18),
            dimensions=("lat", "lon"),
            more={"time": ((), np.asarray(40.0), {"units": "days since 2001-01-01"})},
        ),
        "scalar",
    )
    with pytest.raises(InputRefused, match="one time alone"):
        look(path)
    recipe = look(path, time="P1M").recipe("x")
    assert recipe.periods().ids == ("2001-02",)
    np.testing.assert_array_equal(whole(recipe), field(1))


def test_gaps_stay_gaps_and_order_does_not_matter(raster: Any, write: Write, whole: Whole) -> None:
    days = np.asarray([0, 31, 90, 120])
    parts = [basic(raster, values=field()[[n]], times=days[[n]]) for n in range(4)]
    paths = [write("netcdf3", part, f"part{n}") for n, part in enumerate(parts)]
    conclusion = look(*reversed(paths))
    assert conclusion.axis.ids == ("2001-01", "2001-02", "2001-04", "2001-05")
    assert "periods: 4 of P1M, 2001-01 to 2001-05, missing in between: 2001-03" in conclusion.lines()
    np.testing.assert_array_equal(whole(conclusion.recipe("x")), field())


def test_files_may_differ_in_orientation_and_names(raster: Any, write: Write, whole: Whole) -> None:
    values = field(3, 18, 36)
    east, north = -175.0 + 10 * np.arange(36), 85.0 - 10 * np.arange(18)
    paths = [
        write(
            "netcdf3", basic(raster, values=values[[0]], longitudes=east, latitudes=north, times=np.asarray([0])), "a"
        ),
        write(
            "netcdf4",
            basic(raster, values=values[[1], ::-1], longitudes=east, latitudes=north[::-1], times=np.asarray([31])),
            "b",
        ),
        write(
            "zarr3",
            basic(
                raster,
                values=np.roll(values[[2]], 18, 2),
                longitudes=east + 180,
                latitudes=north,
                times=np.asarray([59]),
            ),
            "c",
        ),
    ]
    conclusion = look(*paths)
    assert "files: 1 NetCDF (classic), 1 NetCDF-4 (HDF5), 1 Zarr" in conclusion.lines()[0]
    np.testing.assert_array_equal(whole(conclusion.recipe("x")), values)


def gwsa(raster: Any, write: Write, years: dict[int, int], **options: Any) -> list[str]:
    return [
        write(
            "geotiff",
            basic(raster, values=field(20)[:count], attributes={"units": "cm"}, options=options),
            f"GWSA_{year}",
        )
        for year, count in years.items()
    ]


def test_gwsa(raster: Any, write: Write, whole: Whole) -> None:
    paths = gwsa(raster, write, {2004: 12, 2002: 9, 2003: 12})
    conclusion = look(*paths, time="GWSA_{year}")
    assert conclusion.axis.ids[0] == "2002-04"
    assert (len(conclusion.axis), conclusion.axis.ids[-1], str(conclusion.axis.step)) == (33, "2004-12", "P1M")
    assert conclusion.quantity.name == "GWSA"
    assert any(
        "2002, the first year, has 9 bands, taken for its last months, April to December" in line
        for line in conclusion.lines()
    )
    values = field(20)
    np.testing.assert_array_equal(
        whole(conclusion.recipe("gwsa")), np.concatenate([values[:9], values[:12], values[:12]])
    )


def test_gwsa_bands_that_say_their_month(raster: Any, write: Write) -> None:
    months = ["March", "April", "July", "August"]
    paths = [
        *gwsa(raster, write, {2003: 12}),
        write("geotiff", basic(raster, attributes={"units": "cm"}, options={"labels": months}), "GWSA_2004"),
    ]
    conclusion = look(*paths, time="GWSA_{year}")
    assert conclusion.axis.ids[12:] == ("2004-03", "2004-04", "2004-07", "2004-08")


@pytest.mark.parametrize(
    ("years", "fact"),
    [
        ({2002: 12, 2003: 9}, "GWSA_2003.tif holds 9 maps and does not say which months of 2003"),
        ({2002: 9}, "GWSA_2002.tif holds 9 maps, which are neither"),
        ({2002: 12, 2003: 14}, "GWSA_2003.tif holds 14 maps, more than the months"),
    ],
)
def test_gwsa_years_that_are_ambiguous_are_refused(years: dict[int, int], fact: str, raster: Any, write: Write) -> None:
    with pytest.raises(InputRefused, match=fact):
        look(*gwsa(raster, write, years), time="GWSA_{year}")


@pytest.mark.parametrize(
    ("labels", "name", "ids"),
    [
        (["2004-01", "2004-02", "2004-05", "2004-06"], "any", ("2004-01", "2004-02", "2004-05", "2004-06")),
        (["January", "February", "March", "April"], "ndvi_2004", ("2004-01", "2004-02", "2004-03", "2004-04")),
        (
            ["2004-01-01", "2004-01-09", "2004-01-17", "2004-01-25"],
            "any",
            ("2004-01-01", "2004-01-09", "2004-01-17", "2004-01-25"),
        ),
    ],
)
def test_band_descriptions(labels: list[str], name: str, ids: tuple[str, ...], raster: Any, write: Write) -> None:
    conclusion = look(write("geotiff", basic(raster, options={"labels": labels}), name))
    assert conclusion.axis.ids == ids


def test_a_band_by_its_description(raster: Any, write: Write, whole: Whole) -> None:
    labels = ["xco2", "uncertainty", "count", "flag"]
    paths = [
        write("geotiff", basic(raster, options={"labels": labels}), f"x_{day}") for day in ("20040131", "20040201")
    ]
    recipe = look(*paths, time="{year}{month}{day}", variable="uncertainty").recipe("x")
    np.testing.assert_array_equal(whole(recipe), field()[[1, 1]])
    assert recipe.product.quantities[0].name == "uncertainty"
    with pytest.raises(InputRefused, match="holds 4 maps, which are neither"):
        look(*paths, time="{year}{month}{day}")


def test_scales_that_differ_between_bands_are_decoded(raster: Any, write: Write, whole: Whole) -> None:
    values = field(dtype="int16")
    path = write(
        "geotiff",
        basic(
            raster,
            values=values,
            attributes={"units": "m", "_FillValue": -1},
            options={"scales": (0.1, 0.1, 0.2, 1.0), "offsets": (0, 0, 5, 0)},
        ),
    )
    recipe = look(path, time="2001-01/P1M").recipe("x")
    assert recipe.product.quantities[0].dtype == "float64"
    with rasterio.open(path) as dataset:
        scale, offset = (np.asarray(v).reshape(-1, 1, 1) for v in (dataset.scales, dataset.offsets))
    np.testing.assert_array_equal(whole(recipe), values * scale + offset)


def test_mask_bands_say_what_is_missing(raster: Any, write: Write, whole: Whole) -> None:
    mask = np.random.default_rng(3).random((12, 18)) > 0.3
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"):
        path = write("geotiff", basic(raster, values=field(dtype="uint8"), options={"mask": mask}))
    recipe = look(path, time="2001-01/P1M").recipe("x")
    quantity = recipe.product.quantities[0]
    assert (quantity.dtype, quantity.fill_value) == ("int16", -32768)
    np.testing.assert_array_equal(quantity.missing(whole(recipe)), np.broadcast_to(~mask, (4, 12, 18)))


def test_sidecar_files_are_not_read(raster: Any, write: Write) -> None:
    """They are not part of what is hashed."""
    path = write("geotiff", basic(raster))
    Path(f"{path}.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Scale>7</Scale></PAMRasterBand></PAMDataset>'
    )
    with rasterio.open(path) as dataset:
        assert dataset.scales[0] == 7
    assert look(path, time="2001-01/P1M").quantity.dtype == "float32"


@pytest.mark.parametrize("compress", ["none", "deflate", "lzw", "zstd"])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_geotiff_layouts(compress: str, interleave: str, raster: Any, write: Write, whole: Whole) -> None:
    values = field(5, 70, 90)
    path = write(
        "geotiff",
        basic(
            raster,
            values=values,
            options={"compress": compress, "interleave": interleave, "tiled": True, "blockxsize": 32, "blockysize": 16},
        ),
    )
    np.testing.assert_array_equal(whole(look(path, time="2001-01/P1M").recipe("x")), values)


def test_a_quantum(raster: Any, write: Write, whole: Whole) -> None:
    conclusion = look(write("netcdf4", basic(raster)), quantum=0.01)
    recipe = conclusion.recipe("x")
    quantity = recipe.product.quantities[0]
    assert (quantity.dtype, quantity.scale_factor, quantity.quantum) == ("int16", 0.01, 0.01)
    assert np.abs(quantity.decode(whole(recipe)) - field()).max() <= 0.005 + 1e-12
    assert any("repacked in steps of 0.01 (--quantum)" in line for line in conclusion.lines())


def test_layouts_of_small_grids_with_many_periods(raster: Any, write: Write) -> None:
    values = np.zeros((1500, 3, 4), "float32")
    product = look(
        write("netcdf4", basic(raster, values=values, time_attributes={"units": "hours since 2001-01-01"}))
    ).product("x")
    assert (product.map_block, product.series_block, product.cog_period) == (720, None, "P1Y")
    product = look(write("netcdf4", basic(raster), "few")).product("x")
    assert (product.map_block, product.series_block, product.cog_period) == (1, 120, "step")


@pytest.mark.parametrize(("periods", "block"), [(120, 120), (121, 240)])
def test_a_long_archive_has_long_blocks(raster: Any, write: Write, periods: int, block: int) -> None:
    values = np.zeros((periods, 3, 4), "float32")
    attributes = {"units": "days since 2001-01-01"}
    product = look(write("netcdf4", basic(raster, values=values, time_attributes=attributes))).product("x")
    assert product.series_block == block


def test_names_that_storage_has_taken(raster: Any, write: Write) -> None:
    path = write("zarr3", basic(raster, name="2t"))
    assert look(path).quantity.name == "v_2t"
    assert any(line.startswith("variable: 2t, called v_2t") for line in look(path).lines())


def test_attributes_that_all_files_share_are_kept(raster: Any, write: Write) -> None:
    def part(day: int, **more: Any) -> str:
        return write(
            "netcdf3",
            basic(
                raster,
                values=field(1),
                times=np.asarray([day]),
                attributes={"units": "m", "long_name": "Height", "note": "kept", **more},
                global_attributes={"institution": "here", "title": f"Day {day}"},
            ),
            f"d{day}",
        )

    conclusion = look(part(0, weather="fine"), part(1, weather="rain"))
    assert conclusion.quantity.attributes == {"note": "kept"}
    assert dict(conclusion.attributes) == {"institution": "here"}
    assert conclusion.title == "Height"
    assert conclusion.quantity.cell_methods == ""


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from([1, 2]),
    st.sampled_from(["i1", "i2", "i4", "f4", "f8"]),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
)
def test_classic_files_read_as_scipy_reads_them(
    tmp_path: Path,
    version: int,
    code: str,
    count: int,
    record: bool,  # noqa: FBT001 - a case
    second: bool,  # noqa: FBT001 - a case
) -> None:
    path = tmp_path / "x.nc"
    values = np.random.default_rng(count).integers(-100, 100, (count, 3, 5)).astype(code)
    with netcdf_file(path, "w", version=version) as file:
        file.createDimension("t", None if record else count)
        file.createDimension("y", 3)
        file.createDimension("x", 5)
        for name in ["a", "bb"] if second else ["a"]:
            variable = file.createVariable(name, code, ("t", "y", "x"))
            variable[:] = values
            variable.units = "m"
            variable.number = 3.5
        scalar = file.createVariable("s", "f4", ())
        scalar.data[...] = 7
    opened = netcdf3.Classic(str(path), "x.nc")
    try:
        container = opened.container()
        with netcdf_file(path, "r", mmap=False) as file:
            assert set(container.variables) == set(file.variables)
            for name, variable in file.variables.items():
                found = container.variables[name]
                assert (found.dimensions, found.shape) == (tuple(variable.dimensions), tuple(variable.shape))
                np.testing.assert_array_equal(found.values(), variable[()] if not variable.shape else variable[:])
        assert container.variables["a"].attributes == {"units": "m", "number": 3.5}
    finally:
        opened.close()


def test_a_variable_of_an_unlimited_dimension_that_was_written_less_far_than_another(tmp_path: Path) -> None:
    path, values = tmp_path / "short.nc", field(3)
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"time": None, "lat": 12, "lon": 18}
        file.resize_dimension("time", 3)
        for name, axis, units in (
            ("time", np.arange(3.0), "days since 2001-01-01"),
            ("lat", 20.75 - 0.5 * np.arange(12), "degrees_north"),
            ("lon", 10.25 + 0.5 * np.arange(18), "degrees_east"),
        ):
            file.create_variable(name, (name,), data=axis).attrs["units"] = units
        file.create_variable("v", ("time", "lat", "lon"), data=values, chunks=(1, 12, 18), fillvalue=np.float32(-9))
        file.variables["v"].attrs["_FillValue"] = np.float32(-9)
    with h5py.File(path, "r+") as raw:
        raw["v"].resize(2, axis=0)
    recipe = look(str(path), variable="v", units="1").recipe("x")
    with xr.open_dataset(path, engine="h5netcdf") as data:
        expected = data["v"].values
    assert np.isnan(expected[2]).all()
    quantity, window = recipe.product.quantities[0], Window(row=0, column=0, height=12, width=18)
    found = quantity.decode(recipe.compute(recipe.periods(), window)[quantity.name])
    np.testing.assert_array_equal(found, expected)
