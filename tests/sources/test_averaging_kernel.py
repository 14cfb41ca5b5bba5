"""Profiles through averaging kernels: closed forms, and a real sounding of OCO-2."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from services.core.errors import InputRefused
from services.sources.averaging_kernel import Kernels, open_kernels


def kernels(count: int = 3, levels: int = 20, **changes: Any) -> Kernels:
    generator = np.random.default_rng(4)
    weights = generator.uniform(1, 2, (count, levels))
    plain = {
        "pressure": np.cumsum(generator.uniform(20, 60, (count, levels)), axis=1),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "kernel": generator.uniform(0.2, 1.1, (count, levels)),
        "prior": generator.uniform(380, 420, (count, levels)),
    }
    return Kernels(**{**plain, **changes})


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def to_file(found: Kernels, weights: str = "pressure_weight", **changes: tuple[Any, str]) -> str:
        path = tmp_path / "oco2_LtCO2_150131_B11210Ar_240820000231s.nc4"
        columns: dict[str, tuple[Any, str]] = {
            "pressure_levels": (found.pressure, "hPa"),
            weights: (found.weights, "none"),
            "xco2_averaging_kernel": (found.kernel, "none"),
            "co2_profile_apriori": (found.prior, "ppm"),
            **changes,
        }
        with h5py.File(path, "w") as file:
            for name, (values, units) in columns.items():
                if values is not None:
                    file[name] = values
                    file[name].attrs["units"] = units
        return str(path)

    return to_file


def test_closed_forms() -> None:
    found = kernels()
    np.testing.assert_allclose(found.seen(found.prior), found.prior_column(), rtol=1e-15)
    blind = kernels(kernel=np.zeros((3, 20)))
    np.testing.assert_array_equal(blind.seen(found.prior + 30), blind.prior_column())
    whole = kernels(kernel=np.ones((3, 20)))
    profile = np.linspace(370, 430, 20)
    np.testing.assert_allclose(whole.seen(profile), whole.weights @ profile, rtol=1e-14)
    expected = [
        sum(w * x for w, x in zip(found.weights[n], found.prior[n], strict=True))
        + sum(
            w * a * (x - p)
            for w, a, x, p in zip(found.weights[n], found.kernel[n], profile, found.prior[n], strict=True)
        )
        for n in range(3)
    ]
    np.testing.assert_allclose(found.seen(profile), expected, rtol=1e-14)


def test_profiles_of_a_model_come_to_the_levels() -> None:
    found = kernels()
    pressure = np.tile(np.linspace(1, 1300, 60), (3, 1))
    np.testing.assert_allclose(
        found.on_levels(pressure, 400 + 0.01 * pressure), 400 + 0.01 * found.pressure, rtol=1e-14
    )
    low = found.on_levels(pressure[:, 30:], 400 + 0.01 * pressure[:, 30:])
    assert (low[:, 0] == 400 + 0.01 * pressure[0, 30]).all()
    with pytest.raises(InputRefused, match=r"3 soundings, pressures of \(2, 60\), profiles of \(2, 60\)"):
        found.on_levels(pressure[:2], pressure[:2])
    with pytest.raises(InputRefused, match="pressures of a profile do not rise from space to surface"):
        found.on_levels(pressure[:, ::-1], pressure)


def test_what_cannot_be_is_refused() -> None:
    found = kernels()
    with pytest.raises(InputRefused, match="the weights of sounding 1 add up to 2 and not 1"):
        kernels(weights=found.weights * [[1], [2], [1]])
    with pytest.raises(InputRefused, match="the pressures of sounding 0 do not rise from space to surface"):
        kernels(pressure=found.pressure[:, ::-1])
    with pytest.raises(InputRefused, match=r"weights have the shape \(3, 20\) and kernel \(3, 19\)"):
        kernels(kernel=found.kernel[:, 1:])
    with pytest.raises(InputRefused, match=r"a profile of shape \(19,\) on levels \(3, 20\)"):
        found.seen(np.full(19, 400.0))


def test_files(write: Callable[..., str]) -> None:
    found = kernels()
    for name in ("pressure_weight", "pressure_weights"):
        read = open_kernels(write(found, weights=name))
        for column in ("pressure", "weights", "kernel", "prior"):
            np.testing.assert_array_equal(getattr(read, column), getattr(found, column))
    assert len(open_kernels(write(found), slice(1, 3))) == 2
    converted = open_kernels(
        write(
            found, co2_profile_apriori=(found.prior * 1e-6, "mol mol-1"), pressure_levels=(found.pressure * 100, "Pa")
        )
    )
    np.testing.assert_allclose(converted.prior, found.prior, rtol=1e-15)
    np.testing.assert_allclose(converted.pressure, found.pressure, rtol=1e-15)
    lost = found.kernel.copy()
    lost[1] = -999999
    seen = open_kernels(write(found, xco2_averaging_kernel=(lost, "none"))).seen(found.prior + 1)
    assert np.isnan(seen).tolist() == [False, True, False]
    with pytest.raises(InputRefused, match=r"150131.* has no xco2_averaging_kernel, so nothing can be put through"):
        open_kernels(write(found, xco2_averaging_kernel=(None, "")))
    with pytest.raises(InputRefused, match=r"150131.*: co2_profile_apriori: its unit is 'K'; ppm"):
        open_kernels(write(found, co2_profile_apriori=(found.prior, "K")))


def test_a_real_sounding(realdata: Path) -> None:
    path = realdata / "xco2" / "oco2_single_sounding_with_ak_20150131.nc"
    found = open_kernels(str(path))
    with xr.open_dataset(path, engine="h5netcdf") as data:
        weights, kernel, prior = (
            data[name].values.astype(np.float64)
            for name in ("pressure_weights", "xco2_averaging_kernel", "co2_profile_apriori")
        )
    assert found.weights.sum() == pytest.approx(1, abs=1e-6)
    assert found.prior_column()[0] == pytest.approx(401.715, abs=1e-3)
    assert (found.seen(found.prior + 5) - found.prior_column())[0] == pytest.approx(4.379, abs=1e-3)
    profile = prior + np.linspace(-3, 8, 20)
    smoothed = (weights * prior).sum() + (weights * kernel * (profile - prior)).sum()
    assert found.seen(profile)[0] == pytest.approx(smoothed, abs=1e-9)
