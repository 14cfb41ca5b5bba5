"""Command for files to hand out: netcdf."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.life import IdArgument
from services.cli.session import JsonOption, StoreOption, note, open_session
from services.core.catalog import current_version, read_version
from services.core.dataset import Dataset
from services.core.errors import Refused, TimeOutsideAxis
from services.pipeline.netcdf import write_netcdf


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(netcdf)


def netcdf(
    context: typer.Context,
    collection: IdArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go; made if it is not there.")],
    periods: Annotated[
        str | None,
        typer.Option("--periods", metavar="A/B", help="Which, such as 2004-01/2004-12.  [default: all]"),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Of which version.  [default: the current one]")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write NetCDF files, one a period: ID_PERIOD.nc, all variables at full resolution.

    COGs are in the store already, and the service hands them out.
    """
    session = open_session(context, store, as_json=as_json)
    found = (
        current_version(session.store, collection)[1]
        if version is None
        else read_version(session.store, collection, version)
    )
    dataset = Dataset(session.store, found)
    try:
        chosen = found.time.select(periods)
    except TimeOutsideAxis as error:
        raise Refused(f"{collection} has no periods {periods}: {error}") from None
    written = []
    for number, position in enumerate(chosen, 1):
        written.append(write_netcdf(dataset, position, out))
        note(f"files: {number} of {len(chosen)} written, last {written[-1].name}")
    total = sum(path.stat().st_size for path in written)
    session.say(
        {"collection": collection, "version": found.id, "files": [str(path) for path in written], "bytes": total},
        [f"{collection}: {len(written)} files in {out}, {total / 1e6:,.1f} MB, version {found.id}"],
    )
