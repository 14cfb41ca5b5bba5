"""Batches of points: equal to single ones, in the order asked, each chunk read once; and what is refused."""

import csv
import io
import itertools
import time
from collections.abc import Callable
from typing import Any, override

import numpy as np
import pytest
from starlette.testclient import TestClient

from services.core.settings import Settings
from services.core.store.interface import Observed, Operation
from tiler import points
from tiler.app import create_app

pytestmark = pytest.mark.slow  # as a whole

RANDOM = np.random.default_rng(5)
PLACES = [[round(float(x), 3), round(float(y), 3)] for x, y in RANDOM.uniform((-180, -59), (360, 89), (200, 2))]


def post(client: TestClient, query: str, body: Any) -> Any:
    answer = client.post(f"/collections/{query}", json=body)
    assert answer.status_code == 200, answer.text
    return answer


def wanted(world: Any, variable: str) -> np.ndarray[Any, Any]:
    """Values of the places by xarray, in the order asked."""
    source = world.sources["xco2_test"].xarray[variable]
    x = [(lon + 180) % 360 - 180 for lon, _ in PLACES]
    return np.stack([source.sel(x=a, y=b, method="nearest").values for a, (_, b) in zip(x, PLACES, strict=True)])


@pytest.mark.parametrize("form", ["coords", "features"])
def test_a_batch_equals_xarray_sel_in_the_order_asked(world: Any, form: str) -> None:
    body: dict[str, Any] = {"coords": PLACES}
    if form == "features":
        body = {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "id": f"well {number}",
                    "properties": {},
                    # stations know their height; it is left out
                    "geometry": {"type": "Point", "coordinates": [*place, 12.5]},
                }
                for number, place in enumerate(PLACES)
            ],
        }
    document = post(world.client, "xco2_test/points", body).json()
    assert len(document["time"]) == 30
    for variable, half in (("xco2", 0.005), ("soundings", 0)):
        values = [one["values"][variable] for one in document["points"]]
        found = np.array([[np.nan if v is None else v for v in series] for series in values], dtype=float)
        np.testing.assert_allclose(found, wanted(world, variable), rtol=0, atol=half)
    if form == "features":
        assert [one["id"] for one in document["points"]] == [f"well {number}" for number in range(200)]
    assert document["points"][3]["asked"] == {"longitude": PLACES[3][0], "latitude": PLACES[3][1]}
    assert document["parameters"]["xco2"]["unit"]["symbol"]["value"] == "1e-6"
    assert document["cenote"]["version"] == world.sources["xco2_test"].version.id


def test_ids_of_features_come_back(world: Any) -> None:
    named: tuple[dict[str, Any], ...] = ({"id": "site A"}, {"id": 7}, {})
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": list(place)}, **more}
        for place, more in zip(PLACES, named, strict=False)
    ]
    body = {"type": "FeatureCollection", "features": features}
    url = "xco2_test/points?datetime=2016-01&f="
    found = post(world.client, f"{url}geojson", body).json()["features"]
    assert [one["id"] for one in found] == ["site A", 7, 2]
    coverages = post(world.client, f"{url}covjson", body).json()["coverages"]
    assert [one.get("id") for one in coverages] == ["site A", "7", None]


def test_no_id_is_taken_for_values(world: Any) -> None:
    hole = repr(points._HOLE)
    named = [
        hole,
        f":{hole}",
        f'":{hole}',
        f'"xco2":{hole}',
        f'{{"xco2":{hole}',
        f'xco2":{hole}',
        f'\\":{hole}',
        f'\\\\":{hole}',
        f'{{"xco2":{hole}}}',
    ]
    features = [
        {"type": "Feature", "id": one, "properties": {}, "geometry": {"type": "Point", "coordinates": list(place)}}
        for place, one in zip(PLACES, named, strict=False)
    ]
    body = {"type": "FeatureCollection", "features": features}
    found = post(world.client, "xco2_test/points", body).json()["points"]
    assert [one["id"] for one in found] == named
    alone = post(world.client, "xco2_test/points", {"coords": PLACES[: len(named)]}).json()["points"]
    assert [one["values"] for one in found] == [one["values"] for one in alone]


def test_a_batch_in_csv_numbers_the_places(world: Any) -> None:
    url = "xco2_test/points?f=csv&parameter-name=xco2&datetime=2016"
    rows = list(csv.DictReader(io.StringIO(post(world.client, url, {"coords": PLACES}).text)))
    assert [int(row["point"]) for row in rows] == list(range(200))
    found = np.array([float(row["xco2 [1e-6]"] or "nan") for row in rows])
    source = world.sources["xco2_test"]
    place = source.time.ids.index("2016-01")
    np.testing.assert_allclose(found, wanted(world, "xco2")[:, place], rtol=0, atol=0.005)


def test_a_batch_of_an_instance_is_the_same(world: Any) -> None:
    version = world.sources["pacific-days"].version.id
    body = {"coords": [[170, 10], [-170, 10], [190, 10]]}
    now = post(world.client, "pacific-days/points", body)
    fixed = post(world.client, f"pacific-days/instances/{version}/points", body)
    assert now.json() == fixed.json()
    points = now.json()["points"]
    assert points[1]["values"] == points[2]["values"], "-170 and 190 are one place"
    assert points[1]["cell"] == points[2]["cell"]


@pytest.mark.parametrize("kind", ["CoverageJSON", "GeoJSON", "NetCDF"])
def test_a_batch_speaks_the_encodings_of_position(world: Any, kind: str) -> None:
    coords = ",".join(f"({x} {y})" for x, y in PLACES[:3])
    single = world.client.get(f"/collections/xco2_test/position?coords=MULTIPOINT({coords})&f={kind}")
    batch = post(world.client, f"xco2_test/points?f={kind}", {"coords": PLACES[:3]})
    assert batch.headers["content-type"] == single.headers["content-type"]
    if kind != "NetCDF":
        first, second = batch.json(), single.json()
        del first["cenote"], second["cenote"]
        assert first == second


class Counted(Observed):
    """A store that counts the parts of objects that are read, and takes its time for each."""

    __slots__ = ("ranges", "seconds")

    def __init__(self, inner: Any, seconds: float = 0.0) -> None:
        super().__init__(inner)
        self.ranges = 0
        self.seconds = seconds

    @override
    def around[Answer](self, operation: Operation, call: Callable[[], Answer]) -> Answer:
        if operation.name in {"get_range", "get_ranges"}:
            time.sleep(self.seconds)
            answer = call()
            self.ranges += 1 if operation.name == "get_range" else len(answer)  # type: ignore[arg-type]
            return answer
        return call()


def test_each_chunk_is_read_once_however_the_places_are_mixed(world: Any) -> None:
    store = Counted(world.store)
    # nothing is kept between reads, so that reading a chunk twice shows
    app = create_app(Settings(store=world.url, cache_mb=0), store)
    # chunks of the series are 9 x 9 cells: three of them, hit in turns
    places = [[x + 0.01 * n, y] for n, (x, y) in zip(range(300), itertools.cycle([(-179, 89), (-140, 80), (-179, 50)]))]
    with TestClient(app) as client:
        post(client, "xco2_test/points?parameter-name=soundings", {"coords": places})
    assert store.ranges == 3


def test_a_batch_that_takes_too_long_is_ended_and_reads_no_further(world: Any) -> None:
    store = Counted(world.store, seconds=0.1)
    app = create_app(Settings(store=world.url, request_seconds=1, warm_share=0), store)
    # so many that the 30 maps are read, one after the other: 3 s
    places = {"coords": [[x, y] for x in range(-179, 180, 8) for y in range(-80, 90, 8)]}
    with TestClient(app) as client:
        answer = client.post("/collections/xco2_test/points?parameter-name=soundings", json=places)
        assert answer.status_code == 503
        assert "took too long" in answer.json()["detail"]
        assert store.ranges < 30
        place = {"coords": [places["coords"][0]]}
        assert client.post("/collections/xco2_test/points?parameter-name=soundings", json=place).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "FeatureCollection of Points"),
        ([], 400, "FeatureCollection of Points"),
        ({"coords": []}, 400, "names no place"),
        ({"coords": [[1]]}, 400, "place 0 (from 0) is not [longitude, latitude]"),
        ({"coords": [[1, 2], ["a", "b"]]}, 400, "place 1"),
        ({"coords": [[1, True]]}, 400, "place 0"),
        ({"coords": [[1, 95]]}, 400, "latitude 95"),
        ({"coords": [[500, 5]]}, 400, "longitude 500"),
        ({"coords": [[1, 2]], "format": "csv"}, 400, "FeatureCollection of Points"),
        ({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": None}]}, 400, "feature 0"),
        ({"coords": [[170, 5], [0, 0]]}, 404, "place 1 (from 0) of 2"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_sentence(world: Any, body: Any, status: int, said: str) -> None:
    answer = world.client.post("/collections/pacific-days/points", json=body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"]


def test_numbers_that_json_has_not_are_refused(world: Any) -> None:
    for text in (b'{"coords":[[NaN,1]]}', b'{"coords":[[1,Infinity]]}', b'{"coords":[[1' + b"0" * 400 + b",1]]}"):
        answer = world.client.post("/collections/pacific-days/points", content=text)
        assert answer.status_code == 400
        assert "place 0" in answer.json()["detail"]


def test_places_values_and_bytes_are_capped(world: Any) -> None:
    places = {"coords": [[1, 1]] * 11}
    app = create_app(Settings(store=world.url, max_places_post=10, max_values=899), world.store)
    with TestClient(app) as client:
        answer = client.post("/collections/xco2_test/points?datetime=latest", json=places)
        assert answer.status_code == 413
        assert "11 places and at most 10" in answer.json()["detail"]
        places["coords"].pop()
        assert client.post("/collections/xco2_test/points?datetime=latest", json=places).status_code == 200
        answer = client.post("/collections/xco2_test/points", json=places)
        assert answer.status_code == 413
        assert "30 periods x 10 places x 3 variables are 900 values and at most 899" in answer.json()["detail"]
    app = create_app(Settings(store=world.url, max_cells=899), world.store)
    with TestClient(app) as client:
        for query in ("points", "points?f=csv", "points?f=NetCDF"):
            answer = client.post(f"/collections/xco2_test/{query}", json=places)
            assert answer.status_code == 413
            assert "30 periods x 10 places x 3 variables are 900 values and at most 899" in answer.json()["detail"]
        assert client.post("/collections/xco2_test/points?datetime=latest", json=places).status_code == 200
    app = create_app(Settings(store=world.url, max_body_bytes=50), world.store)
    with TestClient(app) as client:
        assert client.post("/collections/xco2_test/points", json=places).status_code == 413
        chunks = iter([b'{"coords":[[1,1]', b" " * 60, b"]}"])
        assert client.post("/collections/xco2_test/points", content=chunks).status_code == 413
    app = create_app(Settings(store=world.url, max_response_bytes=3000), world.store)
    with TestClient(app) as client:
        answer = client.post("/collections/xco2_test/points", json=places)
        assert answer.status_code == 413
        assert "f=CSV" in answer.json()["detail"]
        assert client.post("/collections/xco2_test/points?f=csv", json=places).status_code == 200
