"""The command that derives a collection from a published one: analyse."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from services import products
from services.cli.make import FreshOption, SchedulerOption, WorkersOption, publish_recipe
from services.cli.session import DryRunOption, JsonOption, StoreOption, open_session
from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.errors import SettingsError
from services.pipeline.recipe import Recipe
from services.pipeline.regional import open_trend

ANALYSES: dict[str, Callable[..., Recipe]] = {"trend": open_trend}
"""Name -> what makes its recipe, for any collection; products may bring more."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(analyse)


def analyse(
    context: typer.Context,
    collection: Annotated[str, typer.Argument(metavar="ID", help="A published collection.")],
    what: Annotated[
        str,
        typer.Argument(
            metavar="ANALYSIS",
            help="trend: slope, its standard error and p value; footprint: what of it the climate does not explain; "
            "of XCO2: growth, amplitude (of the season), anomaly (from the latitude's median), hotspots.",
        ),
    ],
    variable: Annotated[str | None, typer.Option(help="Which variable.  [default: the first]")] = None,
    periods: Annotated[
        str | None,
        typer.Option("--periods", metavar="A/B", help="Periods to use, such as 2003-01/2014-12.  [default: all]"),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--inputs",
            metavar="DIR",
            help="What a footprint is told from, or hotspots' background.  [default: .cenote/inputs/PRODUCT]",
        ),
    ] = None,
    polygons: Annotated[
        Path | None,
        typer.Option("--polygons", metavar="FILE", help="GeoJSON or shapefile of regions for a table (trend, growth)."),
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="The property that names the polygons.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where tables (CSV, GeoJSON) are written, too.")
    ] = None,
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
    fresh: FreshOption = False,
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Derive a collection of its own, ID_ANALYSIS, from the current version of a published one."""
    known = _analyses()
    if what not in known:
        raise SettingsError(f"there is no analysis {what!r}; there are {', '.join(known)}")
    product, make = known[what]
    options: dict[str, Any] = {"variable": variable, "periods": periods}
    taken = inspect.signature(make).parameters
    for name, value in (("inputs", inputs), ("polygons", polygons), ("label", label)):
        if name in taken:
            options[name] = value
        elif value is not None:
            raise SettingsError(f"--{name}: the analysis {what} takes none")
    if label is not None and polygons is None:
        raise SettingsError("--label names the polygons of --polygons FILE, which is not given")
    if "inputs" in taken and inputs is None:
        options["inputs"] = Path(".cenote/inputs") / product
    session = open_session(context, store, as_json=as_json)
    dataset = Dataset(session.store, current_version(session.store, collection)[1])
    recipe = make(session.store, dataset, **options)
    publish_recipe(session, recipe, workers=workers, scheduler=scheduler, fresh=fresh, dry_run=dry_run, out=out)


def _analyses() -> dict[str, tuple[str, Callable[..., Recipe]]]:
    """Analysis -> the product that brings it, "" for those of any collection, and what makes its recipe."""
    found = {name: ("", make) for name, make in ANALYSES.items()}
    for product, package in products.find().items():
        for name, make in getattr(package, "ANALYSES", {}).items():
            if name in found:
                raise SettingsError(f"two packages bring the analysis {name!r}, one of them {package.__name__}")
            found[name] = (product, make)
    return found
