"""What the sample Earth publishes."""

from services.core.grid import Grid
from services.core.product import Product, Provider
from services.core.quantity import Quantity
from services.core.style import Style

XCO2 = Quantity(
    name="xco2",
    units="1e-6",
    long_name="Synthetic column-averaged dry-air mole fraction of CO2",
    standard_name="dry_atmosphere_mole_fraction_of_carbon_dioxide",
    dtype="int16",
    # The uncertainty is at least 0.3 ppm (models/sample_earth/net.py), so that the quantum is less than a tenth of it.
    scale_factor=0.02,
    add_offset=410.0,
    fill_value=-32768,
    quantum=0.02,
    style=Style(colormap_name="turbo", minimum=404.0, maximum=420.0),
    attributes={"comment": "synthetic: made up by cenote's sample Earth, no measurement"},
)

UNCERTAINTY = Quantity(
    name="xco2_uncertainty",
    units="1e-6",
    long_name="Standard deviation of site reports around synthetic XCO2, as the network states it",
    standard_name="dry_atmosphere_mole_fraction_of_carbon_dioxide standard_error",
    dtype="int16",
    scale_factor=0.001,
    add_offset=0.0,
    fill_value=-32768,
    quantum=0.001,
    role="uncertainty",
    ancillary_of="xco2",
    style=Style(colormap_name="viridis", minimum=0.4, maximum=1.4),
    attributes={"comment": "synthetic: made up by cenote's sample Earth, no measurement"},
)

PRODUCT = Product(
    id="sample_earth",
    title="Sample Earth (synthetic)",
    description=(
        "A **demonstration**: monthly column-averaged CO2 of a made-up atmosphere over real coastlines, predicted by a "
        "small neural network from made-up rasters (temperature, soil moisture, vegetation, relief, settlements), "
        "with the standard deviation that the network states. Missing where the noon sun stands less than 3 degrees "
        "above the horizon. It is no measurement: use it to try the service, for nothing else."
    ),
    grid=Grid.of(west=-180, north=90, step_x="1/4", width=1440, height=720),
    step="P1M",
    quantities=(XCO2, UNCERTAINTY),
    license="CC0-1.0",
    keywords=("synthetic", "demonstration", "XCO2"),
    providers=(Provider(name="cenote", roles=("producer", "processor")),),
    synthetic=True,
    attributes={"source": "synthetic: made up by cenote's sample Earth", "coastlines": "Natural Earth (public domain)"},
)
