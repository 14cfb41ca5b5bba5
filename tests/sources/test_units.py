"""Units as files spell them."""

import pytest

from services.core.errors import InputRefused
from services.sources.units import canonical, is_mole_fraction, metres, mole_fraction, same, water


@pytest.mark.parametrize(
    ("one", "other"),
    [("m", "Metres"), ("kg/m2", "kg m-2"), ("kg m^-2", "kg m**-2"), ("1", "-"), ("m s**-1", "m  s-1"), ("ft", "feet")],
)
def test_spellings_of_one_unit(one: str, other: str) -> None:
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("m", "ms"), ("m", "mm"), ("m", "ft"), ("1", "percent"), ("mK", "MK"), ("mm", "kg m-2"), ("K", "degC")],
)
def test_different_units(one: str, other: str) -> None:
    assert not same(one, other)


def test_lengths_and_depths_of_water() -> None:
    assert [metres("f", unit) for unit in ("m", "cm", "Kilometers", "foot")] == [1.0, 0.01, 1000.0, 0.3048]
    depths = {"cm": 10.0, "mm": 1.0, "m": 1000.0, "kg m-2": 1.0, "kg/m^2": 1.0, "cm of water": 10.0, "mm w.e.": 1.0}
    assert {unit: water("f", unit) for unit in depths} == depths
    for unit in ("ft", "km", "cms", "W m-2"):
        with pytest.raises(InputRefused, match=rf"f: its unit is '{unit}'; a depth of water"):
            water("f", unit)
    for nothing in (None, ""):
        with pytest.raises(InputRefused, match=r"f: it states no unit"):
            metres("f", nothing)
    assert canonical("DEGREES  C") == "DEGREES C"


def test_mole_fractions_in_ppm() -> None:
    of_ppm = {"ppm": 1.0, "1e-6": 1.0, "umol mol-1": 1.0, "micromol/mol": 1.0, "mol mol-1": 1e6, "mol/mol": 1e6}
    of_ppm |= {"mol mol^-1": 1e6, "mole mole-1": 1e6, "1": 1e6, "ppb": 1e-3, "PPM": 1.0}
    assert {unit: mole_fraction("f", unit) for unit in of_ppm} == of_ppm
    with pytest.raises(InputRefused, match=r"f: its unit is 'kg kg-1' \(a share of mass is no mole fraction\)"):
        mole_fraction("f", "kg kg-1")
    with pytest.raises(InputRefused, match=r"f: its unit is '1'"):
        mole_fraction("f", "1", of_one=False)
    with pytest.raises(InputRefused, match="f: it states no unit; a mole fraction in ppm"):
        mole_fraction("f", None)
    assert is_mole_fraction("mol mol-1")
    assert not is_mole_fraction("1")
