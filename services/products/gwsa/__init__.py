"""Groundwater storage anomaly: GRACE gap fill, water balance, downscaling."""
