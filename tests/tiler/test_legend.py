"""Colour bars."""

import io

import numpy as np
import pytest
from PIL import Image
from rio_tiler.colormap import cmap

from services.core.quantity import Quantity
from tiler.legend import Legend, with_unit

QUANTITY = Quantity(name="gwsa", units="cm", long_name="Groundwater storage anomaly")


def legend(minimum: float, maximum: float) -> Legend:
    return Legend.of(QUANTITY, QUANTITY.long_name, minimum, maximum, cmap.get("viridis"))


@pytest.mark.parametrize(
    ("minimum", "maximum", "ticks"),
    [
        (380, 420, [380, 390, 400, 410, 420]),
        (-20, 20, [-20, -10, 0, 10, 20]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.013, 0.0137, [0.013, 0.0131, 0.0132, 0.0133, 0.0134, 0.0135, 0.0136, 0.0137]),
        (1e-7, 6e-7, [1e-7, 2e-7, 3e-7, 4e-7, 5e-7, 6e-7]),
        (0, 123456, [0, 20000, 40000, 60000, 80000, 100000, 120000]),
    ],
)
def test_ticks_are_round_numbers(minimum: float, maximum: float, ticks: list[float]) -> None:
    assert legend(minimum, maximum).ticks == pytest.approx(ticks)


def test_there_are_ticks_for_any_range() -> None:
    rng = np.random.default_rng(1)
    for _ in range(500):
        minimum = float(rng.normal() * 10.0 ** rng.integers(-9, 9))
        maximum = minimum + float(abs(rng.normal()) + 1e-3) * 10.0 ** int(rng.integers(-3, 9))
        if maximum - minimum < abs(minimum) * 1e-9:
            continue
        found = legend(minimum, maximum).ticks
        assert 3 <= len(found) <= 8
        assert minimum <= found[0]
        assert found[-1] <= maximum


@pytest.mark.parametrize(
    ("minimum", "maximum"),
    [
        (1.0, 1.0 + 2.0**-35),
        (1e15, 1e15 + 2**14),
        (-8e307, 8e307),
        (0.0, 1.7e308),
        (0.0, 1e-317),
        (0.1, 0.3),
        (2.0**60, 2.0**60 + 2.0**25),
    ],
)
def test_ticks_of_the_narrowest_and_widest_ranges_differ_and_lie_inside(minimum: float, maximum: float) -> None:
    shown = legend(minimum, maximum)
    assert 3 <= len(shown.ticks) <= 8
    assert shown.ticks == sorted(set(shown.ticks))
    assert minimum <= shown.ticks[0]
    assert shown.ticks[-1] <= maximum
    assert shown.picture(320)


def test_a_map_of_values_that_hardly_differ_has_a_legend() -> None:
    shown = legend(1e17, 1e17 + 64)
    assert shown.ticks == sorted(set(shown.ticks))
    assert shown.picture(320)


@pytest.mark.parametrize("width", [120, 320, 2048])
def test_the_bar_shows_the_colours_from_first_to_last(width: int) -> None:
    image = np.asarray(Image.open(io.BytesIO(legend(0, 1).picture(width))))
    assert image.shape[1] == width
    bar = image[12 + 12 + 4 + 8]
    assert tuple(bar[12]) == tuple(cmap.get("viridis")[0][:3])
    assert tuple(bar[width - 13]) == tuple(cmap.get("viridis")[255][:3])
    assert tuple(bar[0]) == (255, 255, 255)


def test_the_unit_stands_in_the_label() -> None:
    assert legend(0, 1).label == "Groundwater storage anomaly (cm)"
    assert with_unit("XCO2", "1e-6") == "XCO2 (ppm)"
    assert with_unit("CH4", "1e-9") == "CH4 (ppb)"
    assert with_unit("Trend", "1e-6 yr-1") == "Trend (ppm yr-1)"
    plain = Quantity(name="count", units="1", long_name="Count")
    assert Legend.of(plain, "Count", 0, 1, cmap.get("viridis")).label == "Count"


def test_data_for_pages_that_draw_it_themselves() -> None:
    document = legend(0, 1).to_json()
    colors = document["colors"]
    assert isinstance(colors, list)
    assert (len(colors), colors[0], document["units"]) == (256, "#440154", "cm")
