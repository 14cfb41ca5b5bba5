"""The STAC and OGC API documents over HTTP: valid, true, complete, paged; and downloads that foreign readers open."""

import hashlib
import json
from typing import Any
from urllib.parse import urlsplit

import edr_pydantic.collections as edr
import httpx
import numpy as np
import pystac.validation
import pytest
import rasterio
import xarray as xr
from starlette.testclient import TestClient

from services.core import layout
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from tiler.app import create_app
from tiler.downloads import byte_range
from tiler.items import MOST_ITEMS

EDR_MEMBERS = {
    "id", "title", "description", "keywords", "links", "extent", "data_queries", "crs", "output_formats",
    "parameter_names",
}  # fmt: skip


def get(world: Any, url: str, **more: Any) -> Any:
    answer = world.client.get(url, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def check_stac(document: dict[str, Any]) -> None:
    """The core schemas come with pystac; those of the extensions are on the web."""
    pystac.validation.validate_dict({**document, "stac_extensions": []})


def edr_part(document: dict[str, Any]) -> str:
    """What EDR knows of a collection, without the members that STAC adds to it and to its links."""
    known = {key: document[key] for key in EDR_MEMBERS & set(document)}
    known["links"] = [{key: one[key] for key in one if ":" not in key} for one in known["links"]]
    return json.dumps(known)


def links(document: dict[str, Any], rel: str) -> list[dict[str, Any]]:
    return [one for one in document["links"] if one["rel"] == rel]


def href(document: dict[str, Any], rel: str) -> str:
    (found,) = links(document, rel)
    return str(found["href"])


# landing, collections


def test_the_landing_document_is_a_catalog_that_leads_everywhere(world: Any) -> None:
    document = get(world, "/", headers={"Accept": "application/json"})
    check_stac(document)
    assert {one["title"] for one in links(document, "child")} == set(world.sources)
    assert document["conformsTo"] == get(world, "/conformance")["conformsTo"]
    for one in document["links"]:
        if one.get("method", "GET") == "GET" and one["rel"] != "service-doc":
            assert world.client.get(one["href"]).status_code == 200, one
    assert {one["method"] for one in links(document, "search")} == {"GET", "POST"}


@pytest.mark.parametrize("name", ["xco2_test", "pacific-days", "flux_hours", "sines"])
def test_a_collection_is_valid_stac_and_valid_edr(world: Any, name: str) -> None:
    document = get(world, f"/collections/{name}")
    check_stac(document)
    edr.Collection.model_validate_json(edr_part(document))
    assert document in get(world, "/collections")["collections"]
    assert document["version"] == world.sources[name].version.id
    for query in ("position", "area", "cube", "items", "instances"):
        link = document["data_queries"][query]["link"]
        assert link["href"] == f"http://testserver/collections/{name}/{query}"


@pytest.mark.parametrize("kind", ["", "/instances/{version}"])
def test_every_link_of_a_collection_is_answered(world: Any, kind: str) -> None:
    version = world.sources["xco2_test"].version.id
    document = get(world, f"/collections/xco2_test{kind.format(version=version)}")
    rels = {one["rel"] for one in document["links"]}
    assert {"self", "root", "parent", "items", "data", "xyz", "tilejson", "wmts", "alternate"} <= rels
    for one in document["links"]:
        if one["rel"] in {"license", "alternate"}:
            continue
        answer = world.client.get(one["href"].replace("{z}/{x}/{y}", "0/0/0"))
        assert answer.status_code == 200, one
        if one["type"] != "application/json":
            assert answer.headers["content-type"].startswith(one["type"].split(";")[0]), one


def test_instances_are_the_versions_with_queries_of_their_own(world: Any) -> None:
    version = world.sources["xco2_test"].version.id
    document = get(world, "/collections/xco2_test/instances")
    (only,) = document["instances"]
    assert only["id"] == version
    assert only == get(world, f"/collections/xco2_test/instances/{version}")
    found = edr.Instance.model_validate_json(edr_part(only))
    assert found.data_queries is not None
    assert found.data_queries.position is not None
    position = found.data_queries.position.link.href
    assert world.client.get(f"{position}?coords=POINT(1 1)").status_code == 200


def test_documents_tell_nothing_of_where_the_store_is(world: Any) -> None:
    secret = world.url.removeprefix("s3://").split("/")[0] if "://" in world.url else world.url
    for url in (
        "/?f=json",
        "/collections",
        "/collections/xco2_test/items",
        "/collections/pacific-days/items",
        "/search",
        "/collections/xco2_test/instances",
        "/queryables",
    ):
        text = world.client.get(url).text
        assert secret not in text
        assert "memory:" not in text


def test_a_document_that_is_held_is_not_sent_again(world: Any) -> None:
    for url in ("/collections", "/collections/xco2_test", "/collections/xco2_test/items", "/search", "/conformance"):
        first = world.client.get(url)
        again = world.client.get(url, headers={"If-None-Match": first.headers["ETag"]})
        assert again.status_code == 304, url


def test_a_damaged_collection_does_not_take_the_others_off_the_list(tmp_path: Any, world: Any) -> None:
    store = Store.open(str(tmp_path / "store"), StoreSettings())
    for name in ("pacific-days", "sines"):
        for one in world.store.list(name):
            store.create(one.key, world.store.get(one.key))
    key = layout.version_key("sines", world.sources["sines"].version.id)
    store.delete([key])
    store.create(key, b"{}")
    with TestClient(create_app(Settings(), store)) as client:
        document = client.get("/collections").json()
        assert [one["id"] for one in document["collections"]] == ["pacific-days"]
        assert document["cenote:unavailable"] == ["sines"]
        answer = client.get("/collections/sines")
        assert answer.status_code == 502
        assert answer.json()["key"] == key
        assert client.get("/search?collections=pacific-days").json()["numberMatched"] == 25


# items and search


def walk(world: Any, url: str) -> list[dict[str, Any]]:
    """All items, page by page."""
    found: list[dict[str, Any]] = []
    for _ in range(100):
        page = get(world, url)
        assert page["numberReturned"] == len(page["features"])
        found += page["features"]
        following = links(page, "next")
        if not following:
            assert page["numberMatched"] == len(found)
            return found
        url = following[0]["href"]
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize(("name", "limit"), [("xco2_test", 7), ("pacific-days", 25), ("flux_hours", 1)])
def test_pages_of_items_hold_each_item_once_newest_first(world: Any, name: str, limit: int) -> None:
    source = world.sources[name]
    found = walk(world, f"/collections/{name}/items?limit={limit}")
    wanted = ["2001-02", "2001-01"] if name == "flux_hours" else list(source.time.ids)[::-1]
    assert [one["id"] for one in found] == wanted
    for one in found:
        check_stac(one)
        assert one == get(world, href(one, "self"))


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("datetime=2015-03-15T00:00:00Z", ["2015-03"]),
        ("datetime=2015-06-30T00:00:00Z/2015-10-01T00:00:00Z", ["2015-10", "2015-09", "2015-07", "2015-06"]),
        ("datetime=2017-07-01T00:00:00Z/..", ["2017-07"]),
        ("datetime=1999-01-01T00:00:00Z/..&limit=1", ["2017-07"]),
        ("datetime=2015-08-10T00:00:00Z", []),
        ("datetime=1999-01-01T00:00:00Z", []),
    ],
)
def test_items_are_chosen_by_time(world: Any, query: str, ids: list[str]) -> None:
    assert [one["id"] for one in get(world, f"/collections/xco2_test/items?{query}")["features"]] == ids


@pytest.mark.parametrize(
    ("bbox", "matched"),
    [
        ("170,5,171,6", 25),
        ("-171,5,-170,6", 25),
        ("189,5,190,6", 25),
        ("179,5,-179,6", 25),
        ("0,5,10,6", 0),
        ("170,30,171,31", 0),
    ],
)
def test_items_are_chosen_by_place_across_the_antimeridian(world: Any, bbox: str, matched: int) -> None:
    assert get(world, f"/collections/pacific-days/items?bbox={bbox}&limit=1")["numberMatched"] == matched
    west, south, east, north = map(float, bbox.split(","))
    if west < east:
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        body = {"collections": ["pacific-days"], "intersects": {"type": "Polygon", "coordinates": [ring]}}
        if east <= 180:
            assert world.client.post("/search", json=body).json()["numberMatched"] == matched


def test_search_goes_over_all_collections_page_by_page(world: Any) -> None:
    found = walk(world, "/search?limit=9")
    assert [(one["collection"], one["id"]) for one in found] == [
        *(("flux_hours", name) for name in ("2001-02", "2001-01")),
        *(("pacific-days", name) for name in world.sources["pacific-days"].time.ids[::-1]),
        ("sines", "1999"),
        *(("xco2_test", name) for name in world.sources["xco2_test"].time.ids[::-1]),
    ]


def test_search_by_post_is_search_by_get(world: Any) -> None:
    asked = {"collections": ["xco2_test", "sines"], "limit": 3, "datetime": "1999-06-01T00:00:00Z/2015-05-01T00:00:00Z"}
    first = world.client.post("/search", json=asked).json()
    same = get(world, f"/search?collections=sines,xco2_test&limit=3&datetime={asked['datetime']}")
    assert first["features"] == same["features"]
    assert [one["id"] for one in first["features"]] == ["1999", "2015-05", "2015-04"]
    (following,) = links(first, "next")
    assert following["method"] == "POST"
    second = world.client.post(following["href"], json=following["body"]).json()
    assert [one["id"] for one in second["features"]] == ["2015-03", "2015-02", "2015-01"]
    assert not links(second, "next")


def test_search_by_ids(world: Any) -> None:
    document = get(world, "/search?ids=2015-03,2016-01,1999,2001-01,nothing")
    assert [one["id"] for one in document["features"]] == ["2001-01", "1999", "2016-01", "2015-03"]
    assert get(world, "/search?collections=nowhere")["features"] == []


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("/collections/nowhere/items", 404, "no collection 'nowhere'"),
        ("/collections/xco2_test/items/1999-01", 404, "no item '1999-01'"),
        ("/collections/xco2_test/items?limit=0", 400, "limit"),
        ("/collections/xco2_test/items?token=zzz", 400, "token='zzz'"),
        ("/collections/xco2_test/items?token=sines:1999", 400, "next link"),
        ("/collections/xco2_test/items?datetime=soon", 400, "ISO 8601"),
        ("/collections/xco2_test/items?bbox=1,2", 400, "west,south,east,north"),
        ("/search?bbox=0,0,1,1&intersects={}", 400, "exclude each other"),
        ("/search?intersects=nonsense", 400, "intersects is not JSON at line 1"),
        ("/search?filter=x", 400, "no parameter 'filter'"),
        ("/collections/nowhere/instances", 404, "no collection"),
        (f"/collections/xco2_test/instances/{'a' * 20}", 404, "no version"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_sentence(world: Any, url: str, status: int, said: str) -> None:
    answer = world.client.get(url)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("not an object", "a search has collections, ids"),
        ({"fields": {}}, "fields"),
        ({"limit": 0}, "limit"),
        ({"bbox": [0, 0, 1]}, "four numbers"),
        ({"intersects": {"type": "Point"}}, "not a GeoJSON geometry"),
        ({"intersects": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]}}, "not a valid"),
    ],
)
def test_malformed_searches_are_refused(world: Any, body: Any, said: str) -> None:
    answer = world.client.post("/search", json=body)
    assert answer.status_code == 400
    assert said in answer.json()["detail"]


@pytest.mark.parametrize("depth", [20, 300, 2000, 20_000])
def test_geometries_nested_deep_are_refused(world: Any, depth: int) -> None:
    point = '{"type":"Point","coordinates":[170,10]}'
    nested = '{"type":"GeometryCollection","geometries":[' * depth + point + "]}" * depth
    foreign = f'{{"type":"Point","coordinates":[170,10],"more":{"[" * depth * 2}{"]" * depth * 2}}}'
    for geometry in (nested, foreign):
        answer = world.client.post("/search", content=f'{{"limit":1,"intersects":{geometry}}}')
        assert answer.status_code == 400, answer.text
        assert "body" in answer.json()["detail"]
        if depth == 20:  # an address is not long enough for more
            answer = world.client.get("/search", params={"limit": 1, "intersects": geometry})
            assert answer.status_code == 400, answer.text
            assert "intersects" in answer.json()["detail"]


def test_geometries_in_a_collection_are_searched_page_by_page(world: Any) -> None:
    point = {"type": "Point", "coordinates": [170, 10]}
    inner = {"type": "GeometryCollection", "geometries": [point]}
    for geometry in (inner, {"type": "GeometryCollection", "geometries": [inner, point]}):
        first = world.client.post("/search", json={"limit": 1, "intersects": geometry}).json()
        (following,) = links(first, "next")
        second = world.client.post(following["href"], json=following["body"]).json()
        assert first["features"][0]["id"] != second["features"][0]["id"]


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e999", "NaN", "1" * 5000])
def test_numbers_that_are_no_place_are_refused(world: Any, number: str) -> None:
    for asked in (f'"intersects":{{"type":"Point","coordinates":[{number},0]}}', f'"bbox":[{number},0,1,1]'):
        answer = world.client.post("/search", content=f"{{{asked}}}")
        assert answer.status_code == 400, answer.text


def test_a_page_has_an_end_however_much_is_asked_for(world: Any) -> None:
    assert MOST_ITEMS == 1000
    assert len(get(world, "/search?limit=10000")["features"]) == 58


# downloads


def test_rasterio_opens_the_cog_of_an_item(world: Any, address: str) -> None:
    source = world.sources["xco2_test"]
    item = httpx.get(f"{address}/collections/xco2_test/items/2016-05").json()
    asset = item["assets"]["xco2"]
    assert asset["href"].startswith(address)
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), rasterio.open(asset["href"]) as found:
        stored = found.read(1)
        assert found.crs.to_epsg() == 4326
    quantity = source.product.quantity("xco2")
    wanted = quantity.pack(source.values["xco2"][source.time.ids.index("2016-05")])
    assert (stored == wanted).all()
    assert (asset["nodata"], asset["raster:scale"]) == (-32768, 0.01)


@pytest.mark.parametrize(("asset", "group"), [("maps", "0"), ("series", "")])
def test_xarray_opens_the_zarr_of_a_collection(world: Any, address: str, asset: str, group: str) -> None:
    source = world.sources["xco2_test"].xarray
    document = httpx.get(f"{address}/collections/xco2_test").json()
    opened = xr.open_zarr(f"{document['assets'][asset]['href']}/{group}".rstrip("/"), chunks=None, consolidated=True)
    with opened as found:
        assert found.xco2.sizes == source.xco2.sizes
        np.testing.assert_allclose(found.xco2.values, source.xco2.values, atol=1e-9)
        assert (found.time.values.astype("datetime64[us]") == source.time.values.astype("datetime64[us]")).all()
        dimensions = document["cube:dimensions"]
        assert [f"{moment}Z" for moment in found.time.values.astype("datetime64[s]")] == dimensions["time"]["values"]


def test_files_are_whole_and_ranges_are_parts_of_them(world: Any) -> None:
    item = get(world, "/collections/xco2_test/items/2016-05")
    url = item["assets"]["xco2"]["href"]
    path = urlsplit(url).path
    whole = world.client.get(url)
    content = whole.content
    assert whole.headers["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert whole.headers["Content-Length"] == str(len(content))
    assert "immutable" in whole.headers["Cache-Control"]
    size = len(content)
    for header, wanted in (
        ("bytes=0-0", content[:1]),
        ("bytes=100-199", content[100:200]),
        (f"bytes={size - 5}-", content[-5:]),
        ("bytes=-7", content[-7:]),
        (f"bytes=5-{size * 2}", content[5:]),
    ):
        part = world.client.get(path, headers={"Range": header})
        assert part.status_code == 206
        assert part.content == wanted
        start = content.index(wanted) if header == "bytes=0-0" else size - len(wanted)
        if header != "bytes=100-199":
            assert part.headers["Content-Range"] == f"bytes {start}-{start + len(wanted) - 1}/{size}"
    late = world.client.get(path, headers={"Range": f"bytes={size}-"})
    assert late.status_code == 416
    changed = world.client.get(path, headers={"Range": "bytes=0-0", "If-Range": '"other"'})
    assert (changed.status_code, len(changed.content)) == (200, size)
    assert world.client.get(path, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    head = world.client.head(path)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(size), b"")


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", None),
        ("bytes=1-2,4-5", None),
        ("bytes=-", None),
        ("items=1-2", None),
        ("bytes=5-2", None),
        ("bytes=3-", (3, 7)),
    ],
)
def test_ranges_that_are_none_are_answered_whole(header: str, wanted: tuple[int, int] | None) -> None:
    found = byte_range(header, 10)
    assert (None if found is None else (found.start, found.length)) == wanted


@pytest.mark.parametrize(
    "path",
    ["current.json", "versions/x.json", "segments/{segment}/ledger/metadata.json", "segments/other/maps.zarr/zarr.json",
     "segments/{segment}/../../current.json", "segments/{segment}/%2e%2e/%2e%2e/current.json", "segments", ""],
)  # fmt: skip
def test_only_listed_objects_can_be_downloaded(world: Any, path: str) -> None:
    version = world.sources["sines"].version
    path = path.format(segment=next(iter(version.segments)))
    answer = world.client.get(f"/collections/sines/instances/{version.id}/assets/{path}")
    assert answer.status_code == 404, answer.text
