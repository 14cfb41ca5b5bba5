"""The ``cenote`` command.

Results go to stdout, messages and progress to stderr; exit 0 is done, 1 refused or failed, 2 wrong usage.
"""

import logging
import sys

import typer

from services.cli import learn, life, make, service
from services.core.errors import CenoteError

app = typer.Typer(
    name="cenote",
    help="Render, publish and serve raster time series for carbon and groundwater.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _root(
    context: typer.Context,
    store: str | None = typer.Option(
        None, "--store", metavar="DIR|s3://BUCKET/PREFIX", help="Where products are stored.  [env: CENOTE_STORE]"
    ),
) -> None:
    context.obj = store


for module in (make, life, learn, service):
    module.register(app)


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        app()
    except CenoteError as error:
        # one sentence, whatever a library put into its own message
        text = " ".join(str(error).split())
        sys.stderr.write(f"cenote: {text}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("cenote: stopped; the same command goes on from what is recorded\n")
        sys.exit(130)


__all__ = ["app", "main"]
