"""Ours and the peers: how each is started and asked for the same things."""

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import override
from urllib.parse import quote

from tests.bench.data import BUCKET, Data, bench_cache
from tests.bench.floor import pixel_degrees, viridis
from tests.bench.servers import S3, Server, free_port, program, running, serving_asgi, spawned_fastcgi
from tests.bench.stacks import Stack

HERE = Path(__file__).parent / "peers"
OURS = "cenote"
DRAW_ANEW = {"CENOTE_TILE_CACHE_MB": "0"}
"""Encoded tiles are not kept: every answer is drawn."""

GDAL = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "GDAL_CACHEMAX": "256",
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": "5000000",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif",
}
"""What titiler's documents advise; the block cache has the size of our chunk cache."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a server finds the data: the folder, or a bucket of the same contents."""

    data: Data
    s3: S3 | None = None

    def address(self, path: Path, scheme: str = "s3://") -> str:
        """A path below the data's folder as the server is to name it."""
        if self.s3 is None:
            return str(path)
        return f"{scheme}{BUCKET}/{path.relative_to(self.data.folder)}"

    def environment(self) -> dict[str, str]:
        """Keys and endpoint."""
        return {} if self.s3 is None else self.s3.environment()


class Peer(ABC):
    """A tile server."""

    name: str
    version: str = ""

    @abstractmethod
    def start(self, place: Place, folder: Path) -> contextlib.AbstractContextManager[Server]:
        """Run it."""

    @abstractmethod
    def tile(self, place: Place, stack: Stack, month: int, zoom: int, x: int, y: int) -> str:
        """Address of a tile."""


class Ours(Peer):
    """``cenote serve``, one process."""

    name = OURS

    def __init__(self, version: str, environment: dict[str, str] | None = None) -> None:
        self.version = version
        self.environment = DRAW_ANEW if environment is None else environment

    @override
    @contextlib.contextmanager
    def start(self, place: Place, folder: Path) -> Iterator[Server]:
        port = free_port()
        store = place.address(place.data.store)
        command: list[str | Path] = [program("cenote"), "--store", store, "serve", "--port", str(port)]
        environment = place.environment() | self.environment
        with running(self.name, command, folder, path="/healthz", port=port, environment=environment) as server:
            yield server

    @override
    def tile(self, place: Place, stack: Stack, month: int, zoom: int, x: int, y: int) -> str:
        low, high = stack.ranges
        return (
            f"/collections/{stack.id}/tiles/WebMercatorQuad/{zoom}/{x}/{y}.png"
            f"?datetime={stack.periods[month]}&rescale={low:g},{high:g}&colormap_name=viridis"
        )

    def position(self, stack: Stack, longitude: float, latitude: float) -> str:
        """Address of a place's series."""
        return f"/collections/{stack.id}/position?coords=POINT({longitude:.4f}%20{latitude:.4f})&f=CoverageJSON"

    def mean(self, stack: Stack, polygon: list[tuple[float, float]], months: int) -> str:
        """Address of a polygon's series of means over the first months."""
        ring = ",".join(f"{longitude:g}%20{latitude:g}" for longitude, latitude in polygon)
        span = f"{stack.periods[0]}/{stack.periods[months - 1]}"
        return f"/collections/{stack.id}/area?coords=POLYGON(({ring}))&aggregate=mean&f=CoverageJSON&datetime={span}"


class TitilerCore(Peer):
    """The COG application on our published COGs; packed values are coloured, which spares it the unpacking."""

    name = "titiler.core"
    folder = "titiler_core"

    def __init__(self, python: Path, version: str) -> None:
        self.python, self.version = python, version

    @override
    @contextlib.contextmanager
    def start(self, place: Place, folder: Path) -> Iterator[Server]:
        with serving_asgi(
            self.name,
            self.python,
            "titiler_core_app:app",
            folder,
            app_folder=HERE,
            environment=GDAL | place.environment(),
            path="/openapi.json",
        ) as server:
            yield server

    def cog(self, place: Place, stack: Stack, month: int) -> str:
        """Address of a month's COG as a parameter."""
        path = place.data.store / place.data.cogs(stack) / f"{stack.periods[month]}.tif"
        return quote(place.address(path, scheme="/vsis3/"), safe="/")

    @override
    def tile(self, place: Place, stack: Stack, month: int, zoom: int, x: int, y: int) -> str:
        low, high = (round((value - stack.offset) / stack.scale) for value in stack.ranges)
        return (
            f"/tiles/WebMercatorQuad/{zoom}/{x}/{y}.png?url={self.cog(place, stack, month)}"
            f"&rescale={low},{high}&colormap_name=viridis&tilesize=256"
        )

    def point(self, place: Place, stack: Stack, month: int, longitude: float, latitude: float) -> str:
        """Address of a place's value in one month."""
        return f"/point/{longitude:.4f},{latitude:.4f}?url={self.cog(place, stack, month)}&unscale=true"


class TitilerXarray(Peer):
    """The Zarr application: chunks of a month and levels that the client picks for tiles, of all months for series."""

    name = "titiler.xarray"
    folder = "titiler_xarray"

    def __init__(self, python: Path, version: str) -> None:
        self.python, self.version = python, version

    @override
    @contextlib.contextmanager
    def start(self, place: Place, folder: Path) -> Iterator[Server]:
        with serving_asgi(
            self.name,
            self.python,
            "titiler_xarray_app:app",
            folder,
            app_folder=HERE,
            environment=GDAL | place.environment(),
            path="/openapi.json",
        ) as server:
            yield server

    @override
    def tile(self, place: Place, stack: Stack, month: int, zoom: int, x: int, y: int) -> str:
        low, high = stack.ranges
        level = place.data.dataset(stack).product.grid.coarsest(pixel_degrees(zoom))
        return (
            f"/tiles/WebMercatorQuad/{zoom}/{x}/{y}.png?url={quote(place.address(place.data.map_copy(stack)))}"
            f"&variable={stack.variable}&sel=time={stack.periods[month]}-01&group={level}"
            f"&rescale={low:g},{high:g}&colormap_name=viridis&tilesize=256"
        )

    def point(self, place: Place, stack: Stack, longitude: float, latitude: float) -> str:
        """Address of a place's series."""
        url = quote(place.address(place.data.series_copy(stack)))
        return f"/point/{longitude:.4f},{latitude:.4f}?url={url}&variable={stack.variable}"

    def statistics(self, place: Place, stack: Stack) -> str:
        """Address that statistics of all months inside a GeoJSON feature are asked at."""
        url = quote(place.address(place.data.map_copy(stack)))
        return f"/statistics?url={url}&variable={stack.variable}&group=0"


class XpublishTiles(Peer):
    """xpublish-tiles on the same Zarr levels, marked as GeoZarr; it picks the level itself."""

    name = "xpublish-tiles"
    folder = "xpublish_tiles"

    def __init__(self, python: Path, version: str, stacks: tuple[Stack, ...]) -> None:
        self.python, self.version, self.stacks = python, version, stacks

    @override
    @contextlib.contextmanager
    def start(self, place: Place, folder: Path) -> Iterator[Server]:
        zarrs = {stack.id: str(place.data.map_copy(stack)) for stack in self.stacks}
        with serving_asgi(
            self.name,
            self.python,
            "xpublish_tiles_app:app",
            folder,
            app_folder=HERE,
            environment={"BENCH_ZARRS": json.dumps(zarrs), "NUMBA_CACHE_DIR": str(bench_cache() / "numba")},
            path="/datasets",
        ) as server:
            yield server

    @override
    def tile(self, place: Place, stack: Stack, month: int, zoom: int, x: int, y: int) -> str:
        low, high = stack.ranges
        return (
            f"/datasets/{stack.id}/tiles/WebMercatorQuad/{zoom}/{y}/{x}?variables={stack.variable}"
            f"&style=raster/viridis&width=256&height=256&f=image/png&colorscalerange={low:g},{high:g}"
            f"&time={stack.periods[month]}-01"
        )


class MapServer(Peer):
    """MapServer as one FastCGI process on our COGs: datasets kept open, 256 buckets of values, palette PNG."""

    name = "MapServer"

    def __init__(self, binary: Path, environment: dict[str, str], version: str, stacks: tuple[Stack, ...]) -> None:
        self.binary, self.environment, self.version, self.stacks = binary, environment, version, stacks

    @override
    @contextlib.contextmanager
    def start(self, place: Place, folder: Path) -> Iterator[Server]:
        layers = "\n".join(_layer(stack, place) for stack in self.stacks)
        mapfile, config = folder / "bench.map", folder / "mapserver.conf"
        mapfile.write_text(_MAPFILE.format(layers=layers, mapfile=mapfile))
        config.write_text(f'CONFIG\nENV\nMS_MAPFILE "{mapfile}"\nEND\nMAPS\nEND\nEND\n')
        environment = self.environment | GDAL | {"MAPSERVER_CONFIG_FILE": str(config)}
        with spawned_fastcgi(self.name, [self.binary], folder, environment) as server:
            yield server

    @override
    def tile(self, place: Place, stack: Stack, month: int, zoom: int, x: int, y: int) -> str:
        return f"/?mode=tile&tilemode=gmap&tile={x}+{y}+{zoom}&layers={stack.id}&month={stack.periods[month]}"


_MAPFILE = """MAP
NAME bench
SIZE 256 256
EXTENT -180 -90 180 90
PROJECTION "init=epsg:4326" END
IMAGETYPE tile
OUTPUTFORMAT
  NAME tile DRIVER "AGG/PNG8" MIMETYPE "image/png" IMAGEMODE RGBA EXTENSION "png" TRANSPARENT ON
  FORMATOPTION "COMPRESSION=1" FORMATOPTION "QUANTIZE_FORCE=ON" FORMATOPTION "QUANTIZE_COLORS=256"
END
{layers}
END
"""


CLASSES = 16


def _layer(stack: Stack, place: Place) -> str:
    """A layer over packed values: each class is a sixteenth of the scale, and its colours run from one to the next.

    A class for each of 256 colours would be slower: their expressions are tried in turn for each of the 256 buckets.
    """
    low, high = ((value - stack.offset) / stack.scale for value in stack.ranges)
    colours = viridis()
    classes = []
    for number in range(CLASSES):
        first, last = (low + (high - low) * edge / CLASSES for edge in (number, number + 1))
        lower = -32767 if number == 0 else first
        upper = 32768 if number == CLASSES - 1 else last
        ends = (colours[round(edge * 255 / CLASSES)] for edge in (number, number + 1))
        classes.append(
            f"CLASS EXPRESSION ([pixel] >= {lower:g} AND [pixel] < {upper:g}) "
            f"STYLE COLORRANGE {' '.join(str(part) for colour in ends for part in colour)} "
            f"DATARANGE {first:g} {last:g} END END"
        )
    classified = "\n".join(classes)
    return f"""LAYER
NAME {stack.id} TYPE RASTER STATUS ON
DATA "{place.data.store / place.data.cogs(stack)}/%month%.tif"
VALIDATION month "^[0-9-]+$" END
PROJECTION "init=epsg:4326" END
PROCESSING "CLOSE_CONNECTION=DEFER"
PROCESSING "RESAMPLE=NEAREST"
PROCESSING "SCALE={low:g},{high:g}"
PROCESSING "SCALE_BUCKETS=256"
{classified}
END"""
