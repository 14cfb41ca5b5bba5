"""The sweep over layouts counts right: against pixels one by one, and against what services.core declares itself."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numcodecs import Blosc

from services.core.grid import Grid
from tests.bench import stacks
from tests.bench.layouts import material, tables
from tests.bench.layouts.coding import TODAY, Fitted, aligned_codecs, codecs, coded
from tests.bench.layouts.cuts import Asked, Levels, coarsest, costs, counts, put, sample, shard_shape, together
from tests.bench.layouts.maps import BLOSCS, written_by
from tests.bench.layouts.material import FILL
from tests.bench.stacks import MISSING

WIDTHS = (90, 128)


@pytest.fixture(scope="module")
def world() -> tuple[Grid, list[np.ndarray]]:
    grid = material.grid_of(stacks.TINY, 90)
    values = material.month(stacks.TINY).copy()
    values[100:110, 40:60] = MISSING
    return grid, [material.coarser(values, 2**number) for number in range(len(material.level_grids(grid)))]


def levels(world: tuple[Grid, list[np.ndarray]], width: int) -> Levels:
    grid, maps = world
    return Levels.of(material.level_grids(material.cut(grid, width)), maps, 4, FILL)


def by_pixels(grid: Grid, zoom: int, x: int, y: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the cell under each pixel, by the formulas of Web Mercator."""
    places = (np.arange(256) + 0.5) / 256
    longitude = (x + places) / 2**zoom * 360 - 180
    latitude = np.degrees(2 * np.arctan(np.exp(np.pi * (1 - 2 * (y + places) / 2**zoom))) - np.pi / 2)
    rows = np.floor((float(grid.north) - latitude) / float(grid.step_y)).astype(int)
    columns = np.floor((longitude - float(grid.west)) / float(grid.step_x)).astype(int)
    down, across = np.meshgrid(rows, columns, indexing="ij")
    return down, across


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("zoom", [0, 1, 2, 3])
def test_chunks_and_shards_are_those_that_pixels_lie_in(width: int, zoom: int) -> None:
    grids = material.level_grids(material.grid_of(stacks.TINY, width))
    grid = grids[coarsest(grids, 360 / 256 / 2**zoom)]
    touched = []
    for y in range(1 << zoom):
        for x in range(1 << zoom):
            rows, columns = by_pixels(grid, zoom, x, y)
            chunks = {(int(r), int(c)) for r, c in zip((rows // width).flat, (columns // width).flat, strict=True)}
            touched.append((len(chunks), len({(r // 4, c // 4) for r, c in chunks})))
    for found, wanted in zip(counts(grids, zoom, 4), zip(*touched, strict=True), strict=True):
        assert found.mean == pytest.approx(np.mean(wanted))
        assert found.most == max(wanted)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_tile_holds_the_values_under_its_pixels(world: tuple[Grid, list[np.ndarray]], width: int) -> None:
    cut = levels(world, width)
    for zoom, x, y in sample(world[0].bounds, range(4), 3):
        number = coarsest(cut.grids, 360 / 256 / 2**zoom)
        rows, columns = by_pixels(cut.grids[number], zoom, x, y)
        assert np.array_equal(cut.drawn((zoom, x, y)), world[1][number][rows, columns])
    cut.forget()


def test_a_tile_asks_for_the_chunks_that_were_counted(world: tuple[Grid, list[np.ndarray]]) -> None:
    cuts = {str(width): levels(world, width) for width in WIDTHS}
    every = [(2, x, y) for x in range(4) for y in range(4)]
    found = costs(cuts, every, 1)
    for width in WIDTHS:
        chunks, shards = counts(cuts[str(width)].grids, 2, 4)
        assert found[str(width)].asked.objects == pytest.approx(shards.mean)
        assert found[str(width)].cells == pytest.approx(chunks.mean * width**2)
        assert found[str(width)].asked.needed <= found[str(width)].asked.fetched


def test_levels_and_shards_are_those_of_the_product() -> None:
    grid = material.XCO2.grid
    found = material.level_grids(grid)
    assert [(one.shape, one.step_x, one.chunk_x) for one in found] == [
        (one.shape, one.step_x, one.chunk_x) for one in map(grid.level, range(grid.levels))
    ]
    assert [shard_shape(one, 4) for one in found] == [one.shard_shape for one in found]
    for pixel in (1.5, 0.7, 0.2, 0.06, 0.05, 0.04):
        assert coarsest(found, pixel) == grid.coarsest(pixel)


def test_a_coarser_cell_is_the_mean_of_its_valid_cells() -> None:
    values = np.array([[1, 3, 5], [MISSING, 5, 7], [MISSING, MISSING, 9]], dtype=np.int16)
    assert material.coarser(values, 2).tolist() == [[3, 6], [MISSING, 9]]
    assert material.coarser(values, 1) is values


def test_near_ranges_are_one_request() -> None:
    assert together([(2_000_000, 10), (0, 100), (500, 100)]) == [(0, 600), (2_000_000, 10)]
    asked = Asked.of([("a", [(0, 100), (500, 100), (2_000_000, 10)]), ("b", [(7, 1)])])
    assert (asked.objects, asked.gets, asked.needed, asked.fetched) == (2, 3, 211, 611)


def test_an_array_in_memory_gives_back_its_values() -> None:
    values = material.cube(replace(stacks.TINY, months=3), 3)[:, :60, :90]
    stored = put(values, (4, 15, 15), (4, 30, 30), FILL)
    assert len(stored.sizes) == 6
    for array in (stored.array, stored.unknown):
        assert np.array_equal(array.chunks([(0, 1, 2)])[0][:3], values[:, 15:30, 30:45])
    asked = stored.asked_by(lambda: stored.unknown.chunks([(0, 1, 2)]))
    assert (asked.objects, asked.gets) == (2, 2)
    stored.forget()


def test_levels_are_written_in_the_codec_that_is_tried(world: tuple[Grid, list[np.ndarray]]) -> None:
    found = {}
    for name, codec in BLOSCS.items():
        with written_by(codec):
            cut = levels(world, 90)
        found[name] = cut.bytes
        cut.forget()
    assert len(set(found.values())) == len(BLOSCS)
    cut = levels(world, 90)
    assert cut.bytes == found["blosc zstd 5 bitshuffle, fitted"], "today's"
    cut.forget()


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_every_codec_gives_back_what_it_was_given(dtype: str) -> None:
    packed = material.month(stacks.TINY)[:64, :64].copy()
    packed[:5, :7] = MISSING
    block = packed if dtype == "int16" else material.unrounded(packed, stacks.TINY)
    found = coded([block, block[:25, :25].copy()], [*codecs(), *aligned_codecs()], repeats=1)
    assert TODAY in found
    assert all(0 < one.stored < 1.5 * one.raw for one in found.values())


def test_blosc_shuffles_bits_of_multiples_of_eight_only() -> None:
    random = np.random.default_rng(1)
    for count, is_shuffled in ((8000, True), (8004, False), (8001, False)):
        values = random.integers(0, 16, count).astype(np.int16)
        plain, bits = (len(Blosc("zstd", 5, shuffle).encode(values)) for shuffle in (Blosc.NOSHUFFLE, Blosc.BITSHUFFLE))
        assert (bits < 0.8 * plain) == is_shuffled
        assert len(Fitted().encode(values)) < 0.8 * plain


def test_rounded_floats_keep_their_bits_and_miss_little() -> None:
    exact = material.unrounded(material.month(stacks.TINY), stacks.TINY)
    exact[0, 0] = np.nan
    rounded = material.rounded_bits(exact, 15)
    assert np.isnan(rounded[0, 0])
    assert np.nanmax(np.abs(rounded - exact)) <= 0.004
    assert not (rounded.view(np.uint32)[0, 1:] & np.uint32(255)).any()


def test_tables_are_written_and_drawn(tmp_path: Path) -> None:
    table = tables.Table(
        id="a",
        title="b & c",
        columns=("codec", "stored share", "decode ms"),
        rows=((TODAY, 0.51234567, 0.5), ("other", 0.4, 1)),
    )
    text = tables.document([table], {"seed": 1}, ["a note"])
    tables.write(tmp_path, text, tables.svg([table], "about", TODAY))
    written = json.loads((tmp_path / "layouts.json").read_text())
    assert written["tables"][0]["rows"][0] == [TODAY, 0.5123, 0.5]
    assert "b &amp; c" in (tmp_path / "layouts.svg").read_text()
    with pytest.raises(ValueError, match="columns"):
        replace(table, rows=((1,),))
