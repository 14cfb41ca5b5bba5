"""The wells that ``gwsa.toml`` names: for validation alone, and looked at before anything is computed."""

from dataclasses import replace

import numpy as np

from services.core.errors import InputRefused
from services.products.gwsa.inputs import SETTINGS, Inputs
from services.sources.wells import Wells, open_wells


def read_levels(inputs: Inputs) -> tuple[Wells, int] | None:
    """Levels in wells, and how many have the specific yield that is declared for all; None where no wells are named.

    Raises:
        InputRefused: if the files do not hold; names file and fact.
    """
    settings, toml = inputs.settings.wells, inputs.directory / SETTINGS
    if settings is None:
        return None
    levels = open_wells(
        settings.path(toml, "wells"),
        None if settings.sites is None else str(inputs.directory / settings.sites),
        measures=settings.measures,
        units=settings.units,
    )
    unknown = np.isnan(levels.specific_yield)
    if settings.specific_yield is None:
        return levels, 0
    return (
        replace(levels, specific_yield=np.where(unknown, settings.specific_yield, levels.specific_yield)),
        int(unknown.sum()),
    )


def about_wells(inputs: Inputs) -> list[str]:
    """What there is of wells, or why they cannot be used, in a line; nothing where none are named."""
    try:
        read = read_levels(inputs)
    except InputRefused as error:
        return [f"wells: validation will go without them: {error}"]
    if read is None:
        return []
    levels, declared = read
    months = np.datetime64(levels.months[0], "M"), np.datetime64(levels.months[-1], "M")
    lacking = {
        "without a place": int(np.isnan(levels.longitude).sum()),
        "without a specific yield": int(np.isnan(levels.specific_yield).sum()),
        "with the declared specific yield": declared,
    }
    parts = [f"{count} {what}" for what, count in lacking.items() if count]
    return [f"wells: {len(levels.sites)}, {months[0]}..{months[1]}{', ' if parts else ''}{', '.join(parts)}"]
