"""``cenote validate xco2_global``: every comparison that the inputs allow, as numbers, tables and pictures.

What cannot be computed stands in the report with its reason, and is told.
"""

from pathlib import Path
from typing import Any

import numpy as np

from services.core.dataset import Dataset
from services.products.xco2_global.declaration import XCO2
from services.products.xco2_global.validation import folds, stations, truth
from services.products.xco2_global.validation.attention import attention
from services.products.xco2_global.validation.guesses import Guesses, of_all_cells
from services.products.xco2_global.validation.published import Published
from services.products.xco2_global.validation.stations import AtStations
from services.products.xco2_global.validation.summary import summary
from services.validation.report import NotComputed, Note, Report, Rows, write_table

SAMPLING = (
    "clear sky, at the time of the overpass (about 13:30 local solar time for OCO-2): no mean over all skies and hours"
)


def validate(
    inputs: Path,
    dataset: Dataset,
    note: Note,
    *,
    models: Path | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare a published version with all that it can be compared with, and write the report.

    Args:
        inputs: directory with xco2.toml: what the version was made from.
        dataset: the version: the product's, or a part of it.
        note: told how far it is, and what cannot be computed.
        models: what the version was rendered with; None: the sample Earth's.
        out: directory for report.json, tables and pictures; made if it is not there. None: ``report`` in this one.
        seed: of folds, and of what is drawn where there is too much.

    Returns:
        The report, as JSON data: scores on synthetic inputs are labelled so.

    Raises:
        InputRefused: if an input does not hold, or the version was made from others.
        ModelRefused: if the models are not those of the version.
    """
    published = Published.of(dataset, inputs, models, note)
    made = Report(out=out or Path("report"), note=note)
    ready = _ready(made, published, seed)
    read = made.part("stations", lambda: _stations(published, ready))
    made.part("held_out", lambda: folds.held_out_network(published, note))
    made.part("folds", lambda: folds.cross_validated(published, seed, note))
    made.part("truth", lambda: truth.against_truth(published, ready, seed, note))
    made.part("attention", lambda: attention(published))
    (made.out / MONTHS).unlink(missing_ok=True)
    at: AtStations | None = read[0][0] if read else None
    rows: Rows = read[0][1] if read else []
    if at is not None:
        write_table(made.out / MONTHS, month_rows(at))
        made.tables["station_months"] = MONTHS
    _draw(made, published, at, rows)
    report: dict[str, Any] = {
        "product": "xco2_global",
        "collection": dataset.product.id,
        "version": dataset.version.id,
        "synthetic": published.synthetic,
        "seed": seed,
        "co2_scale": published.source.soundings.scale,
        "sampling": SAMPLING,
        "units": f"ppm ({XCO2.units})",
        "periods": [dataset.time.ids[0], dataset.time.ids[-1], len(dataset.time)],
        "months_without_soundings": [
            str(np.datetime64(month, "M")) for month in dataset.time.starts if not len(published.observed.cells(month))
        ],
        **made.parts,
        "tables": made.tables,
        "pictures": made.pictures,
    }
    report["summary"] = summary(report)
    return made.write(report)


MONTHS = "station_months.csv"


def month_rows(at: AtStations) -> Rows:
    """A row for each station and month."""
    return [
        {
            "site": str(name),
            "month": str(np.datetime64(int(month), "M")),
            "tccon": float(at.reference[pair]),
            "tccon_error": float(at.error[pair]),
            "published": float(at.cell[pair]),
            "published_5x5": float(at.around[pair]),
            "uncertainty": float(at.sigma[pair]),
            "inferred": int(at.inferred[pair]),
        }
        for pair, (name, month) in enumerate(zip(at.names, at.at.month, strict=True))
    ]


def _ready(made: Report, published: Published, seed: int) -> Guesses | None:
    """What every score stands beside; None, and why, where there is too little to fit it to."""
    try:
        found = of_all_cells(published, seed, made.note)
    except NotComputed as reason:
        made.parts["guesses"] = {"not_computed": str(reason)}
        made.note(f"guesses: not computed: {reason}")
        return None
    made.parts["guesses"] = {
        "cells": len(found.learned),
        "neighbours": found.nearest,
        "background": found.background.fitted.kind,
        "xgboost": "last month and mean of the twelve months of each covariate"
        if found.trees
        else {"not_computed": found.without},
    }
    return found


def _stations(published: Published, ready: Guesses | None) -> tuple[dict[str, Any], Rows, tuple[AtStations, Rows]]:
    at = stations.at_stations(published)
    told, rows = stations.scores(published, at, stations.said_at(published, at, ready))
    return told, rows, (at, rows)


def _draw(made: Report, published: Published, at: AtStations | None, rows: Rows) -> None:
    from services.products.xco2_global.validation import pictures  # noqa: PLC0415 - matplotlib takes a second to load

    made.note("pictures ...")
    made.picture("map", lambda path: pictures.draw_map(path, published, at, rows))
    made.picture("scatter", lambda path: pictures.draw_scatter(path, published, at))
    made.picture("series", lambda path: pictures.draw_series(path, published, at, rows))
    made.picture("coverage", lambda path: pictures.draw_coverage(path, published, made.parts))
    made.picture("attention", lambda path: pictures.draw_attention(path, published, made.parts))
