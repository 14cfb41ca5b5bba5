"""XCO2 everywhere, each month: soundings, and what a network infers from covariates where none fell."""

from services.products.xco2_global.declaration import PRODUCT
from services.products.xco2_global.render import open_recipe
from services.products.xco2_global.sample import sample_area, write_sample
from services.products.xco2_global.training import export, train
from services.products.xco2_global.validation import validate

__all__ = ["PRODUCT", "export", "open_recipe", "sample_area", "train", "validate", "write_sample"]
