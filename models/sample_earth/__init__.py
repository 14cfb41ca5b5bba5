"""The network of the sample Earth; its directory holds the shipped model, its card and the weights it was made from."""

from pathlib import Path

DIRECTORY = Path(__file__).parent
"""Where model.onnx and card.json lie."""
