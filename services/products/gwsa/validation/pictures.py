"""Pictures of a report: drawn with matplotlib on a canvas without a screen."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from services.core.grid import Window
from services.products.gwsa.balance import LACKS
from services.products.gwsa.coarse import NO_LAND
from services.products.gwsa.declaration import GWSA
from services.products.gwsa.reach import Reach
from services.products.gwsa.validation.footprint import Parts
from services.products.gwsa.validation.published import Published, decoded
from services.products.gwsa.validation.wells import AtWells
from services.validation.report import NotComputed
from services.validation.sites import Scores

type Floats = NDArray[np.float64]

DPI = 150
WIDEST = 1500
"""Cells of a map along its longer side; where it has more, a coarser level is drawn."""

BLUE, ORANGE, GREY = "#1f5fa8", "#d1701c", "#8a8a8a"
LAND_WITHOUT = "#e9e9e6"
SERIES = 3
"""Wells whose series are drawn: of the least, the middle and the highest correlation."""


def draw_map(path: Path, published: Published, at: AtWells | None, rows: list[dict[str, Any]]) -> None:
    """GWSA in the last month that GRACE saw, and the wells, those that were used filled."""
    position = _last_seen(published)
    values, extent = _map(published, position)
    if not np.isfinite(values).any():
        raise NotComputed("the map has no value")
    figure, axes = _figure(_shape(extent), published)
    limit = _round_up(float(np.nanpercentile(np.abs(values), 99)))
    axes.set_facecolor(LAND_WITHOUT)
    image = axes.imshow(values, extent=extent, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="groundwater storage anomaly, cm of water", extend="both")
    if at is not None:
        used = np.array([row["left_out_loose"] == "" for row in rows])
        here = at.cells >= 0
        for some, face, label in ((here & ~used, "none", "wells left out"), (here & used, "#ffd34d", "wells used")):
            if some.any():
                _wells(axes, at, some, face, f"{label} ({int(some.sum())})")
        axes.legend(loc="upper left", framealpha=0.9, fontsize=8)
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])
    _degrees(axes)
    _title(axes, published, f"Groundwater storage anomaly, {published.dataset.time.ids[position]}")
    _save(figure, path)


def draw_scatter(path: Path, published: Published, found: dict[str, Scores]) -> None:
    """Trends of field and reference against those of wells."""
    if not found:
        raise NotComputed("no rules left enough wells to score")
    name = "strict" if "strict" in found else "loose"
    scores = found[name]
    figure, axes = _figure((5.6, 5.6), published)
    known, field, reference = scores.cells.well, scores.cells.field, scores.cells.reference
    every = np.concatenate([one for one in (known, field, reference) if one is not None])
    low, high = float(every.min()), float(every.max())
    margin = 0.06 * max(high - low, 0.1)
    span = (low - margin, high + margin)
    axes.plot(span, span, color=GREY, linewidth=1, zorder=1)
    axes.axhline(0, color=GREY, linewidth=0.5, zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.5, zorder=0)
    if reference is not None and scores.reference is not None:
        axes.scatter(
            known,
            reference,
            s=26,
            facecolors="none",
            edgecolors=ORANGE,
            linewidths=1.1,
            label=_match("conservative bilinear of 1/4°", scores.reference.trend_r2, scores.reference.trend_rmse),
        )
    axes.scatter(
        known, field, s=22, color=BLUE, label=_match("published", scores.field.trend_r2, scores.field.trend_rmse)
    )
    axes.set_xlim(*span)
    axes.set_ylim(*span)
    axes.set_aspect("equal")
    axes.set_xlabel("trend at wells, cm of water a year")
    axes.set_ylabel("trend of the field, cm of water a year")
    axes.legend(loc="upper left", fontsize=8, framealpha=0.9)
    _title(axes, published, f"Trends at {len(known)} cells with wells, {name} rules")
    _save(figure, path)


def draw_series(path: Path, published: Published, at: AtWells | None, rows: list[dict[str, Any]]) -> None:
    """Published series with its uncertainty, months that were filled, and the well, at SERIES wells."""
    if at is None:
        raise NotComputed("there are no wells in the version")
    correlation = np.array([row["correlation_field"] for row in rows], dtype=np.float64)
    used = np.array([row["left_out_loose"] == "" for row in rows])
    able = np.flatnonzero(used & ~np.isnan(correlation))
    if not able.size:
        raise NotComputed("no well was used")
    order = able[np.argsort(correlation[able])]
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(SERIES, len(order))).round().astype(int))][::-1]
    figure = Figure(figsize=(9, 0.8 + 2.1 * len(chosen)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(chosen), 1, sharex=True, squeeze=False)[:, 0]
    years = 1970 + (at.wells.months + 0.5) / 12
    for axes, site in zip(panels, chosen.tolist(), strict=True):
        field, sigma = at.field[:, site], at.uncertainty[:, site]
        both = np.isfinite(field) & np.isfinite(at.wells.storage[:, site])
        # a well has no datum of its own: it is drawn about the field's mean of the months that both have
        well = at.wells.storage[:, site] - at.wells.storage[both, site].mean() + field[both].mean()
        for number, month in enumerate(at.wells.months[at.filled]):
            left = 1970 + int(month) / 12
            axes.axvspan(left, left + 1 / 12, color="#dcdcdc", linewidth=0, label=None if number else "filled month")
        axes.fill_between(
            years, field - sigma, field + sigma, color=BLUE, alpha=0.18, linewidth=0, label="± 1 standard deviation"
        )
        axes.plot(years, field, color=BLUE, linewidth=1.4, label="published")
        axes.plot(years, at.reference[:, site], color=ORANGE, linewidth=1, linestyle="--", label="bilinear of 1/4°")
        axes.plot(years, well, color="black", linewidth=0, marker=".", markersize=4, label="well")
        axes.set_ylabel("cm of water")
        axes.margins(x=0.01)
        axes.grid(visible=True, axis="y", linewidth=0.4, color="#cccccc")
        axes.set_title(
            f"{at.wells.names[site]}, {_place(at, site)}: correlation {correlation[site]:.2f} "
            f"(bilinear {rows[site]['correlation_reference']:.2f})",
            fontsize=9,
            loc="left",
        )
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.suptitle(_labelled(published, "At the wells of highest, middle and lowest correlation"), fontsize=11)
    _save(figure, path)


def draw_weights(path: Path, published: Published) -> None:
    """What each region's detail weighs, on the coarse grid of the version."""
    facts = [origin["facts"].get("detail") for origin in published.dataset.version.provenance.values()]
    detail = facts[-1]
    if detail is None:
        raise NotComputed("the version was rendered without models")
    cells = published.cells
    labels = published.coarse.labels(Reach.of(cells))
    valid = np.isfinite(published.coarse.read(GWSA.name, published.coarse.months[0], Reach.of(cells)))
    names = published.coarse.regions
    weight = np.array([detail["regions"][name]["weight"] for name in names], dtype=np.float64)
    present = np.unique(labels[valid]).tolist()
    west, north = cells.column / 4 - 180, 90 - cells.row / 4
    extent = (west, west + cells.width / 4, north - cells.height / 4, north)
    figure, axes = _figure(_shape(extent), published)
    axes.set_facecolor(LAND_WITHOUT)
    steps = np.linspace(0, 1, 11)
    shades = ListedColormap([(0.93 - 0.80 * s, 0.95 - 0.58 * s, 0.97 - 0.35 * s) for s in (steps[:-1] + 0.05)])
    image = axes.imshow(
        np.where(valid, weight[labels], np.nan), extent=extent, cmap=shades, norm=BoundaryNorm(steps, 10)
    )
    figure.colorbar(image, ax=axes, label="weight of the model's detail, 0..1")
    axes.add_collection(LineCollection(_borders(labels, valid, west, north), colors="black", linewidths=1.0))
    centres = (west + (np.arange(cells.width) + 0.5) / 4, north - (np.arange(cells.height) + 0.5) / 4)
    for number in present:
        row, column = _inmost((labels == number) & valid)
        axes.annotate(
            f"{names[number]}\n{weight[number]:.2f}",
            (centres[0][column], centres[1][row]),
            ha="center",
            va="center",
            fontsize=8,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "alpha": 0.85, "edgecolor": "none"},
        )
    _degrees(axes)
    _title(axes, published, "What the regions' detail weighs")
    _save(figure, path)


def draw_footprint(path: Path, published: Published, parts: Parts | None) -> None:
    """What the climate explains of the trend, and what is left, with a dot where that is a loss that is sure."""
    if parts is None:
        raise NotComputed("there is no footprint")
    extent = _extent(parts.cells)
    west, north = extent[0], extent[3]
    every = np.abs(np.stack([parts.climate, parts.residual]))
    if not np.isfinite(every).any():
        raise NotComputed("no cell has a trend")
    limit = _round_up(float(np.nanpercentile(every, 99)))
    width, height = _shape(extent)
    figure = Figure(figsize=(1.7 * width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, values, name in (
        (panels[0], parts.climate, "explained by the climate"),
        (panels[1], parts.residual, "what is left"),
    ):
        axes.set_facecolor(LAND_WITHOUT)
        image = axes.imshow(values, extent=extent, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_title(name, fontsize=10)
        _degrees(axes)
    row, column = np.nonzero(parts.flag)
    label = f"a loss at the 5 % level ({len(row)} cells)"
    panels[1].scatter(west + (column + 0.5) / 4, north - (row + 0.5) / 4, s=5, color="black", label=label)
    panels[1].legend(loc="upper left", framealpha=0.9, fontsize=8)
    figure.colorbar(image, ax=panels, label="trend, cm of water a year", extend="both")
    figure.supxlabel(f"version {published.dataset.version.id}", x=0.99, ha="right", fontsize=6, color=GREY)
    figure.suptitle(_labelled(published, "Trend of groundwater storage in two parts, 1/4 degree"), fontsize=11)
    _save(figure, path)


def draw_land_models(path: Path, published: Published, apart: Floats | None) -> None:
    """How far the land surface models lie apart in each coarse cell."""
    if apart is None:
        raise NotComputed("there is one land surface model")
    extent = _extent(published.cells)
    figure, axes = _figure(_shape(extent), published)
    axes.set_facecolor(LAND_WITHOUT)
    image = axes.imshow(apart, extent=extent, cmap="viridis", vmin=0, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="root mean square difference of the water above ground water, cm")
    _degrees(axes)
    _title(axes, published, "How far land surface models lie apart")
    _save(figure, path)


def draw_cells(path: Path, published: Published, lacks: NDArray[np.uint8] | None) -> None:
    """Which coarse cells with land have no value, and why."""
    if lacks is None:
        raise NotComputed("no cell holds land")
    extent = _extent(published.cells)
    figure, axes = _figure(_shape(extent), published)
    shades = ("#ffffff", "#cfe0d2", BLUE, ORANGE, "#7a2048", "#ffd34d")
    shown = np.where(lacks == NO_LAND, 0, lacks.astype(np.int64) + 1)
    kinds = BoundaryNorm(np.arange(len(shades) + 1) - 0.5, len(shades))
    axes.imshow(shown, extent=extent, cmap=ListedColormap(shades), norm=kinds, interpolation="nearest")
    names = ("no land", "has a value", *LACKS[1:])
    for shade, name, number in zip(shades, names, range(len(shades)), strict=True):
        count = int((shown == number).sum())
        axes.scatter([], [], marker="s", color=shade, edgecolors="black", linewidths=0.5, label=f"{name} ({count})")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    _degrees(axes)
    _title(axes, published, "Cells of 1/4 degree without a value")
    _save(figure, path)


def _extent(cells: Window) -> tuple[float, float, float, float]:
    """West, east, south, north of coarse cells."""
    west, north = cells.column / 4 - 180, 90 - cells.row / 4
    return west, west + cells.width / 4, north - cells.height / 4, north


def _map(published: Published, position: int) -> tuple[Floats, tuple[float, float, float, float]]:
    """A month's map at the finest level of at most WIDEST cells, and west, east, south, north."""
    dataset = published.dataset
    grid = dataset.product.grid
    level = next((number for number in range(grid.levels) if max(grid.level(number).shape) <= WIDEST), grid.levels - 1)
    shown = grid.level(level)
    whole = Window(row=0, column=0, height=shown.height, width=shown.width)
    values = decoded(GWSA, dataset.read_map(GWSA, position, level, whole))
    return values, (float(shown.west), float(shown.east), float(shown.south), float(shown.north))


def _last_seen(published: Published) -> int:
    """The last published month that was not filled, else the last."""
    starts = published.dataset.time.starts
    seen = [number for number, month in enumerate(starts) if month in published.source.solution_months]
    return seen[-1] if seen else len(starts) - 1


def _wells(axes: Axes, at: AtWells, some: NDArray[np.bool_], face: str, label: str) -> None:
    axes.scatter(
        at.wells.longitudes[some],
        at.wells.latitudes[some],
        s=24,
        facecolors=face,
        edgecolors="black",
        linewidths=0.9,
        label=label,
        zorder=3,
    )


def _inmost(own: NDArray[np.bool_]) -> tuple[int, int]:
    """The cell of a region that is nearest to the mean of all."""
    rows, columns = np.nonzero(own)
    at = int(np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2))
    return int(rows[at]), int(columns[at])


def _borders(
    labels: NDArray[np.int16], valid: NDArray[np.bool_], west: float, north: float
) -> list[list[tuple[float, float]]]:
    """Edges of coarse cells where one region ends and another begins, as lines in degrees."""
    found = []
    across = (labels[:, 1:] != labels[:, :-1]) & valid[:, 1:] & valid[:, :-1]
    for row, column in np.argwhere(across).tolist():
        x, y = west + (column + 1) / 4, north - row / 4
        found.append([(x, y), (x, y - 0.25)])
    down = (labels[1:] != labels[:-1]) & valid[1:] & valid[:-1]
    for row, column in np.argwhere(down).tolist():
        x, y = west + column / 4, north - (row + 1) / 4
        found.append([(x, y), (x + 0.25, y)])
    return found


def _figure(size: tuple[float, float], published: Published) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Axes = figure.subplots()
    figure.supxlabel(f"version {published.dataset.version.id}", x=0.99, ha="right", fontsize=6, color=GREY)
    return figure, axes


def _shape(extent: tuple[float, float, float, float]) -> tuple[float, float]:
    """Inches of a map with its colour bar and title."""
    west, east, south, north = extent
    ratio = (north - south) / (east - west)
    return 7.5, float(np.clip(5.4 * ratio + 1.0, 3.2, 9.0))


def _degrees(axes: Axes) -> None:
    axes.set_xlabel("longitude, °E")
    axes.set_ylabel("latitude, °N")


def _labelled(published: Published, text: str) -> str:
    return f"{text} (synthetic)" if published.source.settings.synthetic else text


def _title(axes: Axes, published: Published, text: str) -> None:
    axes.set_title(_labelled(published, text), fontsize=11)


def _match(name: str, r2: float, rmse: float) -> str:
    return f"{name}: R² {r2:.2f}, RMSE {rmse:.2f}"


def _place(at: AtWells, site: int) -> str:
    return f"{at.wells.latitudes[site]:.2f}°N {at.wells.longitudes[site]:.2f}°E"


def _round_up(value: float) -> float:
    """To 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    scale = 10.0 ** np.floor(np.log10(value))
    return float(next(step * scale for step in (1, 2, 3, 5, 10) if step * scale >= value * (1 - 1e-9)))


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI)
