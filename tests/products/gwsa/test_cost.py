"""What a plan says of the cost: where land is looked for, and that no model costs nothing."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from services.core.grid import Grid, Window
from services.products.gwsa.cost import _common, _share, told
from services.sources.field import Field, open_field


@pytest.fixture
def land(tmp_path: Path) -> Field:
    """10 to 12 E, 50 to 52 N: the western half is land."""
    values = np.zeros((240, 240), dtype=np.uint8)
    values[:, :120] = 1
    path = tmp_path / "land.tif"
    profile = {"driver": "GTiff", "height": 240, "width": 240, "count": 1, "dtype": "uint8", "crs": "EPSG:4326"}
    with rasterio.open(path, "w", **profile, transform=from_origin(10, 52, 1 / 120, 1 / 120)) as file:
        file.write(values, 1)
    return open_field("land", [str(path)], "1")


def test_land_is_looked_for_where_the_mask_has_values(land: Field) -> None:
    window = Window(row=(90 - 53) * 120, column=(180 + 9) * 120, height=4 * 120, width=4 * 120)
    assert _common(land.grid, window) == Window(row=38 * 4, column=190 * 4, height=8, width=8)
    # half of the mask, which is a quarter of the window
    assert _share(land, window) == pytest.approx(1 / 8, abs=0.01)
    elsewhere = Grid.of(west=100, north=10, step_x="1/120", width=120, height=120)
    assert _common(elsewhere, window) is None


def test_without_models_no_row_is_asked(land: Field) -> None:
    window = Window(row=0, column=0, height=120, width=120)
    assert told(None, land, window, (2700, 2700), 12) == ["detail: no model is asked, the coarse field is spread"]
