"""Its input files: the whole sample Earth."""

from collections.abc import Callable
from pathlib import Path

from services.core.errors import SettingsError
from services.sample.inputs import SPANS, write_inputs

_FILES_PER_LINE = 12


def write_sample(directory: Path, size: str, note: Callable[[str], None]) -> None:
    """Write the input files of a size, or keep them where they are as they would be written.

    Args:
        directory: made if it is not there.
        size: one of ``services.sample.inputs.SPANS``.
        note: told how far it is.

    Raises:
        SettingsError: if there is no such size.
    """

    def tell(done: int, total: int, name: str) -> None:
        if done % _FILES_PER_LINE == 0 or done == total:
            note(f"input files: {done} of {total} written, last {name}")

    for known in SPANS:
        if size == known:
            write_inputs(directory, known, tell)
            return
    raise SettingsError(f"the sample Earth has the sizes {', '.join(SPANS)}, not {size!r}")
