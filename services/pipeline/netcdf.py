"""A period of a version as a NetCDF-4 file, as data centres hand them out: stored values, packing and CF attributes."""

import importlib.metadata
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np

from services.core import layout, stac
from services.core.dataset import Dataset
from services.core.errors import InputRefused
from services.core.grid import Window
from services.core.quantity import Quantity
from services.pipeline.zarr import coordinate_values, global_attributes

_PACKED = {"compression": "gzip", "compression_opts": 4, "shuffle": True}


def file_name(dataset: Dataset, position: int) -> str:
    """``COLLECTION_PERIOD.nc``."""
    return f"{dataset.product.id}_{dataset.time.ids[position]}.nc"


def write_netcdf(dataset: Dataset, position: int, directory: Path) -> Path:
    """Write one period of all quantities, rows from north to south; a row of chunks at a time is in memory.

    Values are those that are stored: whole numbers with ``scale_factor`` and ``add_offset`` where the quantity is
    packed, ``_FillValue`` where there is none. A file of the name is replaced when the new one is whole.

    Args:
        dataset: the version.
        position: place of the period in its time axis.
        directory: made if it is not there.

    Raises:
        InputRefused: if the file cannot be written.
    """
    target = directory / file_name(dataset, position)
    part = directory / f".{target.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            with h5netcdf.File(part, "w") as file:
                _write(file, dataset, position)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputRefused(f"{target} cannot be written: {error.strerror or error}") from None
    return target


def _write(file: Any, dataset: Dataset, position: int) -> None:
    product, grid = dataset.product, dataset.product.grid
    made_by = f"cenote {importlib.metadata.version('cenote')} netcdf {product.id} --version {dataset.version.id}"
    attributes = {
        **global_attributes(product),
        "collection": product.id,
        "version": dataset.version.id,
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {made_by}",
    }
    file.attrs.update(attributes)
    file.dimensions.update({"time": 1, "bnds": 2, "y": grid.height, "x": grid.width})
    for name, (values, dimensions, attributes) in coordinate_values(grid, dataset.time.take([position])).items():
        file.create_variable(name, dimensions, values.dtype, data=values).attrs.update(attributes)
    for quantity in product.quantities:
        _write_quantity(file, dataset, quantity, position)


def _write_quantity(file: Any, dataset: Dataset, quantity: Quantity, position: int) -> None:
    grid = dataset.product.grid
    (_, height, width), _ = layout.map_chunks(dataset.product, grid)
    variable = file.create_variable(
        quantity.name,
        ("time", "y", "x"),
        np.dtype(quantity.dtype),
        chunks=(1, min(height, grid.height), min(width, grid.width)),
        fillvalue=quantity.fill,
        **_PACKED,
    )
    attributes = layout.cf_attributes(quantity)
    beside = stac.ancillary_names(dataset.product, quantity)
    if beside:
        attributes["ancillary_variables"] = " ".join(beside)
    variable.attrs.update(attributes)
    for row in range(0, grid.height, height):
        window = Window(row=row, column=0, height=min(height, grid.height - row), width=grid.width)
        variable[0, row : row + window.height, :] = dataset.read_map(quantity, position, 0, window)
