"""How well detected hotspots are the known emitters: one-to-one within a distance."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from services.core.errors import InputRefused

type Places = NDArray[np.floating[Any]]
"""Longitudes and latitudes in degrees, ``(n, 2)``."""

WITHIN = 1.0
"""Degrees of arc between a centroid and its emitter."""

_FAR = 1e6


@dataclass(frozen=True, kw_only=True)
class Score:
    """Of detections against emitters."""

    emitters: int
    detections: int
    hits: int
    recall: float
    """Hits over emitters."""

    false_share: float
    """Detections that are no hit over all detections; 0 where nothing is detected."""

    chosen: int
    """Emitters among those of which recall is told apart."""

    chosen_hits: int
    decoys: int
    """Places that emit nothing, though somebody says so."""

    false_at_decoys: int
    """Decoys with a detection that hits no emitter."""

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def arcs(ones: Places, others: Places) -> NDArray[np.float64]:
    """Great-circle distances on the sphere, degrees, ``(one, other)``; by the haversine, exact for small ones."""
    x, y = np.radians(ones).T[:, :, np.newaxis]
    u, v = np.radians(others).T[:, np.newaxis, :]
    half = np.sin((v - y) / 2) ** 2 + np.cos(y) * np.cos(v) * np.sin((u - x) / 2) ** 2
    distance: NDArray[np.float64] = np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1))))
    return distance


def matched(detections: Places, emitters: Places, within: float = WITHIN) -> list[tuple[int, int]]:
    """Pairs (detection, emitter) no farther apart than ``within`` degrees, each of either at most once.

    As many pairs as there can be, and among such the least sum of distances (Hungarian method, scipy).
    """
    if not len(detections) or not len(emitters):
        return []
    distance = arcs(detections, emitters)
    # beyond reach costs more than any number of pairs within: the count comes first
    cost = np.where(distance <= within, distance, _FAR)
    rows, columns = linear_sum_assignment(cost)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if distance[i, j] <= within]


def score(
    detections: Places,
    emitters: Places,
    *,
    chosen: NDArray[np.bool_] | None = None,
    decoys: Places | None = None,
    within: float = WITHIN,
) -> Score:
    """Hits, misses and false alarms.

    Args:
        detections: centroids.
        emitters: all that count as true.
        chosen: which emitters to tell apart, ``(emitter,)``; such as those that an inventory lacks.
        decoys: places that an inventory has in vain.
        within: degrees of arc.

    Raises:
        InputRefused: if there is no emitter.
    """
    if not len(emitters):
        raise InputRefused("hotspots are scored against emitters, and there is none")
    apart = np.zeros(len(emitters), dtype=np.bool_) if chosen is None else chosen
    pairs = matched(detections, emitters, within)
    hit = {emitter for _, emitter in pairs}
    left = np.delete(np.asarray(detections, dtype=np.float64).reshape(-1, 2), [one for one, _ in pairs], axis=0)
    vain = np.empty((0, 2)) if decoys is None else decoys
    alarms = int((arcs(left, vain) <= within).any(axis=0).sum()) if len(left) and len(vain) else 0
    return Score(
        emitters=len(emitters),
        detections=len(detections),
        hits=len(pairs),
        recall=len(pairs) / len(emitters),
        false_share=(len(detections) - len(pairs)) / len(detections) if len(detections) else 0.0,
        chosen=int(apart.sum()),
        chosen_hits=int(sum(bool(apart[emitter]) for emitter in hit)),
        decoys=len(vain),
        false_at_decoys=alarms,
    )
