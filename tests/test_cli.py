"""The command: results on stdout, one sentence on stderr, exit 0, 1 or 2; and the life of a collection through it."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from services import cli, products
from services.cli import app
from services.core.errors import Refused

pytestmark = pytest.mark.slow  # as a whole

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


def test_one_damaged_collection_is_told_and_does_not_stop_the_others(tmp_path: Path) -> None:
    store = tmp_path / "store"
    source = str(monthly(tmp_path / "a.nc", "2001-01", 3))
    for name in ("broken", "wells"):
        run(store, "ingest", name, source, "--workers", "0")
    (store / "broken" / "current.json").write_text("{}")

    def told(*words: str) -> tuple[str, str]:
        result = CliRunner().invoke(app, ["--store", str(store), *words])
        assert result.exit_code == 1
        return result.stdout, result.stderr

    for words in (["versions"], ["gc"], ["gc", "--dry-run"]):
        said, complaint = told(*words)
        assert said.startswith("wells"), words
        assert said.count("\n") == 1
        assert "'broken/current.json' is damaged" in complaint
        assert complaint.count("\n") == 1
    said, complaint = told("gc", "broken")
    assert said.strip() == ""
    assert "'broken/current.json' is damaged" in complaint
    said, _ = told("doctor")
    assert "ok   collection wells" in said
    assert "BAD  collection broken: the stored object 'broken/current.json' is damaged" in said


def test_gc_tells_which_kept_version_is_damaged_and_goes_on(tmp_path: Path) -> None:
    store = tmp_path / "store"
    source = str(monthly(tmp_path / "a.nc", "2001-01", 3))
    for name in ("broken", "wells"):
        run(store, "ingest", name, source, "--workers", "0")
    (version,) = (store / "broken" / "versions").iterdir()
    version.write_text("{}")
    result = CliRunner().invoke(app, ["--store", str(store), "gc"])
    assert result.exit_code == 1
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["broken", "wells"]
    assert f"'broken/versions/{version.name}' is damaged" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.cluster
def test_workers_tell_progress_and_not_the_moves_of_the_scheduler(tmp_path: Path) -> None:
    source = str(monthly(tmp_path / "a.nc", "2001-01", 3))
    done = shell("--store", str(tmp_path / "store"), "ingest", "wells", source, "--workers", "1")
    assert done.returncode == 0
    assert done.stdout.startswith("wells: version ")
    assert "regions: 3 of 3 written" in done.stderr
    assert len(done.stderr.splitlines()) < 40, done.stderr
    assert "distributed" not in done.stderr


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    said = run(store, "ingest", "wells", str(monthly(tmp_path / "a.nc", "2001-01", 3)), "--dry-run")
    assert said["dry_run"] is True
    assert any("3 periods to compute" in line for line in said["plan"])
    assert not store.exists() or not any(store.rglob("*.json"))


def test_a_version_that_replaces_another_says_which_periods_vanish(tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(store, "ingest", "wells", str(monthly(tmp_path / "a.nc", "2001-01", 5)), "--workers", "0")
    words = ["--store", str(store), "ingest", "wells", "--workers", "0"]
    shorter = CliRunner().invoke(app, [*words, str(monthly(tmp_path / "b.nc", "2001-02", 2, shift=1.0))])
    assert "these files hold no 2001-01 and 2 more periods that version" in shorter.stderr
    longer = CliRunner().invoke(app, [*words, str(monthly(tmp_path / "c.nc", "2001-02", 4))])
    assert longer.exit_code == 0
    assert "hold no" not in longer.stderr


WITHOUT_TORCH = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Nothing())
from services.cli import main
main()
"""


def test_training_without_torch_says_what_to_install(tmp_path: Path) -> None:
    words = ["train", "sample_earth", "--inputs", str(tmp_path), "--out", str(tmp_path / "o")]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("cenote: train needs the package torch, which is not installed: in a checkout ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("product", "absent", "install"),
    [("gwsa", "xgboost", "xgboost-cpu onnx"), ("xco2_global", "torch", "torch safetensors onnx onnxscript")],
)
@pytest.mark.parametrize("command", [("train", "--dry-run"), ("train",), ("export", "--dry-run")])
def test_what_learns_is_looked_for_before_anything_else(
    product: str, absent: str, install: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(products.product(product), command[0], lambda *_: pytest.fail("it began"))
    done = CliRunner().invoke(app, [command[0], product, *command[1:]])
    assert isinstance(done.exception, Refused)
    assert str(done.exception) == (
        f"{command[0]} needs the package {absent}, which is not installed: in a checkout `.venv/bin/pip install "
        f"-c constraints.txt {install}` installs it, elsewhere cenote's train extra"
    )


def test_the_learning_commands_say_what_they_would_do(tmp_path: Path) -> None:
    for command, key in (("train", "inputs"), ("export", "from")):
        option = "--inputs" if command == "train" else "--from"
        said = run(
            tmp_path, command, "sample_earth", option, str(tmp_path / "in"), "--out", str(tmp_path / "o"), "--dry-run"
        )
        assert (said["dry_run"], said[key], said["out"]) == (True, str(tmp_path / "in"), str(tmp_path / "o"))
    said = run(tmp_path / "store", "sample", "--inputs", str(tmp_path / "in"), "--dry-run")
    assert [one["collection"] for one in said] == ["gwsa", "sample_earth", "xco2_global"]
    assert list(tmp_path.iterdir()) == []


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
    ("words", "sentence", "code"),
    [
        (["ingest", "x", "missing.nc"], "missing.nc", 1),
        (["render", "no_such_product"], "there is no product 'no_such_product'; there are ", 1),
        (["versions", "no_such_collection"], "there is no collection 'no_such_collection'", 1),
        (["rollback", "no_such_collection", "0"], "there is no collection 'no_such_collection'", 1),
        (["verify", "no_such_collection"], "there is no collection 'no_such_collection'", 1),
        (["ingest", "Not An Id", "missing.nc"], "'Not An Id' cannot be the id of a collection", 2),
        (["render", "sample_earth", "--bbox", "0,0,1,1"], "--bbox and --name go together", 2),
        (["plan", "gwsa", "--inputs", "nowhere", "--bbox", "70,20,72"], "--bbox is W,S,E,N in degrees", 2),
        (["render", "gwsa", "--inputs", "nowhere", "--bbox", "72,22,70,24", "--name", "x"], "west must be less", 2),
        (["sample", "--size", "huge"], "--size is small or study, not 'huge'", 2),
    ],
)
def test_a_refusal_is_one_sentence_and_exit_1_and_wrong_usage_exit_2(
    words: list[str], sentence: str, code: int, tmp_path: Path
) -> None:
    done = shell("--store", str(tmp_path / "store"), *words)
    assert done.returncode == code
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
    assert done.returncode == 2
    assert "AWS_ENDPOINT_URL" in done.stderr


def test_what_nobody_foresaw_is_one_sentence_and_a_traceback_for_who_wants_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("cenote: a defect of cenote or of its surroundings: RuntimeError: two lines")
    assert said.count("\n") == 1
    monkeypatch.setenv("CENOTE_DEBUG", "1")
    with pytest.raises(RuntimeError):
        cli.main()


def test_results_into_a_pipe_that_is_closed_are_no_traceback(tmp_path: Path) -> None:
    command = [CENOTE, "--store", str(tmp_path), "doctor", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asked:
        assert asked.stdout is not None
        assert asked.stderr is not None
        asked.stdout.close()
        assert asked.stderr.read() == ""


@pytest.mark.s3
def test_a_store_that_ignores_preconditions_is_refused(rclone_s3: Any, tmp_path: Path) -> None:
    url = f"s3://{rclone_s3.new_bucket()}/x"
    source = monthly(tmp_path / "a.nc", "2001-01", 3)
    done = shell("--store", url, "ingest", "wells", str(source), "--workers", "0", **rclone_s3.environment())
    assert done.returncode == 1
    assert "does not honour conditional writes" in done.stderr
