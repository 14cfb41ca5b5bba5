"""The command: results on stdout, one sentence on stderr, exit 0, 1 or 2; and the life of a collection through it."""

import json
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from services.cli import app

CENOTE = str(Path(sysconfig.get_path("scripts")) / "cenote")


def monthly(path: Path, first: str, count: int, shift: float = 0.0) -> Path:
    """A small NetCDF of monthly values."""
    times = (np.datetime64(first, "M") + np.arange(count) * np.timedelta64(1, "M")).astype("datetime64[ns]")
    lat, lon = np.arange(58.75, 50, -0.5), np.arange(-10.75, 0, 0.5)
    values = (lat[:, None] + lon[None, :] + shift + np.arange(count)[:, None, None]).astype("float32")
    data = xr.Dataset(
        {"level": (("time", "lat", "lon"), values, {"units": "cm", "long_name": "water level"})},
        coords={"time": times, "lat": lat, "lon": lon},
    )
    data.to_netcdf(path, engine="h5netcdf")
    return path


def run(store: Path, *words: str, code: int = 0) -> Any:
    """Run a command in this process with --json; returns the document."""
    result = CliRunner().invoke(app, ["--store", str(store), *words, "--json"], catch_exceptions=True)
    assert result.exit_code == code, (result.output, result.exception)
    return json.loads(result.stdout) if code == 0 else result.exception


def shell(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([CENOTE, *words], capture_output=True, text=True, check=False, env=os.environ | environment)


def test_the_life_of_a_collection(tmp_path: Path) -> None:
    store = tmp_path / "store"
    files = [monthly(tmp_path / f"{year}.nc", f"{year}-01", 12) for year in (2001, 2002)]
    said = run(store, "ingest", "wells", str(files[0]), "--workers", "0")
    first = said["version"]
    assert (said["changed"], said["seq"], said["conclusion"]["units"]) == (True, 1, "cm")
    assert run(store, "ingest", "wells", str(files[0]), "--workers", "0")["changed"] is False, "the same files again"
    said = run(store, "ingest", "wells", str(files[1]), "--append", "--workers", "0")
    assert said["periods"] == [f"2002-{month:02d}" for month in range(1, 13)]
    again = run(store, "ingest", "wells", str(files[1]), "--append", "--workers", "0", code=1)
    assert "already has 2002-01 and 11 more of these periods" in str(again)
    listed = run(store, "versions", "wells")
    assert [(row["version"], row["current"], row["periods"]) for row in sorted(listed, key=lambda r: r["periods"])] == [
        (first, False, 12),
        (said["version"], True, 24),
    ]
    assert run(store, "verify", "wells")["sound"] is True
    folded = run(store, "compact", "wells", "--workers", "0")
    assert run(store, "versions", "wells")[0]["segments"] == 1
    assert run(store, "verify", "wells")["periods"] == 24
    assert run(store, "rollback", "wells", first)["changed"] is True
    assert run(store, "versions")[0]["current"] == first
    assert run(store, "pin", "wells", folded["version"])["pinned"] == [folded["version"]]
    assert run(store, "gc", "--dry-run") == run(store, "gc", "wells")
    assert all(check["ok"] for check in run(store, "doctor")["checks"])
    assert "has no version '../../x y'" in str(run(store, "rollback", "wells", "../../x y", code=1))


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    said = run(store, "ingest", "wells", str(monthly(tmp_path / "a.nc", "2001-01", 3)), "--dry-run")
    assert said["dry_run"] is True
    assert any("3 periods to compute" in line for line in said["plan"])
    assert not store.exists() or not any(store.rglob("*.json"))


def test_a_grid_that_changes_is_refused_on_append(tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(store, "ingest", "wells", str(monthly(tmp_path / "a.nc", "2001-01", 3)), "--workers", "0")
    before = run(store, "versions", "wells")
    with xr.open_dataset(monthly(tmp_path / "b.nc", "2001-04", 3), engine="h5netcdf") as data:
        data.isel(lat=slice(2, None)).to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    fault = run(store, "ingest", "wells", str(tmp_path / "c.nc"), "--append", "--workers", "0", code=1)
    assert "c.nc" in str(fault) or "grid" in str(fault)
    assert run(store, "versions", "wells") == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ingest", "x", "missing.nc"], "missing.nc"),
        (["ingest", "Not An Id", "missing.nc"], "'Not An Id' cannot be the id of a collection"),
        (["render", "no_such_product"], "there is no product 'no_such_product'; there are "),
        (["versions", "no_such_collection"], "there is no collection 'no_such_collection'"),
        (["rollback", "no_such_collection", "0"], "there is no collection 'no_such_collection'"),
        (["verify", "no_such_collection"], "there is no collection 'no_such_collection'"),
        (["render", "sample_earth", "--bbox", "0,0,1,1"], "--bbox and --name go together"),
    ],
)
def test_a_refusal_is_one_sentence_and_exit_1(words: list[str], sentence: str, tmp_path: Path) -> None:
    done = shell("--store", str(tmp_path / "store"), *words)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("cenote: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert sentence in done.stderr


def test_wrong_usage_is_exit_2() -> None:
    done = shell("ingest")
    assert done.returncode == 2
    assert "Usage" in done.stderr


def test_s3_without_an_endpoint_is_told_which_variable_lacks() -> None:
    done = shell(
        "--store", "s3://bucket/prefix", "versions", AWS_ENDPOINT_URL="", AWS_ENDPOINT_URL_S3="", AWS_REGION=""
    )
    assert done.returncode == 1
    assert "AWS_ENDPOINT_URL" in done.stderr


@pytest.mark.s3
def test_a_store_that_ignores_preconditions_is_refused(rclone_s3: Any, tmp_path: Path) -> None:
    url = f"s3://{rclone_s3.new_bucket()}/x"
    source = monthly(tmp_path / "a.nc", "2001-01", 3)
    done = shell("--store", url, "ingest", "wells", str(source), "--workers", "0", **rclone_s3.environment())
    assert done.returncode == 1
    assert "does not honour conditional writes" in done.stderr
