"""The demonstration product: a made-up XCO2 on real coastlines, rendered the way a real product is."""

from services.products.sample_earth.declaration import PRODUCT

__all__ = ["PRODUCT"]
