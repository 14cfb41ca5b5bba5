"""XCO2 everywhere, each month: soundings, and what a network infers from covariates where none fell."""

from services.products.xco2_global.amplitude import AmplitudeRecipe
from services.products.xco2_global.anomaly import AnomalyRecipe
from services.products.xco2_global.declaration import PRODUCT
from services.products.xco2_global.growth import GrowthRecipe
from services.products.xco2_global.hotspots import HotspotsRecipe
from services.products.xco2_global.render import open_recipe
from services.products.xco2_global.sample import sample_area, write_sample
from services.products.xco2_global.training import export, train
from services.products.xco2_global.validation import validate

ANALYSES = {
    "growth": GrowthRecipe.open,
    "amplitude": AmplitudeRecipe.open,
    "anomaly": AnomalyRecipe.open,
    "hotspots": HotspotsRecipe.open,
}
"""Name -> what makes a recipe of a published collection, for ``cenote analyse``."""

TRAINS_WITH = ("torch", "safetensors", "onnx", "onnxscript")
"""Packages that ``train`` and ``export`` need beyond those that render."""

__all__ = [
    "ANALYSES",
    "PRODUCT",
    "TRAINS_WITH",
    "export",
    "open_recipe",
    "sample_area",
    "train",
    "validate",
    "write_sample",
]
