"""Soundings as columns: what cannot be is refused, and nothing is mixed."""

from typing import Any

import numpy as np
import pytest

from services.core.errors import InputRefused
from services.sources.soundings import GROUPS, INSTRUMENTS, MODES, Soundings, concat, ppm


def soundings(count: int = 4, **changes: Any) -> Soundings:
    plain: dict[str, Any] = {
        "time": np.arange(count) * 86_400.0 * 20,
        "latitude": np.linspace(-90, 90, count),
        "longitude": np.linspace(-180, 180, count),
        "xco2": np.full(count, 400.0),
        "uncertainty": np.full(count, np.nan),
        "mode": np.arange(count, dtype=np.uint8),
        "instrument": np.full(count, 1, dtype=np.uint8),
        "scale": "X2019",
    }
    return Soundings(**{**plain, **changes})


def test_rows_and_groups() -> None:
    one = soundings()
    assert len(one) == 4
    assert one.months().tolist() == [0, 0, 1, 2]
    assert [GROUPS[n] for n in one.group()] == [f"oco3 {mode}" for mode in MODES[:4]]
    assert len(GROUPS) == len(INSTRUMENTS) * len(MODES)
    assert soundings(time=np.array([-1.0, 0, 1, 2678399.9])).months().tolist() == [-1, 0, 0, 0]
    taken = one.take(one.latitude > 0)
    assert (len(taken), taken.scale) == (2, "X2019")
    both = concat([one, taken, one.take(slice(0, 0))])
    np.testing.assert_array_equal(both.mode, [0, 1, 2, 3, 2, 3])
    assert len(one.take(np.array([3, 0], dtype=np.intp))) == 2


def test_scales_are_not_mixed() -> None:
    with pytest.raises(InputRefused, match="soundings on the scales X2019 and X2007 are not mixed"):
        concat([soundings(), soundings(scale="X2007")])
    with pytest.raises(InputRefused, match="no soundings are to be put together"):
        concat([])
    with pytest.raises(InputRefused, match="'X2021' is no scale of CO2; known are X2007, X2019"):
        soundings(scale="X2021")


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("latitude", 90.1, "a sounding's latitude is 90.1 degrees north"),
        ("latitude", np.nan, "a sounding's latitude is nan"),
        ("longitude", -180.5, "a sounding's longitude is -180.5"),
        ("time", np.inf, "a sounding's time is inf"),
        ("xco2", np.nan, "a sounding's xco2 is nan"),
        ("xco2", 4e-4, "a sounding's xco2 is 0.0004 ppm: a fill value that is not declared, or another unit"),
        ("xco2", -999999.0, "a sounding's xco2 is -999999 ppm"),
        ("uncertainty", 0.0, "a sounding's uncertainty is 0 ppm"),
        ("uncertainty", np.inf, "a sounding's uncertainty is inf"),
    ],
)
def test_what_no_sounding_has(column: str, value: float, match: str) -> None:
    values = getattr(soundings(), column).copy()
    values[2] = value
    with pytest.raises(InputRefused, match=match):
        soundings(**{column: values})


def test_columns_that_do_not_fit() -> None:
    with pytest.raises(InputRefused, match=r"4 times and xco2 of shape \(3,\)"):
        soundings(xco2=np.full(3, 400.0))
    with pytest.raises(InputRefused, match=r"times have the shape \(2, 2\)"):
        soundings(time=np.zeros((2, 2)))
    with pytest.raises(InputRefused, match="codes of the mode are int64, not uint8"):
        soundings(mode=np.zeros(4, dtype=np.int64))
    with pytest.raises(InputRefused, match="3 is no code of a instrument; there are 3"):
        soundings(instrument=np.full(4, 3, dtype=np.uint8))


def test_units_decide_before_values() -> None:
    ppms, fractions = np.array([400.0, np.nan]), np.array([4e-4, np.nan])
    assert ppm("f: x", "ppm", ppms) == ppm("f: x", "1e-6", ppms) == ppm("f: x", None, ppms) == 1.0
    assert ppm("f: x", " mol  mol^-1 ", fractions) == ppm("f: x", "none", fractions) == 1e6
    assert ppm("f: x", "ppm", np.empty(0)) == ppm("f: x", None, np.array([np.nan])) == 1.0
    for units, values, match in (
        ("ppm", fractions, "f: x: its unit is 'ppm' and its median 0.0004, which would be 0.0004 ppm"),
        ("1", ppms, r"f: x: its unit is '1' and its median 400, which would be 4e\+08 ppm"),
        ("kg kg-1", fractions, "f: x: its unit is 'kg kg-1'; ppm, mol mol-1 or another mole fraction is wanted"),
        (None, np.array([4e5]), "f: x: it states no unit, and its median of 400000 is CO2 neither in ppm nor in mol"),
    ):
        with pytest.raises(InputRefused, match=match):
            ppm("f: x", units, values)
