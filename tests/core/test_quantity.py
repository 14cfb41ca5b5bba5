import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from services.core.errors import DeclarationError
from services.core.quantity import Quantity
from services.core.style import Style

XCO2 = Quantity(
    name="xco2",
    units="1e-6",
    long_name="XCO2",
    dtype="int16",
    scale_factor=0.02,
    add_offset=410.0,
    fill_value=-32768,
)
FLOAT = Quantity(name="flux", units="g m-2 s-1", long_name="flux")
COUNT = Quantity(name="count", units="1", long_name="count", dtype="uint8", fill_value=255)

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"]


@st.composite
def quantities(draw: st.DrawFn) -> Quantity:
    """Packed and plain, of every whole type."""
    dtype = draw(st.sampled_from(INTEGERS))
    info = np.iinfo(dtype)
    return Quantity(
        name="q",
        units="1",
        long_name="q",
        dtype=dtype,
        fill_value=draw(st.integers(int(info.min), int(info.max))),
        scale_factor=draw(st.one_of(st.none(), st.floats(1e-6, 1e3))),
        add_offset=draw(st.one_of(st.none(), st.floats(-1e4, 1e4))),
    )


@settings(deadline=None)
@given(quantities(), st.data())
def test_stored_values_survive_decoding_and_packing(quantity: Quantity, data: st.DataObject) -> None:
    info = np.iinfo(quantity.dtype)
    # beyond 2^53 floats skip whole numbers: what is packed from floats cannot be told apart there
    limit = min(2**50, int(info.max))
    values = st.one_of(
        st.integers(max(int(info.min), -limit), limit), st.just(int(quantity.fill_value or 0)), st.just(0)
    )
    stored = np.array(data.draw(st.lists(values, min_size=1, max_size=20)), dtype=quantity.dtype)
    if abs(quantity.add_offset or 0) > 0 and np.abs(stored.astype(float)).max() * (quantity.scale_factor or 1) < 1e-6:
        return
    decoded = quantity.decode(stored)
    np.testing.assert_array_equal(np.isnan(decoded), stored == quantity.fill_value)
    np.testing.assert_array_equal(quantity.missing(stored), stored == quantity.fill_value)
    if (quantity.scale_factor or 1) > abs(quantity.add_offset or 0) * 1e-9:
        np.testing.assert_array_equal(quantity.pack(decoded), stored)


@settings(deadline=None)
@given(arrays(np.float64, (7,), elements=st.floats(-100, 1000) | st.just(math.nan)))
def test_packing_is_off_by_half_a_step_at_most(values: np.ndarray) -> None:
    try:
        stored = XCO2.pack(values)
    except DeclarationError:
        assert (np.abs(values[~np.isnan(values)] - 410) / 0.02 >= 32766.5).any()
        return
    assert stored.dtype == np.int16
    decoded = XCO2.decode(stored)
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(values))
    assert np.nanmax(np.abs(decoded - values), initial=0) <= 0.01 + 1e-9


@settings(deadline=None)
@given(
    st.sampled_from(["float32", "float64"]),
    arrays(np.float64, (5,), elements=st.floats(-1e300, 1e300) | st.just(math.nan)),
)
def test_floats_are_kept_or_refused_and_never_become_infinite(dtype: str, values: np.ndarray) -> None:
    quantity = replace(FLOAT, dtype=dtype)
    try:
        stored = quantity.pack(values)
    except DeclarationError:
        assert np.nanmax(np.abs(values)) > np.finfo(dtype).max
        return
    assert stored.dtype == np.dtype(dtype)
    assert not np.isinf(stored).any()
    with np.errstate(under="ignore"):
        np.testing.assert_array_equal(stored, values.astype(dtype))
    np.testing.assert_array_equal(quantity.decode(stored), stored)
    assert quantity.decode(stored) is stored or quantity.is_packed


@pytest.mark.parametrize(
    ("quantity", "value", "said"),
    [
        (XCO2, 1065.36, r"xco2: value 1065.36 1e-6 does not fit int16 with scale 0.02 and offset 410.0"),
        (XCO2, -245.38, "does not fit int16"),
        (XCO2, 410 - 32768 * 0.02, r"does not fit int16 .*\(missing is -32768\)"),
        (COUNT, 255.0, r"value 255 1 does not fit uint8 .*\(missing is 255\)"),
        (COUNT, -1.0, "does not fit uint8"),
        (COUNT, 256.0, "does not fit uint8"),
        (replace(COUNT, dtype="int64", fill_value=-1), 2.0**63, "does not fit int64"),
        (replace(COUNT, dtype="int64", fill_value=-1), -(2.0**63) * 1.1, "does not fit int64"),
        (replace(COUNT, dtype="int64", fill_value=-1), -1.2, r"missing is -1"),
        (replace(COUNT, dtype="int32", fill_value=-1, scale_factor=1e-300), 1e300, "does not fit int32"),
        (XCO2, math.inf, "an infinite value cannot be stored"),
        (FLOAT, -math.inf, "an infinite value cannot be stored"),
        (FLOAT, 1e39, "value 1e[+]39 .* does not fit float32"),
        (replace(FLOAT, dtype="float64", scale_factor=1e-300), 1e300, "does not fit float64"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_value(quantity: Quantity, value: float, said: str) -> None:
    values = np.array([[math.nan, value]])
    with pytest.raises(DeclarationError, match=said):
        quantity.pack(values)


def test_the_ends_of_a_type_fit() -> None:
    for dtype in INTEGERS:
        info = np.iinfo(dtype)
        quantity = replace(COUNT, dtype=dtype, fill_value=int(info.max) // 2)
        top = np.nextafter(2.0**63, 0) if dtype == "int64" else float(info.max)
        stored = quantity.pack(np.array([float(info.min), top, math.nan]))
        assert [int(one) for one in stored] == [int(info.min), int(top), int(info.max) // 2]


def test_a_missing_value_that_no_float_holds_is_kept() -> None:
    quantity = replace(COUNT, dtype="int64", fill_value=2**63 - 1)
    stored = quantity.pack(np.array([math.nan, 5.0]))
    assert stored.tolist() == [2**63 - 1, 5]
    assert np.isnan(quantity.decode(stored)).tolist() == [True, False]
    assert quantity.fill == 2**63 - 1


def test_missing_is_nan_for_floats_and_the_fill_value_for_whole_numbers() -> None:
    assert np.isnan(FLOAT.fill)
    assert FLOAT.fill.dtype == np.float32
    assert XCO2.fill == np.int16(-32768)
    assert FLOAT.missing(np.array([1.0, np.nan], dtype=np.float32)).tolist() == [False, True]
    assert COUNT.missing(np.array([254, 255], dtype=np.uint8)).tolist() == [False, True]
    # nothing else is missing: a NaN stays one, and -32768 is a number where it is not the fill value
    assert XCO2.decode(np.array([-32768, -32767], dtype=np.int16)).tolist()[1] == pytest.approx(410 - 655.34)


@pytest.mark.parametrize(
    ("changes", "places"),
    [
        ({"scale_factor": 0.02, "add_offset": 410.0}, 2),
        ({"scale_factor": 0.001}, 3),
        ({"scale_factor": 0.25}, 2),
        ({"scale_factor": 0.125}, 3),
        ({"scale_factor": 0.5}, 1),
        ({"scale_factor": 10.0}, 0),
        ({"scale_factor": 0.1, "add_offset": 273.15}, 2),
        ({"scale_factor": None, "add_offset": 0.5}, 1),
        ({"scale_factor": None}, 0),
        ({"scale_factor": 0.02, "quantum": 0.05}, 2),
        ({"dtype": "float32", "fill_value": None, "quantum": 0.001}, 3),
        ({"dtype": "float32", "fill_value": None, "quantum": None}, None),
        # no decimal writes a third: three places more than its first digit
        ({"scale_factor": 1 / 3}, 4),
        ({"scale_factor": 0.0017453292519943295}, 6),
    ],
)
def test_decimals_write_every_multiple_of_the_quantum(changes: dict[str, Any], places: int | None) -> None:
    base: dict[str, Any] = {"name": "q", "units": "1", "long_name": "q", "dtype": "int16", "fill_value": -1}
    assert Quantity(**(base | changes)).decimals == places


@settings(deadline=None)
@given(quantities(), st.integers(-1000, 1000))
def test_rounding_to_the_decimals_stays_within_a_thousandth_of_a_step(quantity: Quantity, number: int) -> None:
    places = quantity.decimals
    assert places is not None
    step = quantity.scale_factor or 1.0
    value = number * step + (quantity.add_offset or 0.0)
    assert abs(round(value, places) - value) <= 2e-3 * step + 1e-9 * abs(value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "cannot be the name of a quantity"),
        ({"name": "2m"}, "cannot be the name of a quantity"),
        ({"name": "a b"}, "cannot be the name of a quantity"),
        ({"name": "a/b"}, "cannot be the name of a quantity"),
        ({"name": "xco2\n"}, "cannot be the name of a quantity"),
        ({"name": "a" * 64}, "cannot be the name of a quantity"),
        ({"name": "xco2_valid_fraction"}, "cannot be the name of a quantity"),
        ({"name": "time"}, "a coordinate has it"),
        ({"name": "spatial_ref"}, "a coordinate has it"),
        ({"dtype": "uint64"}, "'uint64' is not one of float32, float64, int16"),
        ({"dtype": "float16"}, "'float16' is not one of"),
        ({"units": ""}, "a unit is missing"),
        ({"fill_value": None}, "int16 needs a whole fill value, not None"),
        ({"fill_value": 0.5}, "needs a whole fill value, not 0.5"),
        ({"fill_value": math.nan}, "needs a whole fill value, not nan"),
        ({"fill_value": math.inf}, "needs a whole fill value, not inf"),
        ({"fill_value": 40000}, "fill value 40000 does not fit int16"),
        ({"dtype": "float32", "fill_value": -9999.0}, "a float is missing where it is NaN, not -9999.0"),
        ({"scale_factor": 0.0}, "scale_factor must be positive, not 0.0"),
        ({"scale_factor": -1.0}, "scale_factor must be positive"),
        ({"scale_factor": math.nan}, "scale_factor must be positive"),
        ({"add_offset": math.inf}, "add_offset must be finite, not inf"),
        ({"quantum": 0.0}, "quantum must be positive, not 0.0"),
        ({"quantum": math.inf}, "quantum must be positive"),
        ({"ancillary_of": "xco2"}, "xco2 cannot qualify itself"),
        ({"attributes": {"scale_factor": 2.0}}, "scale_factor = 2.0 cannot be one of the further attributes"),
        ({"attributes": {"_FillValue": 2}}, "_FillValue = 2 cannot be one of the further attributes"),
        ({"attributes": {"comment": math.nan}}, "comment = nan cannot be one of the further attributes"),
    ],
)
def test_a_quantity_that_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        replace(XCO2, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"minimum": 1.0}, r"needs minimum < maximum, both finite, not 1.0..1.0"),
        ({"minimum": 2.0}, "needs minimum < maximum"),
        ({"maximum": math.inf}, "both finite"),
        ({"minimum": math.nan}, "both finite"),
        ({"colormap_name": ""}, "cannot be the name of a colour map"),
        ({"colormap_name": "../etc"}, "cannot be the name of a colour map"),
    ],
)
def test_a_style_that_spans_nothing_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        replace(Style(minimum=0.0, maximum=1.0), **changes)
