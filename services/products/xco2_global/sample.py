"""The sample Earth's carbon: its input files, and the part of the globe that is rendered of them."""

from collections.abc import Callable
from pathlib import Path

from services.core.errors import SettingsError
from services.sample.carbon import SPANS
from services.sample.carbon_files import write_carbon

_FILES_PER_LINE = 48


def write_sample(directory: Path, size: str, note: Callable[[str], None]) -> None:
    """Write the input files of a size, or keep them where they are as they would be written.

    Args:
        directory: made if it is not there.
        size: one of ``services.sample.carbon.SPANS``.
        note: told how far it is.

    Raises:
        SettingsError: if there is no such size.
    """

    def tell(done: int, total: int, name: str) -> None:
        if done % _FILES_PER_LINE == 0 or done == total:
            note(f"input files: {done} of {total} written, last {name}")

    for known in SPANS:
        if size == known:
            write_carbon(directory, known, tell)
            return
    raise SettingsError(f"the sample Earth's carbon has the sizes {', '.join(SPANS)}, not {size!r}")


def sample_area(size: str) -> str:
    """All of it, W,S,E,N in degrees: its cells are wide."""
    if size not in SPANS:
        raise SettingsError(f"the sample Earth's carbon has the sizes {', '.join(SPANS)}, not {size!r}")
    return "-180,-90,180,90"
