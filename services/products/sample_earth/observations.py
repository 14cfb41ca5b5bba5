"""What the sites reported: read once, for training and for scores."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from services.core.errors import InputRefused, PositionOutside, QueryError
from services.core.time_axis import Step, start_of
from services.products.sample_earth.declaration import PRODUCT

OBSERVATIONS = "site_observations.csv"
_COLUMNS = ["site", "longitude", "latitude", "period", "xco2_ppm", "xco2_true_ppm"]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One report of a site."""

    site: str
    month: int
    """Months since 1970-01."""

    row: int
    column: int
    """Cell of the product's grid."""

    reported: float
    """XCO2 with the error of the site, ppm."""

    truth: float
    """What it should have been, ppm; known because the Earth is made up."""


def read_observations(directory: Path) -> list[Observation]:
    """Read site_observations.csv.

    Raises:
        InputRefused: if it does not hold; the message names the file and the observation.
    """
    path, step = directory / OBSERVATIONS, Step.parse(PRODUCT.step)
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    except (OSError, UnicodeDecodeError) as error:
        raise InputRefused(f"{path} cannot be read: {error}") from None
    reader = csv.DictReader(lines)
    if reader.fieldnames != _COLUMNS:
        raise InputRefused(f"{path}: the columns are {reader.fieldnames}, not {_COLUMNS}")
    found: list[Observation] = []
    for number, record in enumerate(reader, start=1):
        try:
            row, column = PRODUCT.grid.locate(float(record["longitude"]), float(record["latitude"]))
            reported, truth = float(record["xco2_ppm"]), float(record["xco2_true_ppm"])
            if not (math.isfinite(reported) and math.isfinite(truth)):
                raise InputRefused(f"{path}, observation {number}: {reported} ppm is no XCO2")
            month = start_of(record["period"], step)
        except (TypeError, ValueError, PositionOutside, QueryError) as error:
            raise InputRefused(f"{path}, observation {number}: {error}") from None
        found.append(
            Observation(site=record["site"], month=month, row=row, column=column, reported=reported, truth=truth)
        )
    if not found:
        raise InputRefused(f"{path} holds no observation")
    return found
