"""How the errors of soundings of one overpass go together along track, and what that leaves in their mean.

Soundings of one overpass see the same air through the same aerosol, over like ground, so their retrieval errors are
alike and averaging a hundred of them does not make the error ten times smaller. Overpasses are days apart and count as
independent (our choice).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from services.core.errors import InputRefused, SettingsError
from services.sources.soundings import Soundings

type Floats = NDArray[np.floating[Any]]

EARTH_KM = 6371.0
"""Radius of the sphere that distances are taken on."""

GAP_MINUTES = 30
"""Soundings further apart in time are of two overpasses: less than half of any of the orbits, which take 93 to 99
minutes, and more than any target or area map lasts. Our choice."""

LENGTHS_KM = np.geomspace(1.0, 300.0, 241)
"""Correlation lengths that are tried."""

LEAST_PAIRS = 200
"""Pairs of soundings that a bin of distance needs. Our choice."""


@dataclass(frozen=True, kw_only=True)
class ErrorModel:
    """Error of a sounding: sigma^2 ((1 - correlated) [same sounding] + correlated exp(-d / length_km)) + floor^2.

    d is the distance between two soundings of one overpass in km. A first-order autoregression along track beside white
    noise, and a part that an overpass has in common in a cell. The form is our choice; share and length
    are what ``along_track_correlation`` finds in the real Lite soundings of Ohio within 4 ppm of their overpass' median
    (29 km, 0.40, and 1.07 ppm where their own uncertainty has a median of 0.58; pairs within 50 or 200 km: 18, 61 km).

    Raises:
        SettingsError: if a number cannot be.
    """

    length_km: float = 30.0
    """Over which correlated errors fall to 1/e."""

    correlated: float = 0.4
    """Share of a sounding's error variance that is correlated, 0 to 1."""

    floor: float = 0.2
    """ppm of an overpass' mean, however many soundings it has. Our choice."""

    sigma: float | None = None
    """ppm of every sounding; None: each sounding's own uncertainty."""

    def __post_init__(self) -> None:
        if not 0 < self.length_km < 20_000:
            raise SettingsError(f"errors cannot be correlated over {self.length_km} km")
        if not 0 <= self.correlated <= 1:
            raise SettingsError(f"the correlated share of an error's variance lies in 0..1, not at {self.correlated}")
        if not 0 <= self.floor < 50:
            raise SettingsError(f"the error of an overpass cannot have a floor of {self.floor} ppm")
        if self.sigma is not None and not 0.05 <= self.sigma <= 50:
            raise SettingsError(f"the error of a sounding lies in 0.05..50 ppm, not at {self.sigma}")

    def together(self, lengths: Floats, spread: Floats, squares: Floats) -> NDArray[np.float64]:
        """Variance of a weighted sum of soundings that lie in one stretch of an overpass, ppm^2, without the floor.

        With s the error of a sounding and w its weight, single soundings add up to sum w^2 s^2, and pairs of two
        different ones to rho ((sum w s)^2 - sum w^2 s^2), where rho is the mean correlation on a line of that length:
        2 (x - 1 + exp(-x)) / x^2 with x = length / length_km, the exponential integrated twice.

        Args:
            lengths: km, of the line along which the soundings lie evenly (our choice).
            spread: sum of w s, ppm.
            squares: sum of w^2 s^2, ppm^2.
        """
        found: NDArray[np.float64] = squares + self.correlated * mean_correlation(
            lengths / self.length_km
        ) * np.maximum(spread**2 - squares, 0.0)
        return found

    def apart(self, distance: Floats, lengths: tuple[Floats, Floats], spread: tuple[Floats, Floats]) -> Floats:
        """Covariance of weighted sums over two stretches of one overpass, ppm^2, without the floor.

        Two lines of lengths a and b, their middles d apart and one behind the other, have the mean correlation
        exp(-d / L) sinh(a / 2 L) / (a / 2 L) sinh(b / 2 L) / (b / 2 L); never more than 1, which lines that lie side by
        side would pass.

        Args:
            distance: of their middles, km.
            lengths: of both, km.
            spread: sum of w s of both, ppm.
        """
        grows = 0.0
        for length in lengths:
            half = np.minimum(length / (2 * self.length_km), 300.0)
            # the logarithm of sinh(h) / h, which is h^2 / 6 near 0
            large = np.maximum(half, 1e-2)
            grows = grows + np.where(half < 1e-2, half**2 / 6, np.log(np.sinh(large) / large))
        found: Floats = (
            self.correlated * np.exp(np.minimum(grows - distance / self.length_km, 0.0)) * spread[0] * spread[1]
        )
        return found


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """A structure function and what was fitted to it."""

    length_km: float
    """Of exp(-d / length)."""

    correlated: float
    """Share of the variance that is correlated, 0 to 1."""

    sigma: float
    """ppm: root of nugget + sill. True differences within the distances are part of it, and what a whole overpass has
    in common is not."""

    distances_km: NDArray[np.float64]
    """Mean distance of the pairs of each bin."""

    structure: NDArray[np.float64]
    """Half the mean squared difference of the pairs of each bin, ppm^2."""

    pairs: NDArray[np.int64]
    """Pairs of each bin."""


def mean_correlation(x: Floats) -> NDArray[np.float64]:
    """Mean of exp(-d) over two points drawn on a line of length x."""
    large = np.maximum(x, 1e-3)
    # the form below loses its digits near 0
    found: NDArray[np.float64] = np.where(x < 1e-3, 1 - x / 3, 2 * (large + np.expm1(-large)) / large**2)
    return found


def along_track_correlation(
    soundings: Soundings, *, farthest_km: float = 100.0, bins: int = 25, most_lag: int = 400
) -> Correlation:
    """Structure function of the soundings' XCO2 along their overpasses, with nugget + sill (1 - exp(-d / L)) fitted.

    Pairs are of soundings of one instrument no more than ``most_lag`` places apart in time and no more than
    ``farthest_km`` apart on the ground. For each length of LENGTHS_KM nugget and sill are least squares that cannot be
    negative, each bin weighted by the root of its pairs; the length with the least error is taken.

    Args:
        soundings: of any number of overpasses, in any order.
        farthest_km: longest distance of a pair. True XCO2 varies little within it.
        bins: of distance, equally wide.
        most_lag: places in time; grow it where soundings are denser than 4 to a km.

    Raises:
        InputRefused: if fewer than four bins have LEAST_PAIRS pairs.
    """
    order = np.lexsort((soundings.time, soundings.instrument))
    time, value = soundings.time[order], soundings.xco2[order]
    instrument = soundings.instrument[order]
    latitude, longitude = np.radians(soundings.latitude[order]), np.radians(soundings.longitude[order])
    new = (np.diff(time) > 60 * GAP_MINUTES) | (np.diff(instrument) != 0)
    overpass = np.concatenate([[0], np.cumsum(new)]) if len(time) else np.zeros(0, dtype=np.int64)
    count = np.zeros(bins, dtype=np.int64)
    far, squared = np.zeros(bins), np.zeros(bins)
    for lag in range(1, min(most_lag, len(time) - 1) + 1):
        same = np.flatnonzero(overpass[lag:] == overpass[:-lag])
        if not same.size:
            break  # no overpass has as many soundings
        other = same + lag
        distance = _haversine(latitude[same], longitude[same], latitude[other], longitude[other])
        near = distance < farthest_km
        place = (distance[near] * (bins / farthest_km)).astype(np.int64)
        count += np.bincount(place, minlength=bins)
        far += np.bincount(place, distance[near], minlength=bins)
        squared += np.bincount(place, (value[other] - value[same])[near] ** 2, minlength=bins)
    used = count >= LEAST_PAIRS
    if used.sum() < 4:
        raise InputRefused(
            f"{len(time)} soundings have pairs enough in {int(used.sum())} of {bins} bins of distance within "
            f"{farthest_km:g} km; a correlation along track needs four"
        )
    distances, structure, pairs = far[used] / count[used], squared[used] / count[used] / 2, count[used]
    weight = np.sqrt(pairs)
    fits = []
    for length in LENGTHS_KM:
        design = np.stack([np.ones(len(distances)), -np.expm1(-distances / length)], axis=1)
        terms, left = nnls(design * weight[:, None], structure * weight)
        fits.append((left, length, terms))
    _, length, (nugget, sill) = min(fits, key=lambda one: one[0])
    whole = nugget + sill
    return Correlation(
        length_km=float(length),
        correlated=float(sill / whole) if whole > 0 else 0.0,
        sigma=float(np.sqrt(whole)),
        distances_km=distances,
        structure=structure,
        pairs=pairs,
    )


def _haversine(latitude: Floats, longitude: Floats, other_latitude: Floats, other_longitude: Floats) -> Floats:
    """Great circle distance in km of places in radians."""
    half = (
        np.sin((other_latitude - latitude) / 2) ** 2
        + np.cos(latitude) * np.cos(other_latitude) * np.sin((other_longitude - longitude) / 2) ** 2
    )
    found: Floats = 2 * EARTH_KM * np.arcsin(np.sqrt(np.minimum(half, 1.0)))
    return found
