"""GRIB editions 1 and 2 on regular longitude/latitude grids, message by message (optional extra ``grib``)."""

import importlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

# eccodes brings libraries that end a process with a crash if pyproj is imported after it: the grid imports pyproj
from services.core.errors import InputRefused
from services.core.grid import CIRCLE
from services.sources.lonlat import HALF_TURN, exact_axis, placed
from services.sources.packing import Packing
from services.sources.raster import Access, Description

MAGIC = b"GRIB"
_END = b"7777"
_SECTION_7 = 7
_LARGE = 0x800000
"""Flag in the length of an edition-1 message that counts in units of 120 bytes (ECMWF's extension)."""

_IDENTITY = ("cfVarName", "typeOfLevel", "level", "number", "stepType")
_GEOMETRY = (
    "gridType",
    "Ni",
    "Nj",
    "latitudeOfFirstGridPointInDegrees",
    "longitudeOfFirstGridPointInDegrees",
    "latitudeOfLastGridPointInDegrees",
    "longitudeOfLastGridPointInDegrees",
    "iScansNegatively",
    "jScansPositively",
    "jPointsAreConsecutive",
    "alternativeRowScanning",
)
_PRECISION = {1: 0.5e-3, 2: 0.5e-6}
"""Degrees to which an edition writes coordinates, half a unit."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """Where a GRIB message is."""

    offset: int
    length: int


class Grib:
    """An open GRIB file; slices are numbers of messages."""

    def __init__(self, path: str, name: str) -> None:
        self._eccodes = _eccodes(name)
        self._name = name
        self._file = open(path, "rb")  # noqa: SIM115, PTH123 - closed by close()
        try:
            self._messages = list(messages(self._file, name))
        except BaseException:
            self._file.close()
            raise

    def read(self, access: Access, slices: slice, rows: slice, columns: slice) -> NDArray[Any]:
        """As ``Opened.read``."""
        maps: list[NDArray[np.float64]] = []
        for number in range(slices.start, slices.stop, slices.step or 1):
            with self._decoded(self._messages[number]) as handle:
                found = self._eccodes.codes_get(handle, "cfVarName")
                if found != access.variable:
                    raise InputRefused(f"{self._name}: message {number + 1} holds {found}, not {access.variable}")
                self._eccodes.codes_set(handle, "missingValue", 1e300)
                values = self._eccodes.codes_get_values(handle)
                geometry = [self._eccodes.codes_get(handle, key) for key in ("Nj", "Ni")]
                consecutive = self._eccodes.codes_get(handle, "jPointsAreConsecutive")
            if values.size != geometry[0] * geometry[1]:
                raise InputRefused(
                    f"{self._name}: message {number + 1} holds {values.size} values for {geometry} cells"
                )
            plane = values.reshape(geometry[::-1]).T if consecutive else values.reshape(geometry)
            maps.append(np.where(plane == 1e300, np.nan, plane)[rows, columns])
        return np.stack(maps)

    def close(self) -> None:
        """As ``Opened.close``."""
        self._file.close()

    @contextmanager
    def _decoded(self, message: Message) -> Iterator[int]:
        self._file.seek(message.offset)
        handle = self._eccodes.codes_new_from_message(self._file.read(message.length))
        try:
            yield handle
        finally:
            self._eccodes.codes_release(handle)

    def describe(self, wanted: str | None) -> Description:
        """Describe the file's fields, all of one kind."""
        fields: dict[tuple[Any, ...], list[int]] = {}
        names: dict[tuple[Any, ...], dict[str, Any]] = {}
        geometries: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        times: dict[int, int] = {}
        for number, message in enumerate(self._messages):
            with self._decoded(message) as handle:
                keys = self._keys(handle)
            identity = tuple(keys[key] for key in _IDENTITY)
            if wanted is not None and wanted not in {keys["cfVarName"], keys["shortName"]}:
                names.setdefault(identity, keys)
                continue
            geometry = tuple(keys[key] for key in _GEOMETRY)
            if geometries.setdefault(identity, geometry) != geometry:
                raise InputRefused(f"{self._name}: the grid changes at message {number + 1}")
            fields.setdefault(identity, []).append(number)
            names.setdefault(identity, keys)
            times[number] = self._time(number, keys)
        told = ", ".join(
            sorted({f"{k['cfVarName']} ({k['name']}, {k['typeOfLevel']} {k['level']})" for k in names.values()})
        )
        if not fields:
            raise InputRefused(f"{self._name} has no variable {wanted!r}; it has {told} (--variable)")
        if len(fields) > 1:
            if len({names[identity]["cfVarName"] for identity in fields}) > 1:
                raise InputRefused(
                    f"{self._name} has {len(fields)} kinds of fields; choose one with --variable: {told}"
                )
            raise InputRefused(
                f"{self._name} has more than one field per time ({told}); take one out first, with grib_copy -w"
            )
        identity, numbers = next(iter(fields.items()))
        return self._description(names[identity], numbers, np.asarray([times[n] for n in numbers], dtype=np.int64))

    def _description(self, keys: dict[str, Any], numbers: list[int], times: NDArray[np.int64]) -> Description:
        if keys["gridType"] != "regular_ll":
            raise InputRefused(
                f"{self._name}: its grid is {keys['gridType']}, not regular in longitude and latitude; "
                "regrid it first, for example with `cdo remapcon`"
            )
        if keys["alternativeRowScanning"]:
            raise InputRefused(f"{self._name}: its rows are scanned in alternating directions, which is not read")
        precision = _PRECISION[keys["edition"]]
        west, east = keys["longitudeOfFirstGridPointInDegrees"], keys["longitudeOfLastGridPointInDegrees"]
        if keys["iScansNegatively"]:
            east -= 360.0 if east > west else 0.0
        else:
            east += 360.0 if east < west else 0.0
        longitudes = exact_axis(self._name, "longitude", np.linspace(west, east, keys["Ni"]), precision, CIRCLE)
        north, south = keys["latitudeOfFirstGridPointInDegrees"], keys["latitudeOfLastGridPointInDegrees"]
        if (south > north) != bool(keys["jScansPositively"]):
            raise InputRefused(f"{self._name}: latitudes {north:g} to {south:g} contradict its scanning mode")
        latitudes = exact_axis(self._name, "latitude", np.linspace(north, south, keys["Nj"]), precision, HALF_TURN)
        grid, layout = placed(self._name, longitudes, latitudes)
        return Description(
            access=Access(variable=keys["cfVarName"]),
            grid=grid,
            layout=layout,
            slices=len(numbers),
            numbers=tuple(numbers),
            packings=(Packing(dtype="float64"),),
            times=times,
            units=keys["units"] if keys["units"] not in {"~", "unknown", ""} else None,
            long_name=keys["name"] if keys["name"] != "unknown" else None,
            standard_name=keys["cfName"] if keys["cfName"] != "unknown" else None,
            attributes={"GRIB_shortName": keys["shortName"], "GRIB_typeOfLevel": keys["typeOfLevel"]},
            facts=(f"GRIB fields: {keys['cfVarName']} at {keys['typeOfLevel']} {keys['level']}, {keys['stepType']}",),
            first_longitude=west,
            last_longitude=east,
        )

    def _keys(self, handle: int) -> dict[str, Any]:
        get = self._eccodes.codes_get
        found: dict[str, Any] = {}
        wanted = (
            *_IDENTITY,
            *_GEOMETRY,
            "edition",
            "shortName",
            "name",
            "cfName",
            "units",
            "validityDate",
            "validityTime",
        )
        for key in wanted:
            try:
                found[key] = get(handle, key)
            except self._eccodes.KeyValueNotFoundError:
                found[key] = 0
        return found

    def _time(self, number: int, keys: dict[str, Any]) -> int:
        date, clock = int(keys["validityDate"]), int(keys["validityTime"])
        text = f"{date // 10000:04d}-{date // 100 % 100:02d}-{date % 100:02d}T{clock // 100:02d}:{clock % 100:02d}"
        try:
            return int(np.datetime64(text, "us").astype(np.int64))
        except ValueError:
            raise InputRefused(f"{self._name}: message {number + 1} has no valid date ({date} {clock})") from None


def messages(file: Any, name: str) -> Iterator[Message]:
    """Find the messages of a file by their own lengths: eccodes skips what is broken without a word.

    Raises:
        InputRefused: if one is incomplete, or anything but zeros stands between, before or behind them.
    """
    size = file.seek(0, 2)
    offset, number = _past_zeros(file, 0, size), 0
    while offset < size:
        number += 1
        file.seek(offset)
        head = file.read(16)
        if head[:4] != MAGIC:
            raise InputRefused(f"{name} is broken: at byte {offset} a message begins with {head[:4]!r}, not with GRIB")
        if len(head) < 16:
            raise InputRefused(f"{name} is cut short: message {number} has {len(head)} bytes")
        length = _length(file, offset, head, name)
        if offset + length > size:
            raise InputRefused(f"{name} is cut short: message {number} needs {length} bytes, {size - offset} are there")
        file.seek(offset + length - 4)
        if file.read(4) != _END:
            raise InputRefused(f"{name} is broken: message {number} does not end with 7777")
        yield Message(offset=offset, length=length)
        offset = _past_zeros(file, offset + length, size)


def describe(path: str, name: str, wanted: str | None) -> Description:
    """Describe a GRIB file."""
    opened = Grib(path, name)
    try:
        return opened.describe(wanted)
    finally:
        opened.close()


def _length(file: Any, offset: int, head: bytes, name: str) -> int:
    edition = head[7]
    if edition == 2:
        length = int(struct.unpack(">Q", head[8:16])[0])
        _one_field(file, offset, length, name)
        return max(length, 20)
    if edition != 1:
        raise InputRefused(f"{name}: GRIB edition {edition} is not read")
    length = int.from_bytes(head[4:7], "big")
    if not length & _LARGE:
        return max(length, 12)
    # an ECMWF extension: the length counts 120s, and that of section 4 says by how much it is too long
    at = offset + 8
    first = _bytes(file, at, 8, name)
    at += int.from_bytes(first[:3], "big")
    for flag in (0x80, 0x40):  # a grid description and a bitmap, where section 1 says that they are there
        if first[7] & flag:
            at += int.from_bytes(_bytes(file, at, 3, name), "big")
    fourth = int.from_bytes(_bytes(file, at, 3, name), "big")
    return (length & (_LARGE - 1)) * 120 - fourth + 4 if fourth < 120 else max(length, 12)


def _bytes(file: Any, at: int, count: int, name: str) -> bytes:
    file.seek(at)
    found: bytes = file.read(count)
    if len(found) < count:
        raise InputRefused(f"{name} is cut short at byte {at + len(found)}")
    return found


def _one_field(file: Any, offset: int, length: int, name: str) -> None:
    at, end, fields = offset + 16, offset + length - 4, 0
    while at < end:
        file.seek(at)
        head = file.read(5)
        if len(head) < 5:
            return  # cut short, which the caller says
        step = int.from_bytes(head[:4], "big")
        if step < 5:
            raise InputRefused(f"{name} is broken: a section at byte {at} is {step} bytes long")
        fields += head[4] == _SECTION_7
        at += step
    if fields > 1:
        raise InputRefused(f"{name}: the message at byte {offset} holds {fields} fields; split it first with grib_copy")


def _past_zeros(file: Any, offset: int, size: int) -> int:
    # messages may be padded with zeros to a multiple of some length
    while offset < size:
        file.seek(offset)
        part = file.read(4096)
        rest = part.lstrip(b"\x00")
        offset += len(part) - len(rest)
        if rest or not part:
            break
    return offset


def _eccodes(name: str) -> ModuleType:
    try:
        return importlib.import_module("eccodes")
    except (ImportError, RuntimeError) as error:
        raise InputRefused(
            f"{name} is a GRIB file, and what reads them is not installed: pip install 'cenote[grib]' ({error})"
        ) from None
