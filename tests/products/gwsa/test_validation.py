"""A report on a small version, really rendered: against xarray, xgboost, the standard library, closed forms."""

import csv
import json
import re
import shutil
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from typer.testing import CliRunner

from services.cli import app
from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.errors import InputRefused, ModelRefused, SettingsError
from services.core.grid import Window
from services.core.settings import StoreSettings
from services.core.store import Store
from services.pipeline.recipe import Here
from services.products.gwsa import training
from services.products.gwsa.coarse import NO_LAND, Coarse, prepare
from services.products.gwsa.declaration import COARSE, FACTOR, FINE, GWSA
from services.products.gwsa.detail import Detail
from services.products.gwsa.features import features, fine_predictors, smoothed
from services.products.gwsa.inputs import Inputs
from services.products.gwsa.land import land_of
from services.products.gwsa.levels import about_wells
from services.products.gwsa.reach import Reach
from services.products.gwsa.refine import DETAIL_HALO, HALO, STEPS, Blocks, interpolated
from services.products.gwsa.regions import REACH, shares
from services.products.gwsa.seasonal import climatology_trend
from services.products.gwsa.table import tabulate
from services.products.gwsa.validation import folds as folding
from services.products.gwsa.validation import pictures, scales, validate
from services.products.gwsa.validation import report as reporting
from services.products.gwsa.validation.cells import cells
from services.products.gwsa.validation.centres import centres
from services.products.gwsa.validation.folds import Scene, held_out
from services.products.gwsa.validation.footprint import footprint
from services.products.gwsa.validation.published import Published, block_means, decoded, fine_window
from services.products.gwsa.validation.seams import KINDS, count_steps, grouped_median, seams
from services.products.gwsa.validation.truth import against_truth, within_blocks
from services.products.gwsa.validation.wells import at_wells, scores
from services.sample.groundwater import Groundwater
from services.sample.groundwater_seen import Seen
from services.validation.report import NotComputed, Report, numbers
from services.validation.trend import ols
from tests.samples import groundwater

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # as a whole; the first test trains, renders and reports

COARSE_WINDOW = Window(row=0, column=0, height=COARSE.height, width=COARSE.width)

type Floats = NDArray[np.float64]

BBOX = "71,22.75,72,23.75"
"""Four by four coarse cells, on both sides of a border of regions."""

MONTHS = ("2018-07", "2020-06")
"""Two years, two months of which GRACE did not see."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What is rendered once for all tests."""

    store: Path
    inputs: Path
    models: Path
    published: Published
    detail: Detail


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    pytest.importorskip("xgboost", reason="it trains models")
    place = tmp_path_factory.mktemp("validation")
    inputs = Path(shutil.copytree(groundwater(tmp_path_factory, MONTHS), place / "inputs"))
    toml = inputs / "gwsa.toml"
    without = re.sub(r"(?s)\n\[trees\].*?(?=\n\[|$)", "", toml.read_text())
    toml.write_text(without + "\n[trees]\ntrees = 12\ndepth = 4\n")
    training.train(inputs, place / "models", 0, lambda _: None)
    training.export(place / "models", place / "models", lambda _: None)
    run(
        *("--store", place / "store", "render", "gwsa", "--inputs", inputs, "--models", place / "models"),
        *("--bbox", BBOX, "--name", "tile", "--workers", "0"),
    )
    source = Inputs.find(inputs).hashed()
    coarse = prepare(source, Here(), lambda _: None)
    published = Published.of(opened(place / "store"), source, coarse)
    detail = Detail.open(place / "models", source.features, synthetic=True)
    return Made(store=place / "store", inputs=inputs, models=place / "models", published=published, detail=detail)


def run(*words: str | Path, code: int = 0) -> Any:
    """Run a command in this process; what it says, or what it raised."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout if code == 0 else result.exception


def opened(store: Path) -> Dataset:
    at = Store.open(str(store), StoreSettings.from_environment())
    return Dataset(at, current_version(at, "gwsa_tile")[1])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# -- the whole report


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def report(made: Made, told: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("report") / "deep" / "down"
    said = validate(
        made.inputs,
        made.published.dataset,
        told.append,
        out=out,
        models=made.models,
    )
    found: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert {**found, "out": str(out)} == said
    return found, out


def test_the_report_has_every_part_table_and_picture(report: tuple[dict[str, Any], Path], told: list[str]) -> None:
    found, out = report
    assert found["footprint"] == {"not_computed": "24 published months have all drivers; a footprint needs 60"}
    assert found["cells"]["without_value"] == 0
    assert found["cells"]["with_land"] == 16
    parts = ("cross_scale", "folds", "regions", "wells", "seams", "centres", "truth")
    assert not [part for part in parts if "not_computed" in found[part]], "the sample has all that is needed"
    for part in parts:
        assert table(out / found["tables"][part]), part
    drawn = {name: file for name, file in found["pictures"].items() if not file.startswith("not drawn")}
    assert set(drawn) == {"map", "scatter", "series", "weights", "cells"}
    assert set(found["pictures"]) - set(drawn) == {"footprint", "land_models"}
    for name, file in drawn.items():
        with Image.open(out / file) as image:
            shades = np.asarray(image.convert("L"))
        assert min(shades.shape) > 400, name
        # not a white sheet
        assert shades.std() > 10, name
    assert {path.name for path in out.iterdir()} == {
        "report.json",
        *found["tables"].values(),
        *drawn.values(),
    }
    # what is synthetic says so, wherever it is looked at
    assert found["synthetic"] is True
    assert found["folds"]["synthetic"] is found["wells"]["synthetic"] is found["truth"]["synthetic"] is True
    assert "synthetic" in found["summary"][0]
    for split in folding.SPLITS:
        assert found["folds"][split]["regions_not_computed"] == {}
        assert found["folds"][split]["rows"] > 1000
        of_regions = [row for row in table(out / "folds.csv") if row["split"] == split]
        assert sum(int(row["rows"]) for row in of_regions) == found["folds"][split]["rows"]
    assert "land models: not computed" in "\n".join(found["summary"])
    assert found["land_models"] == {"not_computed": "gwsa.toml names no other land surface model (gldas.other)"}
    assert any(line.startswith("pictures") for line in told)


def test_the_command_reports_a_part_and_says_what_it_lacks(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name == "models.gwsa.train" or name.split(".")[0] == "xgboost"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "xgboost", None)
    monkeypatch.chdir(tmp_path)
    where = ("--inputs", made.inputs, "--models", made.models, "--collection", "gwsa_tile")
    said = run("--store", made.store, "validate", "gwsa", *where)
    out = tmp_path / ".cenote" / "reports" / "gwsa_tile"
    found = json.loads((out / "report.json").read_text(encoding="utf-8"))
    why = "it learns models, which needs the package xgboost: install cenote with its train extra"
    assert found["folds"] == {"not_computed": why}
    assert f"folds: not computed: {why}" in said
    assert not (out / "folds.csv").exists()
    assert "report in .cenote/reports/gwsa_tile" in said
    assert found["cross_scale"]["within_bound"] is True
    refused = run("--store", made.store, "validate", "sample_earth", "--models", made.models, code=1)
    assert isinstance(refused, SettingsError)
    assert "--models: the validation of sample_earth takes none" in str(refused)


def wider(published: Published, cells: Window, **changes: Any) -> Published:
    """A version as if it had other cells; what is asked of it here reads no map."""
    version = published.dataset.version
    window = fine_window(cells)
    product = replace(version.product, grid=FINE.subgrid(window))
    dataset = Dataset(published.dataset.store, replace(version, product=product, **changes))
    return replace(published, dataset=dataset, row=window.row, column=window.column)


@pytest.fixture(scope="module")
def rainy(made: Made) -> Published:
    """The version as if it had 68 to 74 E, 20 to 25 N and all months; footprint.toml names rain of all of them."""
    inputs = made.inputs.parent / "rainy"
    inputs.mkdir()
    for one in made.inputs.iterdir():
        (inputs / one.name).symlink_to(one)
    source = made.published.source
    months = np.array(source.months.starts)
    world = Groundwater("small")
    grid = world.known.grid(10)
    seen = Seen(world=world)
    field = xr.DataArray(
        np.stack([seen.precipitation(int(month)) for month in months]),
        dims=("time", "lat", "lon"),
        coords={
            "time": months.astype("datetime64[M]").astype("datetime64[ns]"),
            "lat": grid.latitudes,
            "lon": grid.longitudes,
        },
        attrs={"units": "mm"},
        name="precipitation",
    )
    field.to_netcdf(inputs / "rain.nc", engine="h5netcdf")
    settings = (made.inputs / "footprint.toml").read_text().replace('"precipitation.nc"', '"rain.nc"')
    (inputs / "footprint.toml").unlink()
    (inputs / "footprint.toml").write_text(settings)
    version = made.published.dataset.version
    (maps,), (series,) = version.maps, version.series
    whole: dict[str, Any] = {"time": source.months}
    whole |= {"maps": (replace(maps, periods=source.months),), "series": (replace(series, periods=source.months),)}
    longer = wider(made.published, Window(row=65 * 4, column=248 * 4, height=20, width=24), **whole)
    return replace(longer, source=replace(source, directory=inputs))


def test_the_footprint_by_region_adds_up_and_holds_the_truth(made: Made, rainy: Published, tmp_path: Path) -> None:
    table_of_land = tabulate(made.published.source, made.published.coarse, Here(), lambda _: None)
    found, rows, parts = footprint(rainy, table_of_land)
    assert found["months"] == 225
    assert found["cells"] > 300
    whole, regions = rows[-1], rows[:-1]
    assert whole["region"] == "all"
    assert len(regions) == 3
    for key in ("cells", "area_km2", "trend_km3_a_year", "residual_km3_a_year", "footprint_km3_a_year"):
        assert sum(row[key] for row in regions) == pytest.approx(whole[key], rel=1e-9), key
    assert whole["trend_km3_a_year"] == pytest.approx(whole["climate_km3_a_year"] + whole["residual_km3_a_year"])
    # by another way: the plain trend of the coarse field, its land and the areas of its cells
    cells, coarse = rainy.cells, rainy.coarse
    values = coarse.read_months("gwsa", rainy.source.months.starts, Reach.of(cells)).reshape(225, -1)
    slopes = ols(values, np.array(rainy.source.months.starts)).slope.reshape(cells.shape)
    fine = (
        land_of(rainy.source.land, Reach.of(cells).times(FACTOR))
        * FINE.row_areas_km2[cells.row * FACTOR : (cells.row + cells.height) * FACTOR, None]
    )
    land = fine.reshape(cells.height, FACTOR, cells.width, FACTOR).sum(axis=(1, 3))
    some = np.isfinite(slopes)
    assert some.sum() == found["cells"]
    assert whole["trend_km3_a_year"] == pytest.approx(float((slopes * land)[some].sum() * 1e-5), rel=1e-4)
    assert whole["area_km2"] == pytest.approx(float(land[some].sum()), rel=1e-4)
    truth = found["truth"]
    assert truth["synthetic"] is found["synthetic"] is True
    assert truth["cells"] == found["cells"]
    assert truth["within_two_standard_errors"] > 0.8
    apart = abs(truth["residual_km3_a_year"] - truth["steady_km3_a_year"])
    assert apart < 2 * whole["residual_standard_error_km3_a_year"]
    assert truth["irrigation_km3_a_year"] < 0
    proxy = found["proxy"]
    assert proxy["rank_correlation_with_residual"] < 0  # the more is irrigated, the more is lost
    with rasterio.open(made.inputs / "irrigated.tif") as file:
        inside = rasterio.windows.from_bounds(68, 20, 74, 25, file.transform)
        drawn = file.read(1, window=inside, masked=True).astype(float).filled(np.nan) * file.scales[0]
    blocks = drawn.reshape(cells.height, FACTOR, cells.width, FACTOR).transpose(0, 2, 1, 3).reshape(*cells.shape, -1)
    share = np.full(cells.shape, np.nan)
    share[some] = np.nanmean(blocks[some], axis=1)
    rank = stats.spearmanr(share[some], parts.residual[some]).statistic
    assert proxy["rank_correlation_with_residual"] == pytest.approx(rank, abs=0.01)
    used = some & (share >= 0.25)
    assert proxy["share_of_area_where_used"] == pytest.approx(land[used].sum() / land[some].sum(), abs=0.01)
    pictures.draw_footprint(tmp_path / "footprint.png", rainy, parts)
    with Image.open(tmp_path / "footprint.png") as image:
        assert np.asarray(image.convert("L")).std() > 10


def test_cells_that_lack_an_input_are_named(made: Made) -> None:
    lacks = made.published.coarse.read_lacks()
    assert set(np.unique(lacks)) <= {0, 1, 2, 3, 4, NO_LAND}
    facts = made.published.coarse.facts
    assert facts["land_cells"] == (lacks != NO_LAND).sum()
    assert facts["land_cells_without_value"]["no GLDAS"] == (lacks == 2).sum() > 0
    window = wider(made.published, made.published.coarse.window)
    told, rows, found = cells(window)
    assert told["with_land"] == facts["land_cells"]
    assert len(rows) == told["without_value"] == ((found != 0) & (found != NO_LAND)).sum()
    land = land_of(made.published.source.land, Reach.of(window.cells).times(FACTOR))
    some = land.reshape(window.cells.height, FACTOR, window.cells.width, FACTOR).any(axis=(1, 3))
    assert np.array_equal(found != NO_LAND, some)
    for row in rows:
        here = Window(row=int((90 - row["latitude"]) * 4), column=int((row["longitude"] + 180) * 4), height=1, width=1)
        month = made.published.source.months.starts[0]
        gone = np.isnan(made.published.source.gldas.read(month, here)["soil_moisture"]).all()
        assert gone == ("GLDAS" in row["lacks"])


def test_other_inputs_or_models_are_refused(made: Made, tmp_path: Path) -> None:
    inputs = Path(shutil.copytree(made.inputs, tmp_path / "inputs", ignore=shutil.ignore_patterns("prepared")))
    dataset, toml = made.published.dataset, (inputs / "gwsa.toml").read_text()
    changed = toml.replace("[grace]", "[grace]\nuncertainty = 3.0")
    assert changed != toml
    (inputs / "gwsa.toml").write_text(changed)
    (inputs / "slope.tif").write_bytes((made.inputs / "slope.tif").read_bytes() + b"\0")
    again = r"`cenote render gwsa --inputs .* --bbox 71,22\.75,72,23\.75 --name tile --periods 2018-07/2020-06`"
    with pytest.raises(
        InputRefused,
        match=r"gwsa_tile \(segment .*\) was made from other inputs .* 1 of [0-9]+ files differ, first slope\.tif and "
        r"its settings say something else in grace\.uncertainty; .*" + again,
    ):
        validate(inputs, dataset, lambda _: None, out=tmp_path / "out", models=made.models)
    models = Path(shutil.copytree(made.models, tmp_path / "models"))
    asked = min(made.detail.directories).removeprefix("gwsa_")
    card = models / asked / "card.json"
    card.write_text(card.read_text().replace("cenote train gwsa", "somebody else"))
    with pytest.raises(ModelRefused, match="does not hold the models that gwsa_tile"):
        validate(made.inputs, dataset, lambda _: None, out=tmp_path / "out", models=models)
    assert not (tmp_path / "out").exists()


def test_a_copy_of_the_inputs_and_other_wells_are_still_the_inputs(made: Made, tmp_path: Path) -> None:
    inputs = Path(shutil.copytree(made.inputs, tmp_path / "copy", ignore=shutil.ignore_patterns("prepared")))
    toml = (inputs / "gwsa.toml").read_text()
    changed = re.sub(r"(?s)\n\[wells\].*?(?=\n\[|$)", "", toml)
    assert changed != toml
    (inputs / "gwsa.toml").write_text(changed + "\n# a word\n[wells]\nfiles = 'other.csv'\nspecific_yield = 0.2\n")
    (tmp_path / "link").mkdir()
    dataset, crooked = made.published.dataset, tmp_path / "link" / ".." / "copy"
    source = Inputs.find(crooked).hashed()
    assert {one.name for one in source.digests} == {one.name for one in made.published.source.digests}
    coarse = Coarse.of(source)
    assert coarse.directory.name == made.published.coarse.directory.name, "the coarse fields are others"
    Published.of(dataset, source, made.published.coarse)
    # a version that an earlier cenote wrote names files by their places, and lists the settings' file
    (segment, origin), *_ = dataset.version.provenance.items()
    listed = [{**one, "name": f"/somewhere/a/../b/{one['name']}"} for one in origin["inputs"]]
    listed.append({"name": "/somewhere/a/../b/gwsa.toml", "size": 1, "sha256": "0" * 64})
    facts = {**origin["facts"], "settings": {**origin["facts"]["settings"], "wells": {"files": "wells.csv"}}}
    old = replace(dataset.version, provenance={segment: {**origin, "inputs": listed, "facts": facts}})
    Published.of(Dataset(dataset.store, old), source, made.published.coarse)
    said = run(
        *("--store", made.store, "plan", "gwsa", "--inputs", crooked, "--models", made.models),
        *("--bbox", BBOX, "--name", "tile"),
    )
    assert "already has all 24 periods that the inputs allow" in said


# -- cross-scale


def fine_map(made: Made, position: int) -> Floats:
    return made.published.values(position, made.published.cells)


def areas(made: Made) -> Floats:
    return FINE.row_areas[fine_window(made.published.cells).rows]


def test_published_means_are_those_of_xarray(made: Made, report: tuple[dict[str, Any], Path]) -> None:
    found, _ = report
    worst, squares, weight = 0.0, 0.0, 0.0
    for position in made.published.positions():
        values = xr.DataArray(fine_map(made, position), dims=("y", "x"))
        weights = xr.DataArray(areas(made), dims="y") * values.notnull()
        blocks = {"y": FACTOR, "x": FACTOR}
        area = weights.coarsen(blocks).sum()
        mean = (values.fillna(0) * weights).coarsen(blocks).sum() / area
        month = made.published.dataset.time.starts[position]
        off = mean.values - made.published.coarse.read("gwsa", month, Reach.of(made.published.cells))
        worst = max(worst, float(np.nanmax(np.abs(off))))
        squares += float(np.nansum(off**2 * area.values))
        weight += float(area.values[np.isfinite(off)].sum())
    part = found["cross_scale"]
    assert part["largest_after_closure_cm"] == pytest.approx(worst, rel=1e-6)
    assert part["after_closure"]["rmse_cm"] == pytest.approx(np.sqrt(squares / weight), rel=1e-6)
    assert part["after_closure"]["cells"] == part["months"] * 16
    assert part["within_bound"] is True
    assert part["before_closure"]["rmse_cm"] > 100 * part["after_closure"]["rmse_cm"]


def test_a_map_that_is_off_by_a_step_is_not_within_the_bound(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Published.values
    monkeypatch.setattr(Published, "values", lambda *of: right(*of) + (GWSA.scale_factor or 0.0))
    part, _ = scales.cross_scale(made.published, None)
    assert part["within_bound"] is False
    assert part["after_closure"]["bias_cm"] == pytest.approx(0.05, abs=1e-3)
    assert part["before_closure"]["not_computed"] == "the version was rendered without models"


def test_before_closure_is_the_interpolation_and_the_trees_of_xgboost(
    made: Made, report: tuple[dict[str, Any], Path]
) -> None:
    from models.gwsa.train import Trees  # noqa: PLC0415

    published, reach = made.published, Reach.of(made.published.cells)
    trees = {name: Trees.read(made.models / name) for name in published.coarse.regions}
    weights = {region.name: region.weight for region in made.detail.regions}
    assert max(weights.values()) > 0
    wide, narrow = reach.grown(HALO), reach.grown(HALO - DETAIL_HALO)
    squares, weight, bias = 0.0, 0.0, 0.0
    for position in published.positions():
        month = published.dataset.time.starts[position]
        coarse = published.coarse.read("gwsa", month, wide)
        land = land_of(published.source.land, wide.times(FACTOR)) & np.isfinite(coarse).repeat(FACTOR, 0).repeat(
            FACTOR, 1
        )
        blocks = Blocks.of(FACTOR, land, FINE.row_areas[wide.times(FACTOR).places(FINE)[0]])
        around = fine_predictors(published.source, month, wide.times(FACTOR))
        ring = smoothed(blocks, np.stack([blocks.means(one) for one in around]))
        side = DETAIL_HALO * FACTOR
        asked = features(around[:, side:-side, side:-side], ring, FACTOR, month)
        said = np.zeros(asked.shape[:2])
        for number, share in shares(published.coarse.labels(narrow.grown(REACH + 1))):
            name = published.coarse.regions[number]
            if weights[name] > 0:
                predicted = trees[name].predict(asked.reshape(-1, asked.shape[2])).reshape(said.shape)
                said += weights[name] * interpolated(share, FACTOR) * predicted
        sharp = blocks.sharpened(coarse, STEPS)[HALO - 1 : 1 - HALO, HALO - 1 : 1 - HALO]
        field = interpolated(sharp, FACTOR) + said[side:-side, side:-side]
        mean, area = block_means(np.where(blocks.inside(HALO).land, field, np.nan), areas(made)[:, None])
        off = mean - published.coarse.read("gwsa", month, reach)
        squares += float(np.nansum(off**2 * area))
        bias += float(np.nansum(off * area))
        weight += float(area[np.isfinite(off)].sum())
    before = report[0]["cross_scale"]["before_closure"]
    assert before["rmse_cm"] == pytest.approx(np.sqrt(squares / weight), rel=1e-3)
    assert before["bias_cm"] == pytest.approx(bias / weight, abs=1e-3)
    assert before["rmse_cm"] > report[0]["cross_scale"]["after_closure"]["rmse_cm"]


# -- truth


def test_scores_against_the_truth_are_those_of_numpy(made: Made, report: tuple[dict[str, Any], Path]) -> None:
    found, out = report
    world = Groundwater("small")
    rows = table(out / "truth.csv")
    published = made.published
    # 23.75 N and 71 E in a region that begins at 25 N and 68 E
    part = (slice(150, 270), slice(360, 480))
    squares, weight = 0.0, 0.0
    for row, position in zip(rows, published.positions(), strict=True):
        month = published.dataset.time.starts[position]
        assert row["month"] == str(np.datetime64(month, "M"))
        off = fine_map(made, position) - world.gwsa(month)[part]
        area = np.broadcast_to(areas(made)[:, None], off.shape)
        known = np.isfinite(off)
        of_month = np.average(off[known] ** 2, weights=area[known])
        assert float(row["published_rmse_cm"]) == pytest.approx(np.sqrt(of_month), rel=1e-6)
        squares += float((off[known] ** 2 * area[known]).sum())
        weight += float(area[known].sum())
    assert found["truth"]["published"]["rmse_cm"] == pytest.approx(np.sqrt(squares / weight), rel=1e-6)
    wins = sum(float(row["published_rmse_cm"]) < float(row["conservative_bilinear_rmse_cm"]) for row in rows)
    assert found["truth"]["months_better"] == wins


def test_detail_is_what_varies_within_blocks() -> None:
    random = np.random.default_rng(0)
    values, weights = random.normal(size=(60, 90)), random.random((60, 1)) + 0.5
    values[random.random(values.shape) < 0.2] = np.nan
    detail = within_blocks(values, weights)
    np.testing.assert_allclose(block_means(detail, weights)[0], 0, atol=1e-12)
    np.testing.assert_allclose(within_blocks(values + 5, weights), detail, atol=1e-12)
    here = (slice(30, 60), slice(60, 90))
    known = ~np.isnan(values[here])
    mean = np.average(values[here][known], weights=np.broadcast_to(weights[30:], (30, 30))[known])
    np.testing.assert_allclose(detail[here], values[here] - mean)


def test_where_the_sample_has_no_truth_none_is_scored(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = replace(made.published.cells, column=0)
    monkeypatch.setattr(Published, "tiles", lambda _: ([tile], 1))
    with pytest.raises(NotComputed, match="no truth where the version lies"):
        against_truth(made.published)


# -- wells


def planted(
    made: Made, directory: Path, series: Mapping[str, tuple[float, float, Floats | None]], sign: float
) -> Published:
    """The version with wells that measured these storages (cm), as depths to water at a specific yield of a tenth."""
    months = [np.datetime64(month, "M") for month in made.published.dataset.time.starts]
    readings, sites = ["site,time,depth"], ["site,longitude,latitude,specific_yield"]
    for name, (longitude, latitude, storage) in series.items():
        sites.append(f"{name},{'' if np.isnan(longitude) else longitude},{'' if np.isnan(latitude) else latitude},0.1")
        for month, value in zip(months, storage if storage is not None else [], strict=storage is not None):
            if np.isfinite(value):
                readings.append(f"{name},{month}-15,{20 - sign * value / 100 / 0.1:.12f}")
    if not directory.exists():
        directory.mkdir()
        (directory / "prepared").symlink_to(made.inputs / "prepared")
    (directory / "wells.csv").write_text("\n".join(readings) + "\n")
    (directory / "wells_sites.csv").write_text("\n".join(sites) + "\n")
    source = replace(made.published.source, directory=directory)
    return replace(made.published, source=source)


def test_planted_wells_are_found_again(made: Made, tmp_path: Path) -> None:
    grid = made.published.dataset.product.grid
    positions = range(len(made.published.dataset.time))
    field = np.stack([fine_map(made, position) for position in positions])
    places = [(5, 7), (40, 110), (77, 31), (100, 95), (15, 60)]
    wells: dict[str, tuple[float, float, Floats | None]] = {}
    for number, (row, column) in enumerate(places):
        assert np.isfinite(field[:, row, column]).all()
        wells[f"good-{number}"] = (
            float(grid.longitudes[column]),
            float(grid.latitudes[row]),
            field[:, row, column] + 3.0 * number,
        )
    few = field[:, 5, 7].copy()
    few[4:] = np.nan
    wells["few"] = (*wells["good-0"][:2], few)
    wells["far"] = (10.0, 50.0, field[:, 5, 7])
    wells["nowhere"] = (np.nan, np.nan, field[:, 5, 7])
    published = planted(made, tmp_path / "in", wells, 1.0)
    at = at_wells(published, lambda _: None)
    part, rows, _ = scores(at)
    by_name = {row["well"]: row for row in rows}
    for number, (row, column) in enumerate(places):
        site = at.wells.names.index(f"good-{number}")
        np.testing.assert_allclose(at.field[:, site], field[:, row, column], atol=1e-9)
        assert by_name[f"good-{number}"]["correlation_field"] == pytest.approx(1, abs=1e-9)
        assert by_name[f"good-{number}"]["correlation_reference"] < 1 - 1e-6
        # a slope beside a year's wave, by numpy
        years = (at.wells.months + 0.5) / 12
        design = np.stack([np.ones(24), years, np.cos(2 * np.pi * years), np.sin(2 * np.pi * years)], axis=1)
        slope = np.linalg.lstsq(design, field[:, row, column], rcond=None)[0][1]
        for kind in ("well", "field"):
            assert by_name[f"good-{number}"][f"trend_{kind}_cm_a_year"] == pytest.approx(slope, abs=1e-7)
    loose = part["loose"]
    assert loose["used"] == 5
    assert {reason: count for reason, count in loose["excluded"].items() if count} == {
        "no coordinates": 1,
        "outside the field": 1,
        "too few readings": 1,
    }
    assert (by_name["few"]["left_out_loose"], by_name["far"]["left_out_loose"]) == (
        "too few readings",
        "outside the field",
    )
    assert loose["field"]["trend_r2"] == pytest.approx(1, abs=1e-9)
    assert loose["field"]["trend_rmse"] == pytest.approx(0, abs=1e-7)
    assert loose["reference"]["trend_rmse"] > 1e-4
    assert loose["gain"]["trend_rmse"] == pytest.approx(1, abs=1e-3)
    assert "2 years are published: wells must span 1.6 years, not 5" in loose["shortened"]
    # where depths rise as storage rises, every well says the opposite
    part, rows, _ = scores(at_wells(planted(made, tmp_path / "in", wells, -1.0), lambda _: None))
    assert part["loose"]["field"]["anomaly_correlation"] == pytest.approx(-1, abs=1e-9)


def test_the_reference_is_the_field_without_models(made: Made) -> None:
    published, cells = made.published, made.published.cells
    positions = published.positions()[:3]
    plain = [decoded(GWSA, stored) for stored in published.plain(positions, cells)]
    for position, values in zip(positions, plain, strict=True):
        month = published.dataset.time.starts[position]
        wanted = published.coarse.read("gwsa", month, Reach.of(cells))
        np.testing.assert_allclose(block_means(values, areas(made)[:, None])[0], wanted, atol=scales.BOUND)
        # it is the coarse field's alone: smooth where the published one is not
        fine = fine_map(made, position)
        assert np.nanmean(np.abs(np.diff(values, n=2, axis=1))) < np.nanmean(np.abs(np.diff(fine, n=2, axis=1)))


def test_wells_that_do_not_hold_are_told_first_and_take_no_other_part(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = Path(shutil.copytree(made.inputs, tmp_path / "in", ignore=shutil.ignore_patterns("prepared")))
    (inputs / "wells.csv").write_text("site,time,depth\na,2019-01,twelve\n")
    why = r"wells\.csv, line 2: the level of a is 'twelve', which is no number"
    where = ("--inputs", inputs, "--models", made.models, "--bbox", BBOX, "--name", "tile")
    said = run("--store", tmp_path / "store", "plan", "gwsa", *where)
    assert re.search(f"wells: validation will go without them: .*{why}", said)
    notes: list[str] = []

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reporting, "prepare", stop)
    with pytest.raises(KeyboardInterrupt):
        validate(inputs, made.published.dataset, notes.append, out=tmp_path / "out", models=made.models)
    assert len(notes) == 1
    assert re.search(why, notes[0])
    source = replace(made.published.source, directory=inputs)
    report = Report(out=tmp_path / "out", note=notes.append)
    report.part("wells", lambda: scores(at_wells(replace(made.published, source=source), notes.append))[:2])
    assert re.search(why, report.parts["wells"]["not_computed"])
    toml = (inputs / "gwsa.toml").read_text()
    (inputs / "gwsa.toml").write_text(toml.replace('measures = "depth"', 'measures = "dpeth"'))
    with pytest.raises(InputRefused, match=r"wells\.measures"):
        Inputs.find(inputs)
    lines = about_wells(made.published.source)
    assert re.match(r"wells: [0-9]+, [0-9-]+\.\.[0-9-]+", lines[0])


def test_without_wells_that_is_said(made: Made, tmp_path: Path) -> None:
    source = made.published.source
    none = replace(source, settings=source.settings.model_copy(update={"wells": None}))
    with pytest.raises(NotComputed, match=r"gwsa\.toml names no wells"):
        at_wells(replace(made.published, source=none), lambda _: None)
    far = planted(made, tmp_path / "in", {"far": (10.0, 50.0, np.arange(24.0))}, 1.0)
    with pytest.raises(NotComputed, match="none of 1 wells lies in the version"):
        at_wells(far, lambda _: None)
    few = {"one": (71.5, 23.0, np.sin(np.arange(24.0)))}
    part, rows, found = scores(at_wells(planted(made, tmp_path / "in", few, 1.0), lambda _: None))
    assert "1 of 1 wells, in 1 cells" in part["strict"]["not_computed"]
    assert part["strict"]["excluded"]["outside the field"] == 0
    assert (len(rows), found) == (1, {})


# -- folds


def scene(seed: int = 0, years: int = 6) -> Scene:
    """Twelve by twenty cells; the features number the value, and the last column is the value itself."""
    random = np.random.default_rng(seed)
    rows, columns = (part.ravel() for part in np.mgrid[300:312, 990:1010])
    time = np.arange(12 * years)[:, None]
    values = random.normal(size=(len(time), len(rows))) + 0.02 * time
    values[[5, 17, 30]] = np.nan
    number = np.arange(values.size).reshape(values.shape)
    features = np.stack([number, values], axis=2).astype(np.float32)
    return Scene(
        values=values,
        record=np.concatenate([random.normal(size=(18, len(rows))), values]),
        before=18,
        features=features,
        area=random.random(len(rows)) + 0.5,
        mine=columns < 1006,
        rows=rows,
        columns=columns,
    )


@pytest.mark.parametrize("split", folding.SPLITS)
def test_each_value_is_held_out_once_and_never_learned_from(split: str) -> None:
    at = scene()
    learned: list[NDArray[np.int64]] = []

    def fit(rows: Any, target: Floats, weights: Floats) -> Any:
        number = rows[:, 0].astype(int)
        np.testing.assert_array_equal(target, at.values.ravel()[number])
        np.testing.assert_allclose(weights, at.area[number % len(at.area)])
        learned.append(number)
        return lambda asked: asked[:, 1]

    seen = np.zeros(at.values.shape, dtype=int)
    for known, said, guess, area in held_out(at, split, fit, 0):
        np.testing.assert_allclose(said, known, rtol=1e-6)
        assert np.isfinite(guess).all()
        assert area.shape == known.shape
        taken = np.isin(at.values, known)
        seen += taken
        assert not taken.ravel()[learned[-1]].any()
        time, cell = np.divmod(learned[-1], len(at.rows))
        if split == "space":
            squares = {(r // 8, c // 8) for r, c in zip(at.rows[taken.any(0)], at.columns[taken.any(0)], strict=True)}
            assert not squares & {(r // 8, c // 8) for r, c in zip(at.rows[cell], at.columns[cell], strict=True)}
        if split == "time":
            assert not set(np.flatnonzero(taken.any(1)) // 12) & set(time // 12)
        if split == "random":
            # every cell keeps every calendar month
            assert len(set(zip((time % 12).tolist(), cell.tolist(), strict=True))) == 12 * len(at.rows)
    np.testing.assert_array_equal(seen == 1, np.isfinite(at.values) & at.mine)
    assert seen.max() == 1


def test_guesses_in_time_are_climatology_and_trend_of_the_rest() -> None:
    at = scene()
    time = np.arange(-at.before, len(at.values))[:, None]
    exact = np.sin(2 * np.pi * time / 12) * np.arange(len(at.rows)) + 0.1 * time
    values = np.where(at.used[:, None], exact[at.before :], np.nan)
    for split in ("random", "time"):
        for known, _, guess, _ in held_out(
            replace(at, values=values, record=exact), split, lambda *_: lambda rows: rows[:, 0], 0
        ):
            np.testing.assert_allclose(guess, known, atol=1e-9)
    # and with noise, that of the masked series
    of = folding._dealt(at, "time", 0)
    known, _, guess, _ = next(held_out(at, "time", lambda *_: lambda rows: rows[:, 0], 0))
    held = (of == 0) & np.isfinite(at.values) & at.mine
    np.testing.assert_array_equal(known, at.values[held])
    masked = at.record.copy()
    masked[at.before :][of == 0] = np.nan
    np.testing.assert_allclose(guess, climatology_trend(masked)[at.before :][held])


def test_guesses_in_space_are_inverse_distances_one_by_one() -> None:
    at = scene()
    of = folding._dealt(at, "space", 0)[0]
    known, _, guess, _ = next(held_out(at, "space", lambda *_: lambda rows: rows[:, 0], 0))
    held = np.flatnonzero((of == 0) & at.mine)
    others = np.flatnonzero(of != 0)
    latitude, longitude = np.radians(COARSE.latitudes[at.rows]), np.radians(COARSE.longitudes[at.columns])
    used = np.flatnonzero(at.used)
    wanted = np.empty((len(used), len(held)))
    for place, cell in enumerate(held.tolist()):
        # chords, from haversines
        half = (
            np.sin((latitude[others] - latitude[cell]) / 2) ** 2
            + np.cos(latitude[others]) * np.cos(latitude[cell]) * np.sin((longitude[others] - longitude[cell]) / 2) ** 2
        )
        near = np.argsort(half, kind="stable")[:8]
        weights = 1 / half[near]
        wanted[:, place] = at.values[used][:, others[near]] @ weights / weights.sum()
    # ties at the eighth neighbour may be broken otherwise, in few cells
    same = np.isclose(guess.reshape(wanted.shape), wanted, rtol=1e-9).all(axis=0)
    assert same.mean() > 0.6
    np.testing.assert_array_equal(known.reshape(wanted.shape), at.values[np.ix_(used, held)])


def test_months_that_grace_did_not_see_are_left_out(made: Made) -> None:
    published = made.published
    told = tabulate(published.source, published.coarse, Here(), lambda _: None)
    at = folding.scene_of(published, told, int(published.coarse.labels(Reach.of(published.cells))[0, 0]))
    months = np.arange(told.months[0], told.months[-1] + 1)
    seen = np.isin(months, published.source.solution_months)
    np.testing.assert_array_equal(at.used, seen)
    assert 0 < (~seen).sum() < len(seen)
    # departures from conservative interpolation: their means over whole blocks of 1 degree are nothing
    block = at.rows // 4 * 1000 + at.columns // 4
    whole = [one for one in np.unique(block) if (block == one).sum() == 16]
    assert len(whole) > 3
    for one in whole:
        mine = block == one
        means = at.values[seen][:, mine] @ COARSE.row_areas[at.rows[mine]]
        np.testing.assert_allclose(means, 0.0, atol=1e-9)
    assert np.nanstd(at.values) > 0.1


# -- seams


def test_a_grouped_median_is_that_of_the_standard_library() -> None:
    random = np.random.default_rng(0)
    for high in (3, 8, 40):
        values = random.integers(1, high, 501)
        found = grouped_median(np.bincount(values, minlength=64))
        assert found == pytest.approx(statistics.median_grouped(values.tolist()))
    assert grouped_median(np.array([10, 0, 0])) == 0.25
    assert np.isnan(grouped_median(np.zeros(4, dtype=np.int64)))


def test_steps_are_counted_one_by_one() -> None:
    random = np.random.default_rng(0)
    stored = random.integers(-50, 50, (60, 90)).astype(np.int16)
    stored[random.random(stored.shape) < 0.1] = GWSA.fill
    labels = np.array([[0, 0, 1], [0, 2, 1]], dtype=np.int16)
    counts = {kind: np.zeros(2**16, dtype=np.int64) for kind in KINDS}
    count_steps(stored, labels, counts)
    wanted: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for row in range(60):
        for column in range(90):
            for down, right in ((0, 1), (1, 0)):
                other = (row + down, column + right)
                if other[0] == 60 or other[1] == 90 or GWSA.fill in {stored[row, column], stored[other]}:
                    continue
                step = abs(int(stored[row, column]) - int(stored[other]))
                one, two = (row // 30, column // 30), (other[0] // 30, other[1] // 30)
                if one == two:
                    wanted["interior"].append(step)
                    neighbours = [(one[0] + n * down, one[1] + n * right) for n in (-1, 1)]
                    inside = [(y, x) for y, x in neighbours if 0 <= y < 2 and 0 <= x < 3]
                    if any(labels[at] != labels[one] for at in inside):
                        wanted["beside_borders"].append(step)
                else:
                    wanted["cell_edges"].append(step)
                    if labels[one] != labels[two]:
                        wanted["region_borders"].append(step)
    for kind in KINDS:
        np.testing.assert_array_equal(counts[kind], np.bincount(wanted[kind], minlength=2**16))


def test_a_planted_seam_is_found(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    part, _ = seams(made.published)
    assert part["published"]["cell_edges"]["ratio"] < 1.25, "few steps in one degree; test_render holds it to 1.1"
    assert part["published"]["region_borders"]["count"] > 0
    right = Published.stored

    def stepped(self: Published, *what: Any) -> Any:
        stored = right(self, *what).copy()
        stored[30:60][stored[30:60] != GWSA.fill] += 40
        return stored

    monkeypatch.setattr(Published, "stored", stepped)
    spoilt, _ = seams(made.published)
    assert spoilt["published"]["cell_edges"]["ratio"] > part["published"]["cell_edges"]["ratio"] * 1.2
    assert spoilt["plain"] == part["plain"]


# -- the two centres


def test_centres_lie_as_far_apart_as_xarray_says(made: Made, report: tuple[dict[str, Any], Path]) -> None:
    part = report[0]["centres"]
    cells = made.published.cells
    lat = slice(90 - (cells.row + cells.height) / 4, 90 - cells.row / 4)
    lon = slice(cells.column / 4 - 180, (cells.column + cells.width) / 4 - 180)
    anomalies = []
    for pattern in ("CSR_GRACE*.nc", "GRCTellus*.nc"):
        (path,) = made.inputs.glob(pattern)
        with xr.open_dataset(path, decode_times=False, engine="h5netcdf") as data:
            found = data["lwe_thickness"].sel(lat=lat, lon=lon).load()
        if "JPL" in path.name:
            # three rows of half a degree, from 22.5 to 24 N: the cells of a quarter of one from 22.75 to 23.75
            quarters = found.values.repeat(2, axis=1).repeat(2, axis=2)[:, 1:5]
            found = xr.DataArray(quarters, dims=("time", "lat", "lon"))
        months = np.array(made.published.source.solution_months)
        base = (months >= 408) & (months < 480)
        values = found.values.astype(np.float64)[:, ::-1]
        anomalies.append(values - values[base].mean(axis=0))
    apart = anomalies[0] - anomalies[1]
    weight = np.broadcast_to(COARSE.row_areas[cells.rows][None, :, None], apart.shape)
    assert part["rms_difference_cm"] == pytest.approx(np.sqrt(np.average(apart**2, weights=weight)), rel=1e-4)
    assert (part["centres"], part["cells"], part["months"]) == ("CSR and JPL", 16, apart.shape[0])
    alone = replace(made.published, source=replace(made.published.source, other=None, other_months=()))
    with pytest.raises(NotComputed, match="names no second GRACE solution"):
        centres(alone)


# -- numbers


def test_numbers_that_are_none_are_null() -> None:
    given = {"a": [np.float64("nan"), np.int16(3)], "b": (1.5, float("inf")), "c": np.bool_(True), "d": "x"}  # noqa: FBT003
    assert numbers(given) == {"a": [None, 3], "b": [1.5, None], "c": True, "d": "x"}
    assert json.dumps(numbers(given), allow_nan=False)
