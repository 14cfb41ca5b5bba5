import json
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services import products
from services.core import layout
from services.core.errors import DeclarationError, QuantityNotFound
from services.core.grid import Grid
from services.core.product import Product, Provider, is_collection_id
from services.core.quantity import Quantity
from services.core.style import Style

HEAT = Quantity(
    name="heat",
    units="K",
    long_name="heat",
    standard_name="air_temperature",
    dtype="int16",
    scale_factor=0.01,
    add_offset=273.15,
    fill_value=-32768,
    quantum=0.01,
    style=Style(colormap_name="turbo", minimum=200, maximum=320),
    attributes={"comment": "ä µ 漢", "level": 2, "height": 2.0, "empty": ""},
)
SPREAD = Quantity(name="spread", units="K", long_name="spread", role="uncertainty", ancillary_of="heat")
PRODUCT = Product(
    id="made_up",
    title="Made up",
    description="A **made-up** thing.\nWith a second line.",
    grid=Grid.of(west=-180, north=90, step_x="1/120", width=43200, height=18000),
    step="P1M",
    quantities=(HEAT, SPREAD),
    keywords=("a", "b"),
    providers=(Provider(name="us", roles=("producer", "host"), url="https://example.org"),),
    citation="Us (2026)",
    attributes={"source": "nowhere", "number": 3},
)


def round_trip(product: Product) -> Product:
    """Through JSON text, as a version file does."""
    return Product.from_json(json.loads(layout.canonical(product.to_json())))


def test_a_declaration_survives_json_text() -> None:
    again = round_trip(PRODUCT)
    assert again == PRODUCT
    assert again.grid.step_x == Fraction(1, 120)
    assert again.quantities[0].attributes == HEAT.attributes
    # the id of a version is the digest of its text: what is read must be written the same
    assert layout.canonical(again.to_json()) == layout.canonical(PRODUCT.to_json())


@pytest.mark.parametrize("name", sorted(products.find()))
def test_every_registered_product_survives_json_text(name: str) -> None:
    declared = products.product(name).PRODUCT
    assert round_trip(declared) == declared
    assert layout.canonical(round_trip(declared).to_json()) == layout.canonical(declared.to_json())


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "fill_value": st.integers(-(2**63), 2**63 - 1),
            "scale_factor": st.none() | st.floats(1e-300, 1e300),
            "add_offset": st.none() | st.floats(-1e300, 1e300),
            "attributes": st.dictionaries(
                st.sampled_from(["comment", "a", "b"]),
                st.text('aÄ漢 \n"', max_size=5)
                | st.integers(-(2**60), 2**60)
                | st.floats(allow_nan=False, allow_infinity=False),
                max_size=3,
            ),
        }
    ),
    st.fractions(Fraction(1, 1000), 4),
)
def test_any_numbers_survive_json_text(changes: dict[str, Any], step: Fraction) -> None:
    quantity = replace(HEAT, dtype="int64", **changes)
    grid = Grid.of(west=Fraction(-7, 3), north=Fraction(1, 3), step_x=step, width=5, height=4)
    product = replace(PRODUCT, quantities=(quantity,), grid=grid)
    again = round_trip(product)
    assert again == product
    assert {name: type(value) for name, value in again.quantities[0].attributes.items()} == {
        name: type(value) for name, value in quantity.attributes.items()
    }
    assert layout.canonical(again.to_json()) == layout.canonical(product.to_json())


def test_what_an_older_release_wrote_is_read_with_defaults() -> None:
    document = PRODUCT.to_json()
    for name in ("synthetic", "fixed_mask", "keywords"):
        del document[name]
    assert Product.from_json(document) == replace(PRODUCT, keywords=())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("grid"),
        lambda d: d.pop("id"),
        lambda d: d["grid"].update(width="many"),
        lambda d: d["grid"].update(step_x="1/0"),
        lambda d: d["grid"].update(width=-1),
        lambda d: d.update(step="monthly"),
        lambda d: d.update(quantities=[]),
        lambda d: d.update(cog_period="P2Y"),
        lambda d: d["quantities"][0].update(role="guess"),
        lambda d: d["quantities"][0].update(dtype="complex64"),
    ],
)
def test_a_document_that_is_no_declaration_is_refused(spoil: Any) -> None:
    document = json.loads(json.dumps(PRODUCT.to_json()))
    spoil(document)
    with pytest.raises(DeclarationError, match="not a product declaration"):
        Product.from_json(document)
    nothings: tuple[Any, ...] = (None, [], "made_up", 5)
    for nothing in nothings:
        with pytest.raises(DeclarationError, match="not a product declaration"):
            Product.from_json(nothing)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": ""}, "'' cannot be the id of a collection"),
        ({"id": "Made"}, "cannot be the id of a collection"),
        ({"id": "made up"}, "cannot be the id of a collection"),
        ({"id": "made/up"}, "cannot be the id of a collection"),
        ({"id": "../up"}, "cannot be the id of a collection"),
        ({"id": "made_"}, "cannot be the id of a collection"),
        ({"id": "made_up\n"}, "cannot be the id of a collection"),
        ({"id": "models"}, "'models' cannot be the id of a collection .*none of .*models"),
        ({"id": "catalog"}, "cannot be the id of a collection"),
        ({"title": ""}, "title and description must say something"),
        ({"description": ""}, "title and description must say something"),
        ({"quantities": ()}, r"quantities need names of their own, not \[\]"),
        ({"quantities": (HEAT, HEAT)}, r"quantities need names of their own, not \['heat', 'heat'\]"),
        ({"quantities": (SPREAD,)}, "spread qualifies 'heat', which is not there"),
        ({"step": "month"}, "is not an ISO 8601 duration"),
        ({"map_block": 0}, "a map block needs at least one period, not 0"),
        ({"series_block": 119}, "must be at least 120 periods and a multiple of the map block of 1, not 119"),
        ({"series_block": 130, "map_block": 4}, "a multiple of the map block of 4, not 130"),
        (
            {"series_block": None},
            "a grid of 777600000 cells needs a series layout; one layout serves both only up to 65536",
        ),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        replace(PRODUCT, **changes)


def test_one_layout_may_serve_both_on_a_small_grid() -> None:
    grid = Grid.of(west=70, north=45, step_x="1/4", width=256, height=256)
    assert replace(PRODUCT, grid=grid, series_block=None, map_block=720).series_block is None
    with pytest.raises(DeclarationError, match="a grid of 65792 cells needs a series layout"):
        replace(PRODUCT, grid=Grid.of(west=70, north=45, step_x="1/4", width=257, height=256), series_block=None)


def test_a_quantity_is_found_by_name_and_the_first_without_one() -> None:
    assert PRODUCT.quantity(None) == HEAT
    assert PRODUCT.quantity("spread") == SPREAD
    with pytest.raises(QuantityNotFound, match="collection 'made_up' has no variable 'rain'; it has heat, spread"):
        PRODUCT.quantity("rain")


@pytest.mark.parametrize(
    ("name", "may"),
    [("gwsa", True), ("xco2_global", True), ("a-b-c", True), ("0a", False), ("a--b", False), (".git", False),
     ("models", False), ("catalog.json", False), ("a b", False), ("", False), ("ä", False)],
)  # fmt: skip
def test_which_names_may_be_ids(name: str, *, may: bool) -> None:
    assert is_collection_id(name) is may


def test_numbers_that_json_has_not_are_refused_where_they_are_declared() -> None:
    with pytest.raises(DeclarationError, match="cannot be one of the further attributes"):
        replace(HEAT, attributes={"comment": math.inf})
    with pytest.raises(ValueError, match="JSON"):
        layout.canonical({"x": math.nan})
