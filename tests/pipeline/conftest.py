"""Stores for the pipeline's tests, and one that counts, crashes and loses answers."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from services.core.settings import StoreSettings
from services.core.store import Store

ROOT = Path(__file__).resolve().parents[2]


class Server(Protocol):
    """What the fixtures of S3 servers give."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str

    def new_bucket(self) -> str: ...


_buckets: dict[str, str] = {}


def settings_of(server: Server) -> StoreSettings:
    return StoreSettings.model_validate(
        {
            "endpoint": server.endpoint,
            "region": server.region,
            "access_key_id": server.access_key,
            "secret_access_key": server.secret_key,
        }
    )


@pytest.fixture(
    params=[
        "directory",
        "memory",
        pytest.param("minio", marks=pytest.mark.s3),
        pytest.param("seaweedfs", marks=pytest.mark.s3),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of every kind."""
    match request.param:
        case "directory":
            return Store.open(str(tmp_path / "store"), StoreSettings())
        case "memory":
            return Store.open(f"memory://{uuid.uuid4().hex}", StoreSettings())
    server: Server = request.getfixturevalue(request.param)
    if server.endpoint not in _buckets:
        _buckets[server.endpoint] = server.new_bucket()
    return Store.open(f"s3://{_buckets[server.endpoint]}/{uuid.uuid4().hex}", settings_of(server))


@pytest.fixture
def memory() -> Store:
    """An empty store in memory."""
    return Store.open(f"memory://{uuid.uuid4().hex}", StoreSettings())


@pytest.fixture
def directory(tmp_path: Path) -> Store:
    """An empty store in a directory."""
    return Store.open(str(tmp_path / "store"), StoreSettings())


@pytest.fixture(scope="session", autouse=True)
def _workers_find_the_recipes() -> Iterator[None]:
    """Let worker processes import ``tests.pipeline.synthetic`` from this checkout, whatever else is called tests."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
