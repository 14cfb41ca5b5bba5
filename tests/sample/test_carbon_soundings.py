"""Orbits against rotated vectors, soundings against the truth and the errors they claim, and their Lite files."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from services.sample.carbon import Carbon
from services.sample.carbon_lite import lite_name, write_lite
from services.sample.carbon_orbits import OCO2_ORBIT, OCO3_ORBIT, across, heading_of, sun_zenith
from services.sample.carbon_soundings import ALONG, BAD_BIAS, LENGTH, MODES, OCO2, OCO3, OWN, Pass, Satellite

DAY = np.datetime64("2020-06-03", "D")
NADIR, LAND_GLINT, OCEAN_GLINT = range(3)


@pytest.fixture(scope="module")
def days(carbon: Carbon) -> list[Pass]:
    """Four days of OCO-2 with four times the frames."""
    satellite = Satellite(world=carbon, instrument=OCO2, density=4)
    return [satellite.day(day) for day in np.arange(DAY, DAY + np.timedelta64(4, "D"))]


def test_a_track_is_that_of_rotated_vectors() -> None:
    shares = np.linspace(-0.2, 0.7, 50)
    for orbit in (OCO2_ORBIT, OCO3_ORBIT):
        time, latitude, longitude = orbit.track(1234, shares)
        angle = 2 * np.pi * shares
        flat = np.stack([np.cos(angle), np.sin(angle), 0 * angle])
        tilt = np.radians(orbit.inclination)
        tilted = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]) @ flat
        node = np.radians(orbit.first_node - orbit.turn * (1234 + shares) * orbit.period / 86400)
        x = np.cos(node) * tilted[0] - np.sin(node) * tilted[1]
        y = np.sin(node) * tilted[0] + np.cos(node) * tilted[1]
        np.testing.assert_allclose(latitude, np.degrees(np.arcsin(tilted[2])), atol=1e-9)
        away = (longitude - np.degrees(np.arctan2(y, x)) + 180) % 360 - 180
        np.testing.assert_allclose(away, 0, atol=1e-6)
        assert np.abs(latitude).max() <= min(orbit.inclination, 180 - orbit.inclination)
        assert (np.diff(time) > 0).all()


def test_oco2_crosses_the_equator_at_half_past_one_and_comes_back_after_sixteen_days() -> None:
    for orbit in (0, 1, 7, 3000):
        time, latitude, longitude = OCO2_ORBIT.track(orbit, np.array([0.0]))
        assert latitude[0] == pytest.approx(0, abs=1e-12)
        assert (time[0] / 3600 + longitude[0] / 15) % 24 == pytest.approx(13.5, abs=1e-6)
        later, _, again = OCO2_ORBIT.track(orbit + 233, np.array([0.0]))
        assert later[0] - time[0] == pytest.approx(16 * 86400, abs=1e-3)
        assert again[0] == pytest.approx(longitude[0], abs=1e-6)
    assert len(OCO2_ORBIT.starting(1.5e9, 1.5e9 + 86400)) in {15, 16}


def test_the_sun_stands_where_it_should() -> None:
    june = np.array([np.datetime64("2020-06-21T12:00", "s").astype(float)])
    assert sun_zenith(june, np.array([23.44]), np.array([0.0]))[0] == pytest.approx(0, abs=0.6)
    assert sun_zenith(june, np.array([80.0]), np.array([180.0]))[0] == pytest.approx(180 - 80 - 23.44, abs=0.6)
    assert sun_zenith(june, np.array([0.0]), np.array([90.0]))[0] == pytest.approx(90, abs=0.6)


def test_eight_footprints_lie_across_the_track() -> None:
    _, latitude, longitude = OCO2_ORBIT.track(50, np.linspace(-0.1, 0.1, 2001))
    heading = heading_of(latitude, longitude)
    assert np.degrees(heading[1000]) == pytest.approx(-12, abs=1)
    y, x = across(latitude, longitude, heading, np.full(2001, 4.0))
    step = np.stack([(x - longitude) * np.cos(np.radians(latitude)), y - latitude])[:, 5:-5]
    ahead = np.stack([np.gradient(longitude) * np.cos(np.radians(latitude)), np.gradient(latitude)])[:, 5:-5]
    assert np.hypot(*step) * 111.19 == pytest.approx(4.0, abs=0.02)
    cosine = (step * ahead).sum(axis=0) / np.hypot(*step) / np.hypot(*ahead)
    assert np.abs(cosine).max() < 0.01


def test_good_soundings_have_the_spread_they_state_and_their_modes_offset(days: list[Pass]) -> None:
    mode, bad, error, stated = (
        np.concatenate(columns)
        for columns in zip(*[(one.mode, one.bad, one.xco2 - one.truth, one.uncertainty) for one in days], strict=True)
    )
    for number, name in enumerate(MODES):
        chosen = (mode == number) & ~bad
        assert chosen.sum() > 1000
        assert error[chosen].mean() == pytest.approx(OCO2.offsets[name], abs=0.08)
        assert ((error - OCO2.offsets[name]) / stated)[chosen].std() == pytest.approx(1, abs=0.06)
        assert stated[chosen].mean() == pytest.approx(np.hypot(ALONG[name], OWN[name]), rel=0.2)
    assert error[bad].mean() == pytest.approx(BAD_BIAS, abs=0.2)
    assert error[bad].std() > 2 * error[~bad].std()
    assert 0.15 < bad.mean() < 0.45


def test_errors_are_alike_along_the_track_over_the_stated_length(days: list[Pass]) -> None:
    pairs: dict[int, list[np.ndarray]] = {1: [], 3: [], 6: [], 12: []}
    for one in days:
        offset = np.array([OCO2.offsets[name] for name in MODES])[one.mode]
        error = np.where(one.bad, np.nan, (one.xco2 - one.truth - offset) / one.uncertainty)
        for frames, found in pairs.items():
            # the frames lie 2 s apart: the same orbit, so many frames later
            there = {
                (int(orbit), round(time, 1)): value
                for orbit, time, value in zip(one.orbit, one.time, error, strict=True)
            }
            ahead = [
                (value, there[orbit, other])
                for (orbit, time), value in there.items()
                for other in (round(time + 2 * frames, 1),)
                if (orbit, other) in there
            ]
            found.append(np.array(ahead))
    km = 2 * np.pi * 6371 / OCO2_ORBIT.period * 2
    share = np.mean([ALONG[name] ** 2 / (ALONG[name] ** 2 + OWN[name] ** 2) for name in MODES])
    for frames, found in pairs.items():
        both = np.concatenate(found)
        both = both[np.isfinite(both).all(axis=1)]
        assert len(both) > 1000
        expected = share * np.exp(-frames * km / LENGTH)
        assert np.mean(both[:, 0] * both[:, 1]) == pytest.approx(expected, abs=0.09), frames


def test_modes_follow_land_and_orbit(carbon: Carbon, days: list[Pass]) -> None:
    for one in days:
        row, column = ((90 - one.latitude) * 4).astype(int), ((one.longitude + 180) * 4).astype(int) % 1440
        land = carbon.weather.earth.land[row, column]
        np.testing.assert_array_equal(one.mode < OCEAN_GLINT, land)
        np.testing.assert_array_equal(one.mode == NADIR, one.orbit % 2 == 1)
        assert set(np.unique(one.footprint)) == set(range(1, 9))
        assert one.sun_zenith.max() < 78
        assert (np.diff(one.time) > 0).all()


def test_days_join_without_gap_or_overlap_and_do_not_depend_on_each_other(days: list[Pass]) -> None:
    for number, one in enumerate(days):
        assert (one.time.astype("datetime64[s]").astype("datetime64[D]") == DAY + np.timedelta64(number, "D")).all()
    alone = Satellite(world=Carbon("study"), instrument=OCO2, density=4).day(DAY + np.timedelta64(2, "D"))
    np.testing.assert_array_equal(alone.xco2, days[2].xco2)
    seam = days[0].orbit[-1]
    assert seam in set(days[1].orbit[:3].tolist()) or seam + 1 in set(days[1].orbit[:3].tolist())


def test_clouds_leave_some_everywhere_and_are_alike_nearby(days: list[Pass]) -> None:
    latitude = np.concatenate([one.latitude[~one.bad] for one in days])
    for south in range(-45, 75, 15):
        assert ((latitude > south) & (latitude < south + 15)).sum() > 150, south
    # clear frames follow clear frames: far more often than if clouds fell at random
    gaps = np.concatenate([np.diff(one.time) for one in days])
    assert np.mean(gaps < 2.5) > 0.6


def test_oco3_looks_from_the_station_with_offsets_of_its_own(carbon: Carbon) -> None:
    seen = Satellite(world=carbon, instrument=OCO3).day(DAY)
    assert len(seen) > 200
    assert np.abs(seen.latitude).max() < 51.8
    hour = (seen.time / 3600 + seen.longitude / 15) % 24
    assert np.ptp(hour) > 4
    error = (seen.xco2 - seen.truth)[~seen.bad]
    assert error.mean() == pytest.approx(0.4, abs=0.2)


def test_a_lite_file_holds_what_was_seen(tmp_path: Path, carbon: Carbon) -> None:
    seen = Satellite(world=carbon, instrument=OCO2).day(DAY)
    path = tmp_path / lite_name("oco2", DAY)
    assert re.fullmatch(r"(oco[23]|acos)_Lt(CO2|SIF)_(\d{6})_B\d+Ar_\d+s\.nc4", path.name)
    assert "200603" in path.name
    write_lite(path, seen)
    with xr.open_dataset(path, engine="h5netcdf") as data:
        assert data.sizes == {"sounding_id": len(seen), "levels": 20, "epoch_dimension": 7, "vertices": 4}
        assert "synthetic" in data.attrs["institution"]
        assert data.sounding_id.dtype == np.int64
        text = [str(number) for number in data.sounding_id.values]
        assert {len(number) for number in text} == {16}
        np.testing.assert_array_equal([int(number[-1]) for number in text], seen.footprint)
        tenths = [
            np.datetime64(f"{n[:4]}-{n[4:6]}-{n[6:8]}T{n[8:10]}:{n[10:12]}:{n[12:14]}.{n[14]}00", "ms") for n in text
        ]
        np.testing.assert_array_equal(np.array(tenths), data.time.values.astype("datetime64[ms]"))
        date = data.date.values.astype(int)
        np.testing.assert_array_equal(date[:, 5] * 1000 + date[:, 6], [int(n[12:15]) * 100 for n in text])
        np.testing.assert_allclose(data.xco2_x2019, seen.xco2, atol=2e-5)
        np.testing.assert_allclose(1.00079 * data.xco2.astype(float) - 0.142, seen.xco2, atol=5e-5)
        np.testing.assert_allclose(data.xco2_uncertainty, seen.uncertainty, rtol=1e-6)
        np.testing.assert_array_equal(data.xco2_quality_flag, seen.bad)
        assert data.xco2.units == "ppm"
        assert data.xco2.encoding["_FillValue"] == np.float32(-999999)
        weights = data.pressure_weight.values.astype(float)
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
        closed = (weights * data.co2_profile_apriori.values).sum(axis=1)
        np.testing.assert_allclose(closed, data.xco2_apriori, atol=1e-3)
        assert np.abs(data.xco2_apriori - data.xco2_x2019)[~seen.bad].max() < 12
        kernel = data.xco2_averaging_kernel.values
        assert 0.15 < kernel[:, 0].min() < kernel[:, 0].max() < 0.4
        assert 0.9 < kernel[:, 10:].min() < kernel[:, 10:].max() < 1.1
        assert (np.diff(data.pressure_levels.values, axis=1) > 0).all()
        wide = data.vertex_latitude.values
        assert (wide.min(axis=1) < seen.latitude).all()
        assert (seen.latitude < wide.max(axis=1)).all()
    with xr.open_dataset(path, engine="h5netcdf", group="Sounding") as data:
        np.testing.assert_array_equal(data.operation_mode, np.where(seen.mode == NADIR, 0, 1))
        np.testing.assert_array_equal(data.land_water_indicator, np.where(seen.mode == OCEAN_GLINT, 1, 0))
        np.testing.assert_array_equal(data.orbit, seen.orbit)
    with h5py.File(path) as file:
        assert [scale.name for scale in file["xco2"].dims[0].values()] == ["/sounding_id"]
        assert [scale.name for scale in file["Meteorology/windspeed_u_met"].dims[0].values()] == ["/sounding_id"]
        assert set(file) >= {"Sounding", "Retrieval", "Meteorology"}
    again = tmp_path / "again.nc4"
    write_lite(again, Satellite(world=Carbon("study"), instrument=OCO2).day(DAY))
    assert again.read_bytes() == path.read_bytes()
