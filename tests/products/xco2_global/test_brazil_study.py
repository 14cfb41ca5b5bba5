"""What issue 6 promises of the real cells of South America holds, and the report is what the study finds."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from services.core.errors import InputRefused
from services.validation import folds
from tests.products.xco2_global import brazil_trees
from tests.products.xco2_global.brazil_data import (
    FOLDER,
    OUTAGE,
    Days,
    mauna_loa,
    month_of,
    read_days,
    read_surroundings,
)
from tests.products.xco2_global.brazil_learned import NEARBY, NETWORK, TREES, products
from tests.products.xco2_global.brazil_study import (
    BACKGROUND,
    BLOCK,
    CLIMATOLOGY,
    DESIGNS,
    LEARNED,
    NEAR,
    REPORT,
    TABLES,
    WHY,
    Case,
    case_of,
    contestants,
    reading,
    scored,
)

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

days_of = cache(read_days)


def case(folder: Path, design: str) -> tuple[Case, Any]:
    days: Days = days_of(folder)
    monthly = days.monthly()
    return case_of(design, monthly, mauna_loa(folder), read_surroundings(folder, monthly.rows))


def test_monthly_cells_are_those_of_pandas(realdata: Path) -> None:
    monthly = days_of(realdata).monthly()
    rows, values = monthly.rows, monthly.values
    month = month_of("2015-06")
    table = pd.read_csv(next((realdata / FOLDER).glob("*_20150601_*.gz")), sep="\t")
    means = table.groupby(["latitude", "longitude"])["xco2..Moles.Mole...1.."].mean() * 1e6
    mine = rows.month == month
    order = np.lexsort((rows.longitude[mine], rows.latitude[mine]))
    assert mine.sum() == len(means) == 5581
    np.testing.assert_allclose(values[mine][order], means.to_numpy(), atol=1e-6)
    # several days in a cell
    assert len(table) > len(means)


def test_the_outage_is_known_by_name_and_no_other_month_may_lack(realdata: Path, tmp_path: Path) -> None:
    assert month_of(OUTAGE) not in days_of(realdata).month
    target = tmp_path / FOLDER
    target.mkdir(parents=True)
    for path in (realdata / FOLDER).glob("*.gz"):
        if "_20160301_" not in path.name:
            (target / path.name).symlink_to(path)
    with pytest.raises(InputRefused, match="without 2017-08, when OCO-2 was out"):
        read_days(tmp_path)


def test_land_is_where_it_is(realdata: Path) -> None:
    found = read_surroundings(realdata, days_of(realdata).monthly().rows)
    for name, longitude, latitude, land in (
        ("Brasilia", -47.9, -15.8, 1),
        ("Manaus", -60.5, -3.8, 1),
        ("the Atlantic", -36.0, -28.0, 0),
        ("the Pacific", -74.4, -25.0, 0),
        ("off Belem", -45.0, 4.0, 0),
    ):
        place = np.abs(found.latitude - latitude).argmin(), np.abs(found.longitude - longitude).argmin()
        assert found.land[place] == land, name
    assert 0.7 < found.land.mean() < 0.74


@pytest.mark.parametrize("design", DESIGNS)
def test_what_is_asked_for_is_not_seen(realdata: Path, design: str) -> None:
    given, known = case(realdata, design)
    assert len(given.seen) + len(given.asked) == 230_102
    assert len(known) == len(given.asked)
    assert given.asked.month.min() == month_of("2018-01")
    if design == "time":
        assert given.seen.month.max() == month_of("2017-12")
        return
    labels = [
        {
            tuple(one)
            for one in np.unique(folds.space_time(rows.longitude, rows.latitude, rows.month, BLOCK), axis=0).tolist()
        }
        for rows in (given.seen, given.asked)
    ]
    assert not labels[0] & labels[1]
    last = {one for one in labels[0] if one[0] >= month_of("2018-01")}
    assert len(labels[1]) / (len(last) + len(labels[1])) == pytest.approx(0.2, abs=2e-3)


def test_baselines_are_those_of_the_report(realdata: Path) -> None:
    given, known = case(realdata, "time")
    written = json.loads(REPORT.read_text())["unfiltered"]["time"]
    players = {
        name: one
        for name, one in contestants("time", written["neighbours"]).items()
        if one[0] in {CLIMATOLOGY, BACKGROUND}
    }
    found = scored(given, known, players)
    assert len(found) == 4
    for name, one in found.items():
        for key in ("rmse", "bias", "r2"):
            assert one[key] == pytest.approx(written["scores"][name][key], abs=1e-3), name
    # science/xco2.md, "Baselines measured"
    assert found["climatology + trend of the domain"]["rmse"] == pytest.approx(3.68, abs=0.01)
    assert found["climatology + trend, smooth in space"]["rmse"] == pytest.approx(3.55, abs=0.03)
    assert found["Mauna Loa + season + block anomaly"]["rmse"] == pytest.approx(3.46, abs=0.06)
    assert written["last_year_is"]["2018-08"] == "2016-08"
    assert written["last_year_is"]["2018-07"] == "2017-07"


def test_trees_are_those_of_the_report(realdata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brazil_trees, "SEEDS", (0,))
    given, known = case(realdata, "time")
    found = scored(given, known, {"trees": (LEARNED, brazil_trees.trees)})["trees"]
    written = json.loads(REPORT.read_text())["unfiltered"]["time"]["scores"][TREES]
    # sums of another processor differ in the last digits, and a split with them
    assert found["rmse"] == pytest.approx(written["rmse_of_seeds"][0], abs=0.01)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("design", DESIGNS)
def test_what_the_product_does_beats_what_is_obvious(table: str, design: str) -> None:
    found = json.loads(REPORT.read_text())[table][design]
    assert found["products"] == products(design)
    scores = found["scores"]
    obvious = [name for name, one in scores.items() if one["kind"] in {CLIMATOLOGY, NEAR}]
    assert len(obvious) == (6 if design == "gaps" else 4)
    for mine in products(design).values():
        assert len(scores[mine]["rmse_of_seeds"]) == 3
        for name in obvious:
            assert scores[mine]["less"][name]["high"] < 0, (mine, name)


@pytest.mark.parametrize("table", TABLES)
def test_what_is_near_helps_the_network(table: str) -> None:
    scores = json.loads(REPORT.read_text())[table]["gaps"]["scores"]
    assert scores[f"{NETWORK}{NEARBY}"]["rmse"] < scores[NETWORK]["rmse"]


def test_the_report_says_what_its_numbers_say() -> None:
    report = json.loads(REPORT.read_text())
    said = [
        line for table in TABLES for design in DESIGNS for line in reading(f"{table}, {design}", report[table][design])
    ]
    assert report["reading"] == said
    assert report["why_the_network"] == WHY
    assert len(report["data"]) == 51
    assert len(report["commit"]) == 40


def test_a_reading_names_the_closest_rival_and_what_is_not_sure() -> None:
    def one(kind: str, rmse: float, **less: tuple[float, float, float]) -> dict[str, Any]:
        return {
            "kind": kind,
            "rmse": rmse,
            "less": {name: dict(zip(("difference", "low", "high"), ends, strict=True)) for name, ends in less.items()},
        }

    found = {
        "products": {"network": "net", "trees": "wood"},
        "scores": {
            "IDW": one(NEAR, 3.4),
            "mean": one(CLIMATOLOGY, 3.6),
            "Mauna Loa": one(BACKGROUND, 3.1),
            "net": one(
                LEARNED,
                3.3,
                IDW=(-0.1, -0.2, 0.01),
                mean=(-0.3, -0.4, -0.2),
                wood=(0.1, 0.0, 0.2),
                **{"Mauna Loa": (0.2, 0.1, 0.3)},
            ),
            "wood": one(
                LEARNED,
                3.2,
                IDW=(-0.2, -0.3, -0.1),
                mean=(-0.4, -0.5, -0.3),
                net=(-0.1, -0.2, 0.0),
                **{"Mauna Loa": (0.1, 0.0, 0.2)},
            ),
        },
    }
    assert reading("here", found) == [
        "here: net 3.300 ppm, not surely below all baselines; closest IDW: -0.100 (-0.200 to +0.010)",
        "here: wood 3.200 ppm, below every climatology, nearest and IDW; closest IDW: -0.200 (-0.300 to -0.100)",
        "here: the best, wood, less net: -0.100 (-0.200 to +0.000)",
        "here: what the product does, net, less wood: +0.100 (+0.000 to +0.200)",
    ]
