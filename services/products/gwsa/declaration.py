"""What the product publishes, and the two grids that it lives on."""

from services.core.grid import Grid
from services.core.product import LONG_SERIES_BLOCK, Product, Provider
from services.core.quantity import Quantity
from services.core.style import Style

FACTOR = 30
"""Fine cells along a side of a coarse one."""

FINE = Grid.of(west=-180, north=90, step_x="1/120", width=43200, height=18000)
"""The published grid, 90 N to 60 S."""

COARSE = Grid.of(west=-180, north=90, step_x="1/4", width=1440, height=600)
"""The grid of GLDAS and of CSR's mascons, over the same area: 30 x 30 fine cells each."""

BASELINE = ("2004-01", "2009-12")
"""Months whose mean is zero in every term of the balance (GRACE's convention, and the published record's)."""

BASE_MONTHS = range(408, 480)
"""The same, months since 1970-01."""

LARGEST = 600.0
"""cm; a cell whose balance ever passes it has no value: GLDAS piles up snow on glaciers without end (our choice)."""

GWSA = Quantity(
    name="gwsa",
    units="cm",
    long_name="Groundwater storage anomaly as equivalent water height",
    dtype="int16",
    # interpolation that keeps means passes the extremes of a rough field: 16 m fit, LARGEST is 6
    scale_factor=0.05,
    add_offset=0.0,
    fill_value=-32768,
    quantum=0.05,
    style=Style(colormap_name="rdbu", minimum=-30.0, maximum=30.0),
    attributes={
        "baseline": "/".join(BASELINE),
        "effective_resolution": (
            "about 300 km, GRACE's; finer detail is inferred from predictors and keeps the 0.25 degree means"
        ),
    },
)

UNCERTAINTY = Quantity(
    name="gwsa_uncertainty",
    units="cm",
    long_name="Standard deviation of the error of the groundwater storage anomaly, terms taken as independent",
    dtype="int16",
    scale_factor=0.02,
    add_offset=0.0,
    fill_value=-32768,
    quantum=0.02,
    role="uncertainty",
    ancillary_of="gwsa",
    style=Style(colormap_name="viridis", minimum=0.0, maximum=10.0),
)


def _flag(name: str, long_name: str) -> Quantity:
    """1 where something holds of the value; a coarser level has its share."""
    return Quantity(
        name=name,
        units="1",
        long_name=long_name,
        dtype="uint8",
        fill_value=255,
        quantum=0.01,
        role="flag",
        ancillary_of="gwsa",
        style=Style(colormap_name="greys", minimum=0.0, maximum=1.0),
    )


FILLED = _flag(
    "filled", "1 where GRACE has no solution of the month and the water storage was filled from other months"
)

EXTRAPOLATED = _flag(
    "extrapolated",
    "1 where a predictor is missing, or outside the range that the model has learned and clipped to it",
)

CAUTION = _flag("caution", "1 on glaciers, big lakes and permafrost, whose water the balance takes for groundwater")

PRODUCT = Product(
    id="gwsa",
    title="Groundwater storage anomaly, 1/120 degree, monthly",
    description=(
        "Monthly groundwater storage anomaly in cm of equivalent water height against the mean of 2004-2009: total "
        "water storage of GRACE and GRACE-FO mascons (missing months filled and flagged) less soil moisture, snow and "
        "canopy water of GLDAS Noah 2.1, downscaled from 1/4 to 1/120 degree with one gradient-boosted model for each "
        "aquifer region; means over 1/4 degree stay what the balance says. **What GRACE resolves is about 300 km**: "
        "finer detail is inferred from predictors. Glaciers, big lakes and permafrost are flagged, not corrected."
    ),
    grid=FINE,
    step="P1M",
    quantities=(GWSA, UNCERTAINTY, FILLED, EXTRAPOLATED, CAUTION),
    series_block=LONG_SERIES_BLOCK,
    cog_period="P1Y",
    license="CC-BY-4.0",
    keywords=("groundwater", "GRACE", "GRACE-FO", "GLDAS", "water storage", "downscaling"),
    providers=(Provider(name="cenote", roles=("processor",)),),
    citation="After the 1 km monthly GWSA dataset, CSTR 11738.11.ncdc.hydrology.db7323.2026, preprint essd-2026-409",
)
