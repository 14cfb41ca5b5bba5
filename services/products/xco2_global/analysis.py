"""What the analyses of a published collection share: the version and months they are of, and the rest of a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.core.errors import Refused
from services.pipeline.recipe import Input
from services.pipeline.trend import TrendRecipe

PPM = "1e-6"
"""The unit in which xco2 is stored."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Of months of a version; a recipe of an analysis adds its declaration, periods and values."""

    trend: TrendRecipe
    """The version, its quantity and months."""

    def __post_init__(self) -> None:
        if self.trend.quantity.units != PPM:
            raise Refused(
                f"{self.trend.source}: {self.trend.quantity.name} is in {self.trend.quantity.units}; this analysis is "
                f"of mole fractions in {PPM} (ppm)"
            )

    def inputs(self) -> tuple[Input, ...]:
        """The version, by its own digest."""
        return self.trend.inputs()

    def models(self) -> Mapping[str, str]:
        """None."""
        return {}

    def model_directories(self) -> Mapping[str, Path]:
        """None."""
        return {}

    def origin(self) -> dict[str, Any]:
        """What it is of, for ``facts``."""
        one = self.trend
        return {
            "source": one.source,
            "variable": one.quantity.name,
            "version": one.version,
            "months": list(one.months.ids),
        }

    @property
    def of(self) -> str:
        """What it is of, for descriptions."""
        one = self.trend
        return (
            f"`{one.quantity.name}` of the collection `{one.source}` from {one.months.ids[0]} to {one.months.ids[-1]}, "
            f"version {one.version}"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}
