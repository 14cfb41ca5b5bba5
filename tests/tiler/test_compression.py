"""Gzip of answers in text, read back by the standard library and by httpx."""

import asyncio
import gzip
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.responses import Response, StreamingResponse

from services.core.grid import Grid
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from services.core.time_axis import TimeAxis
from tests.tiler.conftest import XCO2, Arrays, a_product, publish_arrays
from tiler import compression
from tiler.app import create_app
from tiler.chunks import ChunkCache
from tiler.compression import KEPT_BYTES, SMALL, Compression
from tiler.envelope import Envelope
from tiler.errors import add_handlers
from tiler.fast_tiles import TileCache
from tiler.memory import Budget
from tiler.metrics import Metrics
from tiler.proxies import Proxies

C = "/collections/demo"
TEXTS = {
    "/": "application/json",
    "/?f=html": "text/html",
    "/api": "application/json",
    "/conformance": "application/json",
    "/collections": "application/json",
    C: "application/json",
    f"{C}/items": "application/geo+json",
    "/search": "application/geo+json",
    f"{C}/WMTSCapabilities.xml": "application/xml",
    f"{C}/tiles": "application/json",
    f"{C}/position?coords=POINT(10 10)": "application/vnd.cov+json",
    f"{C}/position?coords=POINT(10 10)&f=GeoJSON": "application/geo+json",
    f"{C}/position?coords=POINT(10 10)&f=CSV": "text/csv",
    f"{C}/cube?bbox=0,0,9,9&f=CSV": "text/csv",
}
OTHERS = (
    f"{C}/tiles/WebMercatorQuad/0/0/0.png",
    f"{C}/tiles/WebMercatorQuad/0/0/0.tif",
    f"{C}/tiles/WebMercatorQuad/0/0/0.npy",
    f"{C}/legend.png",
    f"{C}/position?coords=POINT(10 10)&f=NetCDF",
)


def raw(client: TestClient, path: str, encoding: str | None, method: str = "GET", **headers: str) -> Any:
    """An answer whose body is what came over the wire."""
    said = {"accept-encoding": encoding, **headers} if encoding is not None else headers
    request = client.build_request(method, path, headers=said)
    if encoding is None:
        del request.headers["accept-encoding"]
    answer = client.send(request, stream=True)
    body = b"".join(answer.iter_raw())
    answer.close()
    answer.extensions["raw"] = body
    return answer


def wire(answer: Any) -> bytes:
    body: bytes = answer.extensions["raw"]
    return body


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    url = str(tmp_path_factory.mktemp("compression"))
    store = Store.open(url, StoreSettings())
    grid = Grid.of(west=-180, north=90, step_x="1", width=360, height=180)
    values = np.random.default_rng(0).uniform(380, 420, (36, 180, 360))
    axis = TimeAxis.regular("2020-01", "P1M", 36)
    product = a_product("demo", grid, XCO2, cog_period="step")
    publish_arrays(store, Arrays(product=product, axis=axis, values={"xco2": XCO2.pack(values)}))
    with TestClient(create_app(Settings(store=url), store)) as found:
        yield found


@pytest.mark.parametrize("path", TEXTS)
def test_text_is_compressed_for_who_takes_it_and_is_the_same(client: TestClient, path: str) -> None:
    plain, packed = raw(client, path, "identity"), raw(client, path, "gzip, deflate, br")
    assert plain.status_code == packed.status_code == 200
    assert plain.headers["content-type"] == packed.headers["content-type"]
    assert plain.headers["content-type"].split(";")[0] == TEXTS[path]
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(wire(packed)) == wire(plain)
    assert len(wire(packed)) < 0.8 * len(wire(plain))
    assert client.get(path).content == wire(plain), "httpx reads it too"
    for answer in (plain, packed):
        assert "accept-encoding" in [name.strip().lower() for name in answer.headers["vary"].split(",")]
        assert answer.headers.get("content-length", str(len(wire(answer)))) == str(len(wire(answer)))
    assert ("content-length" in packed.headers) == ("content-length" in plain.headers) == ("cube" not in path)
    assert raw(client, path, "gzip").headers["etag"] == packed.headers["etag"]
    assert wire(raw(client, path, "gzip")) == wire(packed)


@pytest.mark.parametrize("path", TEXTS)
def test_each_encoding_has_a_tag_of_its_own_and_either_is_known(client: TestClient, path: str) -> None:
    tags = {encoding: raw(client, path, encoding).headers["etag"] for encoding in ("identity", "gzip")}
    assert tags["gzip"] == f'{tags["identity"][:-1]}-gzip"'
    assert re.fullmatch(r'"[0-9a-f]+"', tags["identity"])
    both = f'"other", W/{tags["gzip"]}, {tags["identity"]}'
    for encoding, held, told in (
        ("gzip", tags["gzip"], tags["gzip"]),
        ("gzip", tags["identity"], tags["identity"]),
        ("gzip", both, tags["gzip"]),
        ("identity", tags["identity"], tags["identity"]),
        ("identity", both, tags["identity"]),
    ):
        again = raw(client, path, encoding, **{"if-none-match": held})
        assert (again.status_code, wire(again), again.headers["etag"]) == (304, b"", told)
        assert "content-encoding" not in again.headers
    for encoding, held in (("identity", tags["gzip"]), ("gzip", '"other-gzip", "gzip"')):
        assert raw(client, path, encoding, **{"if-none-match": held}).status_code == 200


@pytest.mark.parametrize("path", [*TEXTS, *OTHERS])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_head_tells_what_get_tells(client: TestClient, path: str, encoding: str) -> None:
    get, head = raw(client, path, encoding), raw(client, path, encoding, method="HEAD")
    assert wire(head) == b""
    assert head.headers == get.headers


@pytest.mark.parametrize("path", OTHERS)
def test_what_is_compressed_already_is_left_alone(client: TestClient, path: str) -> None:
    plain, packed = raw(client, path, "identity"), raw(client, path, "gzip")
    assert plain.status_code == 200
    assert plain.headers == packed.headers
    assert "content-encoding" not in packed.headers
    assert "accept-encoding" not in packed.headers.get("vary", "").lower()
    again = raw(client, path, "gzip", **{"if-none-match": packed.headers["etag"]})
    assert (again.status_code, again.headers["etag"]) == (304, packed.headers["etag"])


def test_stored_objects_are_sent_as_they_are_stored(client: TestClient) -> None:
    assets = client.get(f"{C}").json()["assets"]
    version = client.get(C).headers["cenote-version"]
    base = next(asset["href"] for asset in assets.values() if "maps.zarr" in asset["href"]).split("/assets/")[1]
    path = f"{C}/instances/{version}/assets/{base.rstrip('/')}/zarr.json"
    whole = raw(client, path, "gzip")
    assert (whole.status_code, whole.headers["content-type"]) == (200, "application/json")
    assert len(wire(whole)) > SMALL
    assert "content-encoding" not in whole.headers
    part = raw(client, path, "gzip", range="bytes=0-1999")
    assert (part.status_code, wire(part)) == (206, wire(whole)[:2000])
    assert "content-encoding" not in part.headers


@pytest.mark.parametrize(
    ("encoding", "is_packed"),
    [
        ("gzip", True),
        ("GZIP;q=0.1", True),
        ("br, *;q=0.5", True),
        (None, False),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.0, *", False),
        ("br, zstd", False),
        ("gzip;q=x", False),
    ],
)
def test_only_who_takes_gzip_gets_it(client: TestClient, *, encoding: str | None, is_packed: bool) -> None:
    answer = raw(client, "/collections", encoding)
    assert ("content-encoding" in answer.headers) == is_packed


def test_batches_and_searches_by_post_are_compressed_too(client: TestClient) -> None:
    places = {"coords": [[x, 10] for x in range(50)]}
    for path, body in ((f"{C}/points", places), ("/search", {"limit": 20})):
        answer = client.post(path, json=body)
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.json()


def test_the_description_of_the_api_names_the_path_that_a_proxy_serves_it_under(client: TestClient) -> None:
    plain = client.get("/api").json()
    assert "servers" not in plain
    below = TestClient(client.app, root_path="/geo").get("/geo/api").json()
    assert below == {**plain, "servers": [{"url": "/geo"}]}


def answering(made: Callable[[], Response]) -> Callable[[Request], Response]:
    return lambda _: made()


@pytest.fixture
def wrapped() -> Callable[..., TestClient]:
    """Given answers in an envelope."""

    def make(**answers: Callable[[], Response]) -> TestClient:
        app = FastAPI()
        add_handlers(app)
        for name, made in answers.items():
            app.add_route(f"/{name}", answering(made))
        envelope = Envelope(
            app.build_middleware_stack(),
            settings=Settings(),
            metrics=Metrics(ChunkCache(0), TileCache(0)),
            threads=2,
            proxies=Proxies(),
            budget=Budget(2**30, spare=0, give_way=lambda _: None, waiting=1),
        )
        app.build_middleware_stack = lambda: envelope  # type: ignore[method-assign]
        return TestClient(app, raise_server_exceptions=False)

    return make


def test_what_is_small_or_grows_is_sent_plain(wrapped: Callable[..., TestClient]) -> None:
    noise = np.random.default_rng(0).bytes(5000)
    client = wrapped(
        small=lambda: Response(b"a" * (SMALL - 1), media_type="text/plain"),
        large=lambda: Response(b"a" * SMALL, media_type="text/plain"),
        noise=lambda: Response(noise, media_type="text/plain"),
        packed=lambda: Response(gzip.compress(b"a" * 9999), media_type="text/plain", headers={"content-encoding": "x"}),
    )
    small, large = raw(client, "/small", "gzip"), raw(client, "/large", "gzip")
    assert "content-encoding" not in small.headers
    assert large.headers["content-encoding"] == "gzip"
    assert wire(raw(client, "/noise", "gzip")) == noise
    assert raw(client, "/packed", "gzip").headers["content-encoding"] == "x"


def test_a_stream_is_compressed_part_by_part() -> None:
    """Each part leaves before the next one is made, and no more than a window of it stays behind."""
    made, sent = 0, list[dict[str, Any]]()
    rng = np.random.default_rng(0)
    parts = [",".join(map(str, rng.integers(0, 10**9, 20_000))).encode() for _ in range(20)]
    left = list[int]()

    async def rows() -> AsyncIterator[bytes]:
        nonlocal made
        for part in parts:
            made += 1
            left.append(sum(len(message.get("body", b"")) for message in sent))
            yield part

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.sleep(60)

    scope: Any = {
        "type": "http",
        "method": "GET",
        "headers": [(b"accept-encoding", b"gzip")],
        "asgi": {"spec_version": "2.4"},
    }
    answer = StreamingResponse(rows(), media_type="text/csv", headers={"etag": '"a"', "vary": "Accept"})
    asyncio.run(answer(scope, receive, Compression().around(scope, send)))
    headers = dict(sent[0]["headers"])
    assert headers[b"etag"] == b'"a-gzip"'
    assert headers[b"vary"] == b"Accept, Accept-Encoding"
    assert b"content-length" not in headers
    unpack = zlib.decompressobj(31)
    assert b"".join(unpack.decompress(message["body"]) for message in sent[1:]) == b"".join(parts)
    assert unpack.eof
    whole = len(gzip.compress(b"".join(parts)))
    for number, length in enumerate(left[2:], 2):
        assert length > whole * (number - 1.5) / len(parts), "what was made before is on its way"


def test_a_body_that_breaks_off_is_no_whole_gzip(wrapped: Callable[..., TestClient]) -> None:
    def rows() -> Iterator[bytes]:
        yield np.random.default_rng(0).bytes(500_000)
        raise RuntimeError("the store went away")

    client = wrapped(broken=lambda: StreamingResponse(rows(), media_type="text/csv"))
    answer = raw(client, "/broken", "gzip")
    assert len(wire(answer)) > 300_000, "what was made is on its way"
    with pytest.raises(EOFError):
        gzip.decompress(wire(answer))


def test_a_tagged_body_is_compressed_once_and_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = list[int]()
    pack = compression._pack

    def counted(body: bytes) -> bytes:
        packed.append(len(body))
        return pack(body)

    monkeypatch.setattr(compression, "_pack", counted)
    layer = Compression()

    def start(tag: bytes) -> Any:
        return {"headers": [(b"etag", tag), (b"content-type", b"application/json")]}

    body = bytes(np.random.default_rng(0).integers(0, 50, 50_000, dtype="uint8"))

    async def many() -> None:
        for _ in range(5):
            assert gzip.decompress(await layer.packed(start(b'"a"'), body)) == body
        assert len(packed) == 1
        for number in range(300):
            await layer.packed(start(f'"{number}"'.encode()), body)
        assert layer._kept.counts.weight <= KEPT_BYTES
        await layer.packed(start(b""), body)
        await layer.packed(start(b""), body)
        assert len(packed) == 303

    asyncio.run(many())
