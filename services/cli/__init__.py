"""The ``cenote`` command.

Results go to stdout, messages and progress to stderr; exit 0 is done, 1 refused or failed, 2 wrong usage.
"""

import logging
import os
import sys

import typer

from services.cli import analyse, files, learn, life, make, service
from services.core.errors import CenoteError, SettingsError

DEBUG = "CENOTE_DEBUG"
"""Set to anything, it lets an error that nobody foresaw show its traceback."""

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


for module in (make, life, files, learn, analyse, service):
    module.register(app)


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        app()
    except CenoteError as error:
        _say(str(error))
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    except KeyboardInterrupt:
        _say("stopped; the same command goes on from what is recorded")
        sys.exit(130)
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        _say(
            f"a defect of cenote or of its surroundings: {type(error).__name__}: {error} "
            f"({DEBUG}=1 shows where it happened)"
        )
        sys.exit(1)


def _say(text: str) -> None:
    # one sentence, whatever a library put into its own message
    sys.stderr.write(f"cenote: {' '.join(text.split())}\n")


__all__ = ["app", "main"]
