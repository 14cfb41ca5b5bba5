"""Where things lie below a store's root, and how arrays are cut and coded: the storage contract of DESIGN 3."""

import hashlib
import json
import re
from typing import Any

import numpy as np

from services.core.grid import Grid, inner_chunk
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.shards import COMPRESSION_LEVEL, COMPRESSOR, block_bytes, shuffle_of

CATALOG_KEY = "catalog.json"
MODELS_PREFIX = "models"
SEGMENT_FORMAT = "cenote-segment/2"
VERSION_FORMAT = "cenote-version/2"

ID_LENGTH = 20
"""Hex digits of a digest that make an id: 80 bits, so that two of a billion ids meet with odds of 1 in a million."""

_SEGMENT_ID = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}-[0-9]+")


def pointer_key(product: str) -> str:
    """The pointer to the current version."""
    return f"{product}/current.json"


def version_key(product: str, version: str) -> str:
    """A version's file."""
    return f"{product}/versions/{version}.json"


def versions_prefix(product: str) -> str:
    """All version files."""
    return f"{product}/versions/"


def segments_prefix(product: str) -> str:
    """All segments."""
    return f"{product}/segments/"


def segment_prefix(product: str, segment: str) -> str:
    """All objects of a segment."""
    return f"{product}/segments/{segment}/"


def collection_key(product: str) -> str:
    """The advisory STAC copy of a collection."""
    return f"{product}/collection.json"


def marks_key(product: str) -> str:
    """The segments that gc has marked, and when."""
    return f"{product}/gc.json"


def is_segment_id(name: str) -> bool:
    """Whether a name is the digest of a plan and an attempt: nothing else below a collection's segments is ours."""
    return _SEGMENT_ID.fullmatch(name) is not None


def objects_key(product: str, segment: str) -> str:
    """The object that seals a segment."""
    return f"{segment_prefix(product, segment)}objects.json"


def maps_path(level: int, name: str) -> str:
    """A maps array below its segment."""
    return f"maps.zarr/{level}/{name}"


def series_path(name: str) -> str:
    """A series array below its segment."""
    return f"series.zarr/{name}"


def cog_path(quantity: str, period: str) -> str:
    """A COG below its segment; colons of a time are left out, since some file systems refuse them."""
    return f"cog/{quantity}/{period.replace(':', '')}.tif"


def ledger_path(task: str) -> str:
    """The record of a finished task below its segment."""
    return f"ledger/{task}.json"


def model_key(name: str, sha256: str) -> str:
    """A model that values were computed with; its version is the sha256 of its card, which names the model's own."""
    return f"{MODELS_PREFIX}/{name}/{sha256[:ID_LENGTH]}/model.onnx"


def card_key(name: str, sha256: str) -> str:
    """The card of a model."""
    return f"{MODELS_PREFIX}/{name}/{sha256[:ID_LENGTH]}/card.json"


def valid_fraction(name: str) -> str:
    """Name of the array that tells how much of a level's cell was valid."""
    return f"{name}_valid_fraction"


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def canonical(document: Any) -> bytes:
    """JSON bytes that are the same for the same data: sorted keys, no white space, no NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def map_chunks(product: Product, grid: Grid) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Chunk and shard shapes ``(time, y, x)`` of a maps array on one level's grid."""
    shard_y, shard_x = grid.shard_shape
    return (product.map_block, grid.chunk_y, grid.chunk_x), (product.map_block, shard_y, shard_x)


def series_chunks(product: Product) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Chunk and shard shapes ``(time, y, x)`` of a series array.

    A shard covers one map chunk, so that writing it reads whole map chunks only.
    """
    block = product.series_block or product.map_block
    grid = product.grid
    return (
        (block, inner_chunk(grid.chunk_y), inner_chunk(grid.chunk_x)),
        (block, grid.chunk_y, grid.chunk_x),
    )


def codecs(dtype: str, chunk: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Zarr v3 metadata of the sharding codec: blosc and crc32c on every chunk, crc32c on the index (0003, 0010)."""
    stored = np.dtype(dtype)
    itemsize = stored.itemsize
    inner = [
        {"name": "bytes"} if itemsize == 1 else {"name": "bytes", "configuration": {"endian": "little"}},
        {
            "name": "blosc",
            "configuration": {
                "typesize": itemsize,
                "cname": COMPRESSOR,
                "clevel": COMPRESSION_LEVEL,
                "shuffle": shuffle_of(stored),
                "blocksize": block_bytes(stored, chunk),
            },
        },
        {"name": "crc32c"},
    ]
    return [
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": list(chunk),
                "codecs": inner,
                "index_codecs": [
                    {"name": "bytes", "configuration": {"endian": "little"}},
                    {"name": "crc32c"},
                ],
                "index_location": "end",
            },
        }
    ]


def cf_attributes(quantity: Quantity) -> dict[str, Any]:
    """CF attributes of a quantity's arrays."""
    attributes: dict[str, Any] = dict(quantity.attributes)
    attributes["units"] = quantity.units
    attributes["long_name"] = quantity.long_name
    if quantity.cell_methods:
        attributes["cell_methods"] = quantity.cell_methods
    attributes["grid_mapping"] = "spatial_ref"
    # xarray makes a coordinate of it, so that each variable taken out of the dataset still knows where it lies
    attributes["coordinates"] = "spatial_ref"
    if quantity.standard_name:
        attributes["standard_name"] = quantity.standard_name
    if quantity.scale_factor is not None:
        attributes["scale_factor"] = quantity.scale_factor
    if quantity.add_offset is not None:
        attributes["add_offset"] = quantity.add_offset
    return attributes
