"""``cenote validate gwsa``: every comparison that the inputs allow, as numbers, tables and pictures.

What cannot be computed stands in the report with its reason, and is told.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.gwsa import DIRECTORY
from services.core.dataset import Dataset
from services.core.errors import ModelRefused
from services.pipeline.recipe import Here
from services.products.gwsa.coarse import prepare
from services.products.gwsa.detail import REGIONS_FILE, Detail
from services.products.gwsa.inputs import Inputs
from services.products.gwsa.levels import about_wells
from services.products.gwsa.table import tabulate
from services.products.gwsa.validation.cells import cells
from services.products.gwsa.validation.centres import centres
from services.products.gwsa.validation.folds import folds
from services.products.gwsa.validation.footprint import Parts, footprint
from services.products.gwsa.validation.land_models import land_models
from services.products.gwsa.validation.published import Published
from services.products.gwsa.validation.scales import cross_scale
from services.products.gwsa.validation.seams import seams
from services.products.gwsa.validation.summary import summary
from services.products.gwsa.validation.truth import against_truth
from services.products.gwsa.validation.wells import at_wells, scores
from services.products.gwsa.validation.worth import worth
from services.validation.report import NotComputed, Note, Report, Rows


def validate(
    inputs: Path,
    dataset: Dataset,
    note: Note,
    *,
    out: Path,
    models: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare a published version with all that it can be compared with, and write the report.

    Args:
        inputs: directory with gwsa.toml: what the version was made from.
        dataset: the version: the product's, or a part of it.
        note: told how far it is, and what cannot be computed.
        out: directory for report.json, tables and pictures; made if it is not there.
        models: what the version was rendered with; None: the sample Earth's.
        seed: of folds, of rows and of what is looked at where there is too much.

    Returns:
        The report, as JSON data: scores on synthetic inputs are labelled so.

    Raises:
        InputRefused: if an input does not hold, or the version was made from others.
        ModelRefused: if the models are not those of the version.
    """
    source = Inputs.find(inputs).hashed()
    for line in about_wells(source):
        note(line)
    coarse = prepare(source, Here(), note)
    published = Published.of(dataset, source, coarse)
    detail, missing = _models(dataset, source, models)
    if detail is not None:
        detail.check(coarse)
    made = Report(out=out, note=note)
    made.part("cross_scale", lambda: cross_scale(published, _there(detail, missing)))
    table = tabulate(source, coarse, Here(), note)
    made.part("folds", lambda: folds(published, table, seed, note))
    made.part("regions", lambda: worth(published, _there(detail, missing)))
    read = made.part("wells", lambda: _wells(published, note))
    made.part("seams", lambda: seams(published))
    made.part("centres", lambda: centres(published))
    models_apart = made.part("land_models", lambda: land_models(published))
    lacking = made.part("cells", lambda: cells(published))
    parted = made.part("footprint", lambda: footprint(published, table))
    made.part("truth", lambda: _truth(published))
    _draw(made, published, read[0] if read else None)
    _draw_coarse(
        made,
        published,
        parted[0] if parted else None,
        models_apart[0] if models_apart else None,
        lacking[0] if lacking else None,
    )
    report = {
        "product": "gwsa",
        "collection": dataset.product.id,
        "version": dataset.version.id,
        "synthetic": source.settings.synthetic,
        "seed": seed,
        "periods": [dataset.time.ids[0], dataset.time.ids[-1], len(dataset.time)],
        **made.parts,
        "tables": made.tables,
        "pictures": made.pictures,
    }
    report["summary"] = summary(report)
    return made.write(report)


def _models(dataset: Dataset, source: Inputs, models: Path | None) -> tuple[Detail | None, str]:
    """The version's models, or why there are none here."""
    origins = dataset.version.provenance.values()
    if all(origin.get("facts", {}).get("detail") is None for origin in origins):
        return None, ""
    place = models or (DIRECTORY if source.settings.synthetic else None)
    if place is None or (models is None and not (place / REGIONS_FILE).is_file()):
        return None, "the models are not given (--models DIR)"
    settings = source.settings
    detail = Detail.open(place, source.features, settings.trees.engine, synthetic=settings.synthetic)
    for segment, origin in dataset.version.provenance.items():
        if dict(origin.get("models", {})) != dict(detail.digests):
            raise ModelRefused(
                f"{place} does not hold the models that {dataset.product.id} (segment {segment}) was rendered with; "
                "--models names those"
            )
    return detail, ""


def _there(detail: Detail | None, missing: str) -> Detail | None:
    if missing:
        raise NotComputed(missing)
    return detail


def _wells(published: Published, note: Note) -> tuple[dict[str, Any], Rows, Any]:
    at = at_wells(published, note)
    told, rows, found = scores(at)
    told["synthetic"] = published.source.settings.synthetic
    return told, rows, (at, rows, found)


def _truth(published: Published) -> tuple[dict[str, Any], Rows]:
    if not published.source.settings.synthetic:
        raise NotComputed("nobody knows the truth of the real Earth; it is scored on synthetic inputs only")
    return against_truth(published)


def _draw(made: Report, published: Published, read: Any) -> None:
    from services.products.gwsa.validation import pictures  # noqa: PLC0415 - matplotlib takes a second to load

    made.note("pictures ...")
    at, rows, found = (None, [], {}) if read is None else read
    made.picture("map", lambda path: pictures.draw_map(path, published, at, rows))
    made.picture("scatter", lambda path: pictures.draw_scatter(path, published, found))
    made.picture("series", lambda path: pictures.draw_series(path, published, at, rows))
    made.picture("weights", lambda path: pictures.draw_weights(path, published))


def _draw_coarse(
    made: Report,
    published: Published,
    parts: Parts | None,
    apart: NDArray[np.float64] | None,
    lacks: NDArray[np.uint8] | None,
) -> None:
    from services.products.gwsa.validation import pictures  # noqa: PLC0415 - matplotlib takes a second to load

    made.picture("footprint", lambda path: pictures.draw_footprint(path, published, parts))
    made.picture("land_models", lambda path: pictures.draw_land_models(path, published, apart))
    made.picture("cells", lambda path: pictures.draw_cells(path, published, lacks))
