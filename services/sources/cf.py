"""CF conventions: from named arrays with attributes (NetCDF, Zarr) to a description."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import CIRCLE, Grid
from services.sources import clock
from services.sources.lonlat import HALF_TURN, Axis, Layout, exact_axis, placed
from services.sources.packing import Packing, representable
from services.sources.raster import Access, Attributes, Description, Role

type CoordinateRole = Literal["latitude", "longitude", "time", "projected", "rotated"]

_EAST = frozenset({"degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese"})
_NORTH = frozenset({"degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn"})
_DEGREES = frozenset({"degrees", "degree", "deg", ""})
_LATITUDE_NAMES = frozenset({"lat", "latitude", "lats", "nav_lat"})
_LONGITUDE_NAMES = frozenset({"lon", "longitude", "lons", "long", "nav_lon"})
_LENGTHS = frozenset({"m", "metre", "meter", "metres", "meters", "km", "kilometre", "kilometer", "kilometers"})

_PROVENANCE = ("institution", "source", "references", "comment", "license", "acknowledgment", "acknowledgement", "doi")
_CONSUMED = frozenset(
    {
        "units", "long_name", "standard_name", "cell_methods", "scale_factor", "add_offset", "missing_value",
        "valid_min", "valid_max", "valid_range", "coordinates", "grid_mapping", "ancillary_variables", "bounds",
        "cell_measures", "actual_range", "min", "max", "proj4", "name", "dtype", "esri_pe_string", "fmissing_value",
        "vmin", "vmax", "origname", "fullnamepath",
    }
)  # fmt: skip
_LONGEST = 1000
"""Characters of an attribute that is passed on."""

_FLOAT_DEFAULT_FILL = 9.9692099683868690e36
"""What NetCDF writes where nobody wrote: missing by convention where no other value is declared."""


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A named array."""

    name: str
    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """In the machine's byte order; kind ``O`` for what is no number."""

    read: Callable[[tuple[slice | int, ...]], NDArray[Any]] = field(repr=False)
    attributes: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A text attribute, stripped; empty where there is none."""
        value = self.attributes.get(name)
        return value.strip() if isinstance(value, str) else ""

    def values(self) -> NDArray[Any]:
        """All values, decoded where they are packed: for coordinates."""
        values = self.read((slice(None),) * len(self.shape))
        scale, offset = self.attributes.get("scale_factor"), self.attributes.get("add_offset")
        if scale is None and offset is None:
            return values
        return values.astype(np.float64) * float(1.0 if scale is None else scale) + float(
            0.0 if offset is None else offset
        )


@dataclass(frozen=True, kw_only=True)
class Container:
    """A NetCDF file or Zarr group."""

    name: str
    """For messages."""

    variables: Mapping[str, Variable]
    attributes: Mapping[str, Any]
    groups: tuple[str, ...] = ()
    zarr_format: int | None = None

    def along(self, dimension: str) -> list[Variable]:
        """The coordinates of a dimension: the variable of its name first."""
        found = [v for v in self.variables.values() if v.dimensions == (dimension,) and v.dtype.kind in "iuf"]
        return sorted(found, key=lambda v: v.name != dimension)


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    variable: Variable
    latitude: Variable
    longitude: Variable
    time_dimension: str | None


def normal_attribute(value: Any) -> Any:
    """An attribute as text, number, or list of them."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace").rstrip("\x00")
    if isinstance(value, np.ndarray):
        if value.ndim == 0 or value.size == 1:
            return normal_attribute(value.reshape(-1)[0])
        return [normal_attribute(item) for item in value.reshape(-1)]
    if isinstance(value, (list, tuple)):
        return normal_attribute(value[0]) if len(value) == 1 else [normal_attribute(item) for item in value]
    return value


def coordinate_role(variable: Variable) -> CoordinateRole | None:  # noqa: PLR0911 - one rule after the other
    """What a coordinate variable says it is; its unit counts first, then its standard name, then its name."""
    units, standard, name = variable.text("units"), variable.text("standard_name"), variable.name.lower()
    lower = units.lower()
    if lower in _EAST:
        return "longitude"
    if lower in _NORTH:
        return "latitude"
    if clock.is_time_unit(units):
        return "time"
    if standard in {"grid_longitude", "grid_latitude"}:
        return "rotated"
    if lower in _LENGTHS and (
        standard.startswith("projection_") or name in {"x", "y", "xc", "yc", "easting", "northing"}
    ):
        return "projected"
    if standard == "longitude" or (name in _LONGITUDE_NAMES and lower in _DEGREES):
        return "longitude"
    if standard == "latitude" or (name in _LATITUDE_NAMES and lower in _DEGREES):
        return "latitude"
    return None


def describe(container: Container, wanted: str | None) -> Description:
    """Find the raster and everything that is said about it.

    Args:
        container: the file.
        wanted: name of the variable; None: the only one.

    Raises:
        InputRefused: if there is none, more than one, or what it says cannot be used.
    """
    chosen = _choose(container, wanted)
    variable = chosen.variable
    longitudes = _axis(container, chosen.longitude, CIRCLE)
    grid, layout = located(container, chosen.longitude, chosen.latitude)
    roles = tuple(_role(chosen, dimension) for dimension in variable.dimensions)
    slices = 1 if chosen.time_dimension is None else variable.shape[variable.dimensions.index(chosen.time_dimension)]
    times, bounds, facts = _times(container, chosen, slices)
    extra = [d for d, n in zip(variable.dimensions, variable.shape, strict=True) if _role(chosen, d) == "1"]
    if extra:
        facts.append(f"{', '.join(extra)}: of one element, left out")
    packing = packing_of(variable, classic=container.zarr_format is None)
    return Description(
        access=Access(variable=variable.name, roles=roles),
        grid=grid,
        layout=layout,
        slices=slices,
        packings=(packing,),
        times=times,
        bounds=bounds,
        units=variable.text("units") or None,
        long_name=variable.text("long_name") or None,
        standard_name=variable.text("standard_name") or None,
        cell_methods=variable.text("cell_methods") or None,
        title=_text(container.attributes.get("title")),
        attributes=_further(variable.attributes),
        global_attributes={name: value for name in _PROVENANCE if (value := _text(container.attributes.get(name)))},
        facts=tuple(facts),
        first_longitude=float(longitudes.first),
        last_longitude=float(longitudes.last),
        parts=tuple(v.name for v in _used(container, chosen)) if container.zarr_format is not None else (),
    )


def located(container: Container, longitude: Variable, latitude: Variable) -> tuple[Grid, Layout]:
    """The grid that two coordinates mean, and how the file lies on it.

    Raises:
        InputRefused: if they are uneven or no degrees.
    """
    return placed(container.name, _axis(container, longitude, CIRCLE), _axis(container, latitude, HALF_TURN))


def packing_of(variable: Variable, *, classic: bool) -> Packing:
    """Fill values, valid range and scale of a variable.

    Args:
        variable: the variable.
        classic: whether NetCDF's default fill stands for missing in a float that declares nothing.
    """
    attributes = variable.attributes
    unsigned = str(attributes.get("_Unsigned", "")).lower() == "true"
    plain = Packing(dtype=variable.dtype.name, unsigned=unsigned)
    missing: list[float | int] = []
    declared = False
    for name in ("_FillValue", "missing_value"):
        value = attributes.get(name)
        for item in value if isinstance(value, list) else [] if value is None else [value]:
            declared = True
            number = _same_bits(item, plain.raw)
            if number is not None and number not in missing:
                missing.append(number)
    if not declared and classic and plain.raw.kind == "f":
        default = representable(_FLOAT_DEFAULT_FILL, plain.raw)
        missing += [] if default is None else [default]
    scale, offset = _number(attributes.get("scale_factor")), _number(attributes.get("add_offset"))
    if (scale, offset) in {(1.0, 0.0), (1.0, None), (None, 0.0)}:
        scale = offset = None
    low, high = _valid_range(attributes, plain.raw, scale, offset)
    return Packing(
        dtype=variable.dtype.name,
        unsigned=unsigned,
        missing=tuple(missing),
        scale_factor=scale,
        add_offset=offset,
        valid_minimum=low,
        valid_maximum=high,
    )


def decoded(variable: Variable) -> NDArray[np.float64]:
    """All values of a small variable as float64, NaN where missing: of series and profiles, which are no rasters."""
    packing = packing_of(variable, classic=True)
    return packing.decode(packing.read(variable.read((slice(None),) * len(variable.shape))))


def _choose(container: Container, wanted: str | None) -> _Candidate:
    found: dict[str, _Candidate] = {}
    reasons: dict[str, str] = {}
    for variable in container.variables.values():
        if variable.dtype.kind not in "iufb" or len(variable.dimensions) < 2:
            continue
        if is_bounds(container, variable) or coordinate_role(variable) in {"latitude", "longitude"}:
            continue
        candidate = _candidate(container, variable)
        if isinstance(candidate, str):
            reasons[variable.name] = candidate
        else:
            found[variable.name] = candidate
    if wanted is not None:
        if wanted in found:
            return found[wanted]
        if wanted in reasons:
            raise InputRefused(f"{container.name}: {wanted} {reasons[wanted]}")
        names = ", ".join(found) or "none"
        raise InputRefused(f"{container.name} has no raster variable {wanted!r}; it has {names} (--variable)")
    series = {name: c for name, c in found.items() if c.time_dimension is not None}
    usable = series or found
    if len(usable) == 1:
        return next(iter(usable.values()))
    if usable:
        raise InputRefused(
            f"{container.name} has {len(usable)} raster variables; choose one with --variable: {', '.join(usable)}"
        )
    if reasons:
        name, reason = next(iter(reasons.items()))
        raise InputRefused(f"{container.name}: {name} {reason}")
    if container.groups:
        raise InputRefused(
            f"{container.name} has no raster at its top level, only groups: {', '.join(container.groups[:20])}"
        )
    raise InputRefused(f"{container.name} has no variable along latitude and longitude")


def _candidate(container: Container, variable: Variable) -> _Candidate | str:
    roles: dict[CoordinateRole, tuple[str, Variable]] = {}
    for dimension in variable.dimensions:
        for coordinate in container.along(dimension):
            role = coordinate_role(coordinate)
            if role is not None and role not in roles:
                roles[role] = (dimension, coordinate)
                break
    for role, fact in (("rotated", "a rotated pole"), ("projected", "a map projection")):
        if role in roles:
            return f"lies on {fact}, not on longitudes and latitudes; make it so first: gdalwarp -t_srs EPSG:4326"
    mapping = container.variables.get(variable.text("grid_mapping").partition(":")[0])
    told = "" if mapping is None else mapping.text("grid_mapping_name")
    if told not in {"", "latitude_longitude"}:
        return f"lies on a map projection ({told}); make it longitudes and latitudes first: gdalwarp -t_srs EPSG:4326"
    if "latitude" not in roles or "longitude" not in roles:
        return _why_not(container, variable, roles)
    used = {roles["latitude"][0], roles["longitude"][0]}
    rest = [d for d in variable.dimensions if d not in used]
    long = [d for d in rest if variable.shape[variable.dimensions.index(d)] != 1]
    time = roles["time"][0] if "time" in roles else long[0] if len(long) == 1 else None
    other = [d for d in long if d != time]
    if other:
        sizes = ", ".join(f"{d} ({variable.shape[variable.dimensions.index(d)]})" for d in other)
        return (
            f"has more than time, latitude and longitude: {sizes}; take one slice of it first, for example with ncks -d"
        )
    if 0 in variable.shape:
        return "is empty"
    return _Candidate(
        variable=variable, latitude=roles["latitude"][1], longitude=roles["longitude"][1], time_dimension=time
    )


def _why_not(container: Container, variable: Variable, roles: Mapping[CoordinateRole, Any]) -> str:
    flat = [
        other
        for other in container.variables.values()
        if len(other.dimensions) == 2
        and coordinate_role(other) in {"latitude", "longitude"}
        and set(other.dimensions) <= set(variable.dimensions)
    ]
    if flat:
        return (
            f"lies on a curvilinear grid ({' and '.join(sorted(v.name for v in flat))} have two dimensions); "
            "regrid it to even longitudes and latitudes first, for example with `cdo remapcon`"
        )
    lacking = " and ".join(role for role in ("latitude", "longitude") if role not in roles)
    return f"has no coordinate of {lacking} (dimensions {', '.join(variable.dimensions)}); nothing says where it lies"


def is_bounds(container: Container, variable: Variable) -> bool:
    """Whether a variable holds the bounds of a coordinate."""
    names = {other.text(key) for other in container.variables.values() for key in ("bounds", "climatology")}
    return variable.name in names


def _axis(container: Container, coordinate: Variable, whole: Fraction) -> Axis:
    label = "longitude" if whole == CIRCLE else "latitude"
    return exact_axis(container.name, label, coordinate.values(), None, whole)


def _role(chosen: _Candidate, dimension: str) -> Role:
    if dimension == chosen.latitude.dimensions[0]:
        return "y"
    if dimension == chosen.longitude.dimensions[0]:
        return "x"
    return "t" if dimension == chosen.time_dimension else "1"


def _times(
    container: Container, chosen: _Candidate, slices: int
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None, list[str]]:
    coordinate = _time_coordinate(container, chosen)
    if coordinate is None:
        return None, None, []
    units = coordinate.text("units")
    reference = clock.parse_reference(
        f"{container.name}: {coordinate.name}", units, coordinate.text("calendar") or None
    )
    times = clock.decode(f"{container.name}: {coordinate.name}", coordinate.values(), reference).reshape(-1)
    if times.size != slices:
        raise InputRefused(f"{container.name}: {coordinate.name} has {times.size} times for {slices} maps")
    bounds_name = coordinate.text("bounds")
    edges = container.variables.get(bounds_name)
    if edges is None or edges.shape[-1:] != (2,) or int(np.prod(edges.shape)) != 2 * slices:
        return times, None, []
    # bounds take units and calendar of their coordinate unless they say their own
    own = edges.text("units") or units
    edge_reference = clock.parse_reference(
        f"{container.name}: {bounds_name}", own, edges.text("calendar") or coordinate.text("calendar") or None
    )
    values = edges.values().reshape(-1, 2)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return times, None, [f"{bounds_name}: holds missing values, not used"]
    return times, clock.decode(f"{container.name}: {bounds_name}", values, edge_reference), []


def _used(container: Container, chosen: _Candidate) -> list[Variable]:
    time = _time_coordinate(container, chosen)
    bounds = None if time is None else container.variables.get(time.text("bounds"))
    return [v for v in (chosen.variable, chosen.latitude, chosen.longitude, time, bounds) if v is not None]


def _time_coordinate(container: Container, chosen: _Candidate) -> Variable | None:
    if chosen.time_dimension is not None:
        for coordinate in container.along(chosen.time_dimension):
            if coordinate_role(coordinate) == "time":
                return coordinate
        return None
    named = chosen.variable.text("coordinates").split()
    scalars = [
        v
        for v in container.variables.values()
        if int(np.prod(v.shape)) == 1 and v.dtype.kind in "iuf" and coordinate_role(v) == "time"
    ]
    scalars.sort(key=lambda v: (v.text("standard_name") != "time", v.name != "time", v.name not in named))
    return scalars[0] if scalars else None


def _valid_range(
    attributes: Mapping[str, Any], raw: np.dtype[Any], scale: float | None, offset: float | None
) -> tuple[float | int | None, float | int | None]:
    low, high = attributes.get("valid_min"), attributes.get("valid_max")
    both = attributes.get("valid_range")
    if isinstance(both, list) and len(both) == 2:
        low, high = both
    ends: list[float | int | None] = []
    for end in (low, high):
        number = _number(end)
        if number is None:
            ends.append(None)
        elif raw.kind in "iu" and (scale is not None or offset is not None) and isinstance(end, (float, np.floating)):
            # NUG: a range wider in type than the stored values is one of unpacked values
            ends.append((number - (offset or 0.0)) / (1.0 if scale is None else scale))
        elif raw.kind in "iu":
            ends.append(_same_bits(end, raw))
        else:
            ends.append(float(raw.type(number)))
    if ends[0] is not None and ends[1] is not None and ends[0] > ends[1]:
        ends.reverse()  # a negative scale factor turns it round
    return ends[0], ends[1]


def _same_bits(value: Any, raw: np.dtype[Any]) -> float | int | None:
    number = representable(value, raw)
    if number is None and raw.kind == "u" and isinstance(value, (np.signedinteger, int)) and int(value) < 0:
        # _Unsigned: attributes are signed as the stored type is, and mean the same bits
        return representable(int(value) + 2 ** (8 * raw.itemsize), raw)
    return number


def _number(value: Any) -> float | None:
    if isinstance(value, (list, str)) or value is None:
        return None
    number = float(value)
    return number if np.isfinite(number) else None


def _text(value: Any) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return None
    return " ".join(value.split())[:_LONGEST]


def _further(attributes: Mapping[str, Any]) -> Attributes:
    kept: dict[str, str | float | int] = {}
    for name, value in attributes.items():
        if name.startswith("_") or name.lower() in _CONSUMED or name.isupper():
            continue
        if isinstance(value, str) and value.strip():
            kept[name] = value[:_LONGEST]
        elif isinstance(value, (int, np.integer)) and not isinstance(value, bool):
            kept[name] = int(value)
        elif isinstance(value, (float, np.floating)) and np.isfinite(value):
            kept[name] = float(value)
    return kept


def ordered(values: NDArray[Any], roles: tuple[Role, ...]) -> NDArray[Any]:
    """Values as read, without the dimensions of role ``1``, to ``(time, y, x)`` in the machine's byte order."""
    axes = [role for role in roles if role != "1"]
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    if "t" not in axes:
        native, axes = native[np.newaxis], ["t", *axes]
    return native.transpose(axes.index("t"), axes.index("y"), axes.index("x"))


def key(roles: tuple[Role, ...], slices: slice, rows: slice, columns: slice) -> tuple[slice | int, ...]:
    """The index that reads a box of an array."""
    parts: dict[Role, slice | int] = {"t": slices, "y": rows, "x": columns, "1": 0}
    return tuple(parts[role] for role in roles)
