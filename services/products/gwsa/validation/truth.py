"""The published field against the truth, which only a made-up Earth has. Every number here is synthetic."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Window
from services.products.gwsa.declaration import FACTOR, FINE, GWSA, UNCERTAINTY
from services.products.gwsa.validation.published import Published, block_means, decoded, fine_window
from services.sample.groundwater import REGIONS, Groundwater, Size
from services.validation.metrics import ErrorSums
from services.validation.report import NotComputed

type Floats = NDArray[np.float64]

BLOCK_DEGREES = 4
"""Coarse cells to a degree."""


@dataclass(kw_only=True)
class _Within:
    """Area-weighted sums of what varies within 1/4 degree cells: of a field f and of the truth t."""

    weight: float = 0.0
    ff: float = 0.0
    ft: float = 0.0
    tt: float = 0.0

    def add(self, field: Floats, truth: Floats, weights: Floats) -> None:
        """Add the detail of a map; both have values in the same cells and means of 0 in each block."""
        here = ~np.isnan(field)
        f, t, w = field[here], truth[here], weights[here]
        self.weight += float(w.sum())
        self.ff += float(w @ f**2)
        self.ft += float(w @ (f * t))
        self.tt += float(w @ t**2)

    @property
    def correlation(self) -> float:
        """Of the detail; NaN where one has none."""
        spread = np.sqrt(self.ff * self.tt)
        return float(self.ft / spread) if spread > 0 else float("nan")

    @property
    def rmse(self) -> float:
        """Of the detail, cm."""
        return float(np.sqrt(max(self.ff - 2 * self.ft + self.tt, 0.0) / self.weight)) if self.weight else float("nan")


class _Field:
    def __init__(self) -> None:
        self.errors, self.within = ErrorSums(), _Within()

    def add(self, values: Floats, truth: Floats, weights: Floats, sigma: Floats | None) -> None:
        self.errors.add(values, truth, weights, sigma)
        self.within.add(within_blocks(values, weights), within_blocks(truth, weights), weights)

    def told(self) -> dict[str, Any]:
        errors = self.errors.errors()
        found = {
            "rmse_cm": errors.rmse,
            "bias_cm": errors.bias,
            "r2": errors.r2,
            "rmse_within_cells_cm": self.within.rmse,
            "correlation_of_detail": self.within.correlation,
        }
        return found if errors.within_sigma is None else {**found, "within_uncertainty": errors.within_sigma}


def against_truth(published: Published) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Score the version, and the conservative bilinear interpolation of the coarse field, against the truth.

    Returns:
        JSON data, and a row for each month.

    Raises:
        NotComputed: if the sample Earth has no truth where the version lies.
    """
    size, tiles, of = _covered(published)
    world, positions = Groundwater(size), published.positions()
    whole = {name: _Field() for name in ("published", "conservative_bilinear")}
    by_month = {position: {name: _Field() for name in whole} for position in positions}
    for tile in tiles:
        fine, part = fine_window(tile), part_of_truth(tile, size)
        weights = np.broadcast_to(FINE.row_areas[fine.rows][:, None], (fine.height, fine.width))
        for position, plain in zip(positions, published.plain(positions, tile), strict=True):
            truth = world.gwsa(published.dataset.time.starts[position], part).astype(np.float64)
            values = published.values(position, tile)
            sigma = decoded(UNCERTAINTY, published.stored(UNCERTAINTY, position, tile))
            bilinear = decoded(GWSA, plain)
            truth[np.isnan(values) | np.isnan(bilinear)] = np.nan
            values[np.isnan(truth)] = bilinear[np.isnan(truth)] = np.nan
            for fields in (whole, by_month[position]):
                fields["published"].add(values, truth, weights, sigma)
                fields["conservative_bilinear"].add(bilinear, truth, weights, None)
    try:
        told = {name: field.told() for name, field in whole.items()}
    except ValueError:
        raise NotComputed("no published value lies where the sample Earth has a truth") from None
    rows = [_row(published, position, fields) for position, fields in by_month.items()]
    gains = {"gain_in_rmse": 1 - told["published"]["rmse_cm"] / told["conservative_bilinear"]["rmse_cm"]}
    better = sum(row["published_rmse_cm"] < row["conservative_bilinear_rmse_cm"] for row in rows)
    return {
        "synthetic": True,
        "months": len(positions),
        "months_better": better,
        "tiles": len(tiles),
        "tiles_in_all": of,
        **told,
        **gains,
    }, rows


def within_blocks(values: Floats, weights: Floats) -> Floats:
    """Values less the weighted mean of their block of FACTOR x FACTOR cells."""
    means = block_means(values, weights)[0]
    detail: Floats = values - means.repeat(FACTOR, axis=0).repeat(FACTOR, axis=1)
    return detail


def _row(published: Published, position: int, fields: dict[str, _Field]) -> dict[str, Any]:
    row: dict[str, Any] = {"month": str(np.datetime64(published.dataset.time.starts[position], "M"))}
    for name, field in fields.items():
        row |= {f"{name}_{key}": value for key, value in field.told().items()}
    return row


def _covered(published: Published) -> tuple[Size, list[Window], int]:
    """The size of the sample whose truth holds most tiles, these cut to it, and how many there are in all."""
    tiles, of = published.tiles()
    sizes: tuple[Size, ...] = ("small", "study")
    best = max(sizes, key=lambda size: sum(part.height * part.width for part in cut(tiles, size)))
    found = cut(tiles, best)
    if not found:
        raise NotComputed("the sample Earth has no truth where the version lies")
    return best, found, of


def cut(tiles: list[Window], size: Size) -> list[Window]:
    """What of windows of coarse cells lies where the sample Earth of a size has a truth."""
    region = REGIONS[size]
    top, left = (90 - region.north) * BLOCK_DEGREES, (region.west + 180) * BLOCK_DEGREES
    bottom, right = (90 - region.south) * BLOCK_DEGREES, (region.east + 180) * BLOCK_DEGREES
    found = []
    for tile in tiles:
        row, column = max(tile.row, top), max(tile.column, left)
        height = min(tile.row + tile.height, bottom) - row
        width = min(tile.column + tile.width, right) - column
        if height > 0 and width > 0:
            found.append(Window(row=row, column=column, height=height, width=width))
    return found


def part_of_truth(tile: Window, size: Size) -> Window:
    """A tile of coarse cells as cells of the truth's grid."""
    region = REGIONS[size]
    return Window(
        row=(tile.row - (90 - region.north) * BLOCK_DEGREES) * FACTOR,
        column=(tile.column - (region.west + 180) * BLOCK_DEGREES) * FACTOR,
        height=tile.height * FACTOR,
        width=tile.width * FACTOR,
    )
