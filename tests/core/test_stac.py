"""The documents of a version, without the web: valid STAC, and true."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pystac
import pytest
from pystac.extensions.datacube import DatacubeExtension
from pystac.extensions.render import RenderExtension
from pystac.extensions.version import VersionExtension

from services.core import layout, stac
from services.core.catalog import ListedCog, Run, Version
from services.core.errors import NotFound
from services.core.grid import Grid
from services.core.product import Product, Provider
from services.core.quantity import Quantity
from services.core.segment import SegmentCog
from services.core.spread import Spread
from services.core.style import Style
from services.core.time_axis import TimeAxis

GLOBAL = Grid.of(west=-180, north=90, step_x="1", width=360, height=180)
NODES = Grid.of(west="-180.5", north="90.5", step_x="1", width=360, height=181)
SEAM = Grid.of(west=165, north=20, step_x="1/2", width=60, height=40)
WEST_OF_SEAM = Grid.of(west="-180.125", north=10, step_x="1/4", width=41, height=41)

XCO2 = Quantity(
    name="xco2",
    units="1e-6",
    long_name="column CO2",
    standard_name="dry_atmosphere_mole_fraction_of_carbon_dioxide",
    dtype="int16",
    scale_factor=0.01,
    add_offset=400.0,
    fill_value=-32768,
    style=Style(minimum=395, maximum=415),
)
SIGMA = Quantity(name="sigma", units="1e-6", long_name="uncertainty", role="uncertainty", ancillary_of="xco2")


def version(
    axis: TimeAxis | None = None, *, grid: Grid = GLOBAL, split: int = 0, cogs: bool = True, **more: Any
) -> Version:
    """A version of one segment, or of two of which the second begins at period ``split``."""
    axis = axis or TimeAxis.regular("2015-01", "P1M", 6)
    product = Product(
        id="xco2",
        title="CO2",
        description="Of the tests.",
        grid=grid,
        step=str(axis.step),
        quantities=(XCO2, SIGMA),
        cog_period="step" if cogs else None,
        **more,
    )
    halves = [axis.take(range(split)), axis.take(range(split, len(axis)))] if split else [axis]
    runs = tuple(Run(segment=f"segment{number}", periods=half) for number, half in enumerate(halves))
    # a version keeps its COGs sorted by quantity, as the pipeline writes them
    listed = tuple(
        ListedCog(segment=run.segment, cog=SegmentCog(quantity=quantity.name, id=name, periods=(name,)))
        for quantity in (SIGMA, XCO2)
        for run in runs
        for name in run.periods.ids
        if cogs
    )
    return Version(
        product=product,
        time=axis,
        segments={run.segment: "ab" * 32 for run in runs},
        maps=runs,
        series=runs,
        cogs=listed,
        anchor=axis.starts[0],
        parent=None,
        provenance={"segment0": {"models": {"net": "cd" * 32}}},
        spreads={"segment0": {"sigma": Spread.of(np.linspace(0.5, 3.0, 101), 200)}},
    )


def test_scores_of_the_models_are_told_with_the_card_they_are_from() -> None:
    scores = {"cd" * 32: {"model": "net", "scores": [{"output": "xco2", "synthetic": True, "metrics": {"rmse": 0.5}}]}}
    told = collection(replace(version(), scores=scores))["cenote:scores"]
    assert told == [{"card": "cd" * 32, **scores["cd" * 32]}]
    assert "cenote:scores" not in collection(version())


def collection(found: Version) -> stac.Document:
    document = stac.collection(found, links=[], href=lambda key: f"./{key}")
    layout.canonical(document)  # JSON data, no NaN
    return document


def test_a_collection_is_valid_stac() -> None:
    document = collection(
        version(license="CC-BY-4.0", keywords=("a",), providers=(Provider(name="p", url="http://p"),))
    )
    found = pystac.Collection.from_dict(document)
    # the core schemas come with pystac; those of the extensions are on the web
    bare = {**document, "stac_extensions": []}
    pystac.Collection.from_dict(bare).validate()
    variables = DatacubeExtension.ext(found).variables
    assert variables is not None
    assert variables["xco2"].unit == "1e-6"
    assert RenderExtension.ext(found).renders["xco2"].rescale == [[395, 415]]
    assert VersionExtension.ext(found).version == document["version"]


def test_a_collection_tells_its_cube() -> None:
    axis = TimeAxis.of_ids(TimeAxis.regular("2015", "P1M", 1).step, ["2015-01", "2015-02", "2015-04"])
    document = collection(version(axis))
    dimensions = document["cube:dimensions"]
    assert dimensions["x"] == {
        "type": "spatial",
        "axis": "x",
        "extent": [-180.0, 180.0],
        "step": 1.0,
        "reference_system": 4326,
    }
    assert dimensions["time"]["values"] == ["2015-01-01T00:00:00Z", "2015-02-01T00:00:00Z", "2015-04-01T00:00:00Z"]
    assert dimensions["time"]["step"] is None, "there is a gap"
    assert collection(version())["cube:dimensions"]["time"]["step"] == "P1M"
    assert document["extent"]["temporal"]["interval"] == [["2015-01-01T00:00:00Z", "2015-04-30T23:59:59Z"]]
    assert document["cube:variables"]["xco2"]["cenote:ancillary"] == ["sigma"]
    assert document["cube:variables"]["sigma"]["type"] == "auxiliary"
    # without a style the values decide
    assert document["renders"]["sigma"]["rescale"] == [[pytest.approx(0.55), pytest.approx(2.95)]]
    assert document["cenote:models"] == {"net": "cd" * 32}


def test_a_long_axis_is_told_as_runs() -> None:
    axis = TimeAxis.regular("2000-01-01T00", "PT1H", 2000)
    axis = axis.take([place for place in range(2000) if place != 1500])
    document = collection(version(axis, cogs=False))
    assert document["extent"]["temporal"]["values"] == [
        "R1500/2000-01-01T00:00:00Z/PT1H",
        "R499/2000-03-03T13:00:00Z/PT1H",
    ]
    assert "values" not in document["cube:dimensions"]["time"]


@pytest.mark.parametrize(
    ("grid", "bbox", "kind"),
    [
        (GLOBAL, [-180, -90, 180, 90], "Polygon"),
        (NODES, [-180, -90, 180, 90], "Polygon"),
        (SEAM, [165, 0, -165, 20], "MultiPolygon"),
        (WEST_OF_SEAM, [179.875, -0.25, -169.875, 10], "MultiPolygon"),
    ],
)
def test_extents_stay_on_earth_and_cross_the_antimeridian_as_rfc_7946_says(
    grid: Grid, bbox: list[float], kind: str
) -> None:
    assert stac.bbox(grid) == bbox
    outline = stac.footprint(grid)
    assert outline["type"] == kind
    polygons = outline["coordinates"] if kind == "MultiPolygon" else [outline["coordinates"]]
    places = np.array([place for polygon in polygons for ring in polygon for place in ring])
    assert places[:, 0].min() >= -180
    assert places[:, 0].max() <= 180
    width = sum(max(x for x, _ in polygon[0]) - min(x for x, _ in polygon[0]) for polygon in polygons)
    assert width == pytest.approx(min(float(grid.width * grid.step_x), 360.0))


def test_zarr_assets_name_the_segments_by_storage_key() -> None:
    one = collection(version())["assets"]
    assert one["maps"]["href"] == "./xco2/segments/segment0/maps.zarr"
    assert one["series"]["cenote:key"] == "xco2/segments/segment0/series.zarr"
    two = collection(version(split=4))["assets"]
    assert sorted(two) == ["maps-2015-01", "maps-2015-05", "series-2015-01", "series-2015-05"]
    assert two["maps-2015-05"]["title"].endswith("2015-05 to 2015-06")


@pytest.mark.parametrize("cogs", [True, False])
def test_items_are_valid_and_in_the_order_of_time(cogs: bool) -> None:  # noqa: FBT001 - a parameter of the test
    found = version(split=4, cogs=cogs)
    items = stac.Items(found)
    assert [items[number].id for number in range(len(items))] == list(found.time.ids)
    for number in range(len(items)):
        document = items.document(
            number, links=[{"rel": "collection", "href": "."}], href=lambda key: f"https://example.org/{key}"
        )
        layout.canonical(document)
        pystac.Item.from_dict({**document, "stac_extensions": []}).validate()
        assert items.number(document["id"]) == number
        segment = "segment0" if number < 4 else "segment1"
        if cogs:
            assert sorted(document["assets"]) == ["sigma", "xco2"]
            asset = document["assets"]["xco2"]
            assert asset["href"] == f"https://example.org/xco2/segments/{segment}/cog/xco2/{document['id']}.tif"
            assert (asset["raster:scale"], asset["raster:offset"], asset["nodata"]) == (0.01, 400.0, -32768)
            assert document["assets"]["sigma"]["nodata"] == "nan"
        else:
            assert document["assets"]["maps"]["href"] == f"https://example.org/xco2/segments/{segment}/maps.zarr"
    with pytest.raises(NotFound, match="no item '2019-01'"):
        items.number("2019-01")
    with pytest.raises(NotFound):
        items.number("../secret")


def test_an_item_of_several_periods_has_a_start_and_an_end() -> None:
    axis = TimeAxis.regular("2014-11", "P1M", 16).take([0, 1, 2, 3, 5, 15])
    spans = {"2014": axis.ids[:2], "2015": axis.ids[2:5], "2016": axis.ids[5:]}
    cogs = tuple(
        ListedCog(segment="segment0", cog=SegmentCog(quantity="xco2", id=name, periods=periods))
        for name, periods in reversed(spans.items())
    )
    items = stac.Items(replace(version(axis), cogs=cogs))
    assert [(items[n].id, items[n].first, items[n].last) for n in range(3)] == [
        ("2014", 0, 1),
        ("2015", 2, 4),
        ("2016", 5, 5),
    ]
    properties = items.document(1, links=[], href=str)["properties"]
    assert properties["datetime"] is None
    assert properties["start_datetime"] == "2015-01-01T00:00:00Z"
    assert properties["end_datetime"] == "2015-04-30T23:59:59Z"
    assert properties["cenote:periods"] == ["2015-01", "2015-02", "2015-04"]
    for first in range(6):
        for last in range(first + 1, 7):
            wanted = [n for n in range(3) if items[n].last >= first and items[n].first < last]
            assert list(items.touching(range(first, last))) == wanted


def test_item_ids_hold_no_colon() -> None:
    axis = TimeAxis.regular("2004-01-15T03:15", "PT15M", 3)
    items = stac.Items(version(axis, cogs=False))
    assert items[1].id == "2004-01-15T0330"
    assert items.number("2004-01-15T0330") == 1
    with pytest.raises(NotFound):
        items.number("2004-01-15T03:30")


def test_documents_of_one_version_are_equal_bytes() -> None:
    first, second = (json.dumps(collection(version())) for _ in range(2))
    assert first == second
