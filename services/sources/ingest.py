"""Ingest: what a user's files are concluded to be, and the recipe that publishes them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from services.core.grid import Grid, Window
from services.core.product import LONG_SERIES_BLOCK, SHORTEST_SERIES_BLOCK, SMALL_GRID, Product
from services.core.quantity import Quantity
from services.core.time_axis import TimeAxis
from services.sources import agreement, files, handles, periods
from services.sources.files import Progress, Source
from services.sources.options import IngestOptions
from services.sources.raster import KIND_NAMES, Description
from services.sources.recipe import IngestRecipe, Run, Table, check_seam, packed_axis
from services.sources.sample import sampled
from services.sources.timing import Timing, timed

MANY_PERIODS = 1000
"""Periods above which a small grid has one layout for maps and series."""

_BLOCKS = {"Y": 120, "M": 120, "D": 360, "h": 720, "m": 720}
"""Periods per map block of that one layout."""

_LOOKED_AT = 3
"""Maps of which the seam is compared at once; the others are when they are read."""


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """What files were concluded to be; says so in lines for people and in JSON, and makes the recipe."""

    title: str
    description: str
    quantity: Quantity
    grid: Grid
    axis: TimeAxis
    table: Table
    facts: tuple[tuple[str, str], ...]
    """What was concluded, label and sentence."""

    attributes: Mapping[str, str | float | int]
    """Global attributes that all files agree on."""

    stated_units: tuple[str | None, ...]
    """The unit that each file states, whatever the user says."""

    like: Product | None = None
    """The collection that is continued."""

    def lines(self) -> list[str]:
        """One line per fact."""
        return [f"{label}: {sentence}" for label, sentence in self.facts]

    def to_json(self) -> dict[str, Any]:
        """The same as data, kept as provenance."""
        return {
            "facts": [{"about": label, "fact": sentence} for label, sentence in self.facts],
            "variable": self.quantity.name,
            "units": self.quantity.units,
            "step": str(self.axis.step),
            "periods": len(self.axis),
            "grid": {
                "west": str(self.grid.west),
                "north": str(self.grid.north),
                "step_x": str(self.grid.step_x),
                "step_y": str(self.grid.step_y),
                "width": self.grid.width,
                "height": self.grid.height,
            },
            "files": len(self.table.sources),
        }

    def product(self, product_id: str) -> Product:
        """The declaration of the collection; when one is continued, that one's."""
        if self.like is not None:
            return self.like
        small = self.grid.cells <= SMALL_GRID and len(self.axis) > MANY_PERIODS
        block = SHORTEST_SERIES_BLOCK if len(self.axis) <= SHORTEST_SERIES_BLOCK else LONG_SERIES_BLOCK
        return Product(
            id=product_id,
            title=self.title,
            description=self.description,
            grid=self.grid,
            step=str(self.axis.step),
            quantities=(self.quantity,),
            map_block=_BLOCKS[self.axis.step.unit] if small else 1,
            series_block=None if small else block,
            cog_period="P1Y" if small else "step",
            attributes=dict(self.attributes),
        )

    def recipe(self, product_id: str, progress: Progress | None = None) -> IngestRecipe:
        """The recipe that publishes the files under an id; reads every byte once, for the digests.

        Args:
            product_id: the collection's id.
            progress: told bytes done and bytes in all.

        Raises:
            DeclarationError: if the id cannot be one.
            InputRefused: if a file changed since it was looked at.
        """
        product = self.product(product_id)
        return IngestRecipe(
            product=product,
            table=replace(self.table, sources=files.hashed(self.table.sources, progress)),
            axis=packed_axis(self.axis),
            conclusions=json.dumps(self.to_json(), separators=(",", ":")),
        )


def inspect(names: Sequence[str], options: IngestOptions, like: Product | None = None) -> Conclusion:
    """Look at files and conclude what they are; nothing is stored.

    Args:
        names: paths, globs or URLs, in the order in which START/STEP counts them.
        options: what the user says.
        like: the collection that they continue (``--append``): grid, unit and packing must be its own; its step holds.

    Raises:
        InputRefused: if something is missing, ambiguous, inconsistent or broken; names file and fact.
        SettingsError: if an option cannot be understood.
    """
    option = None if options.time is None else periods.parse_time(options.time)
    sources, described = _described(files.found(names), options)
    labels = [source.name for source in sources]
    told = [("files", _kinds(sources))]
    grid, grid_facts = agreement.grid(labels, described, like)
    timing = timed(labels, described, option, None if like is None else like.length)
    units, units_fact = agreement.units(labels, described, options.units)
    variable, variable_fact = agreement.variable(labels, described, option, options.variable)
    table = _table(sources, described, timing)
    named = agreement.Named(variable=variable, units=units, description=described[0])
    attributes = agreement.common([description.attributes for description in described])
    quantity, values_fact = agreement.quantity(
        labels, described, named, attributes, options.quantum, like, lambda: sampled(table, grid)
    )
    told += [("variable", variable_fact), ("units", units_fact), ("values", values_fact), *grid_facts, *timing.facts]
    told += _notes(described)
    _compare_seams(table, grid)
    if like is None:
        quantity = replace(quantity, style=agreement.style(quantity, sampled(table, grid)))
        told.append(("colours", agreement.style_fact(quantity)))
    title = (
        options.title
        or _common_title(described)
        or described[0].long_name
        or f"{variable} of {labels[0].rstrip('/').rpartition('/')[2]}"
    )
    told.append(("title", title))
    return Conclusion(
        title=title,
        description=options.description or _text(title, quantity, sources),
        quantity=quantity,
        grid=grid,
        axis=timing.axis,
        table=table,
        facts=tuple(told),
        attributes=agreement.common([description.global_attributes for description in described]),
        stated_units=tuple(description.units for description in described),
        like=like,
    )


def _described(sources: Sequence[Source], options: IngestOptions) -> tuple[list[Source], list[Description]]:
    wanted = options.variable
    kept: list[Source] = []
    described: list[Description] = []
    for source in sources:
        description = handles.describe(source, wanted)
        if wanted is None and source.kind != "geotiff":
            wanted = description.access.variable  # the others must have the same
        described.append(description)
        kept.append(files.with_parts(source, description.parts) if source.kind == "zarr" else source)
    return kept, described


def _table(sources: Sequence[Source], described: Sequence[Description], timing: Timing) -> Table:
    accesses = list(dict.fromkeys(description.access for description in described))
    layouts = list(dict.fromkeys(description.layout for description in described))
    packings = list(dict.fromkeys(packing for description in described for packing in description.packings))
    runs: list[Run] = []
    for position, (number, at) in enumerate(timing.slots):
        description = described[number]
        packing = packings.index(description.packings[at if len(description.packings) > 1 else 0])
        first = at if description.numbers is None else description.numbers[at]
        last = runs[-1] if runs else None
        if last and (last.source, last.packing, last.first + last.count) == (number, packing, first):
            runs[-1] = replace(last, count=last.count + 1)
        else:
            runs.append(Run(position=position, count=1, source=number, first=first, packing=packing))
    return Table(
        sources=tuple(sources),
        accesses=tuple(accesses),
        layouts=tuple(layouts),
        packings=tuple(packings),
        shapes=tuple((accesses.index(d.access), layouts.index(d.layout)) for d in described),
        runs=tuple(runs),
    )


def _compare_seams(table: Table, grid: Grid) -> None:
    window = Window(row=0, column=0, height=grid.height, width=grid.width)
    looked = sorted({round(at) for at in np.linspace(0, len(table.runs) - 1, _LOOKED_AT)})
    for run in (table.runs[at] for at in looked):
        access, layout = (table.accesses[table.shapes[run.source][0]], table.layouts[table.shapes[run.source][1]])
        if not layout.seam:
            continue
        with handles.opened(table.sources[run.source]) as file:
            for first in sorted({run.first, run.first + run.count - 1}):
                numbers = slice(first, first + 1)
                check_seam(
                    table.sources[run.source].name, file, access, layout, table.packings[run.packing], numbers, window
                )


def _kinds(sources: Sequence[Source]) -> str:
    counts = Counter(KIND_NAMES[source.kind] for source in sources)
    size = sum(source.size for source in sources)
    return f"{', '.join(f'{count} {kind}' for kind, count in counts.items())}, {size:,} bytes"


def _common_title(described: Sequence[Description]) -> str | None:
    titles = {description.title for description in described}
    return titles.pop() if len(titles) == 1 else None


def _notes(described: Sequence[Description]) -> list[tuple[str, str]]:
    counts = Counter(fact for description in described for fact in description.facts)
    return [
        ("note", fact if count == len(described) else f"{fact} ({count} of {len(described)} files)")
        for fact, count in counts.items()
    ]


def _text(title: str, quantity: Quantity, sources: Sequence[Source]) -> str:
    names = [source.name.rstrip("/").rpartition("/")[2] for source in sources]
    listed = ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]} ({len(names)} files)"
    return f"{title}: {quantity.long_name} in {quantity.units}, ingested from {listed}."
