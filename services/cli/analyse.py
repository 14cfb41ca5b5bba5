"""The command that derives a collection from a published one: analyse."""

from typing import Annotated

import typer

from services.cli.make import FreshOption, SchedulerOption, WorkersOption, publish_recipe
from services.cli.session import DryRunOption, JsonOption, StoreOption, open_session
from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.errors import SettingsError
from services.pipeline.trend import TrendRecipe

ANALYSES = {"trend": TrendRecipe.of}
"""Name -> what makes its recipe."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(analyse)


def analyse(
    context: typer.Context,
    collection: Annotated[str, typer.Argument(metavar="ID", help="A published collection.")],
    what: Annotated[str, typer.Argument(metavar="ANALYSIS", help="trend: slope, its standard error and p value.")],
    variable: Annotated[str | None, typer.Option(help="Which variable.  [default: the first]")] = None,
    periods: Annotated[
        str | None,
        typer.Option("--periods", metavar="A/B", help="Periods to use, such as 2003-01/2014-12.  [default: all]"),
    ] = None,
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
    fresh: FreshOption = False,
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Derive a collection of its own, ID_ANALYSIS, from the current version of a published one."""
    if what not in ANALYSES:
        raise SettingsError(f"there is no analysis {what!r}; there are {', '.join(ANALYSES)}")
    session = open_session(context, store, as_json=as_json)
    dataset = Dataset(session.store, current_version(session.store, collection)[1])
    recipe = ANALYSES[what](session.store, dataset, variable=variable, periods=periods)
    publish_recipe(session, recipe, workers=workers, scheduler=scheduler, fresh=fresh, dry_run=dry_run)
