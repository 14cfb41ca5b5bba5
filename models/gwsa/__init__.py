"""Boosted trees of the groundwater product, one model for each region; ``sample/`` holds those of the sample Earth."""

from pathlib import Path

DIRECTORY = Path(__file__).parent / "sample"
"""Where the sample Earth's models lie, a directory for each region."""
