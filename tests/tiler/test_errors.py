"""The table from errors to statuses."""

import json
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import services.core.errors
from services.core.errors import CenoteError, Damaged, ObjectMissing, QueryError, StoreError, StoreUnavailable
from tiler.errors import STATUS, add_handlers, problem_of, status_of


def every(kind: type[CenoteError]) -> Iterator[type[CenoteError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from every(child)


def test_every_error_has_a_status_of_its_own() -> None:
    known = {kind for kind in every(CenoteError) if kind.__module__ == services.core.errors.__name__}
    assert len(known) > 20
    assert known - set(STATUS) == set()


@pytest.mark.parametrize("kind", sorted(every(CenoteError), key=str))
def test_what_a_caller_can_put_right_is_a_4xx(kind: type[CenoteError]) -> None:
    status = STATUS.get(kind) or status_of(kind.__new__(kind))
    own_fault = {"QueryError", "RequestTooLarge", "PublishConflict"}
    if issubclass(kind, services.core.errors.NotFound) or kind.__name__ in own_fault:
        assert 400 <= status < 500
    if issubclass(kind, StoreError | Damaged):
        assert status in {502, 503}


def test_a_subclass_from_elsewhere_has_its_parents_status() -> None:
    class Later(QueryError):
        pass

    assert status_of(Later("x")) == 400


def test_damage_names_the_key_and_nothing_of_the_server() -> None:
    problem = problem_of(Damaged("xco2/versions/1.json", "its checksum does not hold"))
    assert problem.status == 502
    assert problem.extra == {"key": "xco2/versions/1.json"}
    assert "checksum" in problem.detail


def test_a_store_that_fails_is_told_without_its_address() -> None:
    problem = problem_of(StoreUnavailable("http://10.0.0.7:9000/bucket did not answer"))
    assert problem.status == 503
    assert "10.0.0.7" not in problem.detail
    assert (problem.headers or {})["Retry-After"] == "2"
    assert "/secret/path" not in problem_of(StoreError("cannot read /secret/path")).detail
    assert problem_of(ObjectMissing("a/b")).extra == {"key": "a/b"}


def test_an_unforeseen_error_is_a_500_with_an_incident_and_no_text_of_its_own() -> None:
    app = FastAPI()
    add_handlers(app)

    @app.get("/")
    def fail() -> None:
        raise RuntimeError("/etc/secret")

    answer = TestClient(app, raise_server_exceptions=False).get("/")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    document = json.loads(answer.content)
    assert document["status"] == 500
    assert document["incident"] in document["detail"]
    assert "secret" not in answer.text
