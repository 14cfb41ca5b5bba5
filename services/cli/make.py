"""Commands that make versions: sample, ingest, plan, render."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from services import products
from services.cli.progress import bytes_read, progress
from services.cli.session import DryRunOption, JsonOption, Session, StoreOption, note, open_session
from services.core.catalog import Version, current_version, read_pointer
from services.core.dataset import Dataset
from services.core.errors import DeclarationError, NothingToDo, Refused, SettingsError
from services.core.grid import Grid, Window
from services.core.product import check_id
from services.core.time_axis import TimeAxis
from services.pipeline import models
from services.pipeline import plan as planning
from services.pipeline import publish as publishing
from services.pipeline.code import packages_of, this_code
from services.pipeline.recipe import Recipe
from services.pipeline.subset import Subset, bounds_of, window_of
from services.sources.options import IngestOptions

InputsOption = Annotated[
    Path, typer.Option("--inputs", metavar="DIR", help="Directory of input files.  [default: .cenote/inputs/PRODUCT]")
]
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDRESS", help="A dask scheduler, such as tls://host:8786.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Local worker processes; 0 works in this process.  [default: one per core]"),
]
PeriodsOption = Annotated[
    str | None,
    typer.Option("--periods", metavar="A/B", help="Periods to compute again, such as 2004-01/2004-12."),
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Start another segment, because stored bytes of this one were damaged.")
]
BboxOption = Annotated[str | None, typer.Option("--bbox", metavar="W,S,E,N", help="Render a part only; needs --name.")]
ModelsOption = Annotated[
    Path | None,
    typer.Option("--models", metavar="DIR", help="What export wrote.  [default: the models shipped with the product]"),
]
NameOption = Annotated[str | None, typer.Option("--name", help="With --bbox: publish as the collection PRODUCT_NAME.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(sample)
    app.command()(ingest)
    app.command()(plan)
    app.command()(render)


def sample(
    context: typer.Context,
    size: Annotated[str, typer.Option(help="small or study.")] = "small",
    inputs: Annotated[Path, typer.Option(metavar="DIR", help="Where input files are written.")] = Path(
        ".cenote/inputs"
    ),
    workers: WorkersOption = None,
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the sample Earth's input files, then render and publish its products (synthetic)."""
    if size not in {"small", "study"}:
        raise SettingsError(f"--size is small or study, not {size!r}")
    session = open_session(context, store, as_json=as_json)
    results = []
    for product, package in products.find().items():
        if not callable(getattr(package, "write_sample", None)):
            continue
        directory = inputs / product
        if dry_run:
            results.append({"collection": product, "dry_run": True, "inputs": str(directory), "size": size})
            continue
        note(f"{product}: input files in {directory}")
        package.write_sample(directory, size, note)
        area = getattr(package, "sample_area", None)
        # a sample of a product that is too fine for a demonstration is a part of it
        part = (None, None) if area is None else (area(size), "sample")
        recipe = _recipe(product, directory, *part)
        name = recipe.product.id
        current = _current(session, name)
        if (
            current is not None
            and set(recipe.periods().starts) <= set(current.time.starts)
            and _same_models(current, recipe)
        ):
            note(f"{name}: version {current.id} is published already")
            results.append({"collection": name, "version": current.id, "changed": False})
            continue
        results.append(_make(session, recipe, current, keep=False, workers=workers))
    if dry_run:
        lines = [
            f"{one['collection']}: would write {size} input files into {one['inputs']}, render and publish"
            for one in results
        ]
        session.say(results, [*lines, "nothing was written"])
        return
    session.say(results, [f"{one['collection']}: version {one['version']}" for one in results])


def ingest(
    context: typer.Context,
    collection: Annotated[str, typer.Argument(metavar="ID", help="Id of the collection.")],
    files: Annotated[list[str], typer.Argument(metavar="FILES...", help="Files, globs, s3:// or https:// addresses.")],
    variable: Annotated[str | None, typer.Option(help="Which variable, where there are several.")] = None,
    units: Annotated[str | None, typer.Option(help="Unit, where the files do not say or say it wrongly.")] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN|START/STEP|STEP",
            help="Pattern of the file names ('GWSA_{year}', bands are months), START/STEP ('2001-01/P1M'), or the STEP "
            "('P1M') of files that hold one time each.",
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title for people.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is, in CommonMark.")] = None,
    quantum: Annotated[
        float | None, typer.Option(metavar="Q", help="Store rounded to steps of Q units; otherwise lossless.")
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Add later periods to the published ones.")] = False,
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
    fresh: FreshOption = False,
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish any raster time series (NetCDF, GeoTIFF, Zarr, GRIB) as a collection."""
    from services.sources.ingest import inspect  # noqa: PLC0415 - dask and the file formats are loaded by the commands that need them

    _check_id(collection)
    session = open_session(context, store, as_json=as_json)
    options = IngestOptions(
        variable=variable, units=units, time=time, title=title, quantum=quantum, description=description
    )
    current = _current(session, collection)
    if append and current is None:
        raise Refused(f"--append: there is no collection {collection!r} to add to")
    like = current.product if append and current is not None else None
    conclusion = inspect(files, options, like)
    for line in conclusion.lines():
        note(line)
    with bytes_read() as told:
        recipe = conclusion.recipe(collection, told)
    if append and current is not None:
        both = set(recipe.periods().starts) & set(current.time.starts)
        if both:
            again = recipe.periods().take([i for i, s in enumerate(recipe.periods().starts) if s in both])
            raise Refused(
                f"--append: {collection} already has {again.ids[0]}"
                + (f" and {len(both) - 1} more of these periods" if len(both) > 1 else "")
                + "; give only later files, or leave --append out to publish these files as a new version"
            )
    if current is not None and not append:
        _say_what_vanishes(current, recipe)
    result = _make(
        session, recipe, current, keep=append, workers=workers, scheduler=scheduler, fresh=fresh, dry_run=dry_run
    )
    session.say({**result, "conclusion": conclusion.to_json()}, _lines(result))


def plan(
    context: typer.Context,
    product: Annotated[str, typer.Argument(metavar="PRODUCT")],
    inputs: Annotated[Path | None, typer.Option("--inputs", metavar="DIR", help="Directory of input files.")] = None,
    periods: PeriodsOption = None,
    bbox: BboxOption = None,
    name: NameOption = None,
    models_dir: ModelsOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what render would do."""
    session = open_session(context, store, as_json=as_json)
    recipe = _recipe(product, inputs, bbox, name, models_dir)
    current = _current(session, recipe.product.id)
    try:
        made = _plan(recipe, current, periods=periods, keep=True)
    except NothingToDo as fact:
        lines = [str(fact), *_remarks(recipe)]
        session.say({"segment": None, "lines": lines, "tasks": 0}, lines)
        return
    lines = _what(made, recipe)
    estimate = getattr(recipe, "estimate", None)
    if estimate is not None and len(made.fresh):
        grid = made.product.grid
        lines += estimate(made.fresh, _whole(grid), grid.shard_shape)
    session.say({"segment": made.segment, "lines": lines, "tasks": sum(1 for _ in made.all_tasks())}, lines)


def render(
    context: typer.Context,
    product: Annotated[str, typer.Argument(metavar="PRODUCT")],
    inputs: Annotated[Path | None, typer.Option("--inputs", metavar="DIR", help="Directory of input files.")] = None,
    periods: PeriodsOption = None,
    bbox: BboxOption = None,
    name: NameOption = None,
    models_dir: ModelsOption = None,
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
    publish: Annotated[
        bool,
        typer.Option(
            "--publish/--no-publish",
            help="Whether to make the result current; if not, it is served under /instances/VERSION only, and "
            "`cenote rollback` makes it current.",
        ),
    ] = True,
    fresh: FreshOption = False,
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute the periods that the current version lacks, and publish them; resumes what an earlier run left."""
    session = open_session(context, store, as_json=as_json)
    recipe = _recipe(product, inputs, bbox, name, models_dir)
    current = _current(session, recipe.product.id)
    try:
        result = _make(
            session,
            recipe,
            current,
            keep=True,
            periods=periods,
            workers=workers,
            scheduler=scheduler,
            fresh=fresh,
            dry_run=dry_run,
            publish=publish,
        )
    except NothingToDo as fact:
        # a job that runs every day ends well on the days without new input
        version = None if current is None else current.id
        session.say({"collection": recipe.product.id, "version": version, "changed": False}, [str(fact)])
        return
    session.say(result, _lines(result))


def publish_recipe(
    session: Session,
    recipe: Recipe,
    *,
    workers: int | None,
    scheduler: str | None,
    fresh: bool,
    dry_run: bool,
    out: Path | None = None,
) -> None:
    """Make a version that holds what a recipe computes and nothing else, and say so.

    A recipe may have ``summary() -> list[str]``, lines for people, and ``reports() -> Mapping[str, str]``, texts by
    file name, which are written into ``out``.
    """
    reports = getattr(recipe, "reports", None)
    if out is not None and reports is None:
        raise SettingsError(f"--out: {recipe.product.id} has no table to write")
    current = _current(session, recipe.product.id)
    result = _make(
        session, recipe, current, keep=False, workers=workers, scheduler=scheduler, fresh=fresh, dry_run=dry_run
    )
    lines = _lines(result)
    summary = getattr(recipe, "summary", None)
    if summary is not None and not dry_run:
        lines += summary()
        result["facts"] = {**recipe.facts(), **result.pop("findings", {})}
    if out is not None and reports is not None and not dry_run:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in reports().items():
            (out / name).write_text(text, encoding="utf-8")
            lines.append(f"{out / name} written")
    session.say(result, lines)


def _recipe(
    product: str, inputs: Path | None, bbox: str | None, name: str | None, models_dir: Path | None = None
) -> Recipe:
    package = products.product(product)
    if bbox is not None:
        bounds_of(bbox)  # before minutes of reading inputs
    if (bbox is None) != (name is None):
        raise SettingsError("--bbox and --name go together: a part is a collection of its own, PRODUCT_NAME")
    source = inputs if inputs is not None else Path(".cenote/inputs") / product
    recipe: Recipe = package.open_recipe(*([source] if models_dir is None else [source, models_dir]))
    if bbox is None or name is None:
        return recipe
    window: Window = window_of(recipe.product.grid, bbox)
    return Subset.of(recipe, window, name)


def _plan(recipe: Recipe, current: Version | None, *, periods: str | None, keep: bool) -> planning.Plan:
    made = planning.plan(
        product=recipe.product,
        available=recipe.periods(),
        current=current,
        code=this_code(packages_of(recipe)),
        inputs=recipe.inputs(),
        models=dict(recipe.models()),
        facts=dict(recipe.facts()),
        periods=periods,
        keep=keep,
    )
    within = [name for name in recipe.periods().ids if periods is not None and name.startswith(f"{periods}-")]
    if len(within) > 1:
        note(f"--periods {periods} is {made.fresh.ids[0]} alone; {periods}/{periods} is all {len(within)} of it")
    return made


def _remarks(recipe: Recipe) -> list[str]:
    tell = getattr(recipe, "remarks", None)
    lines: list[str] = [] if tell is None else tell(_whole(recipe.product.grid))
    return lines


def _what(made: planning.Plan, recipe: Recipe) -> list[str]:
    """What will be done, of the part in which there may be values, and what is given for it."""
    narrow = getattr(recipe, "reach", None)
    return [*made.lines(None if narrow is None else narrow(_whole(recipe.product.grid))), *_remarks(recipe)]


def _whole(grid: Grid) -> Window:
    return Window(row=0, column=0, height=grid.height, width=grid.width)


def _make(
    session: Session,
    recipe: Recipe,
    current: Version | None,
    *,
    keep: bool,
    periods: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    fresh: bool = False,
    dry_run: bool = False,
    publish: bool = True,
) -> dict[str, Any]:
    """Plan, run, compose and publish; what every command that makes a version does."""
    made = _plan(recipe, current, periods=periods, keep=keep)
    what = _what(made, recipe)  # before anything is written: it may refuse
    if dry_run:
        return {"collection": recipe.product.id, "dry_run": True, "plan": what}
    session.store.probe()
    if fresh:
        from services.pipeline import run as running  # noqa: PLC0415 - dask and the file formats are loaded by the commands that need them

        made = running.next_attempt(session.store, made)
    return run_and_publish(
        session, made, recipe, current, workers=workers, scheduler=scheduler, publish=publish, lines=what
    )


def run_and_publish(
    session: Session,
    made: planning.Plan,
    recipe: Recipe | None,
    current: Version | None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    publish: bool = True,
    lines: list[str] | None = None,
) -> dict[str, Any]:
    """Run a plan and publish what it made; ``lines`` tell the plan where it does not say enough of itself."""
    from services.pipeline import run as running  # noqa: PLC0415 - dask and the file formats are loaded by the commands that need them

    directories: Mapping[str, Path] = {} if recipe is None else recipe.model_directories()
    scores = models.keep(session.store, made.models, directories)
    tasks = sum(1 for _ in made.all_tasks())
    count = min(workers if workers is not None else len(os.sched_getaffinity(0)), tasks)
    with progress() as shown:
        for line in made.lines() if lines is None else lines:
            shown.note(line)
        with running.cluster(count, scheduler) as client:
            outcome = running.run(session.store, made, recipe, client, shown)
    version = publishing.compose(made, outcome, current, scores=scores)
    findings = getattr(recipe, "findings", None)
    found = {} if findings is None else dict(findings(Dataset(session.store, version)))
    if found:
        version = publishing.with_findings(version, outcome.segment, found)
    result: dict[str, Any] = {
        **({"findings": found} if found else {}),
        "collection": made.product.id,
        "segment": outcome.segment,
        "executed": outcome.executed,
        "recorded": outcome.recorded,
        "periods": list(made.fresh.ids),
        "flags": _flags(Dataset(session.store, version), made.fresh),
    }
    if not publish:
        publishing.write_version(session.store, version)
        return {**result, "version": version.id, "changed": False}
    published = publishing.publish(session.store, version)
    return {**result, "version": published.version, "seq": published.seq, "changed": published.changed}


def _flags(dataset: Dataset, fresh: TimeAxis) -> dict[str, float]:
    """Of each flag the share of the values that it is set for in some periods, by the coarsest level: about."""
    level = dataset.product.grid.levels - 1
    height, width = dataset.product.grid.level(level).shape
    window = Window(row=0, column=0, height=height, width=width)
    places = [dataset.time.starts.index(start) for start in fresh.starts]
    shares: dict[str, float] = {}
    for flag in (one for one in dataset.product.quantities if one.role == "flag"):
        total, count = 0.0, 0.0
        for place in places:
            values = flag.decode(dataset.read_map(flag, place, level, window))
            weights = dataset.read_valid_fraction(flag, place, level, window)
            total += float(np.nansum(values * weights))
            count += float(weights.sum())
        if count:
            shares[flag.name] = total / count
    return shares


def _check_id(name: str) -> None:
    try:
        check_id(name)
    except DeclarationError as error:
        raise SettingsError(str(error)) from None


def _say_what_vanishes(current: Version, recipe: Recipe) -> None:
    """A new version is what its files hold, and no more."""
    gone = sorted(set(current.time.starts) - set(recipe.periods().starts))
    if gone:
        lost = current.time.take([current.time.starts.index(start) for start in gone])
        more = f" and {len(gone) - 1} more periods" if len(gone) > 1 else ""
        note(
            f"{current.product.id}: these files hold no {lost.ids[0]}{more} that version {current.id} has; the new "
            "version goes without them (--append would keep them, `cenote rollback` brings them back)"
        )


def _current(session: Session, product: str) -> Version | None:
    return None if read_pointer(session.store, product) is None else current_version(session.store, product)[1]


def _same_models(current: Version, recipe: Recipe) -> bool:
    wanted = dict(recipe.models())
    used: dict[str, str] = {}
    for origin in current.provenance.values():
        used.update(origin.get("models", {}))
    return wanted == used and current.product == recipe.product


def _lines(result: dict[str, Any]) -> list[str]:
    if result.get("dry_run"):
        return [*result["plan"], "nothing was written"]
    state = f"published as seq {result['seq']}" if result.get("seq") else "not published"
    if result.get("seq") and not result["changed"]:
        state = "was current already"
    lines = [f"{result['collection']}: version {result['version']} {state}"]
    if result.get("flags"):
        told = ", ".join(f"{name} {share:.1%}" for name, share in result["flags"].items())
        lines.append(f"flagged, of the values that were computed: {told}")
    return lines
