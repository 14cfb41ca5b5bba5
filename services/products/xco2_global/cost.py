"""What a render will cost: a few thousand cells are read and asked on the spot, and their time is that of all."""

import time
from dataclasses import replace

from services.core.grid import Window
from services.core.time_axis import TimeAxis
from services.products.xco2_global.covariates import sequences
from services.products.xco2_global.inputs import Inputs
from services.products.xco2_global.network import Network

CELLS = 4096
"""That are read and asked."""


def told(source: Inputs, network: Network, periods: TimeAxis, window: Window) -> list[str]:
    """Lines for people.

    Args:
        source: the inputs.
        network: the model.
        periods: months that are rendered.
        window: cells that are rendered.
    """
    if not len(periods):
        return []
    height = max(min(CELLS // window.width, window.height), 1)
    part = replace(window, row=window.row + (window.height - height) // 2, height=height)
    part = replace(part, width=min(part.width, CELLS))
    month = periods.starts[len(periods) // 2]
    network.ask(sequences(source, month, replace(part, height=1)))  # opens files and the model
    start = time.process_time()
    asked = sequences(source, month, part)
    read = time.process_time()
    network.ask(asked)
    end = time.process_time()
    cells = window.height * window.width * len(periods)
    each = (end - start) / len(asked)
    return [
        f"network: {cells / 1e6:,.1f} million sequences of 12 months and {asked.shape[-1]} covariates "
        f"({asked.shape[1] * asked.shape[2] * 4} bytes each, made strip by strip, never stored)",
        f"measured here: {1 / each:,.0f} cells a second on one core, {(end - read) / (end - start):.0%} of it in the "
        f"network, so about {cells * each / 3600:,.2f} core-hours, besides writing",
    ]
