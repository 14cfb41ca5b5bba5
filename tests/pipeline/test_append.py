"""Adding, filling and correcting periods write what they touch and nothing else, however long the archive is."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from services.core import layout
from services.core.catalog import Version, current_version
from services.core.dataset import Dataset
from services.core.errors import Refused
from services.core.grid import Window
from services.core.product import Product
from services.core.store import Store
from services.core.time_axis import TimeAxis
from services.pipeline import publish as publishing
from services.pipeline import run as running
from services.pipeline.code import packages_of, this_code
from services.pipeline.plan import Plan, plan_compact
from services.pipeline.verify import verify
from tests.pipeline.faults import Watched
from tests.pipeline.synthetic import PACKED, REGION, Planted, Quiet, current, months, planned, product, render

pytestmark = pytest.mark.slow  # as a whole

REGIONAL = product(grid=replace(REGION, width=23, height=17))
PLAIN_MAPS = replace(REGIONAL, grid=replace(REGION, width=9, height=7), cog_period=None)
"""For many periods: one shard, and no COGs."""

HOURLY = product(
    step="PT1H", series_block=None, map_block=24, cog_period="P1M", grid=replace(REGION, width=12, height=9)
)


def now(store: Store) -> Version:
    version = current(store)
    assert version is not None
    return version


def values_of(store: Store, declared: Product) -> dict[str, np.ndarray]:
    """Quantity -> values of all periods, read from both layouts, which must agree."""
    dataset = Dataset(store, now(store))
    whole = Window(row=0, column=0, height=declared.grid.height, width=declared.grid.width)
    out: dict[str, np.ndarray] = {}
    for quantity in declared.quantities:
        places = range(len(dataset.time))
        series = dataset.read_series(quantity, places, whole)
        maps = np.stack([dataset.read_map(quantity, place, 0, whole) for place in places])
        np.testing.assert_array_equal(series, maps)
        out[quantity.name] = series
    return out


def assert_values(store: Store, recipe: Planted) -> None:
    assert now(store).time == recipe.axis
    for name, values in values_of(store, recipe.product).items():
        np.testing.assert_array_equal(values, recipe.stored(recipe.product.quantity(name), recipe.axis))
    assert verify(store, "synthetic").findings == ()


def written_below(watched: Watched, segment: str) -> dict[str, int]:
    """Path below the segment -> bytes of what was written."""
    prefix = layout.segment_prefix("synthetic", segment)
    return {key.removeprefix(prefix): size for key, size in watched.written.items() if key.startswith(prefix)}


def cost_of_one_more_month(store: Store, before: int) -> tuple[dict[str, int], dict[str, int]]:
    """Objects and bytes, inside the segment and beside it, of adding a month to ``before`` of them."""
    recipe = Planted(product=REGIONAL, axis=months(before), flat=True)
    render(store, recipe)
    longer = replace(recipe, axis=months(before + 1))
    watched = Watched(store)
    render(watched, longer)
    segment = now(store).maps[-1].segment
    inside = written_below(watched, segment)
    beside = {key: size for key, size in watched.written.items() if f"/{segment}/" not in key}
    assert len(now(store).time) == before + 1
    return inside, beside


def test_adding_a_month_costs_the_same_at_24_periods_and_a_series_block_later(memory: Store) -> None:
    assert REGIONAL.series_block == 120
    few, few_beside = cost_of_one_more_month(memory, 24)
    from services.core.settings import StoreSettings  # noqa: PLC0415

    other = Store.open(f"{memory.url}-later", StoreSettings())
    many, many_beside = cost_of_one_more_month(other, 24 + 120)
    kinds = [Counter(path.split("/")[0] for path in inside) for inside in (few, many)]
    assert kinds[0] == kinds[1]
    assert kinds[0].keys() == {"maps.zarr", "series.zarr", "cog", "ledger", "objects.json"}
    assert sum(few.values()) == sum(many.values())
    assert sorted(few.values()) == sorted(many.values())
    # one month of maps, the 25 months that share its series block, one COG for each quantity
    chunks = [path for path in few if path.startswith("maps.zarr/0/heat/c/")]
    assert len(chunks) == len(list(REGIONAL.grid.shards()))
    assert [path for path in sorted(few) if path.startswith("cog/")] == ["cog/flux/2003-01.tif", "cog/heat/2003-01.tif"]

    def others(store: Store, beside: dict[str, int]) -> dict[str, int]:
        """Beside the segment, without the version file, and its segments and ranges in the copy for STAC browsers."""
        sizes = {
            key: size for key, size in beside.items() if not key.startswith(("synthetic/versions/", ".cenote-probe"))
        }
        copy = json.loads(store.get(layout.collection_key("synthetic")))
        return sizes | {
            layout.collection_key("synthetic"): len(layout.canonical({**copy, "assets": {}, "renders": {}}))
        }

    beside = others(memory, few_beside)
    assert beside == others(other, many_beside)
    assert beside.keys() == {layout.pointer_key("synthetic"), layout.collection_key("synthetic"), layout.CATALOG_KEY}


def test_an_append_keeps_the_blocks_of_what_is_published(memory: Store) -> None:
    """A version that is started anew has those that are declared now."""
    recipe = Planted(product=REGIONAL, axis=months(2))
    render(memory, recipe)
    longer = replace(recipe, product=replace(REGIONAL, series_block=240), axis=months(3))
    render(memory, longer)
    version = now(memory)
    assert (len(version.time), version.product.series_block) == (3, 120)
    path = layout.series_path(REGIONAL.quantities[0].name)
    assert Dataset(memory, version).segment(version.series[-1].segment).array(path).layout.chunk[0] == 120
    render(memory, longer, keep=False)
    version = now(memory)
    assert (len(version.time), version.product.series_block) == (3, 240)
    assert Dataset(memory, version).segment(version.series[-1].segment).array(path).layout.chunk[0] == 240


def test_an_append_holds_only_the_blocks_that_it_touches(memory: Store) -> None:
    recipe = Planted(product=PLAIN_MAPS, axis=months(130))
    render(memory, recipe)
    assert len(now(memory).segments) == 1
    render(memory, replace(recipe, axis=months(132)))
    version = now(memory)
    segment = Dataset(memory, version).segment(version.maps[-1].segment)
    assert segment.maps_axis is not None
    assert segment.series_axis is not None
    assert segment.maps_axis.ids == ("2011-11", "2011-12")
    assert segment.series_axis.ids == months(12, "2011-01").ids
    assert [(len(run.periods), run.segment) for run in version.series] == [
        (120, version.maps[0].segment),
        (12, segment.id),
    ]
    assert_values(memory, replace(recipe, axis=months(132)))


def test_a_gap_that_is_filled_later_touches_its_blocks_only(memory: Store) -> None:
    every = months(150)
    gap = set(range(40, 44))
    recipe = Planted(product=PLAIN_MAPS, axis=every.take([place for place in range(150) if place not in gap]))
    render(memory, recipe)
    assert len(now(memory).time) == 146
    before = now(memory)
    # two of them come, in one go with a later month
    more = replace(recipe, axis=months(151).take([place for place in range(151) if place not in {40, 43}]))
    render(memory, more)
    assert_values(memory, more)
    version = now(memory)
    (new,) = set(version.segments) - set(before.segments)
    segment = Dataset(memory, version).segment(new)
    assert segment.maps_axis is not None
    assert segment.series_axis is not None
    assert segment.maps_axis.ids == ("2004-06", "2004-07", "2013-07")
    assert len(segment.series_axis) == 118 + 31  # both series blocks were touched
    # then the others
    render(memory, replace(recipe, axis=months(151)))
    assert_values(memory, replace(recipe, axis=months(151)))
    (newest,) = set(now(memory).segments) - set(version.segments)
    assert Dataset(memory, now(memory)).segment(newest).series_axis == months(120)


def test_earlier_periods_may_come_later(memory: Store) -> None:
    late = Planted(product=PLAIN_MAPS, axis=months(5, "2005-03"))
    render(memory, late)
    everything = replace(late, axis=months(55))
    assert everything.axis.ids[-1] == "2005-07"
    render(memory, everything)
    assert_values(memory, everything)
    assert now(memory).anchor == months(1, "2005-03").starts[0]


def test_one_period_is_corrected_and_the_others_keep_their_bytes(memory: Store) -> None:
    recipe = Planted(product=REGIONAL, axis=months(6))
    render(memory, recipe)
    old = values_of(memory, REGIONAL)
    corrected = replace(recipe, shift=13)
    watched = Watched(memory)
    render(watched, corrected, periods="2001-03")
    version = now(memory)
    new = next(run.segment for run in version.maps if run.periods.ids == ("2001-03",))
    assert {run.segment: run.periods.ids for run in version.maps}[new] == ("2001-03",)
    assert {cog.cog.id for cog in version.cogs if cog.segment == new} == {"2001-03"}
    for name, values in values_of(memory, REGIONAL).items():
        expected = old[name].copy()
        expected[2] = corrected.stored(REGIONAL.quantity(name), months(6))[2]
        np.testing.assert_array_equal(values, expected)
    assert verify(memory, "synthetic").findings == ()
    touched = [one.keys[0] for one in watched.operations if one.name in {"create", "swap", "overwrite"}]
    assert all(f"/{new}/" in key or not key.startswith("synthetic/segments/") for key in touched)


def test_map_blocks_of_several_periods_are_copied_where_a_part_is_new(memory: Store) -> None:
    recipe = Planted(product=HOURLY, axis=TimeAxis.regular("2004-02-29T12", "PT1H", 50))
    render(memory, recipe)
    longer = replace(recipe, axis=TimeAxis.regular("2004-02-29T12", "PT1H", 53))
    render(memory, longer)
    assert_values(memory, longer)
    version = now(memory)
    segment = Dataset(memory, version).segment(version.maps[-1].segment)
    assert segment.maps_axis is not None
    # hours 48 and 49 are in the block of 50 to 52, and the COG of March holds all its hours
    assert segment.maps_axis.ids == longer.axis.ids[48:]
    assert {cog.id: len(cog.periods) for cog in segment.cogs if cog.quantity == "heat"} == {"2004-03": 41}
    provenance = version.provenance[segment.id]
    assert list(provenance["copied"]) == [version.maps[0].segment]
    assert provenance["periods"] == longer.axis.take([50, 51, 52]).to_json()


def test_calendar_cogs_hold_every_band_of_their_span(memory: Store) -> None:
    declared = replace(REGIONAL, cog_period="P1Y")
    recipe = Planted(product=declared, axis=months(22))
    render(memory, recipe)
    render(memory, replace(recipe, axis=months(25)))
    version = now(memory)
    bands = {(cog.cog.quantity, cog.cog.id): (len(cog.cog.periods), cog.segment) for cog in version.cogs}
    first, second = version.maps[0].segment, version.maps[1].segment
    assert bands["heat", "2001"] == (12, first)
    assert bands["heat", "2002"] == (12, second)  # ten of them copied
    assert bands["heat", "2003"] == (1, second)
    assert len(bands) == 6
    assert_values(memory, replace(recipe, axis=months(25)))


def compacted(store: Store) -> Plan:
    """Do what ``cenote compact`` does."""
    before = now(store)
    plan = plan_compact(before, this_code())
    publishing.publish(store, publishing.compose(plan, running.run(store, plan, None, None, Quiet()), before))
    return plan


def test_compact_folds_all_into_one_segment_with_equal_values(memory: Store) -> None:
    recipe = Planted(product=REGIONAL, axis=months(3))
    for count in (3, 4, 7):
        render(memory, replace(recipe, axis=months(count)))
    render(memory, replace(recipe, axis=months(7), shift=9), periods="2001-02/2001-03")
    before = now(memory)
    values = values_of(memory, REGIONAL)
    assert len(before.segments) == 4
    plan = compacted(memory)
    assert plan.lines()[0].startswith("synthetic: 0 periods to compute, 7 in the new version")
    after = now(memory)
    assert list(after.segments) == [plan.segment]
    assert (after.time, after.anchor, after.parent) == (before.time, before.anchor, before.id)
    for name, mine in values_of(memory, REGIONAL).items():
        np.testing.assert_array_equal(mine, values[name])
    assert verify(memory, "synthetic").findings == ()
    # where its values came from is still told
    assert set(before.segments) < set(after.provenance)
    # and the next month goes on from it
    render(memory, replace(recipe, axis=months(8), shift=9))
    assert len(now(memory).segments) == 2


def test_a_version_anew_keeps_nothing_of_the_one_before(memory: Store) -> None:
    render(memory, Planted(product=REGIONAL, axis=months(5)))
    before = now(memory)
    other = replace(REGIONAL, grid=replace(REGION, width=31, height=17), map_block=2)
    recipe = Planted(product=other, axis=months(2, "2010-01"))
    with pytest.raises(Refused, match=r"is published with grid 23 x 17 cells .* and this has 31 x 17 cells"):
        render(memory, recipe)
    render(memory, recipe, keep=False)
    assert_values(memory, recipe)
    version = now(memory)
    assert version.parent == before.id
    assert set(version.segments).isdisjoint(before.segments)
    assert set(version.provenance) == set(version.segments)


def test_the_same_periods_again_give_the_same_segment_and_no_new_version(memory: Store) -> None:
    recipe = Planted(product=REGIONAL, axis=months(3))
    first = render(memory, recipe)
    again = render(memory, recipe, periods="2001-02")
    # equal values, but in a segment of their own: a correction that corrects nothing is a version all the same
    assert again.version != first.version
    third = render(memory, recipe, periods="2001-02")
    assert third.seq == 3
    publishing.rollback(memory, "synthetic", first.version)
    assert render(memory, recipe, periods="2001-02").version == again.version


def test_provenance_names_inputs_code_and_what_was_copied(memory: Store) -> None:
    recipe = Planted(product=REGIONAL, axis=months(2))
    render(memory, recipe)
    render(memory, replace(recipe, axis=months(3), shift=4))
    version = now(memory)
    new = version.maps[-1].segment
    origin = version.provenance[new]
    assert origin["inputs"] == [{"name": "made up", "size": 1, "sha256": f"{4:064x}"}]
    assert origin["facts"] == {"shift": 4}
    assert origin["code"]["source"] == this_code(packages_of(recipe)).source
    assert origin["copied"] == {version.maps[0].segment: version.segments[version.maps[0].segment]}


def test_spreads_are_of_everything_that_is_listed(memory: Store) -> None:
    recipe = Planted(product=REGIONAL, axis=months(2))
    render(memory, recipe)
    render(memory, replace(recipe, axis=months(4)))
    stored = recipe.stored(PACKED, months(4))
    decoded = PACKED.decode(stored)
    found = now(memory).spread(PACKED)
    assert found.percentiles[0] == pytest.approx(np.nanmin(decoded))
    assert found.percentiles[-1] == pytest.approx(np.nanmax(decoded))
    assert (found.values, found.valid) == (stored.size, np.isfinite(decoded).sum())
    width = np.nanmax(decoded) - np.nanmin(decoded)
    for percent in (2.0, 50.0, 98.0):
        assert found.at(percent) == pytest.approx(np.nanpercentile(decoded, percent), abs=0.05 * width)


def test_making_the_same_again_is_no_new_version_and_folding_moves_no_percentile(memory: Store) -> None:
    recipe = Planted(product=REGIONAL, axis=months(3))
    first = render(memory, recipe)
    spread = now(memory).spread(PACKED)
    for _ in range(2):
        assert render(memory, recipe, periods="2001-01/2001-03") == replace(first, changed=False)
    assert now(memory).spread(PACKED) == spread
    render(memory, recipe, periods="2001-01")
    compacted(memory)
    folded = now(memory).spread(PACKED)
    stored = recipe.stored(PACKED, months(3))
    assert (folded.values, folded.valid) == (stored.size, np.isfinite(PACKED.decode(stored)).sum())


def test_a_first_segment_without_values_says_nothing_about_the_range(memory: Store) -> None:
    axis = months(2)
    recipe = Planted(product=REGIONAL, axis=axis.take([0]), empty=axis.ids)
    render(memory, recipe)
    spread = now(memory).spread(PACKED)
    assert (spread.valid, spread.at(0.0), spread.valid_share) == (0, None, 0.0)
    longer = replace(recipe, axis=axis, empty=axis.ids[:1])
    render(memory, longer)
    decoded = PACKED.decode(longer.stored(PACKED, axis))
    assert now(memory).spread(PACKED).at(0.0) == pytest.approx(np.nanmin(decoded)) != 0
    assert now(memory).spread(PACKED).valid_share == pytest.approx(np.isfinite(decoded).mean())


def test_appends_work_alike_on_every_store(store: Store) -> None:
    recipe = Planted(product=replace(REGIONAL, cog_period="P1Y"), axis=months(2))
    render(store, recipe)
    render(store, replace(recipe, axis=months(3)))
    assert_values(store, replace(recipe, axis=months(3)))
    assert current_version(store, "synthetic")[0].seq == 2


def test_the_plan_says_what_will_be_done(memory: Store) -> None:
    gapped = months(7).take([0, 1, 3, 6])
    made = planned(memory, Planted(product=REGIONAL, axis=gapped))
    lines = made.lines()
    assert lines[0] == "synthetic: 4 periods to compute (2001-01 to 2001-07), 4 in the new version, 3 missing inside it"
    assert "23 x 17 cells of 0.25 degrees, 3 levels" in lines[1]
    assert "the first version" in lines[-1]
    assert made.segment in lines[-1]
