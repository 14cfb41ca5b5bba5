"""What is published under one id: its grid, time step, quantities, and how they are laid out in storage."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from services.core.errors import DeclarationError, QuantityNotFound
from services.core.grid import Grid
from services.core.quantity import Quantity
from services.core.time_axis import Step

type CogPeriod = Literal["P1Y", "P1M", "P1D", "step"]

_ID = re.compile(r"^[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*$")
RESERVED = frozenset({"models", "catalog", "collections", "search", "tiles", "conformance", "static"})
"""Ids that would collide with the storage tree or the service's routes."""

SMALL_GRID = 65_536
"""Cells up to which one layout may serve both maps and series (DESIGN 3)."""

SHORTEST_SERIES_BLOCK = 120
"""Periods that a series block covers at least (DESIGN 3)."""

LONG_SERIES_BLOCK = 240
"""Periods of a block of a longer archive, such as twenty years of months: a series is one read (decision 0010)."""


def is_collection_id(name: str) -> bool:
    """Whether a name can be the id of a collection."""
    return _ID.fullmatch(name) is not None and name not in RESERVED


def check_id(name: str) -> None:
    """Refuse a name that cannot be the id of a collection.

    Raises:
        DeclarationError: naming what would be right.
    """
    if not is_collection_id(name):
        raise DeclarationError(
            f"{name!r} cannot be the id of a collection (small letters, digits, _ and -, none of "
            f"{', '.join(sorted(RESERVED))})"
        )


@dataclass(frozen=True, kw_only=True)
class Provider:
    """Who made, licensed or processed the data (STAC provider)."""

    name: str
    roles: tuple[Literal["producer", "licensor", "processor", "host"], ...] = ("producer",)
    url: str | None = None


@dataclass(frozen=True, kw_only=True)
class Product:
    """The declaration of a collection; a version carries it, so that the service needs no product code.

    Raises:
        DeclarationError: if the declaration contradicts itself.
    """

    id: str
    """Folder, STAC collection id, URL segment and storage prefix."""

    title: str
    """One line for people."""

    description: str
    """CommonMark; says what is measured, how, and what it must not be used for."""

    grid: Grid
    """Where values lie at level 0."""

    step: str
    """Length of a period, ISO 8601 (``P1M``)."""

    quantities: tuple[Quantity, ...]
    """What is measured; the first one is drawn when a request names none."""

    map_block: int = 1
    """Periods per chunk of maps.zarr."""

    series_block: int | None = SHORTEST_SERIES_BLOCK
    """Periods per chunk of series.zarr; None: series are read from maps.zarr (small grids only)."""

    cog_period: CogPeriod | None = "step"
    """Calendar span of one COG; ``step``: a file for each period; None: no COGs."""

    fixed_mask: bool = False
    """Whether the same cells are valid in every period, so that the valid fraction is stored once."""

    license: str = "other"
    """SPDX id, or ``other``."""

    keywords: tuple[str, ...] = ()
    providers: tuple[Provider, ...] = ()
    citation: str | None = None
    """How to cite it."""

    synthetic: bool = False
    """Whether values were made up; every answer and page then says so."""

    attributes: dict[str, str | float | int] = field(default_factory=dict)
    """Further global CF attributes."""

    def __post_init__(self) -> None:
        check_id(self.id)
        if not self.title or not self.description:
            raise DeclarationError(f"{self.id}: title and description must say something")
        names = [quantity.name for quantity in self.quantities]
        if not names or len(set(names)) != len(names):
            raise DeclarationError(f"{self.id}: quantities need names of their own, not {names}")
        for quantity in self.quantities:
            if quantity.ancillary_of is not None and quantity.ancillary_of not in names:
                raise DeclarationError(
                    f"{self.id}: {quantity.name} qualifies {quantity.ancillary_of!r}, which is not there"
                )
        Step.parse(self.step)
        if self.map_block < 1:
            raise DeclarationError(f"{self.id}: a map block needs at least one period, not {self.map_block}")
        if self.series_block is None:
            if self.grid.cells > SMALL_GRID:
                raise DeclarationError(
                    f"{self.id}: a grid of {self.grid.cells} cells needs a series layout; one layout serves both "
                    f"only up to {SMALL_GRID} cells"
                )
        elif self.series_block < SHORTEST_SERIES_BLOCK or self.series_block % self.map_block:
            raise DeclarationError(
                f"{self.id}: a series block must be at least {SHORTEST_SERIES_BLOCK} periods and a multiple of the map "
                f"block of {self.map_block}, not {self.series_block}"
            )

    @property
    def length(self) -> Step:
        """The step as a value."""
        return Step.parse(self.step)

    def quantity(self, name: str | None) -> Quantity:
        """A quantity by name; None is the first.

        Raises:
            QuantityNotFound: if there is none of that name.
        """
        if name is None:
            return self.quantities[0]
        for quantity in self.quantities:
            if quantity.name == name:
                return quantity
        names = ", ".join(quantity.name for quantity in self.quantities)
        raise QuantityNotFound(f"collection {self.id!r} has no variable {name!r}; it has {names}")

    def to_json(self) -> dict[str, Any]:
        """The declaration as JSON data; fractions are strings."""
        document: dict[str, Any] = _PRODUCT.dump_python(self, mode="json")
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Product":
        """The declaration that ``to_json`` wrote.

        Raises:
            DeclarationError: if it does not hold.
        """
        try:
            return _PRODUCT.validate_python(document)
        except ValidationError as error:
            raise DeclarationError(f"not a product declaration: {error}") from None


_PRODUCT = TypeAdapter(Product)
