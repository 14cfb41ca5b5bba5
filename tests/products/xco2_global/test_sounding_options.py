"""Options of [soundings] and [background] in xco2.toml, from the files to the cells."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from services.core.errors import InputRefused
from services.pipeline.recipe import Here
from services.products.xco2_global.inputs import SETTINGS, Inputs
from services.products.xco2_global.observed import Observed, prepare
from services.sample.carbon_soundings import INSTRUMENTS

type Own = Callable[[str], Path]

MONTH = int(np.datetime64("2019-09", "M").astype(int))


def say(own: Own, table: str, lines: str) -> None:
    path = own(SETTINGS)
    path.write_text(path.read_text().replace(f"[{table}]\n", f"[{table}]\n{lines}\n", 1))


def made(inputs: Path) -> Observed:
    return prepare(Inputs.find(inputs).hashed(), Here(), lambda _: None)


def one(inputs: Path) -> str:
    """A file of one day."""
    return min(path.name for path in inputs.glob("oco2_LtCO2_1909*.nc4"))


def test_files_on_the_other_scale_are_converted_as_declared(inputs: Path, own: Own, written: Path) -> None:
    name = one(inputs)
    with h5py.File(own(name), "r+") as file:
        file["xco2"][:] = file["xco2_x2019"][:]  # what it says on X2007 is known then
        del file["xco2_x2019"]
    with pytest.raises(InputRefused, match=rf"{name} holds XCO2 on X2007 only.*declare a \[soundings.conversion\]"):
        made(inputs)
    say(own, "soundings", 'conversion = { have = "X2007", factor = 1.001, offset = 0.1, source = "this test" }')
    found, plain = made(inputs), made(written)
    assert found.directory.name != plain.directory.name
    assert "1 files from X2007 as 1.001 x +0.1 ppm: this test" in Inputs.find(inputs).soundings.lines()[0]
    before, after = plain.cells(MONTH), found.cells(MONTH)
    np.testing.assert_array_equal(after.row, before.row)
    changed = np.abs(after.xco2 - before.xco2) > 1e-3
    assert 0 < changed.sum() < len(changed)
    alone = changed & (after.xco2 - before.xco2 > 0.45)  # cells of that file's soundings alone: 0.4 and 0.1 ppm more
    assert alone.any()
    np.testing.assert_allclose(after.xco2[alone], 1.001 * before.xco2[alone] + 0.1, atol=1e-4)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ('have = "X2019", source = "x"', r"soundings.conversion: a conversion from X2019 to X2019 is none"),
        ('have = "X2007", offset = 18.0, source = "x"', r"soundings.conversion: .* would change 400 ppm by 18 ppm"),
        ('have = "X2007", offset = 0.18', r"soundings.conversion.source: it is not there, and must be"),
    ],
)
def test_a_conversion_that_cannot_be(inputs: Path, own: Own, said: str, sentence: str) -> None:
    say(own, "soundings", f"conversion = {{ {said} }}")
    with pytest.raises(InputRefused, match=rf"{SETTINGS}: {sentence}"):
        Inputs.find(inputs)


def spoiled(inputs: Path, own: Own) -> tuple[str, int]:
    """Some good soundings of a file state no uncertainty, or one that cannot be; how many."""
    name = one(inputs)
    with h5py.File(own(name), "r+") as file:
        column = file["xco2_uncertainty"]
        values = column[:]
        good = np.flatnonzero(file["xco2_quality_flag"][:] == 0)[::3]
        values[good] = column.fillvalue
        values[good[0]] = 80.0
        column[:] = values
    return name, len(good)


def test_a_sounding_without_uncertainty_is_refused_left_out_or_given_one(inputs: Path, own: Own, written: Path) -> None:
    _, count = spoiled(inputs, own)
    with pytest.raises(
        InputRefused, match=rf"^{count} of .* have no uncertainty within 0.05..50 ppm .*sigma = ppm"
    ) as no:
        made(inputs)
    plain = made(written)
    assert 'without_uncertainty = "leave_out"' in str(no.value)
    text = (inputs / SETTINGS).read_text()
    say(own, "soundings", 'without_uncertainty = "leave_out"')
    found = made(inputs)
    assert found.facts["soundings"]["without uncertainty"] == count
    assert "without uncertainty" not in plain.facts["soundings"]
    cells, all_of = found.cells(MONTH), plain.cells(MONTH)
    assert cells.count.sum() == all_of.count.sum() - count
    own(SETTINGS).write_text(text)
    say(own, "soundings", "sigma = 1.3")
    given = made(inputs).cells(MONTH)
    np.testing.assert_array_equal(given.xco2, all_of.xco2)
    single = given.count == 1
    assert single.any()
    np.testing.assert_allclose(given.error[single], np.hypot(1.3, 0.2), rtol=1e-6)  # the floor beside it


def test_options_that_say_nothing_together(inputs: Path, own: Own) -> None:
    text = (inputs / SETTINGS).read_text()
    for table, lines, sentence in (
        ("soundings", 'sigma = 1.0\nwithout_uncertainty = "leave_out"', "sigma gives every sounding an uncertainty"),
        ("soundings", "sigma = 0.0", "soundings.sigma"),
        ("background", "convert = true", "the background 'zonal' has no files to convert"),
        ("background", 'stated = "X2007"', "stated is for the background 'carbontracker' alone"),
    ):
        own(SETTINGS).write_text(text)
        say(own, table, lines)
        with pytest.raises(InputRefused, match=rf"{SETTINGS}: .*{sentence}"):
            Inputs.find(inputs)


def test_a_background_on_the_other_scale_is_converted_when_asked(inputs: Path, own: Own) -> None:
    months = [f"MLO {2018 + k // 12} {k % 12 + 1} 1 {400 + k} 0.1 30 ..." for k in range(24)]
    (inputs / "mlo.txt").write_text(
        "# dataset_calibration_scale : CO2_X2007\n# value:units : micromol mol-1\n#\n"
        "site_code year month day value value_std_dev nvalue qcflag\n" + "\n".join(months) + "\n"
    )
    path = own(SETTINGS)
    path.write_text(path.read_text().replace('kind = "zonal"', 'kind = "mauna_loa"\nfiles = "mlo.txt"'))
    with pytest.raises(InputRefused, match=r"mlo.txt is on the scale X2007 .* scale = 'X2007' asks .* convert = true"):
        Inputs.find(inputs)
    say(own, "background", "convert = true")
    series = Inputs.find(inputs).mauna_loa
    assert series is not None
    assert series.at(int(np.datetime64("2018-01", "M").astype(int))) == pytest.approx(1.00079 * 400 - 0.142)
    assert series.at(int(np.datetime64("2019-12", "M").astype(int))) == pytest.approx(1.00079 * 423 - 0.142)


def test_each_sounding_is_counted_once(written: Path) -> None:
    """Files of a month's last day are read with the next one's too, as their orbits pass midnight."""
    found = Inputs.find(written)
    observed = made(written)
    told = observed.facts["soundings"]
    soundings = found.soundings
    assert told["read"] == sum(file.soundings for file in soundings.files)
    assert told["read"] - told["flagged"] == sum(file.good for file in soundings.files)
    left = sum(count for name, count in told.items() if name != "read")
    cells = sum(int(observed.cells(month).count.sum()) for month in observed.months)
    assert cells + observed.facts["outside_the_grid"] == told["read"] - left


def test_offsets_are_taken_off_over_land_and_over_sea_apart(inputs: Path, own: Own, written: Path) -> None:
    plain = made(written)
    say(own, "soundings", "subtract_offsets = true")
    found = made(inputs)
    assert plain.facts["offsets_subtracted"] is None
    off, told = found.facts["offsets_subtracted"], found.facts["offsets"]["groups"]
    put_in = {f"{one.name} {mode}": offset for one in INSTRUMENTS for mode, offset in one.offsets.items()}
    assert set(off) == set(told) == set(put_in)
    most = {
        surface: max((name for name in told if surface in name), key=lambda name: told[name]["soundings"])
        for surface in ("land", "ocean")
    }
    for name, offset in off.items():
        reference = most[name.split()[1].split("_")[0]]
        assert offset == pytest.approx(told[name]["offset"] - told[reference]["offset"], abs=1e-12)
        sigma = np.hypot(told[name]["error"], told[reference]["error"])
        assert offset == pytest.approx(put_in[name] - put_in[reference], abs=3 * sigma)
    before, after = plain.cells(MONTH), found.cells(MONTH)
    changed = (before.xco2 - after.xco2)[:, np.newaxis]
    # most cells have soundings of one group
    assert (np.abs(changed - np.array([*off.values()])).min(axis=1) < 1e-3).mean() > 0.5
    assert len(np.unique(np.round(changed, 3))) > 4
