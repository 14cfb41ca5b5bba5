"""What every command has: settings read once, the store, and a way to say results."""

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from services.core.settings import Settings, StoreSettings
from services.core.store import Store

StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="DIR|s3://BUCKET/PREFIX", help="Where products are stored.  [env: CENOTE_STORE]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")]


@dataclass(frozen=True, kw_only=True)
class Session:
    """One run of the command."""

    settings: Settings
    store: Store
    as_json: bool

    def say(self, document: Any, lines: list[str]) -> None:
        """Print a result."""
        say(document, lines, as_json=self.as_json)


def open_session(context: typer.Context, store: str | None, *, as_json: bool = False) -> Session:
    """Read the settings and open the store; ``--store`` counts before or after the command's name."""
    chosen = store or context.obj
    settings = Settings.from_environment(**({"store": chosen} if chosen else {}))
    return Session(
        settings=settings,
        store=Store.open(settings.store, StoreSettings.from_environment()),
        as_json=as_json,
    )


def say(document: Any, lines: list[str], *, as_json: bool) -> None:
    """Print a result: the document as JSON if that was asked for, else the lines."""
    text = json.dumps(document, indent=2, ensure_ascii=False) if as_json else "\n".join(lines)
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """A message for a person."""
    sys.stderr.write(f"{text}\n")
