from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import TableRefused
from models.xco2_global.signature import MONTHS
from models.xco2_global.table import ROW, Covariate, SequenceTable, create_values, make_rows
from tests.models.xco2_tables import FIRST_MONTH, made_up


def test_a_row_is_the_twelve_months_that_end_at_its_own() -> None:
    table = made_up(rows=40)
    rows = np.array([3, 3, 39])
    found = table.sequences(rows)
    assert found.shape == (3, MONTHS, 5)
    assert found.dtype == np.float32
    for sequence, row in zip(found, rows, strict=True):
        cell, last = table.rows["cell"][row], table.rows["month"][row] - FIRST_MONTH
        for back in range(MONTHS):
            np.testing.assert_array_equal(sequence[MONTHS - 1 - back], table.values[cell, last - back])


def test_a_table_comes_back_as_it_was_written_with_the_same_digest(tmp_path: Path) -> None:
    table = made_up()
    table.write(tmp_path)
    found = SequenceTable.read(tmp_path)
    assert isinstance(found.values, np.memmap)
    np.testing.assert_array_equal(found.values, table.values)
    np.testing.assert_array_equal(found.rows, table.rows)
    assert (found.covariates, found.first_month, found.description, found.synthetic) == (
        table.covariates,
        table.first_month,
        table.description,
        table.synthetic,
    )
    assert found.sha256 == table.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["covariates.npy", "rows.npy", "table.json"]


def test_covariates_filled_in_place_are_not_written_again(tmp_path: Path) -> None:
    table = made_up()
    values = create_values(tmp_path, *table.values.shape)
    assert np.isnan(values).all()
    for month in range(values.shape[1]):
        values[:, month] = table.values[:, month]
    replace(table, values=values).write(tmp_path)
    assert SequenceTable.read(tmp_path).sha256 == table.sha256


@pytest.mark.parametrize("changed", ["values", "rows", "covariates", "first_month"])
def test_the_digest_is_of_everything_that_is_learned_from(changed: str) -> None:
    table = made_up()
    latest = table.rows["month"].max()
    table = replace(table, rows=table.rows[table.rows["month"] < latest])  # so that the axis may begin a month earlier
    changes: dict[str, Any] = {"values": table.values.copy(), "rows": table.rows.copy()}
    changes["values"][7, 20, 2] += 1
    changes["rows"]["target"][5] += 1
    changes["covariates"] = (Covariate(name="other", units="1", long_name="other"), *table.covariates[1:])
    changes["first_month"] = FIRST_MONTH - 1
    assert replace(table, **{changed: changes[changed]}).sha256 != table.sha256


def _with(**columns: Any) -> Any:
    rows = made_up().rows.copy()
    for name, value in columns.items():
        rows[name][:3] = value
    return rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": _with(target=np.nan)}, "the target is not finite in 3 of 1500 rows"),
        ({"rows": _with(error=-0.1)}, "the error is negative or not finite in 3 of 1500"),
        ({"rows": _with(weight=np.inf)}, "the weight is negative or not finite in 3 of 1500"),
        ({"rows": _with(cell=120)}, "3 of 1500 rows name a cell outside of its 120"),
        ({"rows": _with(cell=-1)}, "3 of 1500 rows name a cell outside of its 120"),
        ({"rows": _with(month=FIRST_MONTH + 10)}, "3 of 1500 rows lack 12 months .* holds months 540 to 575"),
        ({"rows": _with(month=FIRST_MONTH + 36)}, "3 of 1500 rows lack 12 months"),
        ({"rows": np.zeros(0, ROW)}, "holds no rows"),
        ({"rows": np.zeros(5)}, "rows hold float64, not"),
        (
            {"values": np.zeros((120, 36, 4), np.float32)},
            r"float32 of shape \(120, 36, 4\), not float32 \(cell, month, 5",
        ),
        ({"values": np.zeros((120, 36, 5))}, "covariates are float64"),
        ({"covariates": (Covariate(name="a", units="1", long_name="a"),) * 5}, "a stands twice"),
    ],
)
def test_what_does_not_hold_is_refused_in_a_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TableRefused, match=message) as caught:
        replace(made_up(), **changes)
    assert "\n" not in str(caught.value)


def test_rows_are_made_of_columns_by_name() -> None:
    rows = make_rows({"cell": [1, 2], "month": [600, 601], "target": [0.5, -0.5], "group": [7, 8]})
    assert rows.dtype == ROW
    assert rows.tolist() == [(1, 600, 0.5, 0.0, 1.0, 7), (2, 601, -0.5, 0.0, 1.0, 8)]
    with pytest.raises(TableRefused, match=r"\['group'\] are missing and \['fold'\] are unknown"):
        make_rows({"cell": [1], "month": [1], "target": [1], "fold": [1]})
    with pytest.raises(TableRefused, match="several lengths"):
        make_rows({"cell": [1, 2], "month": [1], "target": [1], "group": [1]})


def test_a_directory_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableRefused, match=r"table\.json cannot be read: No such file"):
        SequenceTable.read(tmp_path)
    made_up().write(tmp_path)
    (tmp_path / "covariates.npy").write_bytes(b"not an array")
    with pytest.raises(TableRefused, match="holds no table"):
        SequenceTable.read(tmp_path)
    (tmp_path / "table.json").write_text('{"description": ""}')
    with pytest.raises(TableRefused, match=r"table\.json does not hold"):
        SequenceTable.read(tmp_path)
