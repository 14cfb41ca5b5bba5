"""How good a published version of the product is, and against what: numbers, tables and pictures."""

from services.products.xco2_global.validation.report import validate

__all__ = ["validate"]
