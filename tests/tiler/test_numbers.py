"""Values as numbers in JSON: the tables of texts against the numbers themselves."""

import json
import math
from typing import Any

import numpy as np
import pytest
from pydantic_core import to_json

from services.core.quantity import Quantity
from tiler.loading import LoadingCache
from tiler.numbers import json_rows, json_writer, numbers


def quantity(dtype: str, **more: Any) -> Quantity:
    """One of a type."""
    return Quantity(**{"name": "a", "long_name": "A", "units": "1", "dtype": dtype, **more})


PACKED = quantity("int16", scale_factor=0.01, add_offset=400.0, fill_value=-32768)


@pytest.mark.parametrize(
    "one",
    [
        PACKED,
        quantity("int16", scale_factor=0.1, fill_value=32767),
        quantity("uint16", fill_value=65535),
        quantity("uint8", fill_value=255),
        quantity("int8", scale_factor=0.5, add_offset=-3.25, fill_value=-128),
    ],
    ids=lambda one: f"{one.dtype} {one.scale_factor}",
)
def test_every_value_that_can_be_stored_has_the_text_of_its_number(one: Quantity) -> None:
    kind = np.iinfo(one.dtype)
    every = np.arange(kind.min, kind.max + 1).astype(one.dtype)
    text = json_writer(one)(every)
    assert text == to_json(numbers(one, every), inf_nan_mode="null")
    read = json.loads(text)
    assert [n for n, value in enumerate(read) if value is None] == [int(one.fill_value or 0) - kind.min]
    scale, offset = one.scale_factor or 1, one.add_offset or 0
    for n in range(0, len(every), 97):
        if read[n] is not None:
            assert math.isclose(read[n], int(every[n]) * scale + offset, abs_tol=1e-9)


@pytest.mark.parametrize(
    "one", [PACKED, quantity("float32"), quantity("int32", fill_value=-1)], ids=lambda one: one.dtype
)
def test_a_series_may_lie_across_a_chunk(one: Quantity) -> None:
    chunk = np.random.default_rng(1).integers(-300, 300, (40, 3, 5)).astype(one.dtype)
    chunk[7, 1, 2] = np.nan if one.dtype == "float32" else one.fill_value
    series = chunk[3:, 1, 2]
    assert not series.flags.contiguous
    text = json_writer(one)(series)
    assert text == to_json(numbers(one, series.copy()), inf_nan_mode="null")
    assert json.loads(text)[4] is None
    assert json.loads(json_writer(one)(series[:1])) == json.loads(text)[:1]
    together = chunk[3:].reshape(37, 15)[:, 4:11].T
    assert not together.flags.contiguous
    for places in (together, together[:1], together[:, :1]):
        assert json_rows(one, places) == [json_writer(one)(row) for row in places]


def test_quantities_of_one_coding_share_their_table() -> None:
    """Of others each has its own."""
    values = np.array([1, 2], dtype="int16")
    texts = {json_writer(quantity("int16", fill_value=-1, scale_factor=scale))(values) for scale in (0.1, 0.01, 0.1)}
    assert texts == {b"[0.1,0.2]", b"[0.01,0.02]"}


def test_a_table_that_had_to_give_way_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds a writer holds no table: many quantities take no more memory than the cache has."""
    tables = LoadingCache[Any, Any](2 * 2**20, lambda texts: texts.nbytes)
    monkeypatch.setattr("tiler.numbers._TABLES", tables)
    every = np.arange(-300, 300, dtype="int16")
    many = [quantity("int16", fill_value=-1, scale_factor=0.1, add_offset=float(n)) for n in range(8)]
    writers = [json_writer(one) for one in many]
    assert tables.counts.entries < len(many)
    for one, write in zip(many, writers, strict=True):
        assert write(every) == to_json(numbers(one, every), inf_nan_mode="null")
    kept = tables.counts.weight
    assert kept <= 2 * 2**20
    assert not any(isinstance(cell.cell_contents, np.ndarray) for write in writers for cell in write.__closure__ or ())
