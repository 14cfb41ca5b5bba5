"""Commands for the life of versions: versions, rollback, pin, verify, compact, gc."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import typer

from services.cli.make import FreshOption, SchedulerOption, WorkersOption, run_and_publish
from services.cli.session import DryRunOption, JsonOption, StoreOption, note, open_session
from services.core import layout
from services.core.catalog import collection_ids, current_version, read_pointer, read_version, version_ids
from services.core.errors import CollectionNotFound, Damaged
from services.core.store import Store
from services.pipeline import gc as collecting
from services.pipeline import publish as publishing
from services.pipeline import verify as verifying
from services.pipeline.code import this_code
from services.pipeline.plan import plan_compact

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the collection.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (versions, rollback, pin, verify, compact):
        app.command()(command)
    app.command("gc")(collect)


def versions(
    context: typer.Context,
    collection: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Id of a collection; all without one.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the versions of a collection, newest first, or the collections."""
    session = open_session(context, store, as_json=as_json)
    if collection is None:
        names = list(collection_ids(session.store))
        listed = [{"collection": name, **found} for name, found in _each(names, partial(_current, session.store))]
        lines = [f"{one['collection']}  {one['current']}  seq {one['seq']}  {one['flipped_at']}" for one in listed]
        session.say(listed, lines if names else ["no collection is published here yet"])
        if len(listed) < len(names):
            sys.exit(1)
        return
    found = read_pointer(session.store, collection)
    if found is None and not version_ids(session.store, collection):
        raise CollectionNotFound(f"there is no collection {collection!r}")
    rows: list[dict[str, Any]] = []
    prefix = layout.versions_prefix(collection)
    entries = sorted(session.store.list(prefix), key=lambda entry: entry.last_modified, reverse=True)
    for entry in entries:
        name = entry.key.removeprefix(prefix).removesuffix(".json")
        row: dict[str, Any] = {
            "version": name,
            "written": entry.last_modified.isoformat(timespec="seconds"),
            "current": found is not None and name == found[0].version,
            "pinned": found is not None and name in found[0].pinned,
        }
        try:
            version = read_version(session.store, collection, name)
        except Damaged as error:
            row["damaged"] = error.fact
        else:
            row |= {
                "periods": len(version.time),
                "first": version.time.ids[0],
                "last": version.time.ids[-1],
                "segments": len(version.segments),
                "parent": version.parent,
            }
        rows.append(row)
    lines = []
    for row in rows:
        marks = [word for word in ("current", "pinned") if row[word]]
        what = (
            row.get("damaged") or f"{row['periods']} periods {row['first']}..{row['last']}, {row['segments']} segments"
        )
        lines.append(f"{row['version']}  {row['written']}  {what}" + (f"  ({', '.join(marks)})" if marks else ""))
    session.say(rows, lines)


def rollback(
    context: typer.Context,
    collection: IdArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="As `cenote versions ID` lists them.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an older version current again."""
    session = open_session(context, store, as_json=as_json)
    published = publishing.rollback(session.store, collection, version)
    state = f"is current as seq {published.seq}" if published.changed else "was current already"
    session.say({"collection": collection, **asdict(published)}, [f"{collection}: version {version} {state}"])


def pin(
    context: typer.Context,
    collection: IdArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION")],
    remove: Annotated[bool, typer.Option("--remove", help="Let gc have it again.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a version however old it is."""
    session = open_session(context, store, as_json=as_json)
    pointer = publishing.pin(session.store, collection, version, keep=not remove)
    session.say(
        {"collection": collection, "pinned": list(pointer.pinned)},
        [f"{collection}: pinned {', '.join(pointer.pinned) or 'nothing'}"],
    )


def verify(
    context: typer.Context,
    collection: IdArgument,
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="The current one without it.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every stored byte of a version, and that maps, series and COGs hold equal values."""
    session = open_session(context, store, as_json=as_json)
    report = verifying.verify(session.store, collection, version, note=note)
    lines = [f"{finding.key}: {finding.fact}" for finding in report.findings]
    summary = f"{collection} {report.version}: {report.objects} objects, {report.bytes} bytes"
    session.say(
        {**asdict(report), "sound": report.sound},
        [
            *lines,
            f"{summary}, "
            + (f"sound; layouts equal in {report.periods} periods" if report.sound else f"{len(lines)} damaged"),
        ],
    )
    if not report.sound:
        sys.exit(1)


def compact(
    context: typer.Context,
    collection: IdArgument,
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
    fresh: FreshOption = False,
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fold the segments of the current version into one; values stay as they are."""
    session = open_session(context, store, as_json=as_json)
    current = current_version(session.store, collection)[1]
    if len(current.segments) == 1:
        session.say(
            {"collection": collection, "version": current.id, "changed": False},
            [f"{collection}: version {current.id} is one segment already"],
        )
        return
    made = plan_compact(current, this_code())
    if dry_run:
        session.say(
            {"collection": collection, "dry_run": True, "plan": made.lines()}, [*made.lines(), "nothing was written"]
        )
        return
    if fresh:
        from services.pipeline import run as running  # noqa: PLC0415 - dask and the file formats are loaded by the commands that need them

        made = running.next_attempt(session.store, made)
    result = run_and_publish(session, made, None, current, workers=workers, scheduler=scheduler)
    before = len(current.segments)
    session.say(result, [f"{collection}: version {result['version']} holds in 1 segment what {before} held"])


def collect(
    context: typer.Context,
    collection: Annotated[str | None, typer.Argument(metavar="[ID]", help="All collections without one.")] = None,
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mark segments that no kept version lists, and delete those marked more than a day ago."""
    session = open_session(context, store, as_json=as_json)
    names = [collection] if collection is not None else collecting.collectable(session.store)
    done = [one for _, one in _each(names, partial(collecting.collect, session.store, dry_run=dry_run))]
    for sentence in (sentence for one in done for sentence in one.damaged):
        note(sentence)
    would = "would be " if dry_run else ""
    session.say(
        [asdict(one) for one in done],
        [
            f"{one.product}: {len(one.marked)} segments {would}marked, {len(one.deleted)} {would}deleted "
            f"({one.freed} bytes), "
            f"{len(one.forgotten)} versions {would}forgotten"
            for one in done
        ]
        if names
        else ["no collection is published here yet"],
    )
    if len(done) < len(names) or any(one.is_blocked for one in done):
        sys.exit(1)


def _each[Answer](names: list[str], ask: Callable[[str], Answer]) -> Iterator[tuple[str, Answer]]:
    """Ask about each collection; one that is damaged is a message, and the others are not held up."""
    for name in names:
        try:
            yield name, ask(name)
        except Damaged as error:
            note(str(error))


def _current(store: Store, name: str) -> dict[str, Any]:
    found = read_pointer(store, name)
    if found is None:
        return {}
    return {"current": found[0].version, "seq": found[0].seq, "flipped_at": found[0].flipped_at}
