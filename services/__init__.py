"""Render products on dask and publish them."""
