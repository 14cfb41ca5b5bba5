"""What a broken file makes a library raise becomes one sentence with the file's name."""

import contextlib
import re
import warnings
from collections.abc import Iterator

from services.core.errors import CenoteError, InputRefused

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@'\"]+@|(?<=[^\s?])\?[^\s'\")]*=[^\s'\")]*")
"""User and password, and query, of a URL in a message."""

_CUT_SHORT = re.compile(r"truncated file: eof = (\d+),.*?stored_eof = (\d+)")
"""In what HDF5 says of a file that ends before its end."""

LONGEST = 300
"""Characters of a library's own message that are passed on."""


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn whatever is raised while a file is read into an InputRefused that names it.

    Raises:
        InputRefused: in place of any error that is not cenote's own.
    """
    try:
        with warnings.catch_warnings():
            # a reader's doubts about a file that it can still read are not the caller's errors
            warnings.simplefilter("ignore")
            yield
    except CenoteError:
        raise
    except Exception as error:
        cut = _CUT_SHORT.search(str(error))
        if cut is not None:
            raise InputRefused(
                f"{name} is cut short: it holds {int(cut[1]):,} of the {int(cut[2]):,} bytes that it says it has; "
                "download or copy it again"
            ) from error
        told = " ".join(_CREDENTIALS.sub("", str(error)).split())[:LONGEST]
        raise InputRefused(f"{name} is broken or is not what it begins as: {type(error).__name__}: {told}") from error
