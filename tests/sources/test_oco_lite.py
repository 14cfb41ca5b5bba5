"""Lite files of every generation, written as GES DISC writes them, against xarray's reading of them; and real ones."""

import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from services.core.errors import InputRefused, SettingsError
from services.sources import files
from services.sources.lite_layout import Conversion
from services.sources.oco_lite import Lite, open_lite
from services.sources.soundings import GROUPS, INSTRUMENTS, MODES, Soundings, concat
from services.validation.offsets import MeetingCells, estimate

FILL = np.float32(-999999)
PPM = {"units": "ppm", "_FillValue": FILL, "missing_value": FILL}
TO_2019 = Conversion(have="X2007", wanted="X2019", factor=1.0005, offset=-0.1, source="numbers of this test")

GENERATIONS = {
    # as in science/xco2.md 4, and older and subset ones: whether X2019 is there, whether a mode is named
    "oco2_LtCO2_150131_B11210Ar_240820000231s.nc4": (True, True),
    "oco2_LtCO2_191012_B11100Ar_230603005524s.nc4": (True, True),
    "oco2_LtCO2_181231_B11014Ar_221017173900s.SUB.nc4": (True, True),
    "oco2_LtCO2_141217_B10206Ar_200730235637s.nc4": (False, True),
    "oco2_LtCO2_180102_B9003r_180929105747s.nc4": (False, True),
    "oco2_LtCO2_150324_B7305Br_160712115928s.nc4": (False, True),
    "oco3_LtCO2_191012_B10400Br_220317234818s.nc4": (False, True),
    "oco3_LtCO2_211218_B11072Ar_240915205334s.nc4": (True, True),
    "acos_LtCO2_160404_v201202_B7310A_161107201902s.nc4": (False, False),
    "acos_LtCO2_200608_v210210_B9213A_201026001634s_subsetted.nc4": (False, False),
}
V11, V10 = "oco2_LtCO2_150131_B11210Ar_240820000231s.nc4", "oco2_LtCO2_141217_B10206Ar_200730235637s.nc4"
OCO3 = "oco3_LtCO2_211218_B11072Ar_240915205334s.nc4"
ACOS = "acos_LtCO2_160404_v201202_B7310A_161107201902s.nc4"

type Variables = dict[str, tuple[tuple[str, ...], NDArray[Any], dict[str, Any]]]
type Writer = Callable[..., str]


def start_of(name: str) -> int:
    text = name.split("_")[2]
    day = np.datetime64(f"20{text[:2]}-{text[2:4]}-{text[4:]}", "D")
    return int(day.astype("datetime64[s]").astype(np.int64))


def lite(name: str, count: int = 60) -> Variables:
    """The variables of a day, with missing values, bad flags and all modes."""
    has_2019, has_mode = GENERATIONS.get(name, (True, True))
    generator = np.random.default_rng(start_of(name))
    # on tenths of a second that an id can hold, as the real ones are
    clock = np.sort(generator.integers(0, 86_400 * 10, count)) / 10
    time = start_of(name) + clock
    stamps = np.rint(time * 1000).astype(np.int64).astype("datetime64[ms]")
    years = stamps.astype("datetime64[Y]")
    months = stamps.astype("datetime64[M]")
    days = stamps.astype("datetime64[D]")
    seconds = clock.astype(np.int64)
    parts = [
        years.astype(np.int64) + 1970,
        (months - years).astype(np.int64) + 1,
        (days - months.astype("datetime64[D]")).astype(np.int64) + 1,
        seconds // 3600,
        seconds // 60 % 60,
        seconds % 60,
        np.rint(clock * 10).astype(np.int64) % 10 * 100,
    ]
    ids = np.zeros(count, dtype=np.uint64)
    for part, factor in zip(parts[:6], (10**12, 10**10, 10**8, 10**6, 10**4, 10**2), strict=True):
        ids += part.astype(np.uint64) * np.uint64(factor)
    ids += (parts[6] // 100 * 10).astype(np.uint64) + generator.integers(1, 9, count).astype(np.uint64)
    xco2 = generator.normal(400, 2, count).astype(np.float32)
    xco2[3:4] = FILL
    uncertainty = generator.uniform(0.3, 1.5, count).astype(np.float32)
    uncertainty[5:6] = FILL
    axis = ("sounding_id",)
    found: Variables = {
        "sounding_id": (axis, ids, {"units": "YYYYMMDDhhmmssmf", "_FillValue": np.uint64(0)}),
        "date": ((*axis, "epoch_dimension"), np.stack(parts, 1).astype(np.int16), {"_FillValue": np.int16(-9999)}),
        "time": (axis, time, {"units": "seconds since 1970-01-01 00:00:00", "_FillValue": np.float64(FILL)}),
        "latitude": (axis, generator.uniform(-80, 80, count).astype(np.float32), {"_FillValue": FILL}),
        "longitude": (axis, generator.uniform(-180, 180, count).astype(np.float32), {"_FillValue": FILL}),
        "xco2": (axis, xco2, {**PPM, "long_name": "XCO2"}),
        "xco2_uncertainty": (axis, uncertainty, PPM),
        "xco2_quality_flag": (axis, generator.integers(0, 2, count).astype(np.int8), {"units": "none"}),
        "co2_profile_apriori": ((*axis, "levels"), np.full((count, 20), 400, dtype=np.float32), PPM),
        "Retrieval/surface_type": (axis, generator.integers(0, 2, count).astype(np.int8), {"units": "none"}),
        "Retrieval/psurf": (axis, np.full(count, 1000, dtype=np.float32), {"units": "hPa", "_FillValue": FILL}),
        "Meteorology/psurf_apriori": (axis, np.full(count, 999, dtype=np.float32), {"units": "hPa"}),
    }
    if has_2019:
        found["xco2"][2]["long_name"] = "Bias-corrected XCO2 on X2007 scale"
        found["xco2"][2]["comment"] = "XCO2_X2019 (in this file) contains the same information on the X2019 CO2 scale."
        found["xco2_x2019"] = (axis, np.where(xco2 == FILL, FILL, xco2 + np.float32(0.18)), PPM)
    if has_mode:
        found["Sounding/operation_mode"] = (axis, np.resize(np.arange(6), count).astype(np.int8), {})
        land = np.resize([0, 0, 1, 1, 2, 3, 9], count).astype(np.int8)
        found["Sounding/land_water_indicator"] = (axis, land, {})
    return found


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Write variables as NetCDF-4 with groups, compressed chunks and what the platform is called; gives the path."""

    def to_file(name: str, variables: Variables | None = None, chunks: int = 16, **attributes: Any) -> str:
        path = tmp_path / name
        with h5netcdf.File(path, "w") as file:
            file.attrs["Platform"] = {"oco2": "OCO-2", "oco3": "OCO-3", "acos": "GOSAT"}.get(name[:4], "none")
            file.attrs.update(attributes)
            for key, (dimensions, values, said) in (variables if variables is not None else lite(name)).items():
                for dimension, size in zip(dimensions, values.shape, strict=True):
                    if dimension not in file.dimensions:
                        file.dimensions[dimension] = size
                rest = {k: v for k, v in said.items() if k != "_FillValue"}
                options: dict[str, Any] = {"fillvalue": said.get("_FillValue")}
                if values.size:
                    options |= {"chunks": (min(chunks, values.shape[0]), *values.shape[1:]), "compression": "gzip"}
                variable = file.create_variable(key, dimensions, values.dtype, **options)
                variable[...] = values
                for attribute, value in rest.items():
                    variable.attrs[attribute] = value
        return str(path)

    return to_file


def by_xarray(path: str, group: str | None = None) -> xr.Dataset:
    with xr.open_dataset(path, engine="h5netcdf", group=group, decode_times=False) as opened:
        return opened.reset_coords().load()


def all_of(found: Lite, tally: Counter[str] | None = None) -> Soundings:
    return concat(list(found.read(tally=tally)))


@pytest.mark.parametrize("name", GENERATIONS)
def test_every_generation(write: Writer, name: str) -> None:
    path = write(name)
    has_2019, has_mode = GENERATIONS[name]
    found = pickle.loads(pickle.dumps(open_lite([path], scale="X2007", rows=20)))  # noqa: S301 - our own
    root = by_xarray(path)
    good = (root.xco2_quality_flag.values == 0) & np.isfinite(root.xco2.values)
    batches = list(found.read())
    assert all(0 < len(batch) <= 20 for batch in batches)
    read = concat(batches)
    assert read.scale == "X2007"
    for column, variable in (
        ("time", "time"),
        ("latitude", "latitude"),
        ("longitude", "longitude"),
        ("xco2", "xco2"),
        ("uncertainty", "xco2_uncertainty"),
    ):
        np.testing.assert_array_equal(getattr(read, column), root[variable].values[good].astype(np.float64))
    assert [MODES[code] for code in read.mode] == modes(path, has_mode=has_mode)[good].tolist()
    (file,) = found.files
    assert (INSTRUMENTS[read.instrument[0]], file.instrument) == (name[:4], name[:4])
    assert file.day == date(2000 + int(name[11:13]), int(name[13:15]), int(name[15:17]))
    assert file.version in name
    assert (file.soundings, file.good) == (60, int((root.xco2_quality_flag.values == 0).sum()))
    if has_2019:
        later = all_of(open_lite([path]))
        assert later.scale == "X2019"
        np.testing.assert_array_equal(later.xco2, root.xco2_x2019.values[good].astype(np.float64))
    else:
        with pytest.raises(InputRefused, match=r"_LtCO2_.* holds XCO2 on X2007 only, and X2019 is wanted"):
            open_lite([path])
        later = all_of(open_lite([path], conversion=TO_2019))
        np.testing.assert_array_equal(later.xco2, 1.0005 * read.xco2 - 0.1)


def modes(path: str, *, has_mode: bool) -> NDArray[np.str_]:
    """In words, once more."""
    if not has_mode:
        surface = by_xarray(path, "Retrieval").surface_type.values
        return np.where(surface == 1, "land_nadir", "ocean_glint")
    group = by_xarray(path, "Sounding")
    named = []
    for operation, land in zip(group.operation_mode.values, group.land_water_indicator.values, strict=True):
        surface = {0: "land", 3: "land", 1: "ocean", 2: "ocean"}.get(land)
        pointing = {0: "nadir", 1: "glint", 2: "target"}.get(operation)
        mode = {3: "transition", 4: "area_map"}.get(operation, f"{surface}_{pointing}")
        named.append(mode if mode in MODES else "unknown")
    return np.array(named)


def test_days_instruments_and_months(write: Writer) -> None:
    names = [V11, OCO3, "oco2_LtCO2_150201_B11210Ar_240820000231s.nc4", "oco2_LtCO2_150130_B11210Ar_2s.nc4"]
    variables = lite(names[2])
    variables["time"][1][:7] = start_of(names[2]) - np.arange(7, 0, -1)  # begun on the last evening of January
    paths = [write(name, variables if name == names[2] else None) for name in names]
    found = open_lite([*paths[1:], paths[0]], quality="any")
    assert [str(day) for day in found.days] == ["2015-01-30", "2015-01-31", "2015-02-01", "2021-12-18"]
    assert found.months == (540, 541, 623)
    everything = all_of(found)
    assert len(everything) == 4 * 59
    for month in range(538, 626):
        parts = list(found.read_month(month))
        own = everything.take(everything.months() == month)
        assert sum(len(part) for part in parts) == len(own)
        if parts:
            np.testing.assert_array_equal(concat(parts).xco2, own.xco2)
    assert sum(len(part) for part in found.read_month(540)) == 2 * 59 + 6  # one of the seven has no value
    assert [len(concat(list(found.read(day)))) for day in found.days] == [59] * 4
    assert list(found.read(date(2015, 3, 1))) == []
    assert found.of(lambda file: file.instrument == "oco3").days == (date(2021, 12, 18),)
    assert set(np.unique(everything.group()).tolist()) >= {0, 1, 2, 8, 9, 10}
    lines = found.lines()
    assert lines[0] == "scale: X2019"
    assert lines[1].startswith("oco2: 3 days, 2015-01-30 to 2015-02-01, 180 of 180 soundings whatever their quality")


def test_batches_give_the_same_whatever_their_size(write: Writer) -> None:
    path = write(V11, lite(V11, 200), chunks=37)
    whole = all_of(open_lite([path]))
    for rows in (7, 37, 80, 200, 10_000):
        batches = list(open_lite([path], rows=rows).read())
        assert max(len(batch) for batch in batches) <= rows
        read = concat(batches)
        for column in ("time", "latitude", "longitude", "xco2", "uncertainty", "mode"):
            np.testing.assert_array_equal(getattr(read, column), getattr(whole, column))


def test_what_is_left_out_is_counted(write: Writer) -> None:
    path = write(V11)
    root, group = by_xarray(path), by_xarray(path, "Sounding")
    tally = Counter[str]()
    read = all_of(open_lite([path], modes=["land_nadir", "land_glint"]), tally)
    good = root.xco2_quality_flag.values == 0
    wanted = np.isin(group.operation_mode.values, [0, 1]) & np.isin(group.land_water_indicator.values, [0, 3])
    assert tally["read"] == 60
    assert tally["flagged"] == int((~good).sum())
    assert tally["another mode"] == int((good & ~wanted).sum())
    assert tally["missing"] == int((good & wanted & ~np.isfinite(root.xco2.values)).sum())
    assert len(read) == tally["read"] - tally["flagged"] - tally["another mode"] - tally["missing"]
    assert {MODES[code] for code in read.mode} == {"land_nadir", "land_glint"}


def test_a_day_without_good_soundings_is_no_error_and_a_set_is(write: Writer) -> None:
    bad = lite(V11)
    bad["xco2_quality_flag"][1][:] = 1
    none = write(V11, bad)
    empty = write("oco2_LtCO2_150201_B11210Ar_2s.nc4", lite("oco2_LtCO2_150201_B11210Ar_2s.nc4", 0))
    some = write(OCO3)
    found = open_lite([none, empty, some])
    assert [file.good for file in found.files][:2] == [0, 0]
    assert list(found.read(found.days[0])) == list(found.read(found.days[1])) == []
    tally = Counter[str]()
    assert len(all_of(found, tally)) > 0
    assert (tally["read"], tally["flagged"] >= 60) == (120, True)
    with pytest.raises(InputRefused, match=r"150131.*none of the 60 soundings of 1 files is good \(xco2_quality_flag"):
        open_lite([none])
    with pytest.raises(InputRefused, match=r"150201.*there is no sounding in any of 1 files"):
        open_lite([empty], quality="any")
    lost = lite(V11)
    lost["xco2_x2019"][1][:] = np.nan
    blank = open_lite([write(V11, lost)])
    with pytest.raises(InputRefused, match=r"150131.*no sounding is left \(read 60, flagged \d+, missing \d+\)"):
        list(blank.read())
    with pytest.raises(InputRefused, match="no sounding is left"):
        list(open_lite([write(ACOS)], scale="X2007", modes=["area_map"]).read())


def test_without_a_flag(write: Writer) -> None:
    variables = lite(V11)
    del variables["xco2_quality_flag"]
    path = write(V11, variables)
    with pytest.raises(InputRefused, match=r"150131.*has no xco2_quality_flag, so .* quality = 'any' takes all"):
        open_lite([path])
    assert len(all_of(open_lite([path], quality="any"))) == 59
    # with a flag, any takes the bad ones, too
    assert len(all_of(open_lite([write(V11)], quality="any"))) == 59


def test_scales(write: Writer) -> None:
    old, new = write(V10), write(V11)
    with pytest.raises(
        InputRefused, match=r"141217.* holds XCO2 on X2007 only, and X2019 is wanted; scales are not mix"
    ):
        open_lite([old, new])
    assert all_of(open_lite([old, new], scale="X2007")).scale == "X2007"
    found = open_lite([old, new], conversion=TO_2019)
    assert [file.layout.converts for file in found.files] == [True, False]
    assert found.lines()[0] == "scale: X2019 (1 files from X2007 as 1.0005 x -0.1 ppm: numbers of this test)"
    back = Conversion(have="X2019", wanted="X2007", offset=0.1, source="this test")
    assert "nothing had to be converted" in open_lite([old, new], scale="X2007", conversion=back).lines()[0]
    with pytest.raises(SettingsError, match="the conversion is to X2007, and the run is on X2019"):
        open_lite([old], conversion=back)
    with pytest.raises(SettingsError, match=r"would change 400 ppm by 79\.758 ppm; scales of CO2 differ"):
        Conversion(have="X2007", wanted="X2019", factor=1.2, offset=-0.242, source="a slip")
    with pytest.raises(SettingsError, match="needs the source of its numbers"):
        Conversion(have="X2007", wanted="X2019", offset=0.18, source=" ")
    with pytest.raises(SettingsError, match="from X2007 to X2007 is none between two"):
        Conversion(have="X2007", wanted="X2007", source="x")
    variables = lite(V11)
    variables["xco2_x2019"] = (*variables["xco2_x2019"][:2], {**PPM, "long_name": "XCO2 on X2007 scale"})
    with pytest.raises(InputRefused, match="xco2_x2019 says that it is on X2007"):
        open_lite([write(V11, variables)])


def test_a_later_generation_has_to_say_its_scale(write: Writer) -> None:
    later = "oco2_LtCO2_260131_B12100Ar_260820000231s.nc4"
    variables = lite(V10)
    variables["time"][1][:] += start_of(later) - start_of(V10)
    with pytest.raises(InputRefused, match=r"260131.* holds xco2 without saying on which scale, and X2007 is wanted"):
        open_lite([write(later, variables)], scale="X2007")
    variables["xco2"][2]["long_name"] = "Bias-corrected XCO2 on the X2019 scale"
    assert all_of(open_lite([write(later, variables)])).scale == "X2019"


@pytest.mark.parametrize("kept", ["date", "sounding_id"])
def test_times_from_dates_and_ids(write: Writer, kept: str) -> None:
    full = lite(V11)
    for name in {"time", "date", "sounding_id"} - {kept}:
        del full[name]
    read = all_of(open_lite([write(V11, full)], quality="any"))
    expected = np.delete(lite(V11)["time"][1], 3)
    np.testing.assert_allclose(read.time, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint64"])
def test_ids_as_opendap_and_xarray_have_them(write: Writer, dtype: str) -> None:
    variables = lite(V11)
    ids = variables["sounding_id"][1].astype(dtype)
    assert (ids.astype(np.uint64) == variables["sounding_id"][1]).all()
    for name in ("time", "date"):
        del variables[name]
    variables["sounding_id"] = (("sounding_id",), ids, {})
    read = all_of(open_lite([write(V11, variables)], quality="any"))
    np.testing.assert_allclose(read.time, np.delete(lite(V11)["time"][1], 3), rtol=0, atol=1e-6)


def test_ids_of_gosat_have_fourteen_digits(write: Writer) -> None:
    variables = lite(ACOS)
    variables["sounding_id"] = (("sounding_id",), variables["sounding_id"][1] // np.uint64(100), {})
    del variables["time"], variables["date"]
    read = all_of(open_lite([write(ACOS, variables)], scale="X2007", quality="any"))
    np.testing.assert_array_equal(read.time, np.floor(np.delete(lite(ACOS)["time"][1], 3)))


def test_dates_that_are_none(write: Writer) -> None:
    def refused(match: str, keep: str, change: Callable[[NDArray[Any]], Any]) -> None:
        variables = lite(V11)
        for name in {"time", "date", "sounding_id"} - {keep}:
            del variables[name]
        dimensions, values, said = variables[keep]
        changed = change(values)
        variables[keep] = (dimensions, values if changed is None else changed, said)
        with pytest.raises(InputRefused, match=match):
            list(open_lite([write(V11, variables)], quality="any").read())

    def put(column: int, value: int) -> Callable[[NDArray[Any]], None]:
        return lambda values: values.__setitem__((8, column), value)

    refused(r"150131.* a sounding's date is 2015-13-31-.*, which is none", "date", put(1, 13))
    refused(r"150131.* a sounding's date is 2015-1-32-", "date", put(2, 32))
    refused(r"150131.* a sounding's date is 2015-2-31-", "date", lambda v: v.__setitem__((8, slice(1, 3)), (2, 31)))
    refused(r"150131.* is named 2015-01-31, and a sounding's time is 2016-01-31", "date", put(0, 2016))
    refused(r"150131.* is named 2015-01-31, and a sounding's time is 1970-01-01", "time", lambda v: v * 0 + 5)
    refused(r"150131.* and a sounding's time is 1e\+15 s since 1970", "time", lambda v: v * 0 + 1e15)
    refused(r"150131.* 123 is no sounding_id of 16 digits", "sounding_id", lambda v: v * np.uint64(0) + np.uint64(123))
    refused(r"150131.* 10000000000000000 is no sounding_id", "sounding_id", lambda v: v * 0.0 + 1e16)
    refused(r"150131.*sounding_id is float32, which cannot hold", "sounding_id", lambda v: v.astype(np.float32))


def test_a_missing_time_leaves_a_sounding_out(write: Writer) -> None:
    for keep, row in (("time", np.float64(FILL)), ("date", -9999), ("sounding_id", 0)):
        variables = lite(V11)
        for name in {"time", "date", "sounding_id"} - {keep}:
            del variables[name]
        variables[keep][1][10] = row
        tally = Counter[str]()
        assert len(all_of(open_lite([write(V11, variables)], quality="any"), tally)) == 58
        assert tally["missing"] == 2


def test_units_are_told_apart_and_converted_once(write: Writer) -> None:
    plain = all_of(open_lite([write(V11)]))

    def changed(factor: float, units: str | None, sigma: float | None = None, said: str | None = None) -> Soundings:
        variables = lite(V11)
        for name, by, unit in (("xco2_x2019", factor, units), ("xco2_uncertainty", sigma or factor, said or units)):
            dimensions, values, _ = variables[name]
            moved = np.where(values == FILL, FILL, values.astype(np.float64) * by).astype(np.float32)
            variables[name] = (dimensions, moved, {"_FillValue": FILL} | ({"units": unit} if unit else {}))
        return all_of(open_lite([write(V11, variables)]))

    for factor, units in ((1e-6, "mol mol-1"), (1e-6, None), (1e-6, "Mole Mole^{-1}"), (1, None), (1e3, "ppb")):
        read = changed(factor, units)
        np.testing.assert_allclose(read.xco2, plain.xco2, rtol=3e-7)
        np.testing.assert_allclose(read.uncertainty, plain.uncertainty, rtol=3e-7)
    read = changed(1e-6, "1", sigma=1.0, said="ppm")
    np.testing.assert_allclose(read.uncertainty, plain.uncertainty, rtol=3e-7)
    with pytest.raises(InputRefused, match=r"150131.*: xco2_x2019: its unit is 'ppm' and its median 0.0004"):
        changed(1e-6, "ppm")
    with pytest.raises(InputRefused, match=r"150131.*: xco2_x2019: its unit is 'mol mol-1' and its median 4"):
        changed(1, "mol mol-1")
    with pytest.raises(InputRefused, match=r"150131.*: xco2_x2019: its unit is 'K'; ppm, mol mol-1 or"):
        changed(1, "K")
    with pytest.raises(
        InputRefused, match=r"150131.*: xco2_x2019: it states no unit, and its median of 4.*e\+06 is CO2"
    ):
        changed(1e4, None)


def test_values_that_no_sounding_has(write: Writer) -> None:
    def refused(match: str, name: str, value: float) -> None:
        variables = lite(V11)
        variables[name][1][20] = value
        with pytest.raises(InputRefused, match=match):
            list(open_lite([write(V11, variables)], quality="any").read())

    refused("150131.*a sounding's latitude is 91 degrees north", "latitude", 91)
    refused("150131.*a sounding's longitude is 200 degrees east", "longitude", 200)
    refused("150131.*a sounding's xco2 is -9999 ppm: a fill value that is not declared", "xco2_x2019", -9999)
    refused("150131.*a sounding's uncertainty is -1 ppm", "xco2_uncertainty", -1)
    refused("150131.*a sounding's uncertainty is 0 ppm", "xco2_uncertainty", 0)


def test_files_that_are_none(write: Writer, tmp_path: Path) -> None:
    def without(*names: str) -> Variables:
        return {name: what for name, what in lite(V11).items() if name not in names}

    def refused(match: str, path: str, **options: Any) -> None:
        with pytest.raises(InputRefused, match=match):
            open_lite([path], **options)

    refused("150131.* has no latitude; it holds Meteorology, Retrieval", write(V11, without("latitude")))
    refused("150131.* has no xco2; it holds", write(V11, without("xco2", "xco2_x2019")))
    refused("150131.* has no time, date or sounding_id", write(V11, without("time", "date", "sounding_id")))
    short = lite(V11)
    short["longitude"] = (("other",), short["longitude"][1][:50], {})
    refused(r"150131.*: xco2_x2019 has the shape \(60,\) and longitude \(50,\)", write(V11, short))
    wide = lite(V11)
    wide["xco2_x2019"] = (("sounding_id", "levels"), np.full((60, 20), 400, dtype=np.float32), PPM)
    refused(r"150131.*: xco2_x2019 has the shape \(60, 20\); a value for each", write(V11, wide))
    days = lite(V11)
    days["time"][2]["units"] = "days since 2000-01-01"
    refused("150131.*: its time counts days; Lite files count seconds", write(V11, days))
    refused("150131.*is named as of oco2 and says that it is of OCO-3", write(V11, Platform="OCO-3"))
    refused("xco2.nc4 is not named as Lite files are", write("xco2.nc4", lite(V11)))
    refused("oco2_LtSIF_150131_B11012Ar_1s.nc4 holds fluorescence", write("oco2_LtSIF_150131_B11012Ar_1s.nc4", {}))
    refused(r"151331.*: 151331 in its name is no day", write("oco2_LtCO2_151331_B11210Ar_2s.nc4", lite(V11)))
    classic = tmp_path / V10
    classic.write_bytes(b"CDF\x01" + bytes(100))
    refused(r"141217.* is netcdf3; Lite files are NetCDF-4", str(classic))
    classic.write_bytes(b"")
    refused(r"141217.* is empty \(0 bytes\)", str(classic))
    classic.write_bytes(Path(write(V11)).read_bytes()[:5000])
    refused(r"141217.* is cut short: it holds 5,000 of the \d\d,\d{3} bytes that it says it has", str(classic))
    again = write("oco2_LtCO2_150131_B10206Ar_2s.nc4", lite(V11))
    with pytest.raises(InputRefused, match=r"150131.* both hold oco2 of 2015-01-31 \(.*B11210Ar.*\); leave one"):
        open_lite([write(V11), again])
    refused("no file matches", str(tmp_path / "oco3_*.nc4"))


def test_a_column_that_breaks_off_is_named(write: Writer) -> None:
    path = write(V11, lite(V11, 3000), chunks=3000)
    found = open_lite([path])
    with h5py.File(path, "r") as file:
        where = file["longitude"].id.get_chunk_info(0)
    body = bytearray(Path(path).read_bytes())
    body[where.byte_offset + 20 : where.byte_offset + 60] = bytes(40)
    status = Path(path).stat()
    Path(path).write_bytes(body)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(InputRefused, match=r"150131.* is broken or is not what it begins as"):
        list(found.read())


def test_options_that_are_none(write: Writer) -> None:
    path = write(V11)
    for options, match in (
        ({"scale": "unknown"}, "'unknown' is no scale that a run can be on"),
        ({"quality": "best"}, "'best' is no choice of quality; good and any are"),
        ({"modes": ["land_nadir", "zenith"]}, "zenith is no mode; there are land_nadir"),
        ({"modes": []}, "nothing is no mode"),
        ({"rows": 0}, "a batch of 0 soundings"),
    ):
        with pytest.raises(SettingsError, match=match):
            open_lite([path], **options)


def test_digests_and_changes(write: Writer) -> None:
    path = write(V11)
    found = open_lite([path])
    assert found.inputs()[0].sha256 == ""
    (hashed,) = found.hashed().inputs()
    assert (hashed.size, hashed.sha256) == (Path(path).stat().st_size, files.hashed(files.found([path]))[0].sha256)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputRefused, match=r"150131.* changed while it was being"):
        list(found.read())


def test_columns_that_opendap_has_flattened(write: Writer) -> None:
    flat = {name.replace("/", "_"): what for name, what in lite(V11).items()}
    one, other = all_of(open_lite([write(V11)])), all_of(open_lite([write(V11, flat)]))
    np.testing.assert_array_equal(one.mode, other.mode)
    assert len(set(one.mode.tolist())) > 4


def test_a_subset_without_modes_and_uncertainty(write: Writer) -> None:
    plain = {n: what for n, what in lite(V11).items() if "/" not in n and n != "xco2_uncertainty"}
    read = all_of(open_lite([write(V11, plain)]))
    assert set(read.mode.tolist()) == {MODES.index("unknown")}
    assert np.isnan(read.uncertainty).all()


def test_a_reader_left_early_closes_its_file(write: Writer) -> None:
    path = write(V11)
    reading: Iterator[Soundings] = open_lite([path], rows=5).read()
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    with h5py.File(path, "r+"):  # nobody else has it open
        pass


def test_the_offset_of_an_instrument_comes_out_of_its_files(write: Writer) -> None:
    """OCO-3 reads 0.7 ppm more than OCO-2 of one sky; modes of one instrument agree."""
    names = ("oco2_LtCO2_200105_B11210Ar_2s.nc4", "oco3_LtCO2_200106_B11072Ar_2s.nc4")
    paths = []
    for name, more in zip(names, (0.0, 0.7), strict=True):
        variables = lite(name, 6000)
        generator = np.random.default_rng(start_of(name))
        latitude = generator.uniform(20, 40, 6000).astype(np.float32)
        sky = 400 + 0.2 * np.floor(latitude) + more + 0.5 * generator.standard_normal(6000)
        variables["latitude"][1][:] = latitude
        variables["longitude"][1][:] = generator.uniform(0, 20, 6000)
        variables["xco2_x2019"][1][:] = sky
        paths.append(write(name, variables, chunks=2000))
    found = open_lite(paths)
    gathered = MeetingCells(1.0)
    for batch in found.read():
        gathered.add(batch.months(), batch.latitude, batch.longitude, batch.group(), batch.xco2)
    offsets = estimate(gathered.cells(), GROUPS, "oco2 land_nadir")
    assert offsets.unconnected == ()
    for name, offset, error in zip(GROUPS, offsets.offset, offsets.error, strict=True):
        if np.isfinite(offset) and name != "oco2 land_nadir":
            assert abs(offset - (0.7 if name.startswith("oco3") else 0.0)) < 4 * error < 0.3
    one = all_of(found)
    moved = offsets.subtract(one.xco2, one.group())
    after = [moved[one.instrument == n].mean() - one.xco2[one.instrument == 0].mean() for n in (0, 1)]
    assert abs(after[0]) < 0.05
    assert abs(after[1]) < 0.1


OHIO = ("xco2", "oco2_lite_ohio")


def test_ohio_is_refused_by_default(realdata: Path) -> None:
    with pytest.raises(InputRefused, match=r"oco2_LtCO2_160101_B10206Ar.* has no xco2_quality_flag, so its good"):
        open_lite([str(realdata.joinpath(*OHIO, "*.nc4"))])
    with pytest.raises(InputRefused, match=r"160101.* holds XCO2 on X2007 only, and X2019 is wanted"):
        open_lite([str(realdata.joinpath(*OHIO, "*.nc4"))], quality="any")


def test_ohio(realdata: Path) -> None:
    found = open_lite([str(realdata.joinpath(*OHIO, "*.nc4"))], scale="X2007", quality="any")
    assert (len(found.files), found.days[0], found.days[-1]) == (177, date(2016, 1, 1), date(2018, 12, 24))
    assert {file.version for file in found.files} == {"B10206Ar"}
    tally = Counter[str]()
    counts = Counter(day for batch in found.read(tally=tally) for day in (batch.time // 86_400).tolist())
    assert (tally["read"], sum(counts.values()), tally["missing"]) == (78_578, 78_578, 0)
    assert len(counts) == 177
    for file in found.files[::12]:
        read = concat(list(found.read(file.day)))
        other = by_xarray(file.source.location)
        for column, name in (("time", "time"), ("latitude", "latitude"), ("xco2", "xco2")):
            np.testing.assert_array_equal(getattr(read, column), other[name].values.astype(np.float64))
        np.testing.assert_array_equal(read.uncertainty, other.xco2_uncertainty.values.astype(np.float64))
        assert read.longitude.min() > -82.01
        assert read.longitude.max() < -77.99


def test_ohio_s_ids_and_dates_are_its_times(realdata: Path, tmp_path: Path) -> None:
    """xarray makes float64 of the real ids; written so, they still tell the time to their tenth of a second."""
    source = sorted(realdata.joinpath(*OHIO).glob("*.nc4"))[40]
    with xr.open_dataset(source, engine="h5netcdf", decode_times=False) as opened:
        data = opened.reset_coords().load()
    assert data.sounding_id.dtype == np.float64
    seconds = data.time.values
    kept = {"date": ["date"], "sounding_id": ["sounding_id"]}
    for name, columns in kept.items():
        path = tmp_path / name / source.name
        path.parent.mkdir()
        with h5py.File(path, "w") as file:
            for column in ["latitude", "longitude", "xco2", *columns]:
                file[column] = data[column].values
        read = all_of(open_lite([str(path)], scale="X2007", quality="any"))
        # measured over all 177 files: dates are up to 0.138 s off the times
        assert np.abs(read.time - seconds).max() < 0.2
