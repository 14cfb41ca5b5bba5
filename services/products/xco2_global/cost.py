"""What a render will cost: a few thousand cells are read and asked on the spot, and their time is that of all."""

import time
from dataclasses import replace

from models.xco2_global.signature import MONTHS
from services.core.grid import Window
from services.core.time_axis import TimeAxis
from services.products.xco2_global.covariates import sequences
from services.products.xco2_global.inputs import Inputs
from services.products.xco2_global.network import Network

CELLS = 256, 8192
"""That are read and asked, in two windows: what a window takes besides its cells is the difference."""


def told(source: Inputs, network: Network, periods: TimeAxis, window: Window, strips: int) -> list[str]:
    """Lines for people.

    Args:
        source: the inputs.
        network: the model.
        periods: months that are rendered.
        window: cells that are rendered.
        strips: windows that they are computed in, of a month.
    """
    if not len(periods):
        return []
    month = periods.starts[len(periods) // 2]
    taken = [_timed(source, network, month, _part(window, count)) for count in (CELLS[0], *CELLS)][1:]  # first: opens
    (few, least, _), (many, most, asking) = taken
    each = (most - least) / max(many - few, 1) if many > few else most / many
    once = max(least - few * each, 0.0)
    cells = window.height * window.width
    seconds = len(periods) * (cells * each + strips * once)
    features = len(source.settings.features)
    size = (
        f"network: {cells * len(periods) / 1e6:,.1f} million sequences of {MONTHS} months and {features} covariates, "
        f"{4 * MONTHS * features} bytes each, made strip by strip and never stored"
    )
    beside = f", and {once:.1f} s for each of {strips} strips of a month" if once >= 0.05 else ""
    hours = (
        f"measured here: {1 / each:,.0f} cells a second on one core, {min(asking / (each * many), 1):.0%} of it in the "
        f"network{beside}, so about {seconds / 3600:,.2f} core-hours, besides writing"
    )
    return [size, hours]


def _part(window: Window, cells: int) -> Window:
    """Some rows from the middle of a window."""
    width = min(window.width, cells)
    height = max(min(cells // width, window.height), 1)
    return replace(window, row=window.row + (window.height - height) // 2, height=height, width=width)


def _timed(source: Inputs, network: Network, month: int, part: Window) -> tuple[int, float, float]:
    """Cells, seconds of CPU for all, and of these for the network."""
    start = time.process_time()
    asked = sequences(source, month, part)
    read = time.process_time()
    network.ask(asked)
    end = time.process_time()
    return len(asked), end - start, end - read
