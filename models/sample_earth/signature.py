"""What the sample Earth's network takes and gives."""

from models.card import Feature, InputTensor, OutputTensor

BACKGROUND = 0
"""Place of the background among the features; the network adds it and does not look at it."""


def _feature(name: str, units: str, long_name: str, low: float, high: float, **rules: float | str) -> Feature:
    return Feature.model_validate(
        {
            "name": name,
            "units": units,
            "long_name": long_name,
            "valid_min": low,
            "valid_max": high,
            "out_of_range": "clip",
            "missing": "nan",
        }
        | rules
    )


INPUTS = [
    InputTensor(
        name="features",
        shape=["batch", 13],
        feature_axis=1,
        features=[
            _feature("background", "1e-6", "global mean CO2 of the month", 300, 800, out_of_range="missing"),
            _feature("season_sin", "1", "sine of the middle of the month on the circle of the year", -1, 1),
            _feature("season_cos", "1", "cosine of the same", -1, 1),
            _feature("position_x", "1", "cos(latitude) cos(longitude)", -1, 1),
            _feature("position_y", "1", "cos(latitude) sin(longitude)", -1, 1),
            _feature("position_z", "1", "sin(latitude)", -1, 1),
            _feature("temperature", "K", "2 m air temperature", 190, 330),
            _feature("soil_moisture", "m3 m-3", "soil moisture; 0 over sea", 0, 1, missing="fill", fill_value=0.0),
            _feature("vegetation", "1", "vegetation index; 0 over sea", 0, 1, missing="fill", fill_value=0.0),
            _feature("elevation", "m", "height above the sea", 0, 9000),
            _feature("land_fraction", "1", "share of land", 0, 1),
            _feature("settlement", "1", "how settled a place is", 0, 1),
            # no site reports from the dark, so that nothing is known there
            _feature("noon_sun", "1", "cosine of the noon sun's zenith angle", 0.05, 1, out_of_range="missing"),
        ],
    )
]

OUTPUTS = [
    OutputTensor(name="xco2", units="1e-6", long_name="column-averaged CO2", shape=["batch"]),
    OutputTensor(
        name="xco2_uncertainty", units="1e-6", long_name="standard deviation of reports around it", shape=["batch"]
    ),
]
