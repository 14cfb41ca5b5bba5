"""Commands for models: train, export, validate."""

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from services import products
from services.cli.make import SchedulerOption
from services.cli.session import DryRunOption, JsonOption, StoreOption, note, open_session, say
from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.errors import Refused, SettingsError

ProductArgument = Annotated[str, typer.Argument(metavar="PRODUCT")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=0, help="Local worker processes.  [default: 0, work in this process]")
]
InputsOption = Annotated[
    Path | None, typer.Option("--inputs", metavar="DIR", help="Input files.  [default: .cenote/inputs/PRODUCT]")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (train, export, validate):
        app.command()(command)


def train(
    product: ProductArgument,
    inputs: InputsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where weights and the run record go.  [default: .cenote/models/PRODUCT]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a product's models; needs the train extra (torch, xgboost)."""
    work = _function(product, "train")
    _check_training(product, "train")
    source = inputs if inputs is not None else Path(".cenote/inputs") / product
    target = out if out is not None else Path(".cenote/models") / product
    result = {"product": product, "inputs": str(source), "out": str(target), "seed": seed, "dry_run": dry_run}
    if dry_run:
        lines = [f"{product}: would train on {source} with seed {seed} into {target}", "nothing was written"]
        say(result, lines, as_json=as_json)
        return
    from services.pipeline import run as running  # noqa: PLC0415 - dask is loaded by the commands that need it

    count = 0 if workers is None and scheduler is None else (workers or 0)
    with _needing_training("train"), running.cluster(count, scheduler) as client:
        work(source, target, seed, note, running.each(client))
    say(result, [f"{product}: trained into {target}; `cenote export {product}` makes ONNX of it"], as_json=as_json)


def export(
    product: ProductArgument,
    trained: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="What train wrote.  [default: .cenote/models/PRODUCT]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where model.onnx and card.json go.  [default: what train wrote]")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export trained models to ONNX with their cards; needs the train extra."""
    work = _function(product, "export")
    _check_training(product, "export")
    source = trained if trained is not None else Path(".cenote/models") / product
    target = out if out is not None else source
    result = {"product": product, "from": str(source), "out": str(target), "dry_run": dry_run}
    if dry_run:
        lines = [f"{product}: would export {source} into {target}", "nothing was written"]
        say(result, lines, as_json=as_json)
        return
    with _needing_training("export"):
        work(source, target, note)
    say(
        result,
        [f"{product}: exported into {target}; `cenote render {product} --models {target}` uses it"],
        as_json=as_json,
    )


def validate(
    context: typer.Context,
    product: ProductArgument,
    inputs: InputsOption = None,
    collection: Annotated[
        str | None, typer.Option(metavar="ID", help="A part of the product, such as PRODUCT_NAME.  [default: PRODUCT]")
    ] = None,
    models_dir: Annotated[
        Path | None,
        typer.Option("--models", metavar="DIR", help="What it was rendered with.  [default: as shipped]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where reports go.  [default: .cenote/reports/COLLECTION]"),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the published values of a product against its ground truth."""
    work = _function(product, "validate")
    name = collection if collection is not None else product
    takes = inspect.signature(work).parameters
    options: dict[str, Any] = {"models": models_dir, "out": out}
    for option, value in options.items():
        if value is not None and option not in takes:
            raise SettingsError(f"--{option}: the validation of {product} takes none")
    if "out" in takes and out is None:
        options["out"] = Path(".cenote/reports") / name
    session = open_session(context, store, as_json=as_json)
    dataset = Dataset(session.store, current_version(session.store, name)[1])
    given = {option: value for option, value in options.items() if value is not None}
    scores: dict[str, Any] = work(
        inputs if inputs is not None else Path(".cenote/inputs") / product, dataset, note, **given
    )
    lines = scores.get("summary") or [f"{key}: {value}" for key, value in scores.items()]
    session.say(scores, [*lines, f"report in {options['out']}"] if "out" in given else lines)


@contextmanager
def _needing_training(command: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise Refused(_lacking(command, str(error.name), (str(error.name),))) from None


def _check_training(product: str, command: str) -> None:
    """Before minutes of work, whether what learns is there."""
    needed: tuple[str, ...] = getattr(products.product(product), "TRAINS_WITH", ())
    with _needing_training(command):
        for name in needed:
            if importlib.util.find_spec(name) is None:
                raise Refused(_lacking(command, name, needed))


def _lacking(command: str, name: str, needed: tuple[str, ...]) -> str:
    # on Linux the package xgboost brings CUDA; the build without it is a package of another name, as in pyproject.toml
    packages = ["xgboost-cpu" if one == "xgboost" and sys.platform == "linux" else one for one in needed]
    return (
        f"{command} needs the package {name}, which is not installed: in a checkout "
        f"`.venv/bin/pip install -c constraints.txt {' '.join(packages)}` installs it, elsewhere cenote's train extra"
    )


def _function(product: str, name: str) -> Any:
    found = getattr(products.product(product), name, None)
    if not callable(found):
        raise Refused(f"product {product!r} has no {name}")
    return found
