"""What a user may say about rasters that do not say it themselves."""

import math
from dataclasses import dataclass

from services.core.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """The options of ``cenote ingest``; None leaves it to the files.

    Raises:
        SettingsError: if a value cannot be meant.
    """

    variable: str | None = None
    """``--variable``: which variable, or which band by its description; a GeoTIFF's values are named so."""

    units: str | None = None
    """``--units``: UDUNITS string, wins over what a file says."""

    time: str | None = None
    """``--time``: a pattern of file names (``GWSA_{year}``), ``START/STEP`` (``2001-01/P1M``) or ``STEP`` (``P1M``)."""

    title: str | None = None
    """``--title``: one line for people."""

    quantum: float | None = None
    """``--quantum``: floats are stored as whole multiples of this, in ``units``."""

    description: str | None = None
    """``--description``: CommonMark."""

    def __post_init__(self) -> None:
        for name in ("variable", "units", "time", "title", "description"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise SettingsError(f"--{name} is empty; leave it out or say something")
        if self.quantum is not None and not (math.isfinite(self.quantum) and self.quantum > 0):
            raise SettingsError(f"--quantum must be a positive number, not {self.quantum:g}")
