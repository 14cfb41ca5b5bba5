"""The sample Earth's groundwater: its input files, and the part of the globe that they are of."""

from collections.abc import Callable
from pathlib import Path

from services.core.errors import SettingsError
from services.sample.groundwater import REGIONS
from services.sample.groundwater_files import write_groundwater

AREAS = {"small": "70,21,73,24", "study": "68,20,76,26"}
"""Part that is rendered of each size, inside what has predictors."""

_FILES_PER_LINE = 48


def write_sample(directory: Path, size: str, note: Callable[[str], None]) -> None:
    """Write the input files of a size, or keep them where they are as they would be written.

    Args:
        directory: made if it is not there.
        size: one of ``services.sample.groundwater.REGIONS``.
        note: told how far it is.

    Raises:
        SettingsError: if there is no such size.
    """

    def tell(done: int, total: int, name: str) -> None:
        if done % _FILES_PER_LINE == 0 or done == total:
            note(f"input files: {done} of {total} written, last {name}")

    for known in REGIONS:
        if size == known:
            write_groundwater(directory, known, tell)
            return
    raise SettingsError(f"the sample Earth's groundwater has the sizes {', '.join(REGIONS)}, not {size!r}")


def sample_area(size: str) -> str:
    """The part that is rendered as ``gwsa_sample``, W,S,E,N in degrees: enough to see, in a minute of two cores."""
    if size not in AREAS:
        raise SettingsError(f"the sample Earth's groundwater has the sizes {', '.join(AREAS)}, not {size!r}")
    return AREAS[size]
