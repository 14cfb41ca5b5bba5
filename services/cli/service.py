"""Commands that serve and look after a store: serve, doctor."""

import sys
from typing import Annotated

import typer

from services.cli.session import JsonOption, StoreOption, note, open_session
from services.core.catalog import collection_ids, current_version, folder_ids, version_ids
from services.core.dataset import Dataset
from services.core.errors import CenoteError
from services.core.settings import Settings, StoreSettings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(serve)
    app.command()(doctor)


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Server processes.")] = 1,
    store: StoreOption = None,
) -> None:
    """Serve tiles, values and series of everything that is published; reads only."""
    from tiler.server import serve as run_server  # noqa: PLC0415 - the web stack is loaded by this command only

    chosen = store or context.obj
    settings = Settings.from_environment(**({"store": chosen} if chosen else {}))
    run_server(settings, StoreSettings.from_environment(), host=host, port=port, workers=workers, note=note)


def doctor(context: typer.Context, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Check store, conditional writes, credentials and published versions."""
    session = open_session(context, store, as_json=as_json)
    checks: list[dict[str, str | bool]] = []

    def check(name: str, found: str, *, good: bool) -> None:
        checks.append({"check": name, "ok": good, "found": found})

    names: list[str] = []
    try:
        names = list(collection_ids(session.store))
        for name in folder_ids(session.store):
            stored = [] if name in names else version_ids(session.store, name)
            if stored:
                hint = f"`cenote rollback {name} {stored[0]}` makes the newest current"
                check(f"collection {name}", f"{len(stored)} versions, none of them current; {hint}", good=True)
        check("read and list", f"{session.store} answers; {len(names)} collections", good=True)
    except CenoteError as error:
        check("read and list", str(error), good=False)
    else:
        try:
            session.store.probe()
            check("conditional writes", "honoured", good=True)
        except CenoteError as error:
            check("conditional writes", f"{error} (reading and serving need none)", good=False)
    for name in names:
        try:
            pointer, version = current_version(session.store, name)
            dataset = Dataset(session.store, version)
            for segment in version.segments:
                dataset.segment(segment)
            check(
                f"collection {name}",
                f"version {version.id} (seq {pointer.seq}), {len(version.time)} periods to {version.time.ids[-1]}, "
                f"{len(version.segments)} segments",
                good=True,
            )
        except CenoteError as error:
            check(f"collection {name}", str(error), good=False)
    bad = [one for one in checks if not one["ok"]]
    lines = [f"{'ok  ' if one['ok'] else 'BAD '} {one['check']}: {one['found']}" for one in checks]
    session.say({"store": str(session.store), "checks": checks}, lines)
    if bad:
        sys.exit(1)
