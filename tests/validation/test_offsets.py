"""Offsets of instruments and modes against numpy's least squares, closed forms, and offsets that were put in."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.core.errors import InputRefused, SettingsError
from services.validation.offsets import Cells, MeetingCells, Offsets, estimate

GROUPS = ("nadir", "glint", "target", "lonely", "silent")


def cells(rows: Sequence[tuple[int, int, float, float]], blocks: list[int] | None = None) -> Cells:
    """From (cell, group, mean, error)."""
    cell, group, mean, error = (np.array(column) for column in zip(*rows, strict=True))
    return Cells(
        cell=cell.astype(np.int64),
        group=group.astype(np.int64),
        mean=mean.astype(np.float64),
        error=error.astype(np.float64),
        count=np.full(len(rows), 7),
        block=np.array(blocks if blocks is not None else cell.tolist(), dtype=np.int64),
    )


def made(
    true: dict[int, float], count: int = 400, seed: int = 5, noise: float = 0.3, meeting: float = 0.5
) -> tuple[Cells, NDArray[np.float64]]:
    """Means of groups with known offsets in cells whose own means vary by 3 ppm; and the means' errors."""
    generator = np.random.default_rng(seed)
    rows: list[tuple[int, int, float, float]] = []
    for cell in range(count):
        middle = 410 + 3 * generator.standard_normal()
        for group, offset in true.items():
            if generator.random() < meeting:
                error = noise * generator.uniform(0.5, 2)
                rows.append((cell, group, middle + offset + error * generator.standard_normal(), error))
    found = cells(rows)
    return found, found.error


def direct(found: Cells, free: list[int], floor: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By numpy: a column for every cell, one for every group but the reference."""
    places = np.unique(found.cell)
    design = np.zeros((found.cell.size, places.size + len(free)))
    design[np.arange(found.cell.size), np.searchsorted(places, found.cell)] = 1
    for column, group in enumerate(free):
        design[found.group == group, places.size + column] = 1
    root = 1 / np.sqrt(found.error**2 + floor**2)
    answer = np.linalg.lstsq(design * root[:, None], found.mean * root, rcond=None)[0]
    covariance = np.linalg.inv((design * root[:, None]).T @ (design * root[:, None]))
    return answer[places.size :], np.sqrt(np.diag(covariance))[places.size :]


def test_a_network_is_numpy_s_least_squares() -> None:
    found, _ = made({0: 0.0, 1: 0.8, 2: -1.3})
    got = estimate(found, GROUPS, "nadir", floor=0.2, robust=False)
    answer, error = direct(found, [1, 2], 0.2)
    np.testing.assert_allclose(got.offset[1:3], answer, rtol=0, atol=1e-10)
    assert got.offset[0] == 0.0
    assert got.error[0] == 0.0
    # errors are those of least squares, or what blocks show if that is more
    assert (got.error[1:3] >= error - 1e-12).all()
    assert (got.error[1:3] <= 1.3 * error).all()
    assert got.unconnected == ()


def test_two_groups_are_a_weighted_mean_of_differences() -> None:
    found = cells([(1, 0, 400, 0.3), (1, 1, 401, 0.4), (2, 0, 410, 0.6), (2, 1, 410.5, 0.8), (3, 1, 500, 0.1)])
    got = estimate(found, GROUPS, "nadir", floor=1e-9, least=1, robust=False)
    weights = np.array([1 / 0.25, 1 / 1.0])
    mean = float(weights @ [1.0, 0.5] / weights.sum())
    assert got.offset[1] == pytest.approx(mean, abs=1e-9)
    stated = 1 / np.sqrt(weights.sum())
    clustered = np.sqrt(2 * ((weights * (np.array([1.0, 0.5]) - mean)) ** 2).sum()) / weights.sum()
    assert got.error[1] == pytest.approx(max(stated, clustered), rel=1e-9)
    assert got.cells.tolist() == [2, 2, 0, 0, 0]
    (pair,) = got.pairs
    assert (pair.first, pair.second, pair.cells, pair.blocks) == ("nadir", "glint", 2, 2)
    assert pair.difference == pytest.approx(-mean, abs=1e-9)


def test_known_offsets_come_back_within_their_errors() -> None:
    true = {0: 0.0, 1: 0.8, 2: -1.3}
    scores = []
    for seed in range(25):
        found, _ = made(true, seed=seed)
        got = estimate(found, GROUPS, "nadir", floor=1e-6)
        scores += [(got.offset[g] - true[g]) / got.error[g] for g in (1, 2)]
    assert np.abs(scores).max() < 4
    assert 0.6 < float(np.std(scores)) < 1.3


def test_chains_reach_the_reference_and_islands_are_named() -> None:
    rows = [(c, 0, 400.0 + c, 0.1) for c in range(10)] + [(c, 1, 401.0 + c, 0.1) for c in range(20)]
    rows += [(c, 2, 403.0 + c, 0.1) for c in range(10, 20)] + [(c, 3, 400.0, 0.1) for c in range(100, 120)]
    rows += [(0, 3, 999.0, 0.1)]  # one cell ties nobody
    got = estimate(cells(rows), GROUPS, "nadir")
    np.testing.assert_allclose(got.offset[:3], [0, 1, 3], atol=1e-9)
    assert np.isnan(got.offset[3])
    assert np.isnan(got.error[3])
    assert got.unconnected == ("lonely",)
    assert got.error[2] > got.error[1] > 0
    assert {(p.first, p.second) for p in got.pairs} >= {("nadir", "glint"), ("glint", "target"), ("nadir", "lonely")}
    assert "  lonely: not connected" in got.lines()
    assert not any("silent" in line for line in got.lines())
    told = json.loads(json.dumps(got.to_json(), allow_nan=False))
    assert told["unconnected"] == ["lonely"]
    assert told["groups"]["lonely"]["offset"] is None
    assert "silent" not in told["groups"]


def test_outliers_weigh_little() -> None:
    found, _ = made({0: 0.0, 1: 0.8}, meeting=1.0)
    mean = found.mean.copy()
    wrong = np.flatnonzero(found.group == 1)[::20]
    mean[wrong] += 15  # a twentieth of the cells: a plume, an undetected cloud
    spoilt = Cells(**{**vars(found), "mean": mean})
    plain = estimate(spoilt, GROUPS, "nadir", robust=False)
    robust = estimate(spoilt, GROUPS, "nadir")
    assert abs(plain.offset[1] - 0.8) > 0.5
    assert abs(robust.offset[1] - 0.8) < 0.12
    clean = estimate(found, GROUPS, "nadir")
    assert clean.offset[1] == pytest.approx(
        estimate(found, GROUPS, "nadir", robust=False).offset[1], abs=clean.error[1]
    )


def test_errors_common_to_a_block_are_seen() -> None:
    generator = np.random.default_rng(3)
    scores: dict[str, list[float]] = {"blocks": [], "cells": []}
    for _ in range(60):
        common = generator.standard_normal(30).repeat(20)
        rows = [(c, g, 400 + g * (0.5 + common[c]), 0.05) for c in range(600) for g in (0, 1)]
        for name, blocks in (("blocks", [c // 20 for c, *_ in rows]), ("cells", [c for c, *_ in rows])):
            got = estimate(cells(rows, blocks), GROUPS, "nadir", robust=False)
            scores[name].append((got.offset[1] - 0.5) / got.error[1])
    assert 0.7 < float(np.std(scores["blocks"])) < 1.4
    assert float(np.std(scores["cells"])) > 2.5  # too sure, if cells of a block are taken for independent


def test_unknown_errors_weigh_as_the_median_of_their_group() -> None:
    rows = [(1, 0, 400, 0.3), (1, 1, 401, 0.5), (2, 0, 400, np.nan), (2, 1, 402, np.nan)]
    rows += [(3, 0, 400, 0.3), (3, 1, 400, 0.5)]
    told = [(c, g, m, (0.3, 0.5)[g]) for c, g, m, _ in rows]
    options: dict[str, Any] = {"floor": 0.1, "least": 1, "robust": False}
    got, same = (estimate(cells(r), GROUPS, "nadir", **options).offset[1] for r in (rows, told))
    assert got == same == pytest.approx(1.0)


def found_offsets() -> Offsets:
    rows = [(c, g, 400.0 + g, 0.1) for c in range(10) for g in (0, 1)] + [(50, 2, 400.0, 0.1)]
    return estimate(cells(rows), GROUPS, "nadir")


def test_offsets_are_subtracted_on_request() -> None:
    got = found_offsets()
    values, group = np.array([400.0, 401.0, 411.0]), np.array([0, 1, 1])
    np.testing.assert_allclose(got.subtract(values, group), [400.0, 400.0, 410.0], atol=1e-9)
    with pytest.raises(InputRefused, match="nothing ties target to nadir: too few cells"):
        got.subtract(values, np.array([0, 1, 2]))
    left = got.subtract(values, np.array([0, 1, 2]), leave_unconnected=True)
    np.testing.assert_allclose(left, [400.0, 400.0, 411.0], atol=1e-9)


def test_offsets_within_parts() -> None:
    found, _ = made({0: 0.0, 1: 0.4, 2: 1.5, 3: 1.1})
    got = estimate(found, GROUPS, "nadir")
    counts = got.soundings.copy()
    counts[:4] = [10, 20, 30, 5]
    apart = replace(got, soundings=counts).apart([("nadir", "glint"), ("target", "lonely", "silent")])
    np.testing.assert_array_equal(apart.offset[[1, 2]], 0)
    assert apart.offset[0] == -got.offset[1]
    assert apart.offset[3] == got.offset[3] - got.offset[2]
    assert list(apart.told()) == ["nadir", "glint", "target", "lonely"]
    values = np.array([400.0, 400.0, 400.0])
    moved = apart.subtract(values, np.array([0, 2, 4]), leave_unconnected=True)
    np.testing.assert_allclose(moved, [400 + got.offset[1], 400, 400], atol=1e-9)
    assert np.isnan(got.apart([("nadir",)]).offset[1:]).all()


def test_soundings_gather_to_the_same_cells_in_any_batches() -> None:
    generator = np.random.default_rng(8)
    n = 5000
    columns: dict[str, Any] = {
        "months": generator.integers(540, 543, n),
        "latitude": generator.uniform(-3, 3, n),
        "longitude": np.where(generator.random(n) < 0.1, 180.0, generator.uniform(-180, -177, n)),
        "group": generator.integers(0, 3, n),
        "values": 410 + generator.standard_normal(n),
    }
    whole, pieces = MeetingCells(1.0), MeetingCells(1.0)
    whole.add(**columns)
    for start in range(0, n, 617):
        pieces.add(**{name: column[start : start + 617] for name, column in columns.items()})
    one, other = whole.cells(), pieces.cells()
    for name in ("cell", "group", "count", "block"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_allclose(one.mean, other.mean, rtol=0, atol=1e-9)
    np.testing.assert_allclose(one.error, other.error, rtol=0, atol=1e-9)
    assert int(one.count.sum()) == n
    row, column = np.floor(90 - columns["latitude"]), np.floor(columns["longitude"] + 180) % 360
    cell = ((columns["months"] * 180 + row) * 360 + column).astype(np.int64)
    for at in range(0, one.cell.size, 5):
        own = columns["values"][(cell == one.cell[at]) & (columns["group"] == one.group[at])]
        assert one.count[at] == own.size
        assert one.mean[at] == pytest.approx(own.mean(), abs=1e-9)
        assert one.error[at] == pytest.approx(own.std(ddof=1) / np.sqrt(own.size), abs=1e-8)
    # 180 E is 180 W, and blocks are 10 degrees of a month
    assert set((one.cell % 360).tolist()) == {0, 1, 2}
    assert np.unique(one.block).size == 3 * 2


def test_one_sounding_has_no_error_of_its_own() -> None:
    gathered = MeetingCells()
    gathered.add(np.array([0]), np.array([90.0]), np.array([-180.0]), np.array([1]), np.array([400.0]))
    assert np.isnan(gathered.cells().error).all()
    gathered.add(*(np.empty(0, dtype=np.int64), np.empty(0), np.empty(0)), np.empty(0, dtype=np.int64), np.empty(0))
    assert gathered.cells().count.tolist() == [1]


def test_what_cannot_be_is_refused() -> None:
    rows: list[tuple[int, int, float, float]] = [(1, 0, 400, 0.1), (1, 1, 401, 0.1)]
    with pytest.raises(SettingsError, match="'zenith' is no group; there are nadir, glint"):
        estimate(cells(rows), GROUPS, "zenith")
    with pytest.raises(SettingsError, match="the reference silent has no sounding; choose another"):
        estimate(cells(rows), GROUPS, "silent")
    with pytest.raises(InputRefused, match="a mean is of group 1, and there are 1"):
        estimate(cells(rows), GROUPS[:1], "nadir")
    with pytest.raises(SettingsError, match="a floor of 0 ppm"):
        estimate(cells(rows), GROUPS, "nadir", floor=0)
    with pytest.raises(InputRefused, match="a group has two means in one cell"):
        cells([*rows, (1, 1, 402, 0.1)])
    with pytest.raises(InputRefused, match="a mean is missing, or an error is negative"):
        cells([(1, 0, np.nan, 0.1)])
    with pytest.raises(InputRefused, match=r"2 cells and mean of shape \(1,\)"):
        Cells(**{**vars(cells(rows)), "mean": np.array([400.0])})
    with pytest.raises(SettingsError, match=r"cells of 0\.7 degrees do not part 180 evenly"):
        MeetingCells(0.7)
    with pytest.raises(InputRefused, match="a sounding has no value"):
        MeetingCells().add(np.array([0]), np.array([0.0]), np.array([0.0]), np.array([0]), np.array([np.nan]))


def test_nobody_meets() -> None:
    got = estimate(cells([(1, 0, 400, 0.1), (2, 1, 401, 0.1)]), GROUPS, "nadir")
    assert got.unconnected == ("glint",)
    assert got.pairs == ()
    assert (got.offset[0], got.error[0]) == (0.0, 0.0)
    assert np.isnan(got.chi2)
