"""Two server processes' worth of apps over one store: new versions, old versions, damage, and a store that is away."""

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, override

import numpy as np
import pytest
from fastapi.testclient import TestClient

from services.core import layout
from services.core.catalog import current_version
from services.core.errors import StoreUnavailable
from services.core.grid import Grid
from services.core.store import Observed, Operation, Store
from services.core.style import Style
from services.core.time_axis import TimeAxis
from services.pipeline.publish import rollback
from tests.tiler.conftest import PLACE, XCO2, Arrays, a_product, publish_arrays

pytestmark = pytest.mark.slow  # as a whole

GRID = Grid.of(west=-180, north=90, step_x="2", width=180, height=90)
C = "/collections/demo"
TILE = f"{C}/tiles/WebMercatorQuad/1/0/0.npy"

type Serve = Callable[..., TestClient]


def publish(store: Store, value: float, periods: int = 1, *, keep: bool = False) -> str:
    # with a style of its own, so that other values do not mean other colours
    quantity = replace(PLACE, style=Style(minimum=0.0, maximum=10.0))
    product = a_product("demo", GRID, quantity)
    axis = TimeAxis.regular("2020-01", "P1M", periods)
    values = np.full((periods, *GRID.shape), float(value))
    recipe = Arrays(product=product, axis=axis, values={"place": values}, origin=f"{value}")
    return publish_arrays(store, recipe, keep=keep)


def value_of(client: TestClient, path: str = TILE) -> tuple[float, str]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    values = np.load(io.BytesIO(answer.content))
    assert values.min() == values.max(), "wholly from one version"
    return float(values.max()), answer.headers["cenote-version"]


def test_each_answer_is_the_version_that_it_names(directory: Store, service: Serve) -> None:
    versions = {publish(directory, 0): 0.0}
    one, two = service(directory, pointer_seconds=0.2), service(directory, pointer_seconds=0.2)
    for number in range(1, 5):
        version = publish(directory, number)
        versions[version] = float(number)
        published = time.monotonic()
        pending = {id(one): one, id(two): two}
        while pending:
            for client in list(pending.values()):
                value, named = value_of(client)
                assert versions[named] == value
                if named == version:
                    del pending[id(client)]
            assert time.monotonic() - published < 5
    first = next(iter(versions))
    rollback(directory, "demo", first)
    time.sleep(0.25)
    assert value_of(one) == (0.0, first)


def test_a_picture_kept_for_an_address_goes_with_its_version(directory: Store, service: Serve) -> None:
    picture = f"{C}/tiles/WebMercatorQuad/1/0/0.png"
    publish(directory, 1)
    client = service(directory, pointer_seconds=0.2)
    old = client.get(picture)
    assert client.get(picture).content == old.content
    new = publish(directory, 9)
    deadline = time.monotonic() + 5
    while (answer := client.get(picture)).headers["cenote-version"] != new:
        assert (answer.content, answer.headers) == (old.content, old.headers), "wholly of one version"
        assert time.monotonic() < deadline
    assert answer.content != old.content
    assert client.get(picture).content == answer.content


def test_a_picture_kept_for_an_address_is_no_answer_where_the_pointer_is_damaged(
    directory: Store, service: Serve
) -> None:
    picture = f"{C}/tiles/WebMercatorQuad/1/0/0.png"
    publish(directory, 1)
    client = service(directory, pointer_seconds=0.2)
    assert client.get(picture).status_code == client.get(picture).status_code == 200
    directory.overwrite(layout.pointer_key("demo"), b"garbage")
    deadline = time.monotonic() + 5
    while (answer := client.get(picture)).status_code == 200:
        assert time.monotonic() < deadline
    assert answer.status_code == 502
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["access-control-allow-origin"] == "*"


def test_positions_and_cubes_beside_each_other_do_not_wait_for_ever(
    directory: Store, service: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reads what the other has begun to load, and the threads that read shards are few."""
    periods = 400
    grid = Grid.of(west=0, north=4, step_x="1", width=4, height=4)
    product = a_product("hours", grid, PLACE, map_block=24, step="PT1H")
    values = np.random.default_rng(0).random((periods, 4, 4))
    axis = TimeAxis.regular("2020-01-01T00", "PT1H", periods)
    publish_arrays(directory, Arrays(product=product, axis=axis, values={"place": values}))
    monkeypatch.setattr("services.core.segment.READERS", 2)
    monkeypatch.setattr("services.core.segment._readers", None)
    inner = type(directory).get_ranges

    def slow(self: Store, key: str, ranges: Any) -> Any:
        time.sleep(0.02)
        return inner(self, key, ranges)

    monkeypatch.setattr(type(directory), "get_ranges", slow)
    paths = ["/collections/hours/position?coords=POINT(1.5 1.5)", "/collections/hours/cube?bbox=0,0,4,4"] * 2
    for turn in range(6):
        client = service(directory, warm_share=0)
        client.get("/collections/hours")
        with ThreadPoolExecutor(4) as pool:
            answers = []
            for path in paths[turn % 2 :] + paths[: turn % 2]:
                answers.append(pool.submit(client.get, path))
                time.sleep(0.004 * (turn % 3))
            assert [answer.result(timeout=30).status_code for answer in answers] == [200] * 4


def test_an_old_version_is_still_there(directory: Store, service: Serve) -> None:
    first = publish(directory, 1)
    second = publish(directory, 2)
    client = service(directory)
    assert value_of(client) == (2.0, second)
    assert value_of(client, f"{C}/instances/{first}/tiles/WebMercatorQuad/1/0/0.npy") == (1.0, first)
    assert value_of(client, f"{C}/instances/{second}/tiles/WebMercatorQuad/1/0/0.npy") == (2.0, second)
    difference = client.get(f"{TILE}?minus=version:{first}")
    assert np.load(io.BytesIO(difference.content)).max() == 1.0
    assert client.get(f"{TILE}?minus=version:{first}@2020-01").content == difference.content
    assert client.get(f"{TILE}?minus=version:{first}@2020-02").status_code == 404
    assert client.get(f"{C}/statistics?minus=version:{first}").json()["b1"]["mean"] == pytest.approx(1.0)


def test_a_new_period_leaves_the_tags_of_the_old_ones(directory: Store, service: Serve) -> None:
    publish(directory, 1, 1)
    client = service(directory, pointer_seconds=0)
    tile, document = f"{TILE}?datetime=2020-01", f"{C}/WebMercatorQuad/tilejson.json?datetime=2020-01"
    tags = [client.get(path).headers["etag"] for path in (tile, document)]
    version = publish(directory, 1, 2, keep=True)
    again = client.get(tile, headers={"If-None-Match": tags[0]})
    assert again.status_code == 304
    assert again.headers["cenote-version"] == version
    renewed = client.get(document, headers={"If-None-Match": tags[1]})
    assert renewed.status_code == 200, "its tiles are those of the new version"
    assert version in renewed.json()["tiles"][0]
    publish(directory, 2, 2)
    changed = client.get(tile, headers={"If-None-Match": tags[0]})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tags[0]


class Flaky(Observed):
    """Fails when told to."""

    __slots__ = ("fails", "seen")

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.fails = False
        self.seen: list[Operation] = []

    @override
    def around[Answer](self, operation: Operation, call: Callable[[], Answer]) -> Answer:
        self.seen.append(operation)
        if self.fails:
            raise StoreUnavailable("the store at /secret/place is away")
        return call()


def test_a_store_that_is_away(directory: Store, service: Serve) -> None:
    version = publish(directory, 1)
    store = Flaky(directory)
    client = service(store, pointer_seconds=0.1)
    value_of(client)
    assert client.get("/readyz").status_code == 200
    store.fails = True
    time.sleep(0.15)
    answer = client.get(TILE)
    assert (answer.status_code, answer.headers["cenote-stale"]) == (200, "1"), (
        "chunks that are known go on being served"
    )
    assert answer.headers["cenote-version"] == version
    unread = client.get(f"{C}/point/1,2?variable=place")
    assert unread.status_code in {200, 503}
    other = client.get("/collections/other/info")
    assert other.status_code == 503
    assert other.headers["retry-after"] == "2"
    assert "secret" not in other.text
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert client.get("/healthz").status_code == 200
    store.fails = False
    time.sleep(1.1)
    assert "cenote-stale" not in client.get(TILE).headers
    assert client.get("/readyz").status_code == 200


def test_after_a_publish_only_new_segments_are_opened(directory: Store, service: Serve) -> None:
    for count in (1, 2, 3):
        publish(directory, 1, count, keep=True)
    store = Flaky(directory)
    client = service(store, pointer_seconds=0, warm_share=0)
    periods = ["2020-01", "2020-02", "2020-03", "2020-04"]

    def opened(count: int) -> list[str]:
        store.seen.clear()
        for period in periods[:count]:
            value_of(client, f"{TILE}?datetime={period}")
        return [key for operation in store.seen for key in operation.keys if key.endswith("/objects.json")]

    before = opened(3)
    assert len(set(before)) == len(before) == 3
    publish(directory, 1, 4, keep=True)
    after = opened(4)
    assert len(after) == 1
    assert after[0] not in before
    assert opened(4) == []


def test_a_304_reads_nothing(directory: Store, service: Serve) -> None:
    publish(directory, 1)
    tag = service(directory).get(TILE).headers["etag"]
    store = Flaky(directory)
    client = service(store, warm_share=0)
    assert client.get(TILE, headers={"If-None-Match": tag}).status_code == 304
    touched = [key for operation in store.seen for key in operation.keys if "/maps.zarr/" in key or "objects" in key]
    assert touched == []


def test_wrong_requests_read_no_data(directory: Store, service: Serve) -> None:
    publish(directory, 1)
    store = Flaky(directory)
    client = service(store, max_cells=100, warm_share=0)
    refused = {
        f"{C}/tiles/WebMercatorQuad/0/0/0": 413,
        f"{C}/tiles/WebMercatorQuad/0/9/9": 404,
        f"{C}/tiles/WebMercatorQuad/0/0/0?tilesize=9999": 400,
        f"{C}/bbox/-180,-90,180,90/9000x9000.png": 413,
        f"{C}/preview?resampling=average": 413,
        f"{C}/statistics": 413,
    }
    for path, status in refused.items():
        answer = client.get(path)
        assert answer.status_code == status, (path, answer.text)
    assert [key for operation in store.seen for key in operation.keys if "/maps.zarr/" in key] == []


def objects(store: Store, part: str) -> Iterator[str]:
    return (entry.key for entry in store.list("demo") if part in entry.key)


def flip(store: Store, key: str, place: float) -> None:
    data = bytearray(store.get(key))
    data[min(int(len(data) * place), len(data) - 1)] ^= 0x10
    store.overwrite(key, bytes(data))


@pytest.fixture
def varied(directory: Store) -> Store:
    """A collection whose chunks are not all alike."""
    grid = Grid.of(west=-180, north=90, step_x="1/2", width=720, height=360)
    product = a_product("demo", grid, XCO2)
    values = np.random.default_rng(0).uniform(380, 420, (1, *grid.shape))
    axis = TimeAxis.regular("2020-01", "P1M", 1)
    publish_arrays(directory, Arrays(product=product, axis=axis, values={"xco2": XCO2.pack(values)}))
    return directory


@pytest.mark.parametrize("place", [0.0, 0.3, 0.9])
def test_a_flipped_bit_in_a_map_is_an_error_that_names_the_shard(varied: Store, service: Serve, place: float) -> None:
    shard = next(objects(varied, "maps.zarr/1/xco2/c/"))
    healthy = service(varied)
    tile = f"{C}/tiles/WebMercatorQuad/0/0/0.npy"
    before = np.load(io.BytesIO(healthy.get(tile).content))
    flip(varied, shard, place)
    answer = service(varied).get(tile)
    if answer.status_code == 200:
        # the flip hit bytes that no tile needs: the index in the shard stands in objects.json too
        np.testing.assert_array_equal(np.load(io.BytesIO(answer.content)), before)
        assert place == 0.9
        return
    assert answer.status_code == 502
    assert answer.json()["key"] == shard
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers
    other = service(varied).get(f"{C}/tiles/WebMercatorQuad/3/3/3.npy")
    assert other.status_code == 200, "level 0 is not damaged"


def test_a_deleted_shard_is_an_error_and_not_missing_values(varied: Store, service: Serve) -> None:
    shard = next(objects(varied, "maps.zarr/0/xco2/c/"))
    varied.delete([shard])
    answer = service(varied).get(f"{C}/tiles/WebMercatorQuad/3/3/3.npy")
    assert (answer.status_code, answer.json()["key"]) == (502, shard)
    point = service(varied).get(f"{C}/point/0.2,0.2")
    assert (point.status_code, point.json()["key"]) == (502, shard)


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("part", ["objects.json", "versions/", "current.json"])
def test_damaged_and_missing_documents_are_errors_that_name_them(
    varied: Store, service: Serve, part: str, *, is_there: bool
) -> None:
    key = next(objects(varied, part))
    if is_there:
        flip(varied, key, 0.5 if part != "current.json" else 0.0)
    else:
        varied.delete([key])
    answer = service(varied).get(f"{C}/tiles/WebMercatorQuad/0/0/0")
    if part == "current.json" and not is_there:
        assert answer.status_code == 404, "nothing is published then"
        return
    assert (answer.status_code, answer.json()["key"]) == (502, key)


@pytest.mark.parametrize("is_there", [True, False])
def test_damage_is_told_by_its_key_and_no_more_and_harms_nobody_else(
    varied: Store, service: Serve, caplog: pytest.LogCaptureFixture, tmp_path: Path, *, is_there: bool
) -> None:
    shard = next(objects(varied, "maps.zarr/0/xco2/c/"))
    if is_there:
        for place in (0.1, 0.3, 0.6):
            flip(varied, shard, place)
    else:
        varied.delete([shard])
    publish_other(varied)
    client = service(varied)
    series, csv = "position?coords=POINT(0.2%200.2)", "cube?bbox=-180,-90,180,90&f=CSV"
    for needs_it in ("tiles/WebMercatorQuad/3/3/3.npy", "bbox/-180,-90,180,90.npy", csv):
        caplog.clear()
        answer = client.get(f"{C}/{needs_it}")
        assert answer.status_code == 502, needs_it
        assert answer.headers["content-type"] == "application/problem+json"
        document = answer.json()
        assert set(document) == {"type", "title", "status", "detail", "key"}
        assert document["key"] == shard
        assert shard in document["detail"]
        for secret in (str(tmp_path), "Traceback", ".py"):
            assert secret not in answer.text
        assert [record.levelname for record in caplog.records if shard in record.getMessage()] == ["ERROR"]
        assert "Traceback" not in caplog.text
        for does_not in (
            f"{C}/tiles/WebMercatorQuad/0/0/0.npy",
            f"{C}/{series}",
            C,
            f"{C}/items",
            "/collections",
            "/collections/other/tiles/WebMercatorQuad/0/0/0",
            "/readyz",
        ):
            assert client.get(does_not).status_code == 200, does_not


def test_a_missing_file_of_a_version_is_an_error_and_not_half_an_answer(varied: Store, service: Serve) -> None:
    shard = next(objects(varied, "maps.zarr/0/xco2/c/"))
    client = service(varied)
    version = client.get(C).json()["version"]
    path = f"{C}/instances/{version}/assets/{shard.removeprefix('demo/')}"
    assert client.get(path).content == varied.get(shard)
    varied.delete([shard])
    answer = client.get(path)
    assert (answer.status_code, answer.json()["key"]) == (502, shard)


def publish_other(store: Store) -> None:
    product = a_product("other", GRID, PLACE)
    axis = TimeAxis.regular("2020-01", "P1M", 1)
    publish_arrays(store, Arrays(product=product, axis=axis, values={"place": np.zeros((1, *GRID.shape))}))


def test_a_collection_published_now_is_served_now(directory: Store, service: Serve) -> None:
    client = service(directory, pointer_seconds=0.1)
    assert client.get(f"{C}/info").status_code == 404
    assert client.get("/collections").json()["collections"] == []
    version = publish(directory, 5)
    time.sleep(0.15)
    assert value_of(client) == (5.0, version)
    assert [one["id"] for one in client.get("/collections").json()["collections"]] == ["demo"]
    assert client.get("/search").json()["numberMatched"] == 1
    found = client.get(f"{C}/position?coords=POINT(0.2%200.2)")
    assert found.json()["ranges"]["place"]["values"] == [5.0]
    later = publish(directory, 6, 2)
    time.sleep(0.15)
    assert value_of(client, f"{TILE}?datetime=2020-02") == (6.0, later)
    assert client.get(C).json()["version"] == later
    pointer, _ = current_version(directory, "demo")
    assert pointer.version == later
    assert layout.pointer_key("demo") == "demo/current.json"
