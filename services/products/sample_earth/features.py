"""From a window of the predictors to the rows of numbers that the network takes; rendering and training share it."""

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Window
from services.products.sample_earth.declaration import PRODUCT
from services.products.sample_earth.predictors import Predictors

FEATURES = {
    "background": "1e-6",
    "season_sin": "1",
    "season_cos": "1",
    "position_x": "1",
    "position_y": "1",
    "position_z": "1",
    "temperature": "K",
    "soil_moisture": "m3 m-3",
    "vegetation": "1",
    "elevation": "m",
    "land_fraction": "1",
    "settlement": "1",
    "noon_sun": "1",
}
"""Names in order, and units."""


def features(predictors: Predictors, month: int, window: Window) -> NDArray[np.float32]:
    """The rows of a window in one month.

    ``season_*`` is the middle of the month on the circle of the year; ``position_*`` the centre of the cell on the unit
    sphere; ``noon_sun`` the cosine of the noon sun's zenith angle, with the declination of Cooper (1969), Solar Energy
    12: 23.45 sin(360 (284 + n) / 365) degrees on day n.

    Args:
        predictors: the files.
        month: months since 1970-01.
        window: cells of the product's grid.

    Returns:
        ``(y * x, feature)``, row by row; NaN where a predictor is missing.

    Raises:
        InputRefused: if the month or a file is not there.
    """
    position = predictors.position(month)
    phase = (month % 12 + 0.5) / 12
    angle = 2 * np.pi * phase
    latitude = np.radians(PRODUCT.grid.latitudes[window.rows])[:, None]
    longitude = np.radians(PRODUCT.grid.longitudes[window.columns])[None, :]
    declination = np.radians(23.45 * np.sin(2 * np.pi * (284 + 365 * phase) / 365))
    static = predictors.read_static(window)
    columns = {
        "background": predictors.background[position],
        "season_sin": np.sin(angle),
        "season_cos": np.cos(angle),
        "position_x": np.cos(latitude) * np.cos(longitude),
        "position_y": np.cos(latitude) * np.sin(longitude),
        "position_z": np.sin(latitude),
        "temperature": predictors.read_era5("t2m", position, window),
        "soil_moisture": predictors.read_era5("swvl1", position, window),
        "vegetation": predictors.read_ndvi(position, window),
        "elevation": static["elevation"],
        "land_fraction": static["land_fraction"],
        "settlement": static["settlement"],
        "noon_sun": np.cos(latitude - declination),
    }
    rows = np.empty((*window.shape, len(FEATURES)), dtype=np.float32)
    for number, name in enumerate(FEATURES):
        rows[:, :, number] = columns[name]
    return rows.reshape(-1, len(FEATURES))
