"""Scales of CO2: the published difference, there and back."""

import numpy as np
import pytest

from services.core.errors import InputRefused, SettingsError
from services.sources.co2_scale import check, converted, factor, named, parsed


def test_there_and_back() -> None:
    ppm = np.array([350.0, 400.0, np.nan, 450.0])
    there = converted(ppm, stated="X2007", wanted="X2019")
    # the summary of Hall et al. (2021): 0.18 ppm more at 400 ppm
    assert there[1] - 400 == pytest.approx(0.18, abs=0.01)
    np.testing.assert_allclose(converted(there, stated="X2019", wanted="X2007"), ppm, rtol=1e-14)
    np.testing.assert_array_equal(converted(ppm, stated="X2019", wanted="X2019"), ppm)
    assert factor(stated="X2007", wanted="X2019") * factor(stated="X2019", wanted="X2007") == pytest.approx(1)


def test_names() -> None:
    assert named("WMO CO2 X2007") == "X2007"
    assert named("CO2_X2019") == "X2019"
    assert named("X2007 or X2019") is named(None) is named("ppm") is None
    assert parsed("X2019") == "X2019"
    with pytest.raises(SettingsError, match="scale = 'x2019' is none of X2007 and X2019"):
        parsed("x2019")


def test_another_scale_is_refused_unless_converted() -> None:
    check("f", stated="X2007", wanted="X2007", convert=False)
    check("f", stated="X2007", wanted="X2019", convert=True)
    with pytest.raises(InputRefused, match="f is on the scale X2007 and this run is on X2019"):
        check("f", stated="X2007", wanted="X2019", convert=False)
