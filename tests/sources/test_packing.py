"""What is stored is what the source says: nothing valid reads as missing, nothing missing as valid."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.core.errors import InputRefused
from services.core.quantity import Quantity
from services.sources.packing import Packing, convert, quantised, representable, target

WHOLE = ["int8", "uint8", "int16", "uint16", "int32", "uint32"]


def quantity_of(*packings: Packing) -> Quantity:
    store = target(packings)
    return Quantity(
        name="v",
        units="1",
        long_name="v",
        dtype=store.dtype,
        scale_factor=store.scale_factor,
        add_offset=store.add_offset,
        fill_value=store.fill_value,
    )


def truth(raw: np.ndarray, packing: Packing) -> np.ndarray:
    """A slow second implementation: value by value, in Python numbers."""
    out = np.empty(raw.shape)
    for at, item in np.ndenumerate(raw):
        value: Any = item.item()
        gone = value != value or any(value == m for m in packing.missing)  # noqa: PLR0124 - NaN
        gone |= packing.valid_minimum is not None and value < packing.valid_minimum
        gone |= packing.valid_maximum is not None and value > packing.valid_maximum
        scaled = value * (1.0 if packing.scale_factor is None else packing.scale_factor)
        out[at] = np.nan if gone else scaled + (packing.add_offset or 0.0)
    return out


@settings(deadline=None)  # a loaded machine is no failure
@given(st.sampled_from(WHOLE), st.data())
def test_every_whole_number_keeps_its_value(dtype: str, data: st.DataObject) -> None:
    raw = data.draw(hnp.arrays(dtype, 20))
    info = np.iinfo(dtype)
    number = st.integers(int(info.min), int(info.max))
    packing = Packing(
        dtype=dtype,
        missing=tuple(data.draw(st.lists(number | st.sampled_from(raw.tolist()), max_size=3, unique=True))),
        scale_factor=data.draw(st.sampled_from([None, 0.01, 0.05, 2.0, -0.5])),
        add_offset=data.draw(st.sampled_from([None, -100.0, 273.15])),
        valid_maximum=data.draw(st.none() | number),
    )
    quantity = quantity_of(packing)
    stored = convert("f", raw, packing, quantity)
    assert stored.dtype == quantity.dtype
    np.testing.assert_array_equal(quantity.decode(stored), truth(raw, packing))
    np.testing.assert_array_equal(quantity.missing(stored), np.isnan(truth(raw, packing)))


@settings(deadline=None)  # a loaded machine is no failure
@given(st.sampled_from(["float16", "float32", "float64"]), st.data())
def test_every_float_keeps_its_value(dtype: str, data: st.DataObject) -> None:
    raw = data.draw(hnp.arrays(dtype, 20))
    missing = [float(v) for v in raw[np.isfinite(raw)][:2]]
    packing = Packing(dtype=dtype, missing=tuple(missing))
    quantity = quantity_of(packing)
    stored = convert("f", raw, packing, quantity)
    assert stored.dtype == np.dtype("float64" if dtype == "float64" else "float32")
    np.testing.assert_array_equal(stored, truth(raw, packing).astype(stored.dtype))


@pytest.mark.parametrize(
    ("dtype", "stored", "fill"),
    [
        ("int8", "int16", -32768),
        ("uint8", "int16", -32768),
        ("int16", "int32", -(2**31)),
        ("uint16", "int32", -(2**31)),
        ("int32", "int64", -(2**63)),
        ("uint32", "int64", -(2**63)),
        ("bool", "int16", -32768),
    ],
)
def test_what_has_no_missing_value_is_widened(dtype: str, stored: str, fill: int) -> None:
    found = target([Packing(dtype=dtype)])
    assert (found.dtype, found.fill_value) == (stored, fill)
    assert "widened" in found.fact


def test_a_declared_missing_value_keeps_the_type() -> None:
    found = target([Packing(dtype="uint8", missing=(255,), scale_factor=0.05)])
    assert (found.dtype, found.fill_value, found.scale_factor) == ("uint8", 255, 0.05)
    assert target([Packing(dtype="uint32", missing=(7,))]).dtype == "int64"


def test_several_missing_values_become_one() -> None:
    packing = Packing(dtype="int16", missing=(-9999, -32768))
    quantity = quantity_of(packing)
    assert convert("f", np.asarray([1, -9999, -32768], "int16"), packing, quantity).tolist() == [1, -9999, -9999]


def test_files_that_differ_in_their_missing_value_are_widened() -> None:
    packings = Packing(dtype="int16", missing=(-9999,)), Packing(dtype="int16", missing=(-1,))
    quantity = quantity_of(*packings)
    assert quantity.dtype == "int32"
    raw = np.asarray([-9999, -1, 5], "int16")
    assert np.isnan(quantity.decode(convert("f", raw, packings[0], quantity))).tolist() == [True, False, False]
    assert np.isnan(quantity.decode(convert("f", raw, packings[1], quantity))).tolist() == [False, True, False]


def test_a_second_missing_value_that_all_share_is_taken() -> None:
    packings = Packing(dtype="int16", missing=(-9999, -32768)), Packing(dtype="int16", missing=(-1, -32768))
    assert quantity_of(*packings).fill_value == -32768


def test_different_packings_are_decoded() -> None:
    packings = (
        Packing(dtype="int16", missing=(-1,), scale_factor=0.1),
        Packing(dtype="int16", missing=(-1,), scale_factor=0.2, add_offset=5.0),
        Packing(dtype="int16", missing=(-1,)),
    )
    quantity = quantity_of(*packings)
    assert (quantity.dtype, quantity.scale_factor) == ("float64", None)
    raw = np.asarray([-1, 7], "int16")
    for packing in packings:
        np.testing.assert_array_equal(convert("f", raw, packing, quantity), truth(raw, packing))


def test_scaled_floats_are_decoded() -> None:
    packing = Packing(dtype="float32", scale_factor=2.0, missing=(-1.0,))
    quantity = quantity_of(packing)
    assert quantity.dtype == "float64"
    raw = np.asarray([-1.0, 3.5], "float32")
    np.testing.assert_array_equal(convert("f", raw, packing, quantity), [np.nan, 7.0])


def test_unsigned_marks_are_obeyed() -> None:
    packing = Packing(dtype="int8", unsigned=True, missing=(255,))
    quantity = quantity_of(packing)
    assert quantity.dtype == "uint8"
    assert convert("f", np.asarray([-1, -2, 3], "int8"), packing, quantity).tolist() == [255, 254, 3]


def test_huge_unsigned_numbers_are_refused() -> None:
    packing = Packing(dtype="uint64")
    with pytest.raises(InputRefused, match="f: a value of 18446744073709551615 is too large"):
        convert("f", np.asarray([2**64 - 1], "uint64"), packing, quantity_of(packing))


def test_a_valid_value_that_would_read_as_missing_is_refused() -> None:
    packing = Packing(dtype="int64")
    with pytest.raises(InputRefused, match="would read as missing"):
        convert("f", np.asarray([-(2**63)]), packing, quantity_of(packing))


@settings(deadline=None)  # a loaded machine is no failure
@given(
    st.sampled_from([0.01, 0.1, 0.5, 0.003, 5.0]),
    st.floats(-500, 500),
    hnp.arrays("float32", 30, elements=st.floats(-100, 100, width=32)),
)
def test_a_quantum_moves_no_value_by_more_than_half(quantum: float, centre: float, spread: np.ndarray) -> None:
    raw = (spread + np.float32(centre)).astype(np.float32)
    raw[3] = np.nan
    store = quantised(quantum, float(np.nanmin(raw)), float(np.nanmax(raw)))
    quantity = Quantity(
        name="v",
        units="1",
        long_name="v",
        dtype=store.dtype,
        scale_factor=store.scale_factor,
        add_offset=store.add_offset,
        fill_value=store.fill_value,
        quantum=quantum,
    )
    stored = convert("f", raw, Packing(dtype="float32"), quantity)
    error = np.abs(quantity.decode(stored) - raw.astype(np.float64))
    assert np.nanmax(error) <= quantum / 2 * (1 + 1e-9) + 1e-12
    assert np.isnan(error).tolist() == np.isnan(raw).tolist()
    steps = quantity.decode(stored) / quantum
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)


def test_a_quantum_chooses_the_narrow_type_where_it_has_room() -> None:
    assert (quantised(0.01, 390.0, 420.0).dtype, quantised(0.01, 390.0, 420.0).add_offset) == ("int16", 400.0)
    assert quantised(0.01, -20.0, 20.0).add_offset is None
    assert quantised(0.01, 0.0, 1000.0).dtype == "int32"
    assert quantised(0.01, None, None).dtype == "int32"


def test_a_quantum_that_overflows_is_refused() -> None:
    store = quantised(0.01, 0.0, 1.0)
    quantity = Quantity(
        name="v",
        units="1",
        long_name="v",
        dtype=store.dtype,
        scale_factor=store.scale_factor,
        fill_value=store.fill_value,
        quantum=0.01,
    )
    with pytest.raises(InputRefused, match=r"f: v: value 400 1 does not fit int16.*--quantum"):
        convert("f", np.asarray([400.0]), Packing(dtype="float64"), quantity)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (1e20, "float32", float(np.float32(1e20))),
        (-9999, "uint8", None),
        (255.0, "uint8", 255),
        (0.5, "int16", None),
        (float("nan"), "int16", None),
        (float("nan"), "float32", None),
        (1e300, "float32", None),
        ("text", "float32", None),
        (2**63, "int64", None),
    ],
)
def test_missing_values_as_the_stored_type_has_them(value: Any, dtype: str, expected: float | None) -> None:
    assert representable(value, np.dtype(dtype)) == expected
