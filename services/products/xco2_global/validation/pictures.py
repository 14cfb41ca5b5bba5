"""Pictures of a report: drawn with matplotlib on a canvas without a screen."""

import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Window
from services.products.xco2_global.declaration import UNCERTAINTY, XCO2, global_grid
from services.products.xco2_global.validation.points import Values
from services.products.xco2_global.validation.published import Published
from services.products.xco2_global.validation.scores import LEVELS
from services.products.xco2_global.validation.stations import AtStations
from services.validation import agreement
from services.validation.report import NotComputed, Rows

DPI = 150
BLUE, ORANGE, GREY, GREEN = "#1f5fa8", "#d1701c", "#8a8a8a", "#2f7d4f"
LAND, SEA = "#dcdcd6", "#f4f6f8"

SERIES = 4
"""Stations whose series are drawn: from the least to the largest RMSE."""

DOT_POINTS = 9
"""Width of the dot of a station."""

LABEL_POINTS = (5, 14, 26, 40, 56)
"""How far from it its name is tried."""

LEAST_MONTHS = 6
"""Months that a drawn series has."""

REACH = 1.96
"""Standard deviations of a 95 % interval."""


def draw_map(path: Path, published: Published, at: AtStations | None, rows: Rows) -> None:
    """The bias at each station."""
    known = [row for row in rows if row["months"]]
    if at is None or not known:
        raise NotComputed("there is no station with a published month")
    figure, axes = _figure((9.5, 5.0), published)
    axes.set_facecolor(SEA)
    land = _land(published)
    if land is not None:
        axes.contourf(*land, levels=[0.5, 1.5], colors=[LAND])
    bias = np.array([row["bias"] for row in known])
    limit = max(float(np.ceil(np.abs(bias).max() * 5) / 5), 0.2)
    places = [row["longitude"] for row in known], [row["latitude"] for row in known]
    points = axes.scatter(
        *places, c=bias, s=70, cmap="RdBu_r", vmin=-limit, vmax=limit, edgecolors="black", linewidths=0.7, zorder=3
    )
    figure.colorbar(points, ax=axes, label="published less TCCON, ppm", shrink=0.8)
    grid = published.dataset.product.grid
    axes.set_xlim(float(grid.west), float(grid.east))
    axes.set_ylim(float(grid.south), float(grid.north))
    axes.set_aspect("equal")
    axes.set_xlabel("longitude, °E")
    axes.set_ylabel("latitude, °N")
    axes.set_title(_labelled(published, "Bias of monthly XCO2 at TCCON's stations"), fontsize=11)
    name_places(axes, list(zip(*places, strict=True)), [row["site"] for row in known])
    _save(figure, path)


def name_places(axes: Axes, places: Sequence[tuple[float, float]], names: Sequence[str]) -> list[Annotation]:
    """Write names beside places where they cover neither each other nor a place, with a line to those farther off.

    Args:
        axes: with its limits and all else that moves it.
        places: in its coordinates.
        names: one for each.
    """
    figure = cast("Figure", axes.get_figure(root=True))
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]  # that of a canvas of Agg
    half = DOT_POINTS / 2 * figure.dpi / 72
    taken = [Bbox([(x - half, y - half), (x + half, y + half)]) for x, y in axes.transData.transform(places)]
    sides = ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
    written = []
    for place, name in zip(places, names, strict=True):
        tried: list[Annotation] = []
        for far, (right, up) in itertools.product(LABEL_POINTS, sides):
            label = axes.annotate(
                name,
                place,
                (far * right, far * up),
                textcoords="offset points",
                fontsize=7,
                ha=("right", "center", "left")[right + 1],
                va=("top", "center", "bottom")[up + 1],
                arrowprops=None if far == LABEL_POINTS[0] else {"arrowstyle": "-", "linewidth": 0.4, "color": GREY},
            )
            label.set_in_layout(False)  # or the axes would move, and places towards each other
            tried.append(label)
            label.update_positions(renderer)
            box = Text.get_window_extent(label)
            is_inside = (
                axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1 and axes.bbox.y0 < box.y0 and box.y1 < axes.bbox.y1
            )
            if is_inside and not any(box.overlaps(other) for other in taken):
                tried[0], tried[-1] = tried[-1], tried[0]
                break
        # the first that is free, else the nearest
        written.append(tried[0])
        taken.append(Text.get_window_extent(tried[0]))
        for other in tried[1:]:
            other.remove()
    return written


def draw_scatter(path: Path, published: Published, at: AtStations | None) -> None:
    """Months of all stations, as they are and less trend and season."""
    if at is None:
        raise NotComputed("there is no station with a published month")
    figure = Figure(figsize=(9.6, 4.9), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    _scatter(panels[0], at.reference, at.cell, "XCO2", at.inferred)
    try:
        left = agreement.detrended(at.cell, at.reference, at.years, at.names)
        _scatter(panels[1], left.reference, left.values, "less trend and season of TCCON", at.inferred[left.used])
    except InputRefused as reason:
        panels[1].text(0.5, 0.5, str(reason), ha="center", va="center", wrap=True, transform=panels[1].transAxes)
        panels[1].set_axis_off()
    panels[0].legend(loc="lower right", fontsize=8, framealpha=0.9)
    figure.suptitle(_labelled(published, f"Monthly XCO2 at {len(np.unique(at.station))} stations"), fontsize=11)
    _version(figure, published)
    _save(figure, path)


def draw_series(path: Path, published: Published, at: AtStations | None, rows: Rows) -> None:
    """Published months with their 95 % interval, and TCCON's, at SERIES stations."""
    able = [number for number, row in enumerate(rows) if row["months"] >= LEAST_MONTHS]
    if at is None or not able:
        raise NotComputed(f"no station has {LEAST_MONTHS} published months")
    able.sort(key=lambda number: rows[number]["rmse"])
    places = np.unique(np.linspace(0, len(able) - 1, min(SERIES, len(able))).round().astype(int))
    chosen = [able[place] for place in places.tolist()]
    figure = Figure(figsize=(9, 0.8 + 1.9 * len(chosen)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(chosen), 1, sharex=True, squeeze=False)[:, 0]
    for axes, number in zip(panels, chosen, strict=True):
        own = at.station == number
        years, values, sigma = _published_at(published, rows[number])
        axes.fill_between(years, values - sigma, values + sigma, color=BLUE, alpha=0.16, linewidth=0, label="95 %")
        axes.plot(years, values, color=BLUE, linewidth=1.3, label="published")
        axes.errorbar(
            1970 + at.years[own],
            at.reference[own],
            yerr=np.nan_to_num(at.error[own]),
            color="black",
            linestyle="none",
            marker=".",
            markersize=5,
            elinewidth=0.7,
            label="TCCON, standard error of the month's mean",
        )
        row = rows[number]
        axes.set_title(
            f"{row['site']}, {row['place']}, {row['latitude']:.1f}°N {row['longitude']:.1f}°E: "
            f"bias {row['bias']:+.2f}, RMSE {row['rmse']:.2f} ppm",
            fontsize=9,
            loc="left",
        )
        axes.set_ylabel("ppm")
        axes.grid(visible=True, axis="y", linewidth=0.4, color="#cccccc")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.suptitle(_labelled(published, "XCO2 at stations from the least to the largest RMSE"), fontsize=11)
    _save(figure, path)


def draw_coverage(path: Path, published: Published, parts: Mapping[str, Any]) -> None:
    """How many references lie within intervals of the stated uncertainty, against how many should."""
    lines: list[tuple[str, Mapping[str, float], str]] = []
    for (name, told), colour in zip(parts["stations"].get("coverage", {}).items(), (GREY, BLUE, GREEN), strict=False):
        if "not_computed" not in told:
            lines.append((f"TCCON's months, {name.replace('_', ' ')}", told["share_within"], colour))
    kinds = parts["truth"].get("kinds", {})
    for name, colour in (("without_soundings", ORANGE), ("with_soundings", "#7a2048")):
        told = kinds.get(name, {"not_computed": ""})
        if "not_computed" not in told:
            lines.append((f"true cells {name.replace('_', ' ')} (synthetic)", told["share_within"], colour))
    if not lines:
        raise NotComputed("there is nothing that the intervals could hold")
    figure, axes = _figure((5.8, 5.8), published)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    for label, shares, colour in lines:
        axes.plot(LEVELS, [shares[f"{level:g}"] for level in LEVELS], color=colour, marker="o", label=label)
    axes.set_xlim(0.4, 1.0)
    axes.set_ylim(min(0.4, *(min(shares.values()) for _, shares, _ in lines)), 1.0)
    axes.set_xlabel("interval of the stated uncertainty")
    axes.set_ylabel("share within")
    axes.grid(visible=True, linewidth=0.4, color="#cccccc")
    axes.legend(loc="upper left", fontsize=8)
    axes.set_title(_labelled(published, "Coverage of the uncertainty"), fontsize=11)
    _save(figure, path)


def draw_attention(path: Path, published: Published, parts: Mapping[str, Any]) -> None:
    """Share of each of the twelve months in the network's answers, by what ``attention.csv`` holds."""
    part = parts["attention"]
    if "not_computed" in part:
        raise NotComputed(str(part["not_computed"]))
    shares = np.array(part["mean_share_of_months_before"])
    figure, axes = _figure((6.4, 3.6), published)
    axes.bar(np.arange(len(shares)), shares, color=BLUE)
    axes.axhline(1 / len(shares), color=GREY, linewidth=1, linestyle="--", label="evenly")
    axes.set_xticks(np.arange(len(shares)))
    axes.set_xlabel("months before the month that is told")
    axes.set_ylabel("mean share")
    axes.legend(fontsize=8)
    axes.set_title(_labelled(published, f"Attention of the network, {part['cells']} cells"), fontsize=11)
    _save(figure, path)


def _published_at(published: Published, row: Mapping[str, Any]) -> tuple[Values, Values, Values]:
    """Years, values and half the 95 % interval of all published months in a station's cell; NaN where one lacks."""
    dataset = published.dataset
    y, x = dataset.product.grid.locate(row["longitude"], row["latitude"])
    window = Window(row=y, column=x, height=1, width=1)
    starts = np.array(dataset.time.starts)
    whole = np.full((2, starts[-1] - starts[0] + 1), np.nan)
    for line, quantity in zip(whole, (XCO2, UNCERTAINTY), strict=True):
        line[starts - starts[0]] = published.series(quantity, window)[:, 0, 0]
    years = 1970 + (np.arange(starts[0], starts[-1] + 1) + 0.5) / 12
    return years, whole[0], REACH * whole[1]


def _scatter(axes: Axes, known: Values, values: Values, title: str, inferred: NDArray[np.bool_]) -> None:
    every = np.concatenate([known, values])
    margin = 0.05 * max(float(np.ptp(every)), 0.1)
    span = (float(every.min()) - margin, float(every.max()) + margin)
    axes.plot(span, span, color=GREY, linewidth=1, zorder=1)
    for some, colour, label in (
        (~inferred, BLUE, "soundings in the cell"),
        (inferred, ORANGE, "none in the cell"),
    ):
        axes.scatter(known[some], values[some], s=9, color=colour, alpha=0.6, linewidths=0, label=label)
    found = agreement.agreement(values, known)
    axes.set_xlim(*span)
    axes.set_ylim(*span)
    axes.set_aspect("equal")
    axes.set_xlabel("TCCON, ppm")
    axes.set_ylabel("published, ppm")
    axes.set_title(
        f"{title}\nN {found.n}, R² {found.r2:.3f}, RMSE {found.rmse:.2f}, bias {found.bias:+.2f} ppm",
        fontsize=9,
        loc="left",
    )


def _land(published: Published) -> tuple[Values, Values, Values] | None:
    """Longitudes, latitudes and the share of land at 1 degree; None where no file tells it."""
    if published.land is None:
        return None
    grid = global_grid(Fraction(1))
    whole = Window(row=0, column=0, height=grid.height, width=grid.width)
    share = np.nan_to_num(published.land.read(None, grid, whole).astype(np.float64))
    return grid.longitudes, grid.latitudes, share


def _figure(size: tuple[float, float], published: Published) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Axes = figure.subplots()
    _version(figure, published)
    return figure, axes


def _version(figure: Figure, published: Published) -> None:
    figure.supxlabel(f"version {published.dataset.version.id}", x=0.99, ha="right", fontsize=6, color=GREY)


def _labelled(published: Published, text: str) -> str:
    return f"{text} (synthetic)" if published.synthetic else text


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI)
