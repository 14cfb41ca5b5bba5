import json
import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core import layout
from services.core.catalog import (
    ListedCog,
    Pointer,
    Run,
    Version,
    collection_ids,
    current_version,
    folder_ids,
    read_marks,
    read_pointer,
    read_version,
    runs_of,
    segment_of,
    version_ids,
)
from services.core.errors import CollectionNotFound, Damaged, DeclarationError, VersionNotFound
from services.core.grid import Grid
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.segment import SegmentCog
from services.core.settings import StoreSettings
from services.core.spread import Spread
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import Step, TimeAxis

MONTHS = TimeAxis.regular("2004-01", "P1M", 4)
PRODUCT = Product(
    id="made_up",
    title="Made up",
    description="ä **b**",
    grid=Grid.of(west=0, north=10, step_x="1/3", width=9, height=7),
    step="P1M",
    quantities=(Quantity(name="a", units="1", long_name="a"),),
)


def run(segment: str, *places: int) -> Run:
    return Run(segment=segment, periods=MONTHS.take(places))


def cog(segment: str, place: int) -> ListedCog:
    name = MONTHS.ids[place]
    return ListedCog(segment=segment, cog=SegmentCog(quantity="a", id=name, periods=(name,)))


VERSION = Version(
    product=PRODUCT,
    time=MONTHS,
    segments={"s-1": "1" * 64, "t-1": "2" * 64},
    maps=(run("s-1", 0, 1, 3), run("t-1", 2)),
    series=(run("t-1", 0, 1, 2, 3),),
    cogs=(cog("s-1", 0), cog("t-1", 2)),
    anchor=408,
    parent=None,
    provenance={"s-1": {"inputs": [{"name": "ä", "size": 2**40}], "share": 0.1}},
    scores={"rmse": 0.25},
    spreads={"s-1": {"a": Spread.of(np.arange(-1.5, 2.1, 0.1), 40)}},
)

POINTER = Pointer(
    seq=3,
    version="0123456789abcdef0123",
    sha256="0123456789abcdef0123" + "4" * 44,
    previous="f" * 20,
    write_id="w3",
    write_ids=("w3", "w2", "w1"),
    flipped_at="2026-01-01T00:00:00+00:00",
    pinned=("a" * 20,),
)


@pytest.fixture
def store() -> Store:
    return Store.open(f"memory://{uuid.uuid4().hex}", StoreSettings())


def test_a_quantity_without_a_style_is_drawn_over_the_bulk_of_its_values() -> None:
    quantity = PRODUCT.quantities[0]
    plain = replace(quantity, style=None)

    def drawn(*values: float) -> tuple[float, float]:
        spread = Spread.of(np.asarray(values), len(values) + 1)
        style = replace(VERSION, spreads={"s-1": {plain.name: spread}}).style(plain)
        return style.minimum, style.maximum

    assert drawn(*range(1001)) == (20.0, 980.0)
    assert drawn(*([5.0] * 999), 7.0) == (5.0, 7.0)  # almost all are one value
    assert drawn(5.0, 5.0) == (4.5, 5.5)
    assert drawn() == (-0.5, 0.5)
    low, high = drawn(2.0**60, 2.0**60)
    assert low < 2.0**60 < high
    style = Style(colormap_name="magma", minimum=1.0, maximum=2.0)
    assert VERSION.style(replace(quantity, style=style)) == style


def test_a_version_survives_its_file_to_the_byte() -> None:
    data = VERSION.to_bytes()
    again = Version.from_bytes("k", data)
    assert again == VERSION
    assert again.to_bytes() == data
    assert again.id == VERSION.id == layout.digest(data)[:20]
    assert json.loads(data)["format"] == "cenote-version/2"


def test_no_clock_is_in_a_version_and_every_field_is_in_its_id() -> None:
    assert Version.from_bytes("k", VERSION.to_bytes()).id == VERSION.id
    others = [
        replace(VERSION, parent="0" * 20),
        replace(VERSION, anchor=409),
        replace(VERSION, scores={}),
        replace(VERSION, spreads={}),
        replace(VERSION, provenance={}),
        replace(VERSION, cogs=()),
        replace(VERSION, product=replace(PRODUCT, title="Else")),
        replace(VERSION, segments={**VERSION.segments, "t-1": "3" * 64}),
        replace(
            VERSION,
            time=TimeAxis.with_times(
                MONTHS.step,
                MONTHS.starts,
                (*MONTHS.instants.astype(int).tolist()[:3], int(MONTHS.instants.astype(int)[3]) + 5),
            ),
        ),
    ]
    assert len({VERSION.id, *(other.id for other in others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"maps": (run("s-1", 0, 1, 3),), "segments": {"s-1": "1" * 64, "t-1": "2" * 64}},
            "the maps of made_up list 3 periods",
        ),
        ({"maps": (run("s-1", 0, 1, 2, 3), run("t-1", 2))}, "the maps of made_up list 5 periods"),
        ({"series": (run("t-1", 0, 1),)}, "the series of made_up list 2 periods"),
        ({"series": ()}, "the series of made_up list 0 periods"),
        ({"segments": {"s-1": "1" * 64}}, r"segments \['t-1'\]"),
        ({"segments": {"s-1": "1" * 64, "t-1": "2" * 64, "u-1": "3" * 64}}, r"segments \['u-1'\]"),
        ({"cogs": (cog("v-1", 0),)}, r"segments \['v-1'\]"),
    ],
)
def test_runs_that_do_not_cover_the_axis_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        replace(VERSION, **changes)


def test_series_are_not_listed_where_the_maps_serve_both() -> None:
    product = replace(PRODUCT, series_block=None)
    version = replace(VERSION, product=product, series=())
    assert Version.from_bytes("k", version.to_bytes()) == version


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30))
def test_runs_group_periods_by_segment_and_are_read_back(owners: list[str]) -> None:
    axis = TimeAxis(step=Step.parse("P1M"), starts=tuple(range(400, 400 + 2 * len(owners), 2)))
    owner = dict(zip(axis.starts, owners, strict=True))
    runs = runs_of(owner, axis)
    assert segment_of(runs) == owner
    assert [one.segment for one in runs] == list(dict.fromkeys(owners))
    assert sum(len(one.periods) for one in runs) == len(axis)


def test_a_pointer_survives_its_object() -> None:
    assert Pointer.from_bytes("k", POINTER.to_bytes()) == POINTER
    first = replace(POINTER, previous=None, pinned=(), seq=1)
    assert Pointer.from_bytes("k", first.to_bytes()) == first


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 0},
        {"seq": "3"},
        {"seq": 1.5},
        {"seq": None},
        {"version": "0123456789abcdef012!"},
        {"version": "../../../etc/passwd0"},
        {"version": "0" * 20},
        {"version": None},
        {"version": 5},
        {"sha256": "4" * 64},
        {"sha256": "0123456789abcdef0123"},
        {"previous": "x"},
        {"pinned": ["a/b"]},
        {"pinned": None},
        {"write_ids": 3},
        {"more": 1},
    ],
)
def test_a_pointer_that_cannot_be_is_damage(changes: dict[str, Any]) -> None:
    document = {**json.loads(POINTER.to_bytes()), **changes}
    with pytest.raises(Damaged, match=r"'a/current.json' is damaged: it is not a pointer"):
        Pointer.from_bytes("a/current.json", json.dumps(document).encode())


def publish(store: Store, version: Version, **changes: Any) -> Pointer:
    store.create(layout.version_key(version.product.id, version.id), version.to_bytes())
    pointer = replace(POINTER, version=version.id, sha256=version.sha256, **changes)
    store.create(layout.pointer_key(version.product.id), pointer.to_bytes())
    return pointer


def test_the_current_version_is_read_through_the_pointer_and_its_digest(store: Store) -> None:
    with pytest.raises(CollectionNotFound, match="there is no collection 'made_up'"):
        current_version(store, "made_up")
    assert read_pointer(store, "made_up") is None
    pointer = publish(store, VERSION)
    assert current_version(store, "made_up") == (pointer, VERSION)
    assert read_version(store, "made_up", VERSION.id) == VERSION
    with pytest.raises(VersionNotFound, match="collection 'made_up' has no version '00000000000000000000'"):
        read_version(store, "made_up", "0" * 20)


def test_a_version_that_the_pointer_names_and_is_not_there_is_damage(store: Store) -> None:
    publish(store, VERSION)
    key = layout.version_key("made_up", VERSION.id)
    store.delete([key])
    with pytest.raises(Damaged, match=f"'{key}' is damaged: it is missing"):
        current_version(store, "made_up")
    store.create(key, replace(VERSION, anchor=1).to_bytes())
    with pytest.raises(Damaged, match="its sha256 is not the one it is named by"):
        current_version(store, "made_up")


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"{}", b"[1]", b"\xff", b'{"format":"cenote-version/9"}', b'{"format":"cenote-version/2"}'],
)
def test_a_file_that_is_no_version_is_damage_though_its_digest_holds(store: Store, body: bytes) -> None:
    name = layout.digest(body)[: layout.ID_LENGTH]
    store.create(layout.version_key("made_up", name), body)
    with pytest.raises(Damaged, match=r"it is not a version|its format is 'cenote-version/9'"):
        read_version(store, "made_up", name)


def test_collections_are_what_has_a_pointer(store: Store) -> None:
    publish(store, VERSION)
    publish(store, replace(VERSION, product=replace(PRODUCT, id="another")))
    for key in (
        "catalog.json",
        "models/net/0/model.onnx",
        "rendering/segments/s-1/ledger/maps-0-0-0.json",
        "Thumbs.db",
        "other=people/current.json",
        ".cenote-probe/x",
        "models/current.json",
    ):
        store.create(key, b"{}")
    assert list(collection_ids(store)) == ["another", "made_up"]
    # one that is damaged hides neither itself nor the others
    store.overwrite(layout.pointer_key("another"), b"{}")
    assert list(collection_ids(store)) == ["another", "made_up"]
    assert folder_ids(store) == ["another", "made_up", "rendering"]


def test_version_ids_are_the_stored_ones_and_no_other_files(store: Store) -> None:
    publish(store, VERSION)
    store.create("made_up/versions/README.md", b"a note")
    assert version_ids(store, "made_up") == [VERSION.id]


def test_marks_are_read_and_checked(store: Store) -> None:
    assert read_marks(store, "made_up") == {}
    store.create(layout.marks_key("made_up"), b'{"s-1":"2026-01-01T00:00:00+00:00"}')
    assert read_marks(store, "made_up") == {"s-1": "2026-01-01T00:00:00+00:00"}
    store.overwrite(layout.marks_key("made_up"), b'{"s-1":5}')
    with pytest.raises(Damaged, match=r"'made_up/gc.json' is damaged: it is not a list of marks"):
        read_marks(store, "made_up")
