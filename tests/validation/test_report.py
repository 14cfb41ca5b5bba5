"""A report in parts: what one cannot tell takes nothing from the others."""

import json
from pathlib import Path

import pytest

from services.core.errors import InputRefused
from services.validation.report import NotComputed, Report, Rows


def test_a_part_that_cannot_be_computed_gives_its_reason_and_the_rest_is_reported(tmp_path: Path) -> None:
    notes: list[str] = []
    report = Report(out=tmp_path / "out", note=notes.append)

    def refused() -> tuple[dict[str, object], Rows]:
        raise InputRefused("wells.csv, line 2: 'x' is no number")

    def lacking() -> tuple[dict[str, object], Rows]:
        raise NotComputed("no well lies here")

    def broken() -> tuple[dict[str, object], Rows]:
        raise ZeroDivisionError

    assert report.part("wells", refused) == ()
    assert report.part("others", lacking) == ()
    assert report.part("scale", lambda: ({"bias": 0.5}, [{"month": 1, "bias": 0.5}], "more")) == ("more",)
    with pytest.raises(ZeroDivisionError):
        report.part("defect", broken)
    told = report.write({**report.parts, "tables": report.tables})
    assert told["wells"] == {"not_computed": "wells.csv, line 2: 'x' is no number"}
    assert told["others"] == {"not_computed": "no well lies here"}
    assert json.loads((tmp_path / "out" / "report.json").read_text())["scale"] == {"bias": 0.5}
    assert "wells: not computed: wells.csv, line 2: 'x' is no number" in notes
    assert told["tables"] == {"scale": "scale.csv"}


def test_a_table_of_nothing_is_not_written(tmp_path: Path) -> None:
    report = Report(out=tmp_path, note=lambda _: None)
    (tmp_path / "cells.csv").write_text("what an earlier report left\n")
    report.part("cells", lambda: ({"without_value": 0}, []))
    assert report.parts == {"cells": {"without_value": 0}}
    assert report.tables == {}
    assert not (tmp_path / "cells.csv").exists()
