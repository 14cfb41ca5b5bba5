"""Whether the cells of the coarse grid, or the borders of regions, show in the published maps.

Steps are absolute differences of neighbouring cells, along rows and along columns. Where a field has no seam the steps
across an edge are those inside. Both medians are of stored steps, which are few whole numbers, so that a median is
interpolated within its step as for grouped data: n steps of k count as spread over k - 1/2 .. k + 1/2.

Regions end where groundwater changes, so that steps are large there without any seam. A border is therefore held
against the steps inside the cells on its two sides as well, along the same line (our choice; both are reported, and
what holds is decided by this one).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.products.gwsa.declaration import FACTOR, GWSA
from services.products.gwsa.reach import Reach
from services.products.gwsa.validation.published import Published
from services.validation.report import NotComputed

type Counts = NDArray[np.int64]

KINDS = ("interior", "cell_edges", "region_borders", "beside_borders")

ALLOWED = 1.1
"""Largest ratio of medians (issue 5)."""

_MOST = 2**16
"""Steps of int16 values lie below."""


def seams(published: Published) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compare steps across edges with those inside, of the version and of the field without detail.

    Returns:
        JSON data, and a row for each field and kind of edge.

    Raises:
        NotComputed: if no two neighbouring cells have values.
    """
    tiles, of = published.tiles()
    positions = published.positions()
    counts = {field: {kind: np.zeros(_MOST, dtype=np.int64) for kind in KINDS} for field in ("published", "plain")}
    for tile in tiles:
        labels = published.coarse.labels(Reach.of(tile))
        for position, plain in zip(positions, published.plain(positions, tile), strict=True):
            stored = published.stored(GWSA, position, tile)
            for field, values in (("published", stored), ("plain", plain)):
                count_steps(values, labels, counts[field])
    if not counts["published"]["interior"].any():
        raise NotComputed("no two neighbouring cells of 1/120 degree have values")
    rows = []
    told: dict[str, Any] = {"months": len(positions), "tiles": len(tiles), "tiles_in_all": of, "allowed": ALLOWED}
    for field, of_field in counts.items():
        inside = grouped_median(of_field["interior"])
        for kind in KINDS:
            median = grouped_median(of_field[kind])
            count, ratio = int(of_field[kind].sum()), _ratio(median, inside)
            rows.append({"field": field, "steps": kind, "count": count, "median_cm": _cm(median), "ratio": ratio})
        told[field] = {
            "interior_cm": _cm(inside),
            "cell_edges": _edges(of_field, "cell_edges", "interior"),
            "region_borders": _edges(of_field, "region_borders", "beside_borders"),
        }
    return told, rows


def count_steps(stored: NDArray[Any], labels: NDArray[np.int16], counts: dict[str, Counts]) -> None:
    """Add the steps of a map.

    Args:
        stored: GWSA as stored, ``(y, x)`` of whole coarse cells.
        labels: region of each coarse cell, ``(Y, X)``.
        counts: of KINDS -> how many steps there are of each size, in stored steps.
    """
    fill = GWSA.fill
    # the second time along columns
    for values, regions in ((stored, labels), (stored.T, labels.T)):
        wide = values.astype(np.int32)
        steps = np.abs(np.diff(wide, axis=1))
        known = (values[:, 1:] != fill) & (values[:, :-1] != fill)
        edge = np.zeros(steps.shape, dtype=np.bool_)
        edge[:, FACTOR - 1 :: FACTOR] = True
        border = np.zeros(steps.shape, dtype=np.bool_)
        other = regions[:, 1:] != regions[:, :-1]
        border[:, FACTOR - 1 :: FACTOR] = other.repeat(FACTOR, axis=0)
        beside = np.pad(other, ((0, 0), (0, 1))) | np.pad(other, ((0, 0), (1, 0)))
        near = beside.repeat(FACTOR, axis=0).repeat(FACTOR, axis=1)[:, :-1] & ~edge
        for kind, where in (
            ("interior", ~edge),
            ("cell_edges", edge),
            ("region_borders", border),
            ("beside_borders", near),
        ):
            counts[kind] += np.bincount(steps[where & known], minlength=_MOST)


def grouped_median(counts: Counts) -> float:
    """Median of values of which there are so many of 0, 1, 2 ..., each spread evenly half a step to either side.

    Values of 0 are spread over 0 .. 1/2, as they are absolute. NaN where there is none.
    """
    total = int(counts.sum())
    if not total:
        return float("nan")
    below = np.cumsum(counts)
    at = int(np.searchsorted(below, total / 2))
    before = int(below[at] - counts[at])
    low, width = (at - 0.5, 1.0) if at else (0.0, 0.5)
    return low + width * (total / 2 - before) / int(counts[at])


def _edges(counts: dict[str, Counts], kind: str, against: str) -> dict[str, Any]:
    """Steps of a kind against all that are inside, and against those that decide."""
    number = int(counts[kind].sum())
    if not number or not counts[against].any():
        return {"not_computed": f"no {kind.replace('_', ' ')} in the cells looked at"}
    median = grouped_median(counts[kind])
    ratio = _ratio(median, grouped_median(counts[against]))
    return {
        "count": number,
        "median_cm": _cm(median),
        "ratio_to_interior": _ratio(median, grouped_median(counts["interior"])),
        "ratio": ratio,
        "holds": bool(ratio <= ALLOWED),
    }


def _ratio(median: float, inside: float) -> float:
    return median / inside if inside else float("nan")


def _cm(steps: float) -> float:
    return steps * (GWSA.scale_factor or 1.0)
