"""Smooth noise on the sphere that every machine makes alike: value noise over an integer lattice, summed in octaves.

It is sampled at points of the unit sphere, so it has no seam at the antimeridian and no pinch at the poles, and its
lattice values come from an integer hash, so they do not depend on a random generator's version.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

type Field = NDArray[np.float32]


def sphere(longitudes: NDArray[np.float64], latitudes: NDArray[np.float64]) -> Field:
    """Points of the unit sphere, ``(3, y, x)``, for centres of columns and rows in degrees."""
    longitude, latitude = np.radians(longitudes)[None, :], np.radians(latitudes)[:, None]
    points = np.stack(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.broadcast_to(np.sin(latitude), (len(latitudes), len(longitudes))),
        ]
    )
    return points.astype(np.float32)


def noise(points: Field, *, seed: int, name: str, frequency: float, octaves: int) -> Field:
    """Noise with mean near 0 and standard deviation near 1.

    Args:
        points: of the unit sphere, ``(3, ...)``.
        seed: of the Earth.
        name: of the field; another name is another field.
        frequency: lattice cells per radius in the first octave; each further one doubles it and halves its height.
        octaves: how many are summed.

    Returns:
        The values, with the shape of one coordinate.
    """
    total = np.zeros(points.shape[1:], dtype=np.float32)
    power = 0.0
    for octave in range(octaves):
        height = 0.5**octave
        key = zlib.crc32(f"{seed}/{name}/{octave}".encode())
        total += np.float32(height) * _octave(points, np.float32(frequency * 2**octave), key)
        power += height**2
    return total / np.float32(_ONE_OCTAVE * np.sqrt(power))


def draws(count: int, *, seed: int, name: str) -> NDArray[np.float64]:
    """Independent draws of a standard normal distribution, ``(count,)``, the first ones alike for any count.

    By the transform of Box and Muller (1958) of two uniform draws.

    Args:
        count: how many.
        seed: of the Earth.
        name: another name gives others.
    """
    numbers = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1)
    radius, angle = (
        (_uniform(numbers ^ np.uint32(zlib.crc32(f"{seed}/{name}/{part}".encode()))).astype(np.float64) + 1) / 2
        for part in ("radius", "angle")
    )
    drawn: NDArray[np.float64] = np.sqrt(-2 * np.log(np.maximum(radius, 2.0**-32))) * np.cos(2 * np.pi * angle)
    return drawn


_ONE_OCTAVE = 0.4
"""Standard deviation of one octave over the sphere: uniform lattice values on -1..1, smoothed by the interpolation."""


def _octave(points: Field, frequency: np.float32, key: int) -> Field:
    scaled = points * frequency
    corner = np.floor(scaled)
    fraction = scaled - corner
    weight = fraction * fraction * fraction * (fraction * (fraction * 6 - 15) + 10)
    lattice = corner.astype(np.int32).astype(np.uint32)
    primes = np.array([0x8DA6B343, 0xD8163841, 0xCB1AB31F], dtype=np.uint32)
    low = [lattice[axis] * primes[axis] for axis in range(3)]
    total = np.zeros(points.shape[1:], dtype=np.float32)
    for number in range(8):
        high = (number & 1, number >> 1 & 1, number >> 2 & 1)
        mixed = np.full(points.shape[1:], key, dtype=np.uint32)
        share = np.ones(points.shape[1:], dtype=np.float32)
        for axis in range(3):
            mixed ^= low[axis] + primes[axis] if high[axis] else low[axis]
            share *= weight[axis] if high[axis] else 1 - weight[axis]
        total += share * _uniform(mixed)
    return total


def _uniform(mixed: NDArray[np.uint32]) -> Field:
    """Hash of lattice corners to -1..1 (the finaliser of MurmurHash3)."""
    mixed = mixed ^ (mixed >> np.uint32(16))
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    uniform: Field = mixed.astype(np.float32) * np.float32(2.0**-31) - np.float32(1.0)
    return uniform
