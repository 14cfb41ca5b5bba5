"""How the tests of ingest write the same rasters in every format, and read a recipe."""

import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import pytest
import rasterio
import zarr
from numpy.typing import NDArray
from rasterio.transform import from_origin
from scipy.io import netcdf_file

from services.core.grid import windows
from services.pipeline.recipe import Recipe
from services.sources import handles

SUFFIXES = {"netcdf3": ".nc", "netcdf4": ".nc", "zarr2": ".zarr", "zarr3": ".zarr", "geotiff": ".tif"}


@dataclass(frozen=True, kw_only=True)
class Raster:
    """A raster time series as a source may hold it."""

    values: NDArray[Any]
    longitudes: NDArray[Any]
    latitudes: NDArray[Any]
    times: NDArray[Any] | None = None
    time_attributes: Mapping[str, Any] = field(
        default_factory=lambda: {"units": "days since 2001-01-01", "calendar": "standard"}
    )
    bounds: NDArray[Any] | None = None
    attributes: Mapping[str, Any] = field(default_factory=lambda: {"units": "m"})
    """Of the variable."""

    name: str = "height"
    dimensions: tuple[str, ...] = ("time", "lat", "lon")
    """Order of the axes of ``values``."""

    lon_attributes: Mapping[str, Any] = field(default_factory=lambda: {"units": "degrees_east"})
    lat_attributes: Mapping[str, Any] = field(default_factory=lambda: {"units": "degrees_north"})
    global_attributes: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, tuple[tuple[str, ...], NDArray[Any], Mapping[str, Any]]] = field(default_factory=dict)
    """Further variables: dimensions, values, attributes."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """For the writer."""

    def variables(self) -> dict[str, tuple[tuple[str, ...], NDArray[Any], Mapping[str, Any]]]:
        """All variables."""
        found: dict[str, tuple[tuple[str, ...], NDArray[Any], Mapping[str, Any]]] = {
            "lon": (("lon",), self.longitudes, self.lon_attributes),
            "lat": (("lat",), self.latitudes, self.lat_attributes),
        }
        if self.times is not None:
            found["time"] = (("time",), self.times, self.time_attributes)
        if self.bounds is not None:
            found["time_bnds"] = (("time", "bnds"), self.bounds, {})
        return {**found, **self.more, self.name: (self.dimensions, self.values, self.attributes)}


def write_netcdf3(path: Path, raster: Raster) -> None:
    with netcdf_file(path, "w", version=raster.options.get("version", 1)) as file:
        record = raster.options.get("record")
        for name, size in _sizes(raster).items():
            file.createDimension(name, None if name == record else size)
        for name, (dimensions, values, attributes) in raster.variables().items():
            narrow = values.astype("int32") if values.dtype == np.int64 else values  # the format has no longer ones
            stored = narrow.astype(narrow.dtype.newbyteorder(">"))
            variable = file.createVariable(name, stored.dtype, dimensions)
            variable[:] = stored
            for key, value in attributes.items():
                setattr(variable, key, value)
        for key, value in raster.global_attributes.items():
            setattr(file, key, value)


def write_netcdf4(path: Path, raster: Raster) -> None:
    with h5netcdf.File(path, "w") as file:
        file.dimensions = _sizes(raster)
        for name, (dimensions, values, attributes) in raster.variables().items():
            options = raster.options if name == raster.name else {}
            fill = attributes.get("_FillValue")
            variable = file.create_variable(name, dimensions, values.dtype, fillvalue=fill, **options)
            variable[...] = values
            for key, value in attributes.items():
                if key != "_FillValue":
                    variable.attrs[key] = value
        for key, value in raster.global_attributes.items():
            file.attrs[key] = value


def write_zarr(path: Path, raster: Raster, zarr_format: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)  # type: ignore[arg-type]
    for name, (dimensions, values, attributes) in raster.variables().items():
        options = dict(raster.options) if name == raster.name else {}
        plain = {key: _plain(value) for key, value in attributes.items() if key != "_FillValue"}
        if "_FillValue" in attributes:
            options["fill_value"] = attributes["_FillValue"]
        elif zarr_format == 2:
            options["fill_value"] = None
        if zarr_format == 3:
            options["dimension_names"] = dimensions
            if "_FillValue" in attributes:
                plain["_FillValue"] = _plain(attributes["_FillValue"])
        else:
            plain["_ARRAY_DIMENSIONS"] = list(dimensions)
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, **options)
        array[...] = values
        array.attrs.update(plain)
    group.attrs.update({key: _plain(value) for key, value in raster.global_attributes.items()})


def write_geotiff(path: Path, raster: Raster) -> None:
    order = [raster.dimensions.index(name) for name in ("time", "lat", "lon")]
    values = raster.values.transpose(order)
    step_x, step_y = np.diff(raster.longitudes)[0], np.diff(raster.latitudes)[0]
    options = {"crs": "EPSG:4326", "photometric": "minisblack", "alpha": "unspecified", **raster.options}
    labels, scales, offsets = options.pop("labels", ()), options.pop("scales", None), options.pop("offsets", None)
    mask, tags = options.pop("mask", None), options.pop("tags", {})
    if "transform" not in options:
        options["transform"] = from_origin(
            raster.longitudes[0] - step_x / 2, raster.latitudes[0] - step_y / 2, step_x, -step_y
        )
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=values.shape[1],
        width=values.shape[2],
        count=values.shape[0],
        dtype=values.dtype.name,
        nodata=raster.attributes.get("_FillValue"),
        **options,
    ) as dataset:
        dataset.write(values)
        for number, label in enumerate(labels):
            dataset.set_band_description(number + 1, label)
        if scales is not None:
            dataset.scales = scales
            dataset.offsets = offsets or (0.0,) * len(scales)
        if raster.attributes.get("units"):
            dataset.units = (raster.attributes["units"],) * values.shape[0]
        if mask is not None:
            dataset.write_mask(mask)
        dataset.update_tags(**tags)


def read_whole(recipe: Recipe) -> NDArray[Any]:
    recipe = pickle.loads(pickle.dumps(recipe))  # noqa: S301 - our own
    axis, grid = recipe.periods(), recipe.product.grid
    quantity = recipe.product.quantities[0]
    out = np.empty((len(axis), *grid.shape), dtype=quantity.dtype)
    size = (-(-grid.height * 3 // 5), -(-grid.width * 3 // 7))
    for window in windows(grid.shape, size):
        for first in range(0, len(axis), 50):
            places = range(first, min(first + 50, len(axis)))
            values = recipe.compute(axis.take(places), window)[quantity.name]
            assert values.dtype == out.dtype
            out[first : places.stop, window.rows, window.columns] = values
    return out


@pytest.fixture
def whole() -> Callable[[Recipe], NDArray[Any]]:
    """All stored values, window by window, some periods at a time, by a recipe that was pickled as for a worker."""
    return read_whole


@pytest.fixture
def raster() -> type[Raster]:
    """What ``write`` writes."""
    return Raster


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a raster in a format; gives the path."""

    def to_file(kind: str, written: Raster, name: str = "file") -> str:
        path = tmp_path / f"{name}{SUFFIXES[kind]}"
        if kind.startswith("zarr"):
            write_zarr(path, written, int(kind[-1]))
        else:
            {"netcdf3": write_netcdf3, "netcdf4": write_netcdf4, "geotiff": write_geotiff}[kind](path, written)
        return str(path)

    return to_file


@pytest.fixture(autouse=True)
def _closed_files() -> Iterator[None]:
    """Let no test leave a file open for the next."""
    yield
    handles.close_all()


def _sizes(raster: Raster) -> dict[str, int]:
    sizes: dict[str, int] = {} if raster.times is None else {"time": raster.times.size}  # a record dimension is first
    for dimensions, values, _ in raster.variables().values():
        sizes.update(zip(dimensions, values.shape, strict=True))
    return sizes


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
