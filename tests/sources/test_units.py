"""Units as files spell them."""

import pytest

from services.core.errors import InputRefused
from services.sources.units import canonical, metres, same, water


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
