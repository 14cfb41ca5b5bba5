"""The attention network of global XCO2: sequences in, departures and their spread out; ``sample/`` is for the sample
Earth."""

from pathlib import Path

DIRECTORY = Path(__file__).parent / "sample"
"""Where the sample Earth's network lies, with the background that it departs from."""
