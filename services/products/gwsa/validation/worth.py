"""What each region's detail is worth, as its model was scored where it was learned."""

from collections import Counter
from typing import Any

import numpy as np

from models.card import ModelCard
from models.errors import ModelError
from services.products.gwsa.coarse import Coarse
from services.products.gwsa.detail import Detail
from services.products.gwsa.reach import Reach
from services.products.gwsa.validation.published import Published
from services.validation.report import NotComputed

_WITHOUT = "rmse_of_conservative_bilinear_cm"


def worth(published: Published, detail: Detail | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Weights and scores of the regions' models.

    Args:
        published: the version.
        detail: the models.

    Returns:
        JSON data, and a row for each region.

    Raises:
        NotComputed: if the version has no models, or a card cannot be read.
    """
    if detail is None:
        raise NotComputed("the version was rendered without models")
    cells = _cells(published, published.coarse)
    rows = []
    for number, region in enumerate(detail.regions):
        row: dict[str, Any] = {
            "region": region.name,
            "cells_published": cells[number],
            "weight": region.weight,
            "rmse_cm": region.sigma,
            # a detail that is not added leaves what there is without it
            _WITHOUT: region.sigma,
            "gain": 0.0,
            "split": "",
            "blocks": None,
            "synthetic": published.source.settings.synthetic,
        }
        if region.weight > 0:
            try:
                scores = ModelCard.read(detail.directory / region.name).scores
                (score,) = (one for one in scores if _WITHOUT in one.metrics)  # one is of the graph
                without = score.metrics[_WITHOUT]
                row |= {
                    _WITHOUT: without,
                    "gain": 1 - region.sigma / without if without else 0.0,
                    "split": score.split,
                    "blocks": score.rows,
                    "synthetic": score.synthetic,
                }
            except (ModelError, ValueError, KeyError) as error:
                raise NotComputed(f"the card of {region.name} tells no score of its detail: {error}") from None
        rows.append(row)
    asked = [row for row in rows if row["cells_published"]]
    return {"regions": {row["region"]: {k: v for k, v in row.items() if k != "region"} for row in asked}}, rows


def _cells(published: Published, coarse: Coarse) -> Counter[int]:
    """Coarse cells of each region that lie in the version and have values."""
    reach = Reach.of(published.cells)
    valid = np.isfinite(coarse.read("gwsa", coarse.months[0], reach))
    return Counter(coarse.labels(reach)[valid].tolist())
