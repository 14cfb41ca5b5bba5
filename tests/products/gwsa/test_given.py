"""What is looked at before a map is computed: land, predictors in the part, months, and what the plan says of them."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from typer.testing import CliRunner

from services.cli import app
from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.errors import InputRefused
from services.core.grid import Window
from services.core.settings import StoreSettings
from services.core.store import Store
from services.products.gwsa.declaration import FINE, PRODUCT
from services.products.gwsa.given import about_months, check_given, part_of
from services.products.gwsa.inputs import SETTINGS, Inputs

pytestmark = pytest.mark.slow  # as a whole

PART = Window(row=66 * 120, column=250 * 120, height=240, width=240)
"""70 to 72 E, 22 to 24 N."""


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """The inputs by links; what is changed is a file of its own first."""
    found = tmp_path / "in"
    found.mkdir()
    for path in written.iterdir():
        if path.name not in {"prepared", SETTINGS}:
            (found / path.name).symlink_to(path)
    (found / SETTINGS).write_text((written / SETTINGS).read_text())
    return found


def changed(path: Path, change: Callable[[np.ndarray[Any, Any], dict[str, Any]], None]) -> None:
    """Write a GeoTIFF anew with other values or another profile."""
    with rasterio.open(path) as file:
        values, profile = file.read(), dict(file.profile)
        tags, units, names = file.tags(), file.units, file.descriptions
    change(values, profile)
    path.unlink()
    with rasterio.open(path, "w", **profile) as file:
        file.write(values)
        file.update_tags(**tags)
        file.units, file.descriptions = units, names


def run(*words: str | Path) -> Any:
    """Run a command in this process; what it says, or what it raised."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    return (result.stdout + result.stderr) if result.exit_code == 0 else result.exception


def test_a_predictor_that_lies_elsewhere_is_refused_before_anything_is_computed(folder: Path) -> None:
    found = Inputs.find(folder)
    check_given(found, PART, found.periods.starts[0])

    def east(_: object, profile: dict[str, Any]) -> None:
        here = profile["transform"]
        profile["transform"] = Affine(here.a, here.b, here.c + 20, here.d, here.e, here.f)

    changed(folder / "slope.tif", east)
    told = r"slope\.tif: predictor slope has no value on the land of 70,22,72,24 .*its own cells are 8[0-9.]+,"
    moved = Inputs.find(folder)
    with pytest.raises(InputRefused, match=told):
        check_given(moved, PART, moved.periods.starts[0])
    without = replace(moved, settings=moved.settings.model_copy(update={"detail": False}))
    check_given(without, PART, moved.periods.starts[0])


def test_one_cell_with_a_value_is_enough_and_none_is_not(folder: Path) -> None:
    found = Inputs.find(folder)
    raster = next(one for one in found.predictors if one.name == "slope")
    grid = raster.grid
    row, column = grid.locate(71.1, 23.1)

    def only(values: np.ndarray[Any, Any], profile: dict[str, Any]) -> None:
        kept = values[:, row, column].copy()
        values[:] = np.nan if profile["dtype"].startswith("f") else profile["nodata"]
        values[:, row, column] = kept

    changed(folder / "slope.tif", only)
    month = found.periods.starts[0]
    some = Inputs.find(folder)
    check_given(some, PART, month)
    with pytest.raises(InputRefused, match="predictor slope has no value"):
        check_given(some, replace(PART, width=120), month)


def test_an_area_in_another_order_is_refused_by_plan(folder: Path, tmp_path: Path) -> None:
    text = (folder / SETTINGS).read_text().replace("synthetic = true", "synthetic = true\ndetail = false")
    (folder / SETTINGS).write_text(text)
    where = ("--store", tmp_path / "store", "plan", "gwsa", "--inputs", folder)
    said = run(*where)
    # 10 by 9 degrees, 24 months, all variables
    width = sum(np.dtype(one.dtype).itemsize for one in PRODUCT.quantities)
    assert "grid 43200 x 18000 cells of 1/120 degrees" in said
    assert "; values in 1200 x 1080 of them" in said
    assert f"values: {1200 * 1080 * 24 * width / 1e6:.1f} MB before compression" in said
    assert re.search(r"regions: [0-9]{1,2} of [0-9]+ x [0-9]+ cells with values, of [0-9]{3,}; tasks of the ot", said)
    assert "months: 24 of the" in said
    assert re.search(r"wells: [0-9]+, ", said)
    outside = run(*where, "--bbox", "10,40,11,41", "--name", "far")
    assert isinstance(outside, InputRefused)
    assert "nothing of 10,40,11,41 lies in the area of the inputs" in str(outside)
    (folder / SETTINGS).write_text(text.replace("area = [66, 18, 76, 27]", "area = [18, 66, 27, 76]"))
    swapped = run(*where)
    assert isinstance(swapped, InputRefused)
    assert re.search(
        r"has no land in 18,66,27,76 \(west,south,east,north; gwsa\.toml and --bbox are in this", str(swapped)
    )


def test_months_say_which_input_begins_and_ends_them(written: Path) -> None:
    found = Inputs.find(written)
    said = about_months(found)
    assert said.startswith(f"months: 24 of the {len(found.months)} that both GRACE and GLDAS reach: 2017-01, where ")
    monthly = [one.name for one in found.predictors if one.monthly]
    assert f"2017-01, where {', '.join(f'predictor {name}' for name in monthly)} begins, to 2018-12, where" in said
    assert part_of(found, PART) == PART
    west = Window(row=PART.row, column=0, height=PART.height, width=FINE.width)
    assert part_of(found, west) == Window(row=PART.row, column=246 * 120, height=PART.height, width=1200)


def test_a_render_tells_the_share_of_each_flag_and_what_a_year_alone_means(folder: Path, tmp_path: Path) -> None:
    text = (folder / SETTINGS).read_text()
    (folder / SETTINGS).write_text(text.replace("synthetic = true", "synthetic = true\ndetail = false"))
    part = ("--bbox", "71,22.75,71.5,23", "--name", "tile")
    where = ("--store", tmp_path / "store", "render", "gwsa", "--inputs", folder, "--workers", "0", *part)
    said = run(*where, "--periods", "2018")
    assert "--periods 2018 is 2018-01 alone; 2018/2018 is all 12 of it" in said
    said = run(*where)
    store = Store.open(str(tmp_path / "store"), StoreSettings.from_environment())
    dataset = Dataset(store, current_version(store, "gwsa_tile")[1])
    filled = dataset.product.quantity("filled")
    grid = dataset.product.grid
    whole = Window(row=0, column=0, height=grid.height, width=grid.width)
    kept = [place for place, name in enumerate(dataset.time.ids) if name != "2018-01"]
    values = filled.decode(dataset.read_maps(filled, kept, whole))
    assert f"flagged, of the values that were computed: filled {np.nanmean(values):.1%}, extrapolated 0.0%" in said
