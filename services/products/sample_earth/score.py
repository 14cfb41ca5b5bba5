"""How near published values come to what the sites reported, and to the truth that only a made-up Earth has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from services.core.dataset import Dataset
from services.core.errors import InputRefused
from services.core.grid import Window
from services.products.sample_earth.declaration import PRODUCT, UNCERTAINTY, XCO2
from services.products.sample_earth.observations import read_observations
from services.validation.metrics import ErrorSums


def validate(inputs: Path, dataset: Dataset, note: Callable[[str], None]) -> dict[str, Any]:
    """Score a published version at the sites. The network has learned from most of them: the card scores the others.

    Args:
        inputs: directory with site_observations.csv.
        dataset: the version.
        note: told what is compared.

    Returns:
        Errors against reports and against the truth, as JSON data, labelled synthetic.

    Raises:
        InputRefused: if no observation lies in a published period.
    """
    observations = read_observations(inputs)
    against = {"reports": ErrorSums(), "truth": ErrorSums()}
    everywhere = Window(row=0, column=0, height=PRODUCT.grid.height, width=PRODUCT.grid.width)
    compared = 0
    for position, month in enumerate(dataset.time.starts):
        seen = [one for one in observations if one.month == month]
        if not seen:
            continue
        compared += len(seen)
        at = ([one.row for one in seen], [one.column for one in seen])
        value, sigma = (
            quantity.decode(dataset.read_map(quantity, position, 0, everywhere)[at]) for quantity in (XCO2, UNCERTAINTY)
        )
        areas = np.ones(len(seen))
        against["reports"].add(value, np.array([one.reported for one in seen]), areas, sigma)
        against["truth"].add(value, np.array([one.truth for one in seen]), areas)
    if not compared:
        raise InputRefused(f"{inputs} has no observation in the published periods")
    note(f"{PRODUCT.id}: {compared} observations of {len({one.site for one in observations})} sites (synthetic)")
    return {"synthetic": True, **{name: sums.errors().to_json() for name, sums in against.items()}}
