import hashlib
import json
from dataclasses import replace
from fractions import Fraction

import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.core.metadata.v3 import ArrayV3Metadata

from services.core import layout
from services.core.grid import Grid
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.store.interface import check_key

FLUX = Quantity(name="flux", units="1", long_name="flux")
PRODUCT = Product(
    id="p",
    title="t",
    description="d",
    grid=Grid.of(west=-180, north=90, step_x="1/20", width=7200, height=3600),
    step="PT15M",
    quantities=(FLUX,),
)


def test_every_key_is_one_that_all_stores_take() -> None:
    for key in (
        layout.pointer_key("p"),
        layout.version_key("p", "0" * 20),
        layout.collection_key("p"),
        layout.marks_key("p"),
        layout.objects_key("p", "s-1"),
        layout.model_key("net", "0" * 64),
        layout.card_key("net", "0" * 64),
        layout.segment_prefix("p", "s-1") + layout.maps_path(3, "flux"),
        layout.segment_prefix("p", "s-1") + layout.series_path("flux"),
        # a colon of a time of day is in no key
        layout.segment_prefix("p", "s-1") + layout.cog_path("flux", "2004-02-29T23:45"),
        layout.segment_prefix("p", "s-1") + layout.ledger_path("cog-flux-2004-02-29T2345"),
    ):
        assert check_key(key) == key
        assert key.startswith(("p/", "models/"))


def test_keys_are_those_of_the_contract() -> None:
    assert layout.pointer_key("gwsa") == "gwsa/current.json"
    assert layout.version_key("gwsa", "abc") == "gwsa/versions/abc.json"
    assert layout.objects_key("gwsa", "abc-1") == "gwsa/segments/abc-1/objects.json"
    assert layout.maps_path(0, "gwsa") == "maps.zarr/0/gwsa"
    assert layout.cog_path("gwsa", "2004-01") == "cog/gwsa/2004-01.tif"
    assert layout.model_key("net", "0123456789" * 6 + "abcd") == "models/net/01234567890123456789/model.onnx"


json_data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(json_data)
def test_the_same_data_give_the_same_bytes_and_come_back(document: object) -> None:
    try:
        data = layout.canonical(document)
    except UnicodeEncodeError:
        return  # half a surrogate pair is no text
    assert json.loads(data) == document
    assert layout.canonical(json.loads(data)) == data
    assert layout.digest(data) == hashlib.sha256(data).hexdigest()


def test_the_order_of_keys_does_not_matter() -> None:
    assert layout.canonical({"b": 1, "a": [2, 3]}) == layout.canonical({"a": [2, 3], "b": 1}) == b'{"a":[2,3],"b":1}'


@pytest.mark.parametrize(
    ("dtype", "itemsize"),
    [("int8", 1), ("uint8", 1), ("int16", 2), ("uint32", 4), ("int64", 8), ("float32", 4), ("float64", 8)],
)
def test_codecs_are_what_zarr_reads(dtype: str, itemsize: int) -> None:
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [3, 8, 8],
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 8, 8]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": layout.codecs(dtype, (1, 4, 4)),
        "attributes": {},
    }
    metadata = ArrayV3Metadata.from_dict(document)  # type: ignore[arg-type]
    (sharding,) = metadata.codecs
    assert sharding.to_dict()["name"] == "sharding_indexed"
    _, blosc, crc = document["codecs"][0]["configuration"]["codecs"]  # type: ignore[index]
    assert blosc["configuration"]["typesize"] == itemsize
    assert crc == {"name": "crc32c"}
    assert zarr.__version__


def test_shapes_of_maps_and_series() -> None:
    grid = PRODUCT.grid
    assert layout.map_chunks(PRODUCT, grid) == ((1, 450, 450), (1, 1800, 1800))
    assert layout.map_chunks(PRODUCT, grid.level(4)) == ((1, 225, 450), (1, 225, 450))
    assert layout.series_chunks(PRODUCT) == ((120, 9, 9), (120, 450, 450))
    small = Grid.of(west=70, north=45, step_x="1/4", width=43, height=17)
    hourly = replace(PRODUCT, grid=small, series_block=None, map_block=720)
    assert layout.map_chunks(hourly, small) == ((720, 17, 43), (720, 17, 43))
    for chunk, shard in (layout.map_chunks(PRODUCT, grid), layout.series_chunks(PRODUCT)):
        assert all(long % short == 0 for short, long in zip(chunk, shard, strict=True))


def test_attributes_of_a_quantity_are_cf() -> None:
    packed = replace(
        FLUX,
        dtype="int16",
        fill_value=-1,
        scale_factor=0.5,
        add_offset=0.0,
        standard_name="air",
        attributes={"comment": "c"},
    )
    attributes = layout.cf_attributes(packed)
    assert (
        attributes.items()
        >= {
            "units": "1",
            "long_name": "flux",
            "standard_name": "air",
            "scale_factor": 0.5,
            "add_offset": 0.0,
            "grid_mapping": "spatial_ref",
            "comment": "c",
        }.items()
    )
    assert {"scale_factor", "add_offset", "standard_name"}.isdisjoint(layout.cf_attributes(FLUX))
    assert Fraction(attributes["scale_factor"]) == Fraction(1, 2)
