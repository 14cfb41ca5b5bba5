"""Inputs of a product named in a TOML file of their directory: which entry is which files."""

import difflib
import glob
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from services.core.errors import InputRefused
from services.sources import documents
from services.sources.documents import Document

type Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]


class Part(BaseModel):
    """A table of the file: nothing beside what is declared is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Files(Part):
    """Files of one kind; a pattern of names in the directory, or several."""

    files: str | list[str]

    @property
    def patterns(self) -> list[str]:
        """As a list."""
        return [self.files] if isinstance(self.files, str) else self.files

    def paths(self, settings: Path, what: str) -> list[str]:
        """Paths or URLs that the patterns mean.

        Args:
            settings: the TOML file; patterns are relative to its directory.
            what: the entry, for messages.

        Raises:
            InputRefused: if a pattern means none.
        """
        found: list[str] = []
        for pattern in self.patterns:
            # an absolute pattern replaces the directory
            remote = "://" in pattern
            matches = [pattern] if remote else sorted(glob.glob(str(settings.parent / pattern)))  # noqa: PTH207
            if not matches:
                raise InputRefused(f"{settings}: {what} names {pattern!r}, and {settings.parent} holds no such file")
            found += matches
        return found

    def path(self, settings: Path, what: str) -> str:
        """The one path or URL that the patterns mean.

        Raises:
            InputRefused: if they mean none, or several.
        """
        found = self.paths(settings, what)
        if len(found) != 1:
            raise InputRefused(f"{settings}: {what} must be one file, and {self.files!r} is {len(found)}")
        return found[0]


def read_settings[Settings: BaseModel](
    path: Path, kind: type[Settings], *, described: str
) -> tuple[Settings, Document]:
    """Read and check the TOML file.

    Args:
        path: of the file.
        kind: what it must hold.
        described: the document that shows one, for the message where the file is not there.

    Raises:
        InputRefused: if it is not there or does not hold; names the entry.
    """
    if not path.is_file():
        shown = f"; {described} shows one" if described else ""
        raise InputRefused(f"{path.parent} holds no {path.name}, which says what each file is{shown}")
    document, body = documents.read(str(path))
    try:
        said = tomllib.loads(documents.text(str(path), body))
    except tomllib.TOMLDecodeError as error:
        raise InputRefused(f"{path} is no TOML: {error}") from None
    try:
        return kind.model_validate(said), document
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        # a name written wrongly is also one that lacks: the former says what to do
        first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
        place = _place(first["loc"], said)
        raise InputRefused(f"{path}: {place + ': ' if place else ''}{_fact(first, kind)}") from None


def _place(loc: tuple[int | str, ...], said: Any) -> str:
    """An entry as its writer knows it: of several tables of a kind its name, and its number from 1."""
    told: list[str] = []
    for part in loc:
        try:
            said = said[part]
        except (LookupError, TypeError):
            said = None
        if isinstance(part, int) and told:
            name = said.get("name") if isinstance(said, dict) else None
            told[-1] += f"[{part + 1}]" + (f" ({name})" if isinstance(name, str) else "")
        else:
            told.append(str(part))
    return ".".join(told)


def _fact(error: ErrorDetails, kind: type[BaseModel]) -> str:
    """What does not hold, without the words of the library."""
    entry = str(error["loc"][-1]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        table = _table(kind, error["loc"][:-1])
        known = () if table is None else tuple(table.model_fields)
        near = difflib.get_close_matches(entry, known, n=1)
        return "there is no such entry" + (f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}")
    if error["type"] == "missing":
        return "it is not there, and must be"
    if error["type"] in {"model_type", "dict_type"}:
        return "it should be a table of entries"
    return re.sub(r"^(Input|String|List|Tuple) should", "it should", error["msg"].removeprefix("Value error, "))


def _table(kind: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """What a table of the file must hold; None where it cannot be told."""
    found: type[BaseModel] | None = kind
    for part in loc:
        if isinstance(part, str):
            field = None if found is None else found.model_fields.get(part)
            found = None if field is None else _model_in(field.annotation)
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for one in get_args(annotation) if (model := _model_in(one)) is not None), None)


def relative(place: Path, location: str) -> str:
    """A file's name in its directory; whole where it lies elsewhere."""
    path = Path(location)
    return str(path.relative_to(place)) if path.is_relative_to(place) else location
