"""What the product publishes."""

from fractions import Fraction

from services.core.grid import Grid
from services.core.product import LONG_SERIES_BLOCK, Product, Provider
from services.core.quantity import Quantity
from services.core.style import Style

GRID = Grid.of(west=-180, north=90, step_x="1/20", width=7200, height=3600)
"""The published grid."""

XCO2 = Quantity(
    name="xco2",
    units="1e-6",
    long_name="Column-averaged dry-air mole fraction of carbon dioxide",
    standard_name="dry_atmosphere_mole_fraction_of_carbon_dioxide",
    dtype="int16",
    # 235..563 ppm; a tenth of the least uncertainty
    scale_factor=0.005,
    add_offset=399.0,
    fill_value=-32768,
    quantum=0.005,
    style=Style(colormap_name="viridis", minimum=395.0, maximum=420.0),
    attributes={
        "sampling": (
            "what the satellites see: clear sky, about 13:30 local time (OCO-2), and what a model infers of such "
            "columns elsewhere"
        ),
    },
)

UNCERTAINTY = Quantity(
    name="xco2_uncertainty",
    units="1e-6",
    long_name="Standard deviation of the error of the true monthly mean of the cell, retrieval noise taken out",
    dtype="int16",
    scale_factor=0.002,
    add_offset=0.0,
    fill_value=-32768,
    quantum=0.002,
    role="uncertainty",
    ancillary_of="xco2",
    style=Style(colormap_name="magma", minimum=0.0, maximum=3.0),
)

OBSERVATIONS = Quantity(
    name="observations",
    units="1",
    long_name="Soundings in the cell in the month",
    dtype="uint16",
    fill_value=65535,
    quantum=0.01,
    cell_methods="time: sum area: mean",
    role="count",
    ancillary_of="xco2",
    style=Style(colormap_name="cividis", minimum=0.0, maximum=50.0),
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
        ancillary_of="xco2",
        style=Style(colormap_name="greys", minimum=0.0, maximum=1.0),
    )


INFERRED = _flag("inferred_only", "1 where no sounding fell in the cell in the month: the value is inferred")

MISSING = _flag("covariates_missing", "1 where more than half of the covariates of the twelve months are missing")

PRODUCT = Product(
    id="xco2_global",
    title="XCO2, global, 0.05 degree, monthly",
    description=(
        "Monthly column-averaged CO2 everywhere: OCO-2 and OCO-3 soundings averaged to cells, and what a bidirectional "
        "LSTM with attention infers from twelve months of covariates where none fell. Each value has the uncertainty "
        "of the true monthly mean of its cell. Clear sky, at the time of the overpass; **not a flux**."
    ),
    grid=GRID,
    step="P1M",
    quantities=(XCO2, UNCERTAINTY, OBSERVATIONS, INFERRED, MISSING),
    series_block=LONG_SERIES_BLOCK,
    cog_period="step",
    license="CC-BY-4.0",
    keywords=("carbon dioxide", "XCO2", "OCO-2", "OCO-3", "greenhouse gas"),
    providers=(Provider(name="cenote", roles=("processor",)),),
    citation="After Wang et al. (2025), Earth System Science Data 17, 5355, doi:10.5194/essd-17-5355-2025",
)


def global_grid(step: Fraction) -> Grid:
    """The global grid of cells of another width, degrees."""
    return Grid.of(west=-180, north=90, step_x=step, width=int(360 / step), height=int(180 / step))
