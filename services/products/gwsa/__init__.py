"""Groundwater storage anomaly at 1/120 degree: GRACE less GLDAS, downscaled with a model for each aquifer region."""

from services.products.gwsa.declaration import PRODUCT
from services.products.gwsa.footprint import FootprintRecipe
from services.products.gwsa.render import open_recipe
from services.products.gwsa.sample import sample_area, write_sample
from services.products.gwsa.training import export, train
from services.products.gwsa.validation import validate

ANALYSES = {"footprint": FootprintRecipe.of}
"""Name -> what makes a recipe of a published collection and a directory of inputs, for ``cenote analyse``."""

TRAINS_WITH = ("xgboost", "onnx")
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
