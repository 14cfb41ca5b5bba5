"""Makes natural_earth_land.tif again: the 0.25 degree land mask of the sample Earth.

    python -m services.sample.make_land countries-50m.json services/sample/natural_earth_land.tif

The input is `countries-50m.json` of the npm package world-atlas 2.0.2, a TopoJSON of Natural Earth's 1:50m land, which
is in the public domain. Caspian Sea and large lakes are as Natural Earth's land layer has them.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MergeAlg
from rasterio.features import rasterize
from rasterio.transform import from_origin

WIDTH, HEIGHT = 1440, 720
SOURCE = "Natural Earth 1:50m land (public domain), from world-atlas 2.0.2 countries-50m.json"


def land_mask(topology: dict[str, Any]) -> NDArray[np.uint8]:
    """Rasterise the land of a TopoJSON on 0.25 degree cells.

    Args:
        topology: quantised TopoJSON with an object ``land``.

    Returns:
        1 where the centre of a cell is land, ``(720, 1440)``, north up, from -180.
    """
    scale, shift = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = [np.cumsum(np.asarray(arc), axis=0) * scale + shift for arc in topology["arcs"]]
    rings: list[list[int]] = []
    waiting = [topology["objects"]["land"]]
    while waiting:
        shape = waiting.pop()
        match shape["type"]:
            case "GeometryCollection":
                waiting.extend(shape["geometries"])
            case "MultiPolygon":
                rings.extend(ring for polygon in shape["arcs"] for ring in polygon)
            case "Polygon":
                rings.extend(shape["arcs"])
    # world-atlas stitches shapes across the antimeridian: each ring is unrolled and drawn on three turns. Drawn shapes
    # are counted, and an even count is a hole.
    shapes = [
        ({"type": "Polygon", "coordinates": [(ring + np.array([turn, 0])).tolist()]}, 1)
        for ring in (_unrolled(arcs, numbers) for numbers in rings)
        for turn in (-360, 0, 360)
    ]
    count: NDArray[np.uint8] = rasterize(
        shapes,
        out_shape=(HEIGHT, WIDTH),
        transform=from_origin(-180, 90, 0.25, 0.25),
        merge_alg=MergeAlg.add,
        dtype="uint8",
    )
    return count % 2


def _unrolled(arcs: list[NDArray[np.float64]], numbers: list[int]) -> NDArray[np.float64]:
    """One closed ring of points, longitudes without jumps; one that goes round the pole is closed below it."""
    parts = [arcs[number] if number >= 0 else arcs[~number][::-1] for number in numbers]
    ring = np.concatenate([parts[0], *(part[1:] for part in parts[1:])])
    ring[:, 0] = np.unwrap(ring[:, 0], period=360)
    if abs(ring[-1, 0] - ring[0, 0]) > 180:
        ring = np.concatenate([ring, [[ring[-1, 0], -91], [ring[0, 0], -91], ring[0]]])
    return ring


def main(source: Path, target: Path) -> None:
    """Write the mask as a 1-bit GeoTIFF."""
    mask = land_mask(json.loads(source.read_text()))
    with rasterio.open(
        target,
        "w",
        driver="GTiff",
        width=WIDTH,
        height=HEIGHT,
        count=1,
        dtype="uint8",
        crs="EPSG:4326",
        transform=from_origin(-180, 90, 0.25, 0.25),
        nbits=1,
        compress="CCITTFAX4",
    ) as dataset:
        dataset.write(mask, 1)
        dataset.update_tags(SOURCE=SOURCE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
