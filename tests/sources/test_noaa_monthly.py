"""Mauna Loa's real months, and files like it that are broken, against a reading by columns."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from services.core.errors import InputRefused
from services.sources.noaa_monthly import open_noaa_monthly

MAUNA_LOA = "xco2/noaa/co2_mlo_surface-insitu_1_ccgg_MonthlyData.txt"

HEADER = """# site_name : Mauna Loa, Hawaii
# site_latitude : 19.5362
# dataset_calibration_scale : CO2_X2019
# value:units : micromol mol-1
#
site_code year month day value value_std_dev nvalue qcflag
"""
LINES = "MLO 1974 4 1 -999.99 -99.99 0 *..\nMLO 1974 5 1 333.16 0.36 13 ...\nMLO 1974 7 1 331.11 -99.99 24 .C.\n"


@pytest.fixture
def months(tmp_path: Path) -> Callable[[str], str]:
    def make(text: str) -> str:
        path = tmp_path / "co2_mlo.txt"
        path.write_text(text)
        return str(path)

    return make


def test_mauna_loa(realdata: Path) -> None:
    found = open_noaa_monthly(str(realdata / MAUNA_LOA))
    lines = [line.split() for line in (realdata / MAUNA_LOA).read_text().splitlines() if line.startswith("MLO")]
    kept = [cells for cells in lines if float(cells[10]) > 0]
    assert (len(lines), len(kept)) == (612, 600)
    assert (found.site, found.name, found.scale) == ("MLO", "Mauna Loa, Hawaii", "X2019")
    assert (found.latitude, found.longitude) == (19.5362, -155.5763)
    np.testing.assert_array_equal(found.values, [float(cells[10]) for cells in kept])
    np.testing.assert_array_equal(found.months, [(int(c[1]) - 1970) * 12 + int(c[2]) - 1 for c in kept])
    assert np.isnan(found.at(int(np.datetime64("1974-01", "M").astype(int))))
    assert found.at(int(np.datetime64("2024-12", "M").astype(int))) == 425.41
    with pytest.raises(InputRefused, match="on the scale X2019 and this run is on X2007"):
        open_noaa_monthly(str(realdata / MAUNA_LOA), scale="X2007")
    other = open_noaa_monthly(str(realdata / MAUNA_LOA), scale="X2007", convert=True)
    np.testing.assert_allclose(other.values * 1.00079 - 0.142, found.values, rtol=1e-12)


def test_fills_and_flags(months: Callable[[str], str]) -> None:
    found = open_noaa_monthly(months(HEADER + LINES))
    np.testing.assert_array_equal(found.values, [333.16, 331.11])
    np.testing.assert_array_equal(found.spread, [0.36, np.nan])
    assert [str(np.datetime64(int(month), "M")) for month in found.months] == ["1974-05", "1974-07"]
    # a rejected value is none, whatever it is
    rejected = open_noaa_monthly(months(HEADER + LINES.replace("13 ...", "13 N..")))
    np.testing.assert_array_equal(rejected.values, [331.11])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("CO2_X2019", "CO2_X1985", "the scale 'CO2_X1985', neither X2007 nor X2019"),
        ("# dataset_calibration_scale : CO2_X2019\n", "", "says no scale"),
        ("micromol mol-1", "kg kg-1", "a share of mass"),
        ("qcflag", "quality", "has no column qcflag"),
        ("1974 7", "1974 5", "line 9: 1974-05 does not follow"),
        ("1974 7", "1974 13", "line 9: 1974 13 is no year and month"),
        ("331.11", "0.000331", "line 9: 0.000331 ppm is no mean"),
        ("331.11", "much", "line 9: 'much' is no number"),
        (" .C.", "", "line 9: 7 cells, and the header has 8"),
    ],
)
def test_refusals(months: Callable[[str], str], old: str, new: str, said: str) -> None:
    with pytest.raises(InputRefused, match=said):
        open_noaa_monthly(months((HEADER + LINES).replace(old, new)))
