"""From values to bytes: a picture in the quantity's own colours unless the request says otherwise, or the values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rio_tiler.colormap import apply_cmap
from rio_tiler.models import ImageData
from rio_tiler.types import ColorMapType
from rio_tiler.utils import CRS_to_uri
from rio_tiler.utils import render as encode
from starlette.responses import Response
from titiler.core.algorithm.base import BaseAlgorithm
from titiler.core.resources.enums import ImageType
from titiler.core.utils import render_image

from services.core.errors import QueryError
from tiler.drawing import Drawn
from tiler.encode import webp
from tiler.memory import need
from tiler.options import PictureParams, named_colormap

ALGORITHM_BYTES = 96
"""Memory for a pixel while an algorithm works on it (measured)."""

VALUES = frozenset({ImageType.npy, ImageType.tif, ImageType.tiff})
"""Formats that carry values as they are."""


def image_response(image: ImageData, style: Drawn, wanted: PictureParams) -> Response:
    """The answer that carries an image, with its box and reference system.

    Args:
        image: decoded values, masked where missing.
        style: colours and range where the request names none.
        wanted: what the request says of it.

    Raises:
        QueryError: if the algorithm cannot work on these values.
    """
    content, media_type = picture(image, style, wanted)
    headers = {"Content-Crs": f"<{CRS_to_uri(image.crs)}>"}
    if image.bounds is not None:
        headers["Content-Bbox"] = ",".join(str(edge) for edge in image.bounds)
    return Response(content, media_type=media_type, headers=headers)


def picture(image: ImageData, style: Drawn, wanted: PictureParams) -> tuple[bytes, str]:
    """An encoded image and its media type; PNG if no format is named.

    An algorithm's result is drawn as it comes, in its own range. Arguments and errors are those of ``image_response``.
    """
    image_format, algorithm, render = wanted.format or ImageType.png, wanted.algorithm, wanted.render
    ranges, colormap = render.ranges, render.colormap
    if algorithm is not None:
        need(ALGORITHM_BYTES * image.width * image.height)
        image = _processed(image, algorithm)
    if colormap is not None and image.count != 1:
        raise QueryError(
            f"colormap_name and colormap colour one band, and the algorithm makes {image.count}: leave one out"
        )
    if image_format in VALUES and ranges is None and colormap is None:
        return _values(image, image_format, add_mask=bool(render.return_mask))
    if image.array.dtype != np.uint8:
        if ranges is None:
            ranges = _own_range(algorithm) or [(style.minimum, style.maximum)]
        if colormap is None and image.count == 1 and algorithm is None:
            colormap = named_colormap(style.colormap_name)
    return _drawn(image, ranges, colormap, image_format, add_mask=render.return_mask is not False)


def _processed(image: ImageData, algorithm: BaseAlgorithm) -> ImageData:
    lost = 2 * getattr(algorithm, "buffer", 0)
    if min(image.width, image.height) <= lost:
        raise QueryError(
            f"the image has {image.width} x {image.height} pixels, and the algorithm needs {lost + 1} x {lost + 1} at "
            "least, as it looks at neighbours: ask for a larger area"
        )
    try:
        with np.errstate(all="ignore"):
            return algorithm(image)
    except (ValueError, TypeError, IndexError, ZeroDivisionError, OverflowError) as error:
        raise QueryError(f"the algorithm cannot be applied to these values: {error}") from None


def _own_range(algorithm: BaseAlgorithm | None) -> list[tuple[float, float]] | None:
    if algorithm is None or not algorithm.output_min or not algorithm.output_max:
        return None
    return [(float(low), float(high)) for low, high in zip(algorithm.output_min, algorithm.output_max, strict=True)]


def _drawn(
    image: ImageData,
    ranges: Sequence[tuple[float, float]] | None,
    colormap: ColorMapType | None,
    image_format: ImageType,
    *,
    add_mask: bool,
) -> tuple[bytes, str]:
    if image_format == ImageType.webp:
        return _webp(image, ranges, colormap, add_mask=add_mask), image_format.mediatype
    content, media_type = render_image(
        image, output_format=image_format, rescale=ranges, colormap=colormap, add_mask=add_mask
    )
    return content, media_type


def _webp(
    image: ImageData,
    ranges: Sequence[tuple[float, float]] | None,
    colormap: ColorMapType | None,
    *,
    add_mask: bool,
) -> bytes:
    """Without loss, which titiler's is not: a colour stands for a value."""
    if ranges:
        image.rescale(ranges)
    data, alpha = image.data, image.mask
    if colormap:
        data, opacity = apply_cmap(data, colormap)
        alpha = np.where(alpha == 0, 0, opacity)
    bands = [*(data if len(data) > 1 else np.repeat(data, 3, axis=0)), *([alpha] if add_mask else [])]
    return webp(np.stack(bands, axis=-1).astype(np.uint8))


def _values(image: ImageData, image_format: ImageType, *, add_mask: bool) -> tuple[bytes, str]:
    """The values, NaN where missing; with ``add_mask`` a further band that is 255 where valid and 0 where not."""
    data = image.data
    if data.dtype.kind == "f":
        data = np.where(image.array.mask, np.nan, data).astype(data.dtype)
    if add_mask:
        valid = ~np.logical_or.reduce(image.array.mask)
        data = np.concatenate([data, np.where(valid, 255, 0)[np.newaxis].astype(data.dtype)])
    if image_format == ImageType.npy:
        return encode(data, img_format="NPY"), image_format.mediatype
    options: dict[str, Any] = {"transform": image.transform, "crs": image.crs}
    if data.dtype.kind == "f":
        options["nodata"] = np.nan
    content = encode(data, img_format="GTiff", **options)
    return content, image_format.mediatype
