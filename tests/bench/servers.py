"""Servers of the bench: on free ports of loopback, watched for CPU and memory, ended by their own process id."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bench.client import HTTP, Job, Result

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 90.0
"""numba and big imports take their time on a busy machine."""
STOP_SECONDS = 3.0


class Failed(Exception):
    """A server did not start, or answered with something that cannot be measured."""


def program(name: str) -> Path:
    """A program that the environment of the running Python installed."""
    return Path(sysconfig.get_path("scripts")) / name


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server."""

    name: str
    process: subprocess.Popen[bytes]
    address: int | str
    """Port of loopback, or path of a Unix socket."""
    protocol: str = HTTP

    def cpu(self) -> float:
        """Seconds of CPU that the process and its children have used."""
        try:
            first = psutil.Process(self.process.pid)
            times = [process.cpu_times() for process in (first, *first.children(recursive=True))]
        except psutil.NoSuchProcess:
            raise Failed(f"{self.name} has ended") from None
        return float(sum(one.user + one.system for one in times))

    def memory(self) -> float:
        """Resident MiB."""
        first = psutil.Process(self.process.pid)
        return float(sum(process.memory_info().rss for process in (first, *first.children(recursive=True)))) / 2**20


@contextlib.contextmanager
def running(
    name: str,
    command: list[str | Path],
    folder: Path,
    *,
    path: str,
    port: int,
    environment: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> Iterator[Server]:
    """Run a server that answers ``path`` when it is ready; its messages go to a file in ``folder``.

    Raises:
        Failed: with its last messages, if it does not get ready.
    """
    log = folder / f"{name}-{port}.log"
    with log.open("wb") as messages:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**clean_environment(), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the bench, which then ends its servers itself
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(f"http://127.0.0.1:{port}{path}"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{name} did not start: {log.read_text(errors='replace')[-800:].strip()}")
            time.sleep(0.1)
        yield Server(name=name, process=process, address=port)
    finally:
        stop(process)


@contextlib.contextmanager
def spawned_fastcgi(
    name: str, command: list[str | Path], folder: Path, environment: dict[str, str]
) -> Iterator[Server]:
    """Run a FastCGI program the way spawn-fcgi does: a listening Unix socket is its standard input."""
    path = folder / f"{name}.socket"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    with (folder / f"{name}.log").open("wb") as messages, listener:
        process = subprocess.Popen(
            command,
            env=clean_environment() | environment,
            stdin=listener.fileno(),
            stdout=messages,
            stderr=messages,
            start_new_session=True,
        )
    try:
        yield Server(name=name, process=process, address=str(path), protocol="fastcgi")
    finally:
        stop(process)
        path.unlink()


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here, gently first."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def clean_environment() -> dict[str, str]:
    """The environment without settings of stores and servers: what is measured is what the bench says."""
    dropped = ("AWS_", "CENOTE_", "GDAL_", "VSI_", "CPL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def free_port() -> int:
    """A port of loopback that was free a moment ago, below those that outgoing connections get."""
    while True:
        port = 15000 + secrets.randbelow(15000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        with error:
            return error.code < 500
    except OSError:
        return False


@contextlib.contextmanager
def serving_asgi(
    name: str,
    python: str | Path,
    app: str,
    folder: Path,
    *,
    app_folder: Path,
    environment: Mapping[str, str],
    path: str,
) -> Iterator[Server]:
    """An ASGI app behind uvicorn with uvloop and httptools, one process, no access log."""
    port = free_port()
    command: list[str | Path] = [
        *(python, "-m", "uvicorn", app, "--app-dir", app_folder),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
    ]
    with running(name, command, folder, path=path, port=port, environment=environment, cwd=folder) as server:
        yield server


@dataclass(frozen=True, kw_only=True)
class S3:
    """A running MinIO, or a way to it."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    @property
    def port(self) -> int:
        """Of loopback."""
        return int(self.endpoint.rsplit(":", 1)[1])

    def through(self, port: int) -> "S3":
        """The same store at another port."""
        return S3(endpoint=f"http://127.0.0.1:{port}", access_key=self.access_key, secret_key=self.secret_key)

    def environment(self) -> dict[str, str]:
        """What every S3 client reads, and what GDAL and obstore want besides."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ALLOW_HTTP": "true",
            "AWS_S3_ENDPOINT": self.endpoint.removeprefix("http://"),
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }


@contextlib.contextmanager
def minio(data: Path, bucket: str, folder: Path) -> Iterator[S3]:
    """A real MinIO on a folder that is kept."""
    script = ROOT / "infra" / "minio" / "minio.py"
    found = subprocess.run([sys.executable, script, "path"], check=True, stdout=subprocess.PIPE, text=True)
    (data / bucket).mkdir(parents=True, exist_ok=True)
    port = free_port()
    access_key, secret_key = "bench", secrets.token_urlsafe(24)
    environment = {
        "MINIO_ROOT_USER": access_key,
        "MINIO_ROOT_PASSWORD": secret_key,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
    }
    command: list[str | Path] = [found.stdout.strip(), "server", "--quiet", "--address", f"127.0.0.1:{port}", data]
    with running("minio", command, folder, path="/minio/health/ready", port=port, environment=environment):
        yield S3(endpoint=f"http://127.0.0.1:{port}", access_key=access_key, secret_key=secret_key)


class Helper:
    """A Python program of the bench that is spoken to line by line."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def read(self) -> str:
        """The next line it says.

        Raises:
            Failed: if it has ended.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        if not line:
            raise Failed("a helper of the bench has ended; its message is above")
        return line

    def say(self, line: str) -> str:
        """Tell it a line and return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        """End it."""
        stop(self.process)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Client(Helper):
    """The process that asks."""

    def __init__(self) -> None:
        super().__init__("tests.bench.client")

    def run(self, job: Job) -> Result:
        """Carry a job out.

        Raises:
            Failed: if a connection broke.
        """
        document: dict[str, Any] = json.loads(self.say(json.dumps(job.__dict__)))
        if "error" in document:
            raise Failed(document["error"])
        return Result(**document)


class Proxy(Helper):
    """A way to MinIO that counts requests and holds them back."""

    def __init__(self, target: int) -> None:
        super().__init__("tests.bench.proxy", str(target))
        self.port = int(self.read())

    @property
    def requests(self) -> int:
        """Requests so far."""
        return int(self.say(""))

    def ranges(self) -> tuple[int, int]:
        """Bytes asked for by ranges since this was last asked, and how many of them more than once."""
        asked, twice = self.say("ranges").split()
        return int(asked), int(twice)

    def hold(self, milliseconds: float) -> None:
        """Hold each request back from now on."""
        self.say(f"{milliseconds}")
