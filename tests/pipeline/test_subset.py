"""A part of a product holds the values of the whole."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.errors import DeclarationError, SettingsError
from services.core.grid import Grid, Window
from services.core.store import Store
from services.pipeline.subset import Subset, window_of
from services.pipeline.verify import verify
from tests.pipeline.synthetic import PACKED, REGION, Planted, months, product, render

WHOLE = Planted(product=product(grid=REGION), axis=months(2))
GLOBE = Grid.of(west=-180, north=90, step_x="1/4", width=1440, height=720)


def test_a_part_is_a_collection_with_the_values_of_the_whole(memory: Store) -> None:
    window = window_of(REGION, "12.1,44,16.9,48.5")
    part = Subset.of(WHOLE, window, "alps")
    render(memory, part)
    dataset = Dataset(memory, current_version(memory, "synthetic_alps")[1])
    grid = part.product.grid
    inside = Window(row=0, column=0, height=grid.height, width=grid.width)
    np.testing.assert_array_equal(
        dataset.read_series(PACKED, range(2), inside), WHOLE.stored(PACKED, WHOLE.axis)[:, window.rows, window.columns]
    )
    np.testing.assert_array_equal(grid.longitudes, REGION.longitudes[window.columns])
    np.testing.assert_array_equal(grid.latitudes, REGION.latitudes[window.rows])
    (origin,) = dataset.version.provenance.values()
    assert origin["facts"] == {"shift": 0, "part_of": "synthetic", "bbox": [12.0, 44.0, 17.0, 48.5]}
    assert dataset.product.title == "Made up, alps"
    assert verify(memory, "synthetic_alps").findings == ()
    # the same periods again, later: the part goes on like any product
    render(memory, Subset.of(replace(WHOLE, axis=months(3)), window, "alps"))


@pytest.mark.parametrize(
    ("bbox", "cells"),
    [
        ("0,0,1,1", (356, 720, 4, 4)),
        ("0.1,0.1,0.2,0.2", (359, 720, 1, 1)),
        ("0,0,0.26,0.26", (358, 720, 2, 2)),
        ("-180,-90,180,90", (0, 0, 720, 1440)),
        ("-200,-90,400,90", (0, 0, 720, 1440)),
        (" 1/3 , 0 , 2/3 , 1 ", (356, 721, 4, 2)),
    ],
)
def test_the_cells_that_a_box_touches(bbox: str, cells: tuple[int, int, int, int]) -> None:
    window = window_of(GLOBE, bbox)
    assert (window.row, window.column, window.height, window.width) == cells
    west, _, east, north = (Fraction(part.strip()) for part in bbox.split(","))
    assert GLOBE.west + window.column * GLOBE.step_x <= max(west, Fraction(-180))
    assert GLOBE.west + (window.column + window.width) * GLOBE.step_x >= min(east, Fraction(180))
    assert GLOBE.north - window.row * GLOBE.step_y >= min(north, Fraction(90))


@pytest.mark.parametrize(
    ("bbox", "said"),
    [
        ("1,2,3", "--bbox is W,S,E,N in degrees"),
        ("a,b,c,d", "--bbox is W,S,E,N in degrees"),
        ("1/0,0,1,1", "--bbox is W,S,E,N in degrees"),
        ("nan,0,1,1", "--bbox is W,S,E,N in degrees"),
        ("1,0,1,1", "west must be less than east"),
        ("0,5,1,2", "south less than north"),
        ("170,0,-170,1", "west must be less than east"),
        ("200,0,210,10", "touches no cell"),
        ("0,91,1,95", "latitudes are -90..90"),
        ("0,40,20,95", "latitudes are -90..90"),
        ("170,0,190,10", "crosses the edge of the grid at 180: render its two sides"),
        ("-190,0,-170,10", "crosses the edge of the grid at -180"),
    ],
)
def test_a_box_that_is_none_or_touches_nothing_is_refused(bbox: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        window_of(GLOBE, bbox)


def test_a_name_that_makes_no_id_is_refused() -> None:
    with pytest.raises(DeclarationError, match="cannot be the id of a collection"):
        Subset.of(WHOLE, window_of(REGION, "12,44,14,46"), "The Alps")
