"""titiler's routes over published maps: the same addresses and parameters, other ground below them.

What differs from stock titiler, and why, is in the README of this folder.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from attrs import define
from fastapi import Body, Depends, Path, Query, Request
from pydantic import AfterValidator
from rasterio.crs import CRS
from shapely.geometry import mapping
from starlette.responses import Response
from titiler.core.algorithm.base import BaseAlgorithm
from titiler.core.factory import TilerFactory, img_endpoint_params
from titiler.core.resources.enums import ImageType
from titiler.core.resources.responses import GeoJSONResponse, JSONResponse

from tiler import ogc_tiles, wmts
from tiler.answer import describe
from tiler.body import check_json
from tiler.geometry import area_of_geojson
from tiler.legend import NARROWEST, WIDEST, Legend
from tiler.matrices import MatrixSetId, extent, matrix_set, zoom_of
from tiler.numbers import decoded_numbers
from tiler.ogc_tiles import data_query, data_url
from tiler.options import (
    OVERVIEW_SIZE,
    DrawParams,
    PictureParams,
    PreviewSizeParams,
    RenderParams,
    SizeParams,
    StatisticsParams,
    TileSize,
    chosen_algorithm,
    coord_crs,
    dst_crs,
)
from tiler.parameters import OPEN
from tiler.picture import image_response
from tiler.reader import MapReader, MapSource
from tiler.request import (
    CollectionId,
    Datetime,
    FromPath,
    Minus,
    Requested,
    Variable,
    describe_map,
    map_of,
    requested_map,
    served,
)
from tiler.state import state_of
from tiler.statistics import describe_sample, features_of, inside, whole_map
from tiler.tilejson import DEFAULT_TILE, subtitle
from tiler.tilejson import tilejson as tilejson_document
from tiler.viewer import viewer

type Document = Annotated[
    dict[str, Any],
    Body(description="GeoJSON Feature, FeatureCollection, Polygon or MultiPolygon in degrees."),
    AfterValidator(check_json),
]
type FromDrawing = Annotated[DrawParams, Depends(DrawParams)]
type FromPicture = Annotated[PictureParams, Depends(PictureParams)]
type FromRender = Annotated[RenderParams, Depends(RenderParams)]
type FromStatistics = Annotated[StatisticsParams, Depends(StatisticsParams)]
type FromSize = Annotated[SizeParams, Depends(SizeParams)]
type FromCoordCrs = Annotated[CRS, Depends(coord_crs)]
type FromDstCrs = Annotated[CRS | None, Depends(dst_crs)]
type Json = Annotated[Literal["json"] | None, Query(description="Encoding: json.")]


def map_source(request: Request, chosen: Annotated[Requested, Depends(requested_map)]) -> MapSource:
    """The map that a request names, whose answer's body is made of its values alone."""
    return MapSource(requested=chosen, settings=state_of(request).settings)


def document_source(
    request: Request,
    collection_id: CollectionId,
    variable: Variable = None,
    datetime: Datetime = None,
    minus: Minus = None,
) -> MapSource:
    """The map that a request names, for an answer whose body holds addresses."""
    chosen = map_of(request, served(request, collection_id), variable, datetime, minus)
    describe_map(request, chosen, names_version=True)
    return MapSource(requested=chosen, settings=state_of(request).settings)


type FromMap = Annotated[MapSource, Depends(map_source)]
type FromDocument = Annotated[MapSource, Depends(document_source)]


@define(kw_only=True)
class MapFactory(TilerFactory):
    """Routes of a map below a collection or one of its versions."""

    reader: type[MapReader] = MapReader
    path_dependency: Callable[..., MapSource] = map_source
    process_dependency: Callable[..., BaseAlgorithm | None] = chosen_algorithm

    def register_routes(self) -> None:
        """Register them; each method is one of titiler's, but for the last three."""
        self.info()  # type: ignore[no-untyped-call]  # titiler's own
        self.statistics()
        self.tilesets()
        self.tile()
        self.map_viewer()
        self.tilejson()
        self.point()
        self.preview()
        self.part()
        self.map_tiles()
        self.legend()
        self.capabilities()

    def statistics(self) -> None:
        """``/statistics``: of the whole map, or of the areas in the body."""

        @self.router.get(
            "/statistics", response_class=JSONResponse, operation_id=f"{self.operation_prefix}getStatistics"
        )
        def statistics(
            source: FromMap,
            options: FromStatistics,
            max_size: Annotated[
                int, Query(gt=0, description="Longest side, in cells, of the level that is read.")
            ] = OVERVIEW_SIZE,
        ) -> Response:
            """Statistics of the whole map, weighted by area."""
            sample = whole_map(source.requested, source.settings, max_size)
            return JSONResponse({"b1": describe_sample(sample, source.requested.quantity, options)})

        @self.router.post(
            "/statistics", response_class=GeoJSONResponse, operation_id=f"{self.operation_prefix}postStatistics"
        )
        def area_statistics(source: FromMap, document: Document, options: FromStatistics) -> Response:
            """Statistics of areas, weighted by area and by the share of each cell inside."""
            features = []
            for feature, area in features_of(document, source.settings.max_vertices):
                sample = inside(source.requested, area, source.settings)
                found = {"b1": describe_sample(sample, source.requested.quantity, options)}
                properties = {**(feature.get("properties") or {}), "statistics": found}
                features.append({**feature, "properties": properties})
            is_many = document.get("type") == "FeatureCollection"
            return GeoJSONResponse({"type": "FeatureCollection", "features": features} if is_many else features[0])

    def tilesets(self) -> None:
        """``/tiles`` and ``/tiles/{tileMatrixSetId}``."""
        self._tilesets("tiles", "TileSet")

    def _tilesets(self, prefix: str, name: str) -> None:
        @self.router.get(
            f"/{prefix}", response_class=JSONResponse, operation_id=f"{self.operation_prefix}get{name}List"
        )
        def tileset_list(request: Request, source: FromDocument, f: Json = None) -> Response:  # noqa: ARG001
            """The tilesets of the collection."""
            return JSONResponse(ogc_tiles.tileset_list(request, source.requested, prefix))

        @self.router.get(
            f"/{prefix}/{{tileMatrixSetId}}",
            response_class=JSONResponse,
            operation_id=f"{self.operation_prefix}get{name}",
        )
        def tileset(
            request: Request,
            source: FromDocument,
            tile_matrix_set_id: MatrixSetId,
            f: Json = None,  # noqa: ARG001
        ) -> Response:
            """One tileset of the collection."""
            tms = matrix_set(tile_matrix_set_id)
            return JSONResponse(ogc_tiles.tileset(request, source.requested, prefix, tms))

    def tile(self) -> None:
        """``/tiles/{tileMatrixSetId}/{z}/{x}/{y}[.{format}]``."""

        @self.router.get(
            "/tiles/{tileMatrixSetId}/{z}/{x}/{y}",
            operation_id=f"{self.operation_prefix}getTile",
            **img_endpoint_params,
        )
        @self.router.get(
            "/tiles/{tileMatrixSetId}/{z}/{x}/{y}.{format}",
            operation_id=f"{self.operation_prefix}getTileWithFormat",
            **img_endpoint_params,
        )
        def tile(
            source: FromMap,
            tile_matrix_set_id: MatrixSetId,
            z: Annotated[int, Path(description="Zoom level.")],
            x: Annotated[int, Path(description="Column, from the west.")],
            y: Annotated[int, Path(description="Row, from the north.")],
            wanted: FromPicture,
            tilesize: TileSize | None = None,
        ) -> Response:
            """A map tile; transparent outside of the data."""
            return self._tile(source, tile_matrix_set_id, (x, y, z), tilesize, wanted)

    def map_tiles(self) -> None:
        """``/map/tiles``: the same tiles as OGC API - Tiles orders their address."""
        self._tilesets("map/tiles", "MapTileSet")

        @self.router.get(
            "/map/tiles/{tileMatrixSetId}/{tileMatrix}/{tileRow}/{tileCol}",
            operation_id=f"{self.operation_prefix}getMapTile",
            **img_endpoint_params,
        )
        def map_tile(
            source: FromMap,
            tile_matrix_set_id: MatrixSetId,
            tile_matrix: Annotated[str, Path(alias="tileMatrix", description="Id of the tile matrix (zoom level).")],
            tile_row: Annotated[int, Path(alias="tileRow", description="Row, from the north.")],
            tile_col: Annotated[int, Path(alias="tileCol", description="Column, from the west.")],
            wanted: FromPicture,
            tilesize: TileSize | None = None,
            f: Annotated[
                Literal["png", "jpeg"] | None, Query(description="Encoding, as OGC API names the parameter.")
            ] = None,
        ) -> Response:
            """A map tile; transparent outside of the data."""
            zoom = zoom_of(matrix_set(tile_matrix_set_id), tile_matrix)
            wanted = replace(wanted, format=wanted.format or (ImageType[f] if f else None))
            return self._tile(source, tile_matrix_set_id, (tile_col, tile_row, zoom), tilesize, wanted)

    def _tile(
        self,
        source: MapSource,
        tile_matrix_set_id: str,
        place: tuple[int, int, int],
        tilesize: int | None,
        wanted: PictureParams,
    ) -> Response:
        with self.reader(source, tms=matrix_set(tile_matrix_set_id)) as reader:
            image = reader.tile(
                *place,
                tilesize=tilesize,
                # the algorithms that look at neighbours cut off as many pixels again
                buffer=getattr(wanted.algorithm, "buffer", 0),
                **wanted.resampling.as_dict(),
            )
        return image_response(image, source.drawn, wanted)

    def tilejson(self) -> None:
        """``/{tileMatrixSetId}/tilejson.json``."""

        @self.router.get(
            "/{tileMatrixSetId}/tilejson.json",
            response_class=JSONResponse,
            operation_id=f"{self.operation_prefix}getTileJSON",
        )
        def tilejson(
            request: Request,
            source: FromDocument,
            tile_matrix_set_id: MatrixSetId,
            drawing: FromDrawing,
            tilesize: TileSize = DEFAULT_TILE,
            tile_format: Annotated[ImageType, Query(description="Encoding of the tiles.")] = ImageType.png,
            minzoom: Annotated[int | None, Query(description="In place of the matrix set's first zoom.")] = None,
            maxzoom: Annotated[int | None, Query(description="In place of the native zoom.")] = None,
        ) -> Response:
            """TileJSON 3.0; its tiles are those of the version and period that it was made of, for ever."""
            drawing.check()
            return JSONResponse(
                tilejson_document(
                    request,
                    source,
                    matrix_set(tile_matrix_set_id),
                    tilesize=tilesize,
                    suffix=tile_format.value,
                    minzoom=minzoom,
                    maxzoom=maxzoom,
                )
            )

    def map_viewer(self) -> None:
        """``/{tileMatrixSetId}/map.html``."""

        @self.router.get("/{tileMatrixSetId}/map.html", operation_id=f"{self.operation_prefix}getMapViewer")
        def map_viewer(
            request: Request, source: FromDocument, tile_matrix_set_id: MatrixSetId, drawing: FromDrawing
        ) -> Response:
            """A page that shows the tiles of any matrix set, with nothing from elsewhere."""
            drawing.check()
            chosen, tms = source.requested, matrix_set(tile_matrix_set_id)
            query, base = data_query(request, chosen), data_url(request, chosen.served)
            product = chosen.served.dataset.product
            return viewer(
                title=product.title,
                subtitle=subtitle(chosen),
                tiles=f"{base}/tiles/{tms.id}/{{z}}/{{x}}/{{y}}?{query}",
                legend=f"{base}/legend.png?{query}",
                tms=tms,
                where=extent(tms, product.grid),
            )

    def point(self) -> None:
        """``/point/{lon},{lat}``."""

        @self.router.get(
            "/point/{lon},{lat}", response_class=JSONResponse, operation_id=f"{self.operation_prefix}getDataForPoint"
        )
        def point(
            source: FromMap,
            lon: Annotated[float, Path(description="Longitude, degrees east.", allow_inf_nan=False)],
            lat: Annotated[float, Path(description="Latitude, degrees north.", allow_inf_nan=False)],
            crs: FromCoordCrs,
        ) -> Response:
            """The value of the cell that holds a place, at full resolution."""
            with self.reader(source) as reader:
                found = reader.point(lon, lat, coord_crs=crs)
            chosen = source.requested
            grid = chosen.served.dataset.product.grid
            row, column = grid.locate(*found.coordinates)
            return JSONResponse(
                {
                    "coordinates": [lon, lat],
                    "values": decoded_numbers(chosen.quantity, found.array.filled(np.nan)),
                    "band_names": found.band_names,
                    "band_descriptions": found.band_descriptions,
                    "units": chosen.quantity.units,
                    "period": chosen.period,
                    "cell": [float(grid.longitudes[column]), float(grid.latitudes[row])],
                }
            )

    def preview(self) -> None:
        """``/preview``: an image of the whole map."""

        @self.router.get("/preview", operation_id=f"{self.operation_prefix}getPreview", **img_endpoint_params)
        @self.router.get(
            "/preview.{format}", operation_id=f"{self.operation_prefix}getPreviewWithFormat", **img_endpoint_params
        )
        @self.router.get(
            "/preview/{width}x{height}.{format}",
            operation_id=f"{self.operation_prefix}getPreviewWithSizeAndFormat",
            **img_endpoint_params,
        )
        def preview(
            source: FromMap,
            wanted: FromPicture,
            target: FromDstCrs,
            size: Annotated[PreviewSizeParams, Depends(PreviewSizeParams)],
        ) -> Response:
            """An image of the whole map."""
            with self.reader(source) as reader:
                image = reader.preview(
                    dst_crs=target, **size.as_dict(exclude_none=False), **wanted.resampling.as_dict()
                )
            return image_response(image, source.drawn, wanted)

    def part(self) -> None:
        """``/bbox/...`` and ``/feature``: an image of a box, or of an area."""

        @self.router.get(
            "/bbox/{minx},{miny},{maxx},{maxy}.{format}",
            operation_id=f"{self.operation_prefix}getDataForBoundingBoxWithFormat",
            **img_endpoint_params,
        )
        @self.router.get(
            "/bbox/{minx},{miny},{maxx},{maxy}/{width}x{height}.{format}",
            operation_id=f"{self.operation_prefix}getDataForBoundingBoxWithSizesAndFormat",
            **img_endpoint_params,
        )
        def bbox_image(  # noqa: PLR0913, PLR0917 - one for each parameter
            source: FromMap,
            minx: Annotated[float, Path(allow_inf_nan=False, description="Western edge.")],
            miny: Annotated[float, Path(allow_inf_nan=False, description="Southern edge.")],
            maxx: Annotated[float, Path(allow_inf_nan=False, description="Eastern edge.")],
            maxy: Annotated[float, Path(allow_inf_nan=False, description="Northern edge.")],
            wanted: FromPicture,
            target: FromDstCrs,
            crs: FromCoordCrs,
            size: FromSize,
        ) -> Response:
            """An image of a box, at full resolution where no size is given."""
            with self.reader(source) as reader:
                image = reader.part(
                    (minx, miny, maxx, maxy),
                    dst_crs=target,
                    bounds_crs=crs,
                    **size.as_dict(),
                    **wanted.resampling.as_dict(),
                )
            return image_response(image, source.drawn, wanted)

        @self.router.post("/feature", operation_id=f"{self.operation_prefix}postDataForGeoJSON", **img_endpoint_params)
        @self.router.post(
            "/feature.{format}",
            operation_id=f"{self.operation_prefix}postDataForGeoJSONWithFormat",
            **img_endpoint_params,
        )
        @self.router.post(
            "/feature/{width}x{height}.{format}",
            operation_id=f"{self.operation_prefix}postDataForGeoJSONWithSizesAndFormat",
            **img_endpoint_params,
        )
        def feature_image(
            source: FromMap, document: Document, wanted: FromPicture, target: FromDstCrs, size: FromSize
        ) -> Response:
            """An image of an area; pixels that it does not touch are missing."""
            area = area_of_geojson(document, most=source.settings.max_vertices)
            with self.reader(source) as reader:
                image = reader.feature(mapping(area), dst_crs=target, **size.as_dict(), **wanted.resampling.as_dict())
            return image_response(image, source.drawn, wanted)

    def legend(self) -> None:
        """``/legend.png`` and ``/legend``."""

        @self.router.get(
            "/legend.png",
            operation_id=f"{self.operation_prefix}getLegendPicture",
            response_class=Response,
            responses={200: {"content": {"image/png": {}}}},
        )
        def legend_picture(
            source: FromMap,
            drawing: FromDrawing,  # a tile's query fits its legend
            width: Annotated[int, Query(ge=NARROWEST, le=WIDEST, description="Width in pixels.")] = 320,
        ) -> Response:
            """The colour bar with unit and ticks."""
            return Response(Legend.of_map(source, drawing.render).picture(width), media_type="image/png")

        @self.router.get("/legend", response_class=JSONResponse, operation_id=f"{self.operation_prefix}getLegend")
        def legend_document(source: FromMap, render: FromRender, f: Json = None) -> Response:  # noqa: ARG001
            """The colour bar as data: unit, range, ticks and 256 colours."""
            return JSONResponse(Legend.of_map(source, render).to_json())

    def capabilities(self) -> None:
        """``/WMTSCapabilities.xml``."""

        @self.router.get(
            "/WMTSCapabilities.xml",
            operation_id=f"{self.operation_prefix}getWMTSCapabilities",
            response_class=Response,
            responses={200: {"content": {wmts.MEDIA_TYPE: {}}}},
            # clients add service, request and version, each in its own case
            openapi_extra=OPEN,
        )
        def capabilities(request: Request, found: FromPath, render: FromRender) -> Response:
            """WMTS 1.0.0 capabilities with a time dimension."""
            _ = render.ranges, render.colormap
            describe(request, found, names_version=True)
            query = {
                name: request.query_params[name]
                for name in ("rescale", "colormap_name")
                if name in request.query_params
            }
            return Response(wmts.capabilities(request, found, query), media_type=wmts.MEDIA_TYPE)
