"""The attention network of global XCO2: sequences in, departures and their spread out; ``sample/`` holds one."""

from pathlib import Path

DIRECTORY = Path(__file__).parent / "sample"
"""Where the sample Earth's network lies, with the background that it departs from."""
