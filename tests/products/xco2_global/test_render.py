"""Rendered months against soundings counted by hand, and inputs that are broken or odd (issue 6, criterion 8)."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from services.core.errors import InputRefused, ModelRefused
from services.core.grid import Window
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Here
from services.products.xco2_global import open_recipe
from services.products.xco2_global.declaration import INFERRED, MISSING, OBSERVATIONS, PRODUCT, UNCERTAINTY, XCO2
from services.products.xco2_global.inputs import SETTINGS, Inputs
from services.products.xco2_global.observed import Observed
from services.products.xco2_global.render import Xco2

MONTH = int(np.datetime64("2019-09", "M").astype(int))
FLAG = "xco2_quality_flag"

type Own = Callable[[str], Path]


def axis_of(recipe: Xco2, *months: int) -> TimeAxis:
    periods = recipe.periods()
    return periods.take([periods.starts.index(month) for month in months])


def whole(recipe: Xco2) -> Window:
    grid = recipe.source.settings.grid
    return Window(row=0, column=0, height=grid.height, width=grid.width)


def rendered(recipe: Xco2, month: int = MONTH, window: Window | None = None) -> dict[str, NDArray[np.float64]]:
    """Layers of a month, decoded, ``(y, x)``."""
    stored = recipe.compute(axis_of(recipe, month), window or whole(recipe))
    return {one.name: np.asarray(one.decode(stored[one.name][0]), dtype=np.float64) for one in PRODUCT.quantities}


def counted(inputs: Path, month: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Good soundings of a month in cells of 2 degrees, and their means, by h5py and numpy alone."""
    count, total = np.zeros((90, 180), dtype=np.int64), np.zeros((90, 180))
    for path in sorted(inputs.glob("oco?_LtCO2_*.nc4")):
        with h5py.File(path, "r") as file:
            good = file[FLAG][:] == 0
            when = np.floor(file["time"][:]).astype("datetime64[s]").astype("datetime64[M]") == np.datetime64(
                month, "M"
            )
            kept = good & when
            row = np.floor((90 - file["latitude"][:][kept]) / 2).astype(int)
            column = np.floor((file["longitude"][:][kept] + 180) / 2).astype(int)
            np.add.at(count, (row, column), 1)
            np.add.at(total, (row, column), file["xco2_x2019"][:][kept].astype(np.float64))
    return count, np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


@pytest.fixture(scope="module")
def month(recipe: Xco2) -> dict[str, NDArray[np.float64]]:
    """One month, whole."""
    return rendered(recipe)


def test_counts_and_flags_are_those_of_the_files(month: dict[str, NDArray[np.float64]], written: Path) -> None:
    count, _ = counted(written, "2019-09")
    assert 100 < (count > 0).sum() < count.size / 2
    np.testing.assert_array_equal(month[OBSERVATIONS.name], count)
    np.testing.assert_array_equal(month[INFERRED.name], count == 0)
    assert not month[MISSING.name].any()


def test_every_cell_has_a_value_and_soundings_draw_theirs(
    month: dict[str, NDArray[np.float64]], recipe: Xco2, written: Path
) -> None:
    values, sigma = month[XCO2.name], month[UNCERTAINTY.name]
    assert np.isfinite(values).all()
    assert ((values > 390) & (values < 430)).all()
    assert (sigma > 0).all()
    count, mean = counted(written, "2019-09")
    some = count > 0
    alone = recipe.network.background(recipe.source).field(MONTH, recipe.source.settings.grid, whole(recipe))
    assert np.sqrt(np.mean((values - mean)[some] ** 2)) < 0.7 * np.sqrt(np.mean((alone - mean)[some] ** 2))
    # who is surer for having seen
    assert sigma[count >= 5].mean() < 0.8 * sigma[~some].mean()


def test_same_bytes_for_any_window_and_months(recipe: Xco2) -> None:
    months = recipe.periods().starts
    both = recipe.compute(axis_of(recipe, months[0], MONTH), whole(recipe))
    for window in (
        Window(row=0, column=0, height=7, width=180),
        Window(row=33, column=121, height=20, width=13),
        Window(row=89, column=179, height=1, width=1),
    ):
        part = recipe.compute(axis_of(recipe, MONTH), window)
        for name, stored in part.items():
            assert stored.tobytes() == both[name][1:, window.rows, window.columns].tobytes(), (name, window)


def test_strips_of_rows_do_not_show(recipe: Xco2, monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window(row=20, column=60, height=11, width=9)
    before = recipe.compute(axis_of(recipe, MONTH), window)
    # two rows and a bit of it
    monkeypatch.setattr("services.products.xco2_global.render.HELD_BYTES", 5 * 9 * 12 * 25 * 2)
    after = recipe.compute(axis_of(recipe, MONTH), window)
    for name in before:
        assert after[name].tobytes() == before[name].tobytes(), name


# -- a month without soundings


def without(inputs: Path, models: Path) -> Xco2:
    found = open_recipe(inputs, models)
    found.prepare(Here(), lambda _: None)
    return found


def check_blind(blind: dict[str, NDArray[np.float64]], seeing: dict[str, NDArray[np.float64]]) -> None:
    assert np.isfinite(blind[XCO2.name]).all()
    assert (blind[INFERRED.name] == 1).all()
    assert not blind[OBSERVATIONS.name].any()
    some = seeing[INFERRED.name] == 0
    assert (blind[UNCERTAINTY.name][some] > seeing[UNCERTAINTY.name][some]).mean() > 0.99
    assert blind[UNCERTAINTY.name].mean() > seeing[UNCERTAINTY.name].mean()


def test_a_month_without_files_renders_with_larger_uncertainty(
    inputs: Path, models: Path, month: dict[str, NDArray[np.float64]]
) -> None:
    for path in inputs.glob("oco?_LtCO2_1909*.nc4"):
        path.unlink()
    found = without(inputs, models)
    assert MONTH in found.periods().starts
    assert MONTH not in found.source.sounding_months
    check_blind(rendered(found), month)


def test_a_month_of_bad_soundings_renders_with_larger_uncertainty(
    inputs: Path, own: Own, models: Path, month: dict[str, NDArray[np.float64]]
) -> None:
    for path in sorted(inputs.glob("oco?_LtCO2_190[89]*.nc4")) + sorted(inputs.glob("oco?_LtCO2_1910*.nc4")):
        with h5py.File(own(path.name), "r+") as file:
            when = np.floor(file["time"][:]).astype("datetime64[s]").astype("datetime64[M]")
            flags = file[FLAG][:]
            flags[when == np.datetime64("2019-09", "M")] = 1
            file[FLAG][:] = flags
    check_blind(rendered(without(inputs, models)), month)


def test_missing_covariates_are_flagged(inputs: Path, own: Own, models: Path) -> None:
    box = (slice(40, 44), slice(80, 90))
    for year in (2018, 2019):
        with h5py.File(own(f"era5_monthly_{year}.nc"), "r+") as file:
            for name in ("t2m", "d2m", "sp", "tp", "u10", "v10", "swvl1"):
                # longitudes of 0..360
                file[name][:, box[0], (box[1].start + 90) % 180 : (box[1].start + 90) % 180 + 10] = -32767
    with rasterio.open(own("land_cover.tif"), "r+") as raster:
        values = raster.read(1)
        values[box] = 255
        raster.write(values, 1)
    found = without(inputs, models)
    layers = rendered(found)
    expected = np.zeros((90, 180))
    expected[box] = 1
    np.testing.assert_array_equal(layers[MISSING.name], expected)
    # flagged, and told all the same
    assert np.isfinite(layers[XCO2.name]).all()


# -- broken and odd inputs


def first_lite(inputs: Path) -> str:
    return min(path.name for path in inputs.glob("oco2_LtCO2_*.nc4"))


def no_variable(inputs: Path, own: Own) -> str:
    name = first_lite(inputs)
    with h5py.File(own(name), "r+") as file:
        del file["xco2"]
        del file["xco2_x2019"]
    return rf"{name} has no xco2; it holds "


def no_flag(inputs: Path, own: Own) -> str:
    name = first_lite(inputs)
    with h5py.File(own(name), "r+") as file:
        del file[FLAG]
    return rf"{name} has no {FLAG}, so its good soundings cannot be told from bad ones"


def all_bad(inputs: Path, own: Own) -> str:
    for path in sorted(inputs.glob("oco?_LtCO2_*.nc4")):
        with h5py.File(own(path.name), "r+") as file:
            file[FLAG][:] = 1
    return rf"{first_lite(inputs)}.*none of the \d+ soundings of \d+ files is good \({FLAG} is nowhere 0\)"


def mixed_scales(inputs: Path, own: Own) -> str:
    name = first_lite(inputs)
    with h5py.File(own(name), "r+") as file:
        del file["xco2_x2019"]
    return rf"{name} holds XCO2 on X2007 only, and X2019 is wanted; scales are not mixed"


def wrong_unit(_: Path, own: Own) -> str:
    with h5py.File(own("era5_monthly_2019.nc"), "r+") as file:
        file["t2m"].attrs["units"] = "degC"
    # two years of one covariate contradict each other
    return r"era5_monthly_201[89].nc.*(degC|'K')"


def wrong_unit_of_columns(inputs: Path, own: Own) -> str:
    name = first_lite(inputs)
    with h5py.File(own(name), "r+") as file:
        file["xco2_x2019"].attrs["units"] = "kg m-2"
    return rf"{name}: xco2_x2019.*kg m-2"


def month_lost(inputs: Path, _: Own) -> str:
    (inputs / "ndvi_2019-03.tif").unlink()
    return r"ndvi_2018-09.tif: ndvi has no map of 2019-03, and has those before and behind"


def nothing_reaches(inputs: Path, _: Own) -> str:
    for path in inputs.glob("ndvi_*.tif"):
        if path.name > "ndvi_2019-06.tif":
            path.unlink()
    return r"no month has 12 months of all covariates and of the background up to it \(.*ndvi 2018-09..2019-06"


def unknown_entry(_: Path, own: Own) -> str:
    path = own(SETTINGS)
    path.write_text(path.read_text().replace('units = "m"', 'unit = "m"', 1))
    return rf"{SETTINGS}: covariates\[\d+\] \(\w+\)\.unit: there is no such entry; did you mean units\?"


def twice(_: Path, own: Own) -> str:
    path = own(SETTINGS)
    path.write_text(path.read_text().replace('name = "rain"', 'name = "east"'))
    return rf"{SETTINGS}.*covariate 'east' stands twice"


def odd_step(_: Path, own: Own) -> str:
    path = own(SETTINGS)
    path.write_text(path.read_text().replace('step = "2"', 'step = "7"'))
    return r"step = '7' does not divide 180 degrees"


def no_settings(inputs: Path, _: Own) -> str:
    (inputs / SETTINGS).unlink()
    return rf"holds no {SETTINGS}"


@pytest.mark.parametrize(
    "spoil",
    [
        no_variable,
        no_flag,
        all_bad,
        mixed_scales,
        wrong_unit,
        wrong_unit_of_columns,
        month_lost,
        nothing_reaches,
        unknown_entry,
        twice,
        odd_step,
        no_settings,
    ],
)
def test_bad_inputs_are_refused_with_a_sentence(
    spoil: Callable[[Path, Own], str], inputs: Path, own: Own, models: Path
) -> None:
    sentence = spoil(inputs, own)
    with pytest.raises(InputRefused, match=sentence) as refused:
        open_recipe(inputs, models).prepare(Here(), lambda _: None)
    assert "\n" not in str(refused.value)


def test_a_model_of_other_covariates_and_none(inputs: Path, own: Own, models: Path, tmp_path: Path) -> None:
    path = own(SETTINGS)
    path.write_text(path.read_text().replace('name = "rain"', 'name = "showers"'))
    with pytest.raises(ModelRefused, match="takes other covariates than the inputs give"):
        open_recipe(inputs, models)
    with pytest.raises(ModelRefused, match=r"background\.json cannot be read"):
        open_recipe(inputs, tmp_path)
    path.write_text(path.read_text().replace("synthetic = true", "synthetic = false"))
    with pytest.raises(ModelRefused, match="no model is shipped for"):
        open_recipe(inputs)


def test_inputs_that_change_and_cells_that_are_damaged(inputs: Path, models: Path) -> None:
    found = without(inputs, models)
    shutil.copy(inputs / "elevation.tif", inputs / "other.tif")
    (inputs / "other.tif").replace(inputs / "elevation.tif")
    with (inputs / "elevation.tif").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputRefused, match=r"elevation\.tif"):
        found.check_inputs()
    cells = Observed.of(found.source).directory / "2019-09.npz"
    cells.write_bytes(b"nothing")
    with pytest.raises(InputRefused, match=r"2019-09.npz cannot be read .*delete .*, and it is made anew"):
        Observed.of(found.source).cells(MONTH)


def test_the_recipe_says_what_it_was_made_from(recipe: Xco2, opened: Inputs) -> None:
    names = {one.name for one in recipe.inputs()}
    assert {"elevation.tif", "ndvi_2019-09.tif"} <= names
    assert len(names) == len(recipe.inputs())
    assert all(len(one.sha256) == 64 for one in recipe.inputs())
    product: Any = recipe.product
    assert product.synthetic
    assert product.title.endswith("2 degree, monthly (synthetic)")
    told = {one.name: one.attributes.get("co2_scale") for one in product.quantities}
    assert (told[XCO2.name], told[UNCERTAINTY.name], told[INFERRED.name]) == ("X2019", "X2019", None)
    assert "clear sky" in product.quantities[0].attributes["sampling"]
    assert [str(np.datetime64(month, "M")) for month in recipe.periods().starts] == [
        "2019-08",
        "2019-09",
        "2019-10",
        "2019-11",
    ]
    assert opened.settings.synthetic


def test_a_model_of_another_scale_is_refused(written: Path, models: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(models, tmp_path / "models"))
    place = other / "background.json"
    place.write_text(place.read_text().replace("X2019", "X2007"))
    with pytest.raises(ModelRefused, match=r"was learned on the scale X2007, the inputs are on X2019"):
        open_recipe(written, other)


def test_months_without_files_and_a_variable_that_is_not_named_are_told(inputs: Path, own: Own, models: Path) -> None:
    window = Window(row=0, column=0, height=90, width=180)
    assert open_recipe(inputs, models).remarks(window) == []
    for path in inputs.glob("oco?_LtCO2_1909*.nc4"):
        path.unlink()
    (line,) = open_recipe(inputs, models).remarks(window)
    assert line == "soundings: no file of 1 of 4 months, 2019-09: the model speaks alone there"
    path = own(SETTINGS)
    path.write_text(path.read_text().replace('variable = "t2m"\n', ""))
    with pytest.raises(InputRefused, match=r"raster variables; choose one with variable = '..' of temperature: .*t2m"):
        open_recipe(inputs, models)


def test_a_background_of_another_export_or_of_cells_with_other_offsets_is_refused(
    written: Path, models: Path, trained: Path, inputs: Path, tmp_path: Path
) -> None:
    told = json.loads((models / "background.json").read_text())
    card = json.loads((models / "card.json").read_text())
    assert (told["network"], told["subtract_offsets"]) == (card["sha256"], False)
    assert json.loads((trained / "background.json").read_text())["network"] is None
    other = Path(shutil.copytree(models, tmp_path / "models"))
    (other / "background.json").write_text(json.dumps(told | {"network": "0" * 64}))
    with pytest.raises(ModelRefused, match=r"background.json was exported with another model.onnx than the one beside"):
        open_recipe(written, other)
    # as files of before, which do not say
    (other / "background.json").write_text(json.dumps({k: v for k, v in told.items() if k != "network"}))
    open_recipe(written, other)
    toml = inputs / SETTINGS
    text = toml.read_text()
    toml.unlink()
    toml.write_text(text.replace("[soundings]\n", "[soundings]\nsubtract_offsets = true\n", 1))
    with pytest.raises(
        ModelRefused, match=r"learned with soundings.subtract_offsets = false, and these inputs say true"
    ):
        open_recipe(inputs, models)
    # the features have the same names
    (other / "background.json").write_text(json.dumps(told | {"around": {"ndvi": 6.0, "rain": 4.0}}))
    with pytest.raises(ModelRefused, match=r"around = 6 \(ndvi\), 4 \(rain\), and these inputs say nothing"):
        open_recipe(written, other)


def test_a_file_has_one_name_however_its_place_is_spelled(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written.parent)
    near, far = Inputs.find(Path(written.name)), Inputs.find(written)
    assert near.directory == far.directory
    assert [one.name for one in near.soundings.sources] == [one.name for one in far.soundings.sources]
    assert near.hashed().digests == far.hashed().digests
