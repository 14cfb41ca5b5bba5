import hashlib
from pathlib import Path

import numpy as np
import pytest

from models.errors import TableRefused
from models.table import Table


def test_a_table_reads_comments_and_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("# a comment\nsite,x,y\nA,1.5,\nB,,2\n")
    table = Table.read(path)
    assert len(table) == 2
    assert table.text("site") == ["A", "B"]
    np.testing.assert_array_equal(table.numbers("x"), [1.5, np.nan])
    np.testing.assert_array_equal(table.numbers("y"), [np.nan, 2])
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rows"),
        ("# only\nsite,x\n", "holds no rows"),
        ("site,x\nA\n", "row 1: 1 cells under 2 names"),
        ("site,x\nA,abc\n", "column x: could not convert string to float: 'abc'"),
        ("site,q\nA,1\n", "has no column 'x'; it has site, q"),
    ],
)
def test_a_table_that_does_not_hold_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(TableRefused, match=message):
        Table.read(path).numbers("x")


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableRefused, match="cannot be read"):
        Table.read(tmp_path / "none.csv")
