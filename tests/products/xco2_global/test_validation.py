"""A report on a rendered version: against xarray and pandas, numpy's own averages, closed forms, and a known error."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from models.xco2_global.table import SequenceTable
from services.cli import app
from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.errors import InputRefused, ModelRefused
from services.core.grid import Window
from services.core.quantity import Quantity
from services.core.settings import StoreSettings
from services.core.store import Store
from services.products.xco2_global import validate
from services.products.xco2_global.covariates import sequences
from services.products.xco2_global.declaration import INFERRED, UNCERTAINTY, XCO2
from services.products.xco2_global.inputs import SETTINGS, Inputs
from services.products.xco2_global.observed import Observed
from services.products.xco2_global.table import SCORED, seen
from services.products.xco2_global.validation import folds, pictures, points, stations, truth
from services.products.xco2_global.validation.attention import attention
from services.products.xco2_global.validation.guesses import guesses
from services.products.xco2_global.validation.points import Known, Points
from services.products.xco2_global.validation.published import Published, decoded
from services.products.xco2_global.validation.scores import compared
from services.products.xco2_global.validation.splits import labels
from services.sample.carbon import Carbon
from services.validation.report import NotComputed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # as a whole; the first test trains, renders and reports

type Values = NDArray[np.float64]


def run(*words: str | Path) -> str:
    """Run a command in this process."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def dataset_in(store: Path) -> Dataset:
    at = Store.open(str(store), StoreSettings.from_environment())
    return Dataset(at, current_version(at, "xco2_global")[1])


@pytest.fixture(scope="module")
def store(written: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four months, rendered."""
    place = tmp_path_factory.mktemp("xco2_store")
    run("--store", place, "render", "xco2_global", "--inputs", written, "--models", models, "--workers", "0")
    return place


@pytest.fixture(scope="module")
def published(store: Path, written: Path, models: Path) -> Published:
    return Published.of(dataset_in(store), written, models, lambda _: None)


@pytest.fixture(scope="module")
def report(
    published: Published, written: Path, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path, list[str]]:
    out = tmp_path_factory.mktemp("xco2_report") / "deep" / "down"
    told: list[str] = []
    with pytest.MonkeyPatch.context() as few:
        # what is drawn, not how
        few.setattr(folds, "MOST_ROWS", 1200)
        few.setattr(truth, "MOST_PLACES", 300)
        said = validate(written, published.dataset, told.append, models=models, out=out)
    found: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert {**found, "out": str(out)} == said
    return found, out, told


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def maps(published: Published, quantity: Quantity) -> Values:
    """All months, decoded, ``(time, y, x)``."""
    grid = published.dataset.product.grid
    return published.series(quantity, Window(row=0, column=0, height=grid.height, width=grid.width))


def true_maps(published: Published) -> Values:
    world = Carbon("small")
    return np.stack([world.xco2(month) for month in published.dataset.time.starts]).astype(np.float64)


# -- the whole report


def test_the_report_says_what_it_is_of(report: tuple[dict[str, Any], Path, list[str]]) -> None:
    found, out, _ = report
    assert (found["product"], found["collection"], found["co2_scale"]) == ("xco2_global", "xco2_global", "X2019")
    assert found["periods"] == ["2019-08", "2019-11", 4]
    assert "clear sky, at the time of the overpass" in found["sampling"]
    assert found["months_without_soundings"] == []
    for part in ("stations", "held_out", "folds", "truth", "attention"):
        assert found[part]["synthetic"] is True, part
    assert set(found["tables"]) == {"stations", "station_months", "held_out", "folds", "truth", "attention"}
    for name in found["tables"].values():
        assert table(out / name), name
    for name in ("map", "scatter", "series", "coverage", "attention"):
        if name == "series":
            assert found["pictures"][name] == "not drawn: no station has 6 published months"
            continue
        assert found["pictures"][name] == f"{name}.png"
        with Image.open(out / f"{name}.png") as image:
            shades = np.asarray(image.convert("L"))
        assert min(shades.shape) > 400
        assert len(np.unique(shades)) > 50
    lines = found["summary"]
    assert "(synthetic" in lines[0]
    assert "clear sky" in lines[1]
    assert all("synthetic" in line for line in lines[2:-1]), lines
    assert lines[-1].startswith("the network looks at the month itself for ")
    assert not any("nan" in line for line in lines), lines


def test_stations_as_xarray_and_pandas_see_them(
    report: tuple[dict[str, Any], Path, list[str]], published: Published, written: Path
) -> None:
    found, out, _ = report
    months = pd.read_csv(out / "station_months.csv")
    values, sigma = maps(published, XCO2), maps(published, UNCERTAINTY)
    for site, latitude, longitude in (("pa", 45.94, -90.27), ("wg", -34.41, 150.88)):
        (path,) = written.glob(f"{site}*.public.qc.nc")
        with xr.open_dataset(path, engine="h5netcdf") as data:
            spectra = data[["xco2_x2019"]].to_dataframe()
        local = pd.DatetimeIndex(spectra.index) + pd.Timedelta(hours=longitude / 15)
        hour = local.hour + local.minute / 60 + local.second / 3600
        noon = spectra[(hour >= 12) & (hour < 14)]
        day = noon.groupby(local[(hour >= 12) & (hour < 14)].floor("D")).xco2_x2019.agg(["mean", "size"])
        month = day.groupby(pd.DatetimeIndex(day.index).to_period("M")).agg(
            mean=("mean", "mean"), days=("size", "size"), spectra=("size", "sum"), spread=("mean", "sem")
        )
        month = month[(month.days >= 3) & (month.spectra >= 15)]
        own = months[months.site == site].set_index("month")
        shared = [name for name in month.index.astype(str) if name in {"2019-08", "2019-09", "2019-10", "2019-11"}]
        assert list(own.index) == shared
        assert len(shared) >= 3
        np.testing.assert_allclose(own.tccon, month.loc[shared, "mean"], atol=2e-5)
        np.testing.assert_allclose(own.tccon_error, month.loc[shared, "spread"], atol=2e-5)
        row, column = int((90 - latitude) // 2), int((longitude + 180) // 2)
        places = [("2019-08", "2019-09", "2019-10", "2019-11").index(name) for name in shared]
        np.testing.assert_allclose(own.published, values[places, row, column], atol=1e-6)
        np.testing.assert_allclose(own.uncertainty, sigma[places, row, column], atol=1e-6)
        box = values[places, row - 2 : row + 3, column - 2 : column + 3]
        weight = np.broadcast_to(published.source.settings.grid.row_areas_km2[row - 2 : row + 3, None], (5, 5))
        mean = [np.average(one, weights=weight) for one in box]
        np.testing.assert_allclose(own.published_5x5, mean, atol=1e-5)
    # the table, by pandas
    rows = pd.read_csv(out / "stations.csv").set_index("site")
    apart = months.published - months.tccon
    np.testing.assert_allclose(rows.bias.dropna(), apart.groupby(months.site).mean(), atol=1e-6)
    squared = (apart**2).groupby(months.site).mean() ** 0.5
    np.testing.assert_allclose(rows.rmse.dropna(), squared, atol=1e-6)
    pooled = found["stations"]["methods"]["published"]
    assert pooled["n"] == len(months) == found["stations"]["pairs"]
    assert pooled["rmse"] == pytest.approx(float(np.sqrt((apart**2).mean())), abs=1e-6)
    assert pooled["r2_pearson"] == pytest.approx(np.corrcoef(months.published, months.tccon)[0, 1] ** 2, abs=1e-6)
    assert pooled["r2"] == pytest.approx(1 - (apart**2).sum() / ((months.tccon - months.tccon.mean()) ** 2).sum())
    assert pooled["slope"] == pytest.approx(np.polyfit(months.tccon, months.published, 1)[0], abs=1e-6)
    assert "24 pairs" in pooled["detrended"]["not_computed"]
    low, high = pooled["intervals"]["rmse"]
    assert low < pooled["rmse"] < high
    total = np.sqrt(months.uncertainty**2 + months.tccon_error**2)
    share = found["stations"]["coverage"]
    assert share["with_error_of_the_months_mean"]["share_within"]["0.95"] == pytest.approx(
        (apart.abs() <= 1.959964 * total).mean()
    )
    assert share["alone"]["share_within"]["0.5"] == pytest.approx((apart.abs() <= 0.67449 * months.uncertainty).mean())


def test_guesses_stand_beside_every_score(report: tuple[dict[str, Any], Path, list[str]]) -> None:
    found, _, told = report
    pytest.importorskip("xgboost", reason="one of the guesses")
    guessed = {"climatology_trend", "background", "nearest", "inverse_distance", "xgboost"}
    assert set(found["stations"]["methods"]) == {"published", "published_5x5", "network", *guessed}
    assert {one["n"] for one in found["stations"]["methods"].values()} == {found["stations"]["pairs"]}
    assert set(found["held_out"]["methods"]) == {"network", *guessed}
    for split in ("sample", "space", "space_time"):
        assert set(found["folds"][split]["methods"]) == guessed
        assert len({one["n"] for one in found["folds"][split]["methods"].values()}) == 1
    # four months of a year are one block of time
    assert "1 blocks cannot be dealt" in found["folds"]["time"]["not_computed"]
    assert any(line.startswith("folds, time: not computed") for line in told)
    assert "too long to learn" in found["folds"]["network"]
    for kind in ("all", "without_soundings"):
        assert set(found["truth"]["same_points"][kind]["methods"]) == {"published", "network", *guessed}
    # a neighbour on the same track is worth more than one beyond the block
    nearest = {split: found["folds"][split]["methods"]["nearest"]["rmse"] for split in ("sample", "space_time")}
    assert nearest["sample"] < nearest["space_time"]


def test_the_network_scores_as_its_training_said(report: tuple[dict[str, Any], Path, list[str]], trained: Path) -> None:
    """By another road: sequences read anew at the cells, ONNX instead of torch, the background added."""
    part, card = report[0]["held_out"], json.loads((trained / "scores.json").read_text())
    assert part["points"] == card["cells"]
    network, background = part["methods"]["network"], part["methods"]["background"]
    assert network["rmse"] == pytest.approx(card["rmse_ppm"], abs=1e-3)
    assert network["bias"] == pytest.approx(card["bias_ppm"], abs=1e-3)
    assert part["within_95_percent_interval"] == pytest.approx(card["within_95_percent_interval"], abs=1e-3)
    # the guess's background also learned from the blocks that stopped the training
    assert background["rmse"] == pytest.approx(card["rmse_of_background_ppm"], rel=0.05)
    told = part["rmse_difference"]["background"]
    assert told["low"] <= told["difference"] <= told["high"]
    assert told["difference"] == pytest.approx(network["rmse"] - background["rmse"], abs=1e-6)


def test_attention_by_torch(
    report: tuple[dict[str, Any], Path, list[str]], published: Published, trained: Path
) -> None:
    from models.xco2_global.train import Trained  # noqa: PLC0415 - where torch is

    found, out, _ = report
    rows = table(out / "attention.csv")
    lags = [f"months_before_{lag}" for lag in range(12)]
    shares = np.array([[float(row[lag]) for lag in lags] for row in rows])
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-3)
    counts = np.array([int(row["cells"]) for row in rows])
    mean = found["attention"]["mean_share_of_months_before"]
    np.testing.assert_allclose(np.average(shares, axis=0, weights=counts), mean, atol=2e-4)
    assert found["attention"]["cells"] == counts.sum()
    # the last band of the last month: 15 rows of 2 degrees in each band, of which the 4th and the 12th are asked
    last = rows[-1]
    assert (last["month"], last["south"], last["north"], last["cells"]) == ("2019-11", "-90.0", "-60.0", "360")
    month = int(np.datetime64("2019-11", "M").astype(int))
    asked = [sequences(published.source, month, Window(row=row, column=0, height=1, width=180)) for row in (78, 86)]
    said = Trained.read(trained).predict(np.concatenate(asked))["attention"]
    np.testing.assert_allclose(shares[-1], said.mean(axis=0)[::-1], atol=2e-4)


def test_a_series_is_drawn_of_all_published_months(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = stations.at_stations(published)
    _, rows = stations.scores(published, at, stations.said_at(published, at, None))
    row = next(row for row in rows if row["months"])
    years, values, half = pictures._published_at(published, row)
    np.testing.assert_allclose(years, 2019 + (np.arange(7, 11) + 0.5) / 12)
    grid = published.dataset.product.grid
    y, x = int((90 - row["latitude"]) // 2), int((row["longitude"] + 180) // 2)
    assert (y, x) == grid.locate(row["longitude"], row["latitude"])
    np.testing.assert_array_equal(values, maps(published, XCO2)[:, y, x])
    np.testing.assert_array_equal(half, 1.96 * maps(published, UNCERTAINTY)[:, y, x])
    monkeypatch.setattr(pictures, "LEAST_MONTHS", 1)
    pictures.draw_series(tmp_path / "series.png", published, at, rows)
    with Image.open(tmp_path / "series.png") as image:
        assert len(np.unique(np.asarray(image.convert("L")))) > 50


def test_the_truth_by_numpy(report: tuple[dict[str, Any], Path, list[str]], published: Published) -> None:
    part = report[0]["truth"]
    values, sigma, none = maps(published, XCO2), maps(published, UNCERTAINTY), maps(published, INFERRED) == 1
    true = true_maps(published)
    area = np.broadcast_to(published.source.settings.grid.row_areas_km2[:, None], true.shape)
    for kind, which in (("all", np.ones(true.shape, dtype=bool)), ("without_soundings", none)):
        apart, weight = (values - true)[which], area[which]
        told = part["kinds"][kind]
        assert told["cells"] == which.sum()
        assert told["rmse"] == pytest.approx(np.sqrt(np.average(apart**2, weights=weight)), rel=1e-6)
        assert told["bias"] == pytest.approx(np.average(apart, weights=weight), abs=1e-6)
        within = np.average(np.abs(apart) <= 1.959964 * sigma[which], weights=weight)
        assert told["share_within"]["0.95"] == pytest.approx(within, abs=1e-6)
    cells = {kind: part["kinds"][kind]["cells"] for kind in truth.KINDS}
    assert cells["land"] + cells["sea"] == cells["all"] == true.size
    assert cells["with_soundings"] + cells["without_soundings"] == cells["all"]
    assert "4 months tell no growth" in part["growth"]["not_computed"]
    rows = pd.read_csv(report[1] / "truth.csv")
    np.testing.assert_allclose(rows.true_global_mean, [np.average(one, weights=area[0]) for one in true], atol=1e-5)


# -- a version that is the truth and a known error


class Known05(Dataset):
    """Its maps are the truth and 0.5 ppm more, with an uncertainty of 0.3."""

    def read_map(self, quantity: Quantity, position: int, level: int, window: Window) -> NDArray[Any]:
        stored = super().read_map(quantity, position, level, window)
        if quantity.name == XCO2.name:
            return XCO2.pack(Carbon("small").xco2(self.time.starts[position], window=window) + 0.5)
        return UNCERTAINTY.pack(np.full(stored.shape, 0.3)) if quantity.name == UNCERTAINTY.name else stored


def test_a_known_error_gives_known_scores(store: Path, published: Published) -> None:
    dataset = dataset_in(store)
    known = replace(published, dataset=Known05(dataset.store, dataset.version))
    told, rows = truth.against_truth(known, None, 0, lambda _: None)
    for kind in truth.KINDS:
        one = told["kinds"][kind]
        assert one["bias"] == pytest.approx(0.5, abs=2e-4), kind
        assert one["rmse"] == pytest.approx(0.5, abs=2e-4), kind
        # 0.5 lies beyond 1.645 and within 1.96 standard deviations of 0.3
        shares = [one["share_within"][f"{level:g}"] for level in (0.5, 0.8, 0.9, 0.95, 0.99)]
        assert shares == pytest.approx([0, 0, 0, 1, 1])
    assert told["same_points"]["all"]["methods"]["published"]["rmse"] == pytest.approx(0.5, abs=2e-3)
    assert told["same_points"]["all"]["methods"]["network"]["rmse"] > 0.5
    assert [row["month"] for row in rows] == ["2019-08", "2019-09", "2019-10", "2019-11"]
    assert all(row["global_mean"] - row["true_global_mean"] == pytest.approx(0.5, abs=2e-4) for row in rows)


def test_growth_of_known_series() -> None:
    months = np.arange(588, 588 + 36)
    season = 2 * np.cos(2 * np.pi * months / 12) + 0.5 * np.sin(4 * np.pi * months / 12)
    means = np.column_stack([400 + 2.45 * months / 12 + season, 401 + 2.4 * months / 12 + 0.7 * season])
    told = truth.growth(means, months)
    assert told["published_ppm_a_year"] == pytest.approx(2.45)
    assert told["true_ppm_a_year"] == pytest.approx(2.4)
    assert told["difference_ppm_a_year"] == pytest.approx(0.05)
    assert "20 months tell no growth" in truth.growth(means[:20], months[:20])["not_computed"]


# -- parts


def test_only_points_that_all_answer_are_scored() -> None:
    reference = np.array([400.0, 401, 402, 403])
    said = {
        "one": reference + np.array([1, -1, 1, 9]),
        "other": np.array([400.0, 401, 402, np.nan]),
        "silent": np.full(4, np.nan),
    }
    told = compared(said, reference, np.arange(4), "one")
    assert (told["points"], told["points_in_all"], told["without_answer"]) == (3, 4, ["silent"])
    assert told["methods"]["one"]["rmse"] == pytest.approx(1)
    assert told["methods"]["one"]["bias"] == pytest.approx(1 / 3)
    assert told["methods"]["other"]["rmse"] == 0
    assert "3 blocks" in told["rmse_difference"]["other"]["not_computed"]
    with pytest.raises(NotComputed, match="no point has an answer of all"):
        compared({"one": said["silent"]}, reference)


def test_features_at_cells_are_those_of_the_training(
    trained: Path, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_then = SequenceTable.read(trained / "table")
    cells = seen(published.source, published.observed, 0)
    chosen = np.arange(0, len(cells), 37)
    at = Known.of(cells, chosen).at
    # several blocks and several rounds in each
    monkeypatch.setattr("services.products.xco2_global.table.HELD_BYTES", 4 << 20)
    monkeypatch.setattr(points, "AT_ONCE", 13)
    expected = table_then.sequences(chosen)
    for numbers, found in points.sequences(published.source, at):
        assert len(numbers) <= 13
        np.testing.assert_array_equal(found, expected[numbers])
    both = points.features(published.source, at)
    width = expected.shape[2]
    np.testing.assert_array_equal(both[:, :width], expected[:, -1])
    with np.errstate(invalid="ignore"):
        known = np.isfinite(expected).any(axis=1)
        mean = np.where(known, np.nanmean(np.where(known[:, None], expected, 0), axis=1, dtype=np.float64), np.nan)
    np.testing.assert_allclose(both[:, width:], mean, rtol=1e-5, atol=1e-6)


def test_folds_hold_whole_blocks_out(published: Published) -> None:
    """A field that is one number for each square: nobody can know it from beyond."""
    cells = seen(published.source, published.observed, 0)
    near = Known.of(cells, np.arange(len(cells)))
    grid = published.source.settings.grid
    squares = labels("space", near.at.rows(grid))
    _, number = np.unique(squares, axis=0, return_inverse=True)
    level = np.random.default_rng(0).normal(400, 5, number.max() + 1)[number.ravel()]
    near = replace(near, xco2=level)
    chosen = points.drawn(len(near), 600, 0)
    width = 2 * len(published.source.settings.features)
    nothing = np.zeros((len(chosen), width), dtype=np.float32)
    scores = {}
    for split in ("sample", "space"):
        said, _ = folds.held_out(published, near, (chosen, nothing), split, 0, lambda _: None)
        scores[split] = compared(said, near.xco2[chosen])["methods"]["nearest"]["rmse"]
    # random folds leave a neighbour in the square, if not at its edge; folds of squares never do: two draws apart
    assert scores["sample"] < 5
    assert scores["space"] > 1.3 * scores["sample"]


def test_years_held_out_are_told_by_the_year_before(published: Published) -> None:
    """Three years of cells that are the same every month; a year's growth and its season are all there is."""
    grid = published.source.settings.grid
    generator = np.random.default_rng(1)
    first = int(np.datetime64("2017-01", "M").astype(int))
    row, column = generator.integers(5, 85, 40), generator.integers(0, 180, 40)
    at = Points(
        month=np.repeat(np.arange(first, first + 36), 40),
        row=np.tile(row, 36).astype(np.int64),
        column=np.tile(column, 36),
    )
    values = (
        400 + 0.2 * (at.month - first) + 2 * np.cos(2 * np.pi * at.month / 12) + np.tile(generator.normal(0, 3, 40), 36)
    )
    near = Known(at=at, xco2=values, error=np.full(len(at), 0.3))
    chosen = np.arange(len(at))
    nothing = np.zeros((len(at), 2 * len(published.source.settings.features)), dtype=np.float32)
    said, _ = folds.held_out(published, near, (chosen, nothing), "time", 0, lambda _: None)
    # of the first year nothing was known before
    assert np.isnan(said["nearest"][at.month < first + 12]).all()
    told = compared(said, values)
    assert told["points"] == 24 * 40
    assert told["methods"]["nearest"]["rmse"] < 0.1
    # where a cell itself was seen then, that is all that counts
    assert told["methods"]["inverse_distance"]["rmse"] < 0.1
    # what is smooth knows no single cell
    assert told["methods"]["background"]["rmse"] > 1.5
    assert grid.shape == (90, 180)


def test_guesses_of_fields_that_they_can_hold(published: Published) -> None:
    source, grid = published.source, published.source.settings.grid
    cells = seen(source, published.observed, 0)
    at = Known.of(cells, np.arange(len(cells))).at
    smooth = 400 + 0.2 * (at.month - at.month.min()) + 2 * np.sin(np.radians(grid.latitudes[at.row]))
    known = Known(at=at, xco2=smooth, error=np.full(len(at), 0.3))
    ready = guesses(source, known, (known, None), labels("space_time", at.rows(grid)), 0)
    assert ready.trees is None
    asked = Points(month=at.month[:50], row=at.row[:50], column=(at.column[:50] + 1) % grid.width)
    expected = 400 + 0.2 * (asked.month - at.month.min()) + 2 * np.sin(np.radians(grid.latitudes[asked.row]))
    said = ready.said(asked, None)
    assert set(said) == {"climatology_trend", "background", "nearest", "inverse_distance"}
    np.testing.assert_allclose(said["climatology_trend"], expected, atol=0.01)
    np.testing.assert_allclose(said["background"], expected, atol=0.05)
    np.testing.assert_allclose(said["nearest"], expected, atol=0.3)
    # at a cell that was seen the nearest is itself; of the year before there is nothing
    np.testing.assert_allclose(ready.said(at.take(np.arange(9)), None)["nearest"], smooth[:9], atol=1e-9)
    assert np.isnan(ready.said(asked, None, last_year=True)["nearest"]).all()


# -- what it does not take


def test_other_inputs_and_models_are_refused(published: Published, inputs: Path, models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path / "other")
    card = json.loads((tmp_path / "other" / "card.json").read_text())
    (tmp_path / "other" / "card.json").write_text(json.dumps({**card, "description": "another one"}))
    with pytest.raises(ModelRefused, match=r"does not hold the network that xco2_global .* was rendered with"):
        Published.of(published.dataset, inputs, tmp_path / "other", lambda _: None)
    path = inputs / SETTINGS
    text = path.read_text()
    path.unlink()
    path.write_text(re.sub(r"(?s)\n\[stations\].*?(?=\n\[|$)", "", text) + "# a word\n[hotspots]\nguides = []\n")
    assert Inputs.find(inputs).settings.stations is None
    Published.of(published.dataset, inputs, models, lambda _: None)
    path.write_text(text.replace("[soundings]", "[soundings]\nfloor = 0.3"))
    told = r"was made from other inputs .* its settings say something else in soundings\.floor; .*`cenote render xco2"
    with pytest.raises(InputRefused, match=told):
        Published.of(published.dataset, inputs, models, lambda _: None)


def test_without_model_truth_or_stations(published: Published) -> None:
    alone = replace(published, network=None)
    with pytest.raises(NotComputed, match=r"the model is not given \(--models DIR\)"):
        folds.held_out_network(alone, lambda _: None)
    with pytest.raises(NotComputed, match=r"the model is not given"):
        attention(alone)
    settings = published.source.settings
    real = replace(published.source, settings=settings.model_copy(update={"synthetic": False}))
    with pytest.raises(NotComputed, match="nobody knows the truth of the real Earth"):
        truth.against_truth(replace(published, source=real), None, 0, lambda _: None)
    none = replace(published.source, settings=settings.model_copy(update={"stations": None}))
    with pytest.raises(NotComputed, match=r"xco2\.toml names no stations"):
        stations.at_stations(replace(published, source=none))


def test_cells_that_training_withheld_are_known_by_its_background(published: Published) -> None:
    network = published.the_network
    other = network.fitted.model_copy(update={"coefficients": [one + 0.01 for one in network.fitted.coefficients]})
    moved = replace(published, network=replace(network, fitted=other))
    with pytest.raises(NotComputed, match="the network learned from other cells than these inputs hold"):
        folds.held_out_network(moved, lambda _: None)
    cells = seen(published.source, Observed.of(Inputs.find(published.source.directory).hashed()), 0)
    assert (cells.group == SCORED).any()


def test_decoded() -> None:
    stored = np.array([XCO2.fill, 0, 200], dtype=np.int16)
    np.testing.assert_allclose(decoded(XCO2, stored), [np.nan, 399.0, 400.0])


def test_names_of_stations_that_are_near_do_not_cover_each_other() -> None:
    figure = Figure(figsize=(9.5, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlim(-180, 180)
    axes.set_ylim(-90, 90)
    axes.set_aspect("equal")
    near = {
        "bialystok": (23.0, 53.2),
        "bremen": (8.9, 53.1),
        "garmisch": (11.1, 47.5),
        "karlsruhe": (8.4, 49.1),
        "nicosia": (33.4, 35.1),
        "orleans": (2.1, 48.0),
        "paris": (2.4, 48.8),
        "sodankyla": (26.6, 67.4),
    }
    written = pictures.name_places(axes, list(near.values()), list(near))
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(label) for label in written]
    assert not [(a, b) for n, a in enumerate(boxes) for b in boxes[n + 1 :] if a.overlaps(b)]
    assert [label.get_text() for label in written] == list(near)
    assert len(axes.texts) == len(near), "none is left of those that were tried"
