"""The demonstration product: a made-up XCO2 on real coastlines, rendered the way a real product is."""

from services.products.sample_earth.declaration import PRODUCT
from services.products.sample_earth.render import open_recipe
from services.products.sample_earth.sample import write_sample
from services.products.sample_earth.score import validate
from services.products.sample_earth.training import export, train

TRAINS_WITH = ("torch", "safetensors", "onnx", "onnxscript")
"""Packages that ``train`` and ``export`` need beyond those that render."""

__all__ = ["PRODUCT", "TRAINS_WITH", "export", "open_recipe", "train", "validate", "write_sample"]
