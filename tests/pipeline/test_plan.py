"""What decides a segment: a plan that reads the same files otherwise is another one."""

from dataclasses import replace
from typing import Any, Literal

import pytest

from services.core.catalog import Run, Version
from services.core.errors import NothingToDo
from services.core.grid import Grid
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.time_axis import TimeAxis
from services.pipeline.code import Code
from services.pipeline.plan import Plan, plan
from services.pipeline.recipe import Input

PRODUCT = Product(
    id="level",
    title="Level",
    description="Made up.",
    grid=Grid.of(west=0, north=10, step_x="1", width=10, height=10),
    step="P1M",
    quantities=(Quantity(name="level", units="m", long_name="level"),),
)
GIVEN: dict[str, Any] = {
    "product": PRODUCT,
    "available": TimeAxis.regular("2001-01", "P1M", 12),
    "current": None,
    "code": Code(version="1", source="0" * 64),
    "inputs": (Input(name="a.tif", size=1, sha256="1" * 64),),
    "models": {},
    "facts": {"time": "band descriptions"},
}


def test_the_memory_of_a_cog_does_not_grow_with_its_file() -> None:
    grid = Grid.of(west=-180, north=90, step_x="0.05", width=7200, height=3600)

    days = TimeAxis.regular("2001-01-01", "P1D", 365)

    def memory(cog_period: Literal["P1Y", "P1M"] | None) -> int:
        daily = replace(PRODUCT, grid=grid, step="P1D", cog_period=cog_period)
        return plan(**(GIVEN | {"product": daily, "available": days})).task_memory()

    # a map, and four times GDAL's cache; 365 bands of 104 MB, or 31
    assert memory("P1Y") == memory("P1M") == grid.cells * 4 + (256 << 20)
    assert memory(None) < memory("P1M")


@pytest.mark.parametrize(
    "change",
    [
        {"facts": {"time": "counted from 2001-01"}},
        {"inputs": (Input(name="a.tif", size=1, sha256="2" * 64),)},
        {"models": {"net": "3" * 64}},
        {"code": Code(version="1", source="4" * 64)},
        {"available": TimeAxis.regular("2001-02", "P1M", 12)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_decides_the_values_decides_the_segment(change: dict[str, Any]) -> None:
    assert plan(**GIVEN).segment == plan(**GIVEN).segment
    assert plan(**(GIVEN | change)).segment != plan(**GIVEN).segment


def published(first: Plan) -> Version:
    """The version that a first plan makes."""
    run = (Run(segment=first.segment, periods=first.fresh),)
    listed = [{"name": one.name, "size": one.size, "sha256": one.sha256} for one in first.inputs]
    return Version(
        product=PRODUCT,
        time=first.time,
        segments={first.segment: "0" * 64},
        maps=run,
        series=run,
        cogs=(),
        anchor=first.anchor,
        parent=None,
        provenance={first.segment: {"inputs": listed, "models": first.models, "facts": first.facts}},
    )


def test_nothing_to_do_says_what_the_published_values_do_not_follow_from() -> None:
    settings = {"facts": {"settings": {"fill": "ssa"}}}
    given = GIVEN | settings
    version = published(plan(**given))
    with pytest.raises(NothingToDo, match=r"already has all 12 periods that the inputs allow$"):
        plan(**(given | {"current": version}))
    other = {"inputs": (Input(name="a.tif", size=1, sha256="2" * 64),), "facts": {"settings": {"fill": "linear"}}}
    told = r"other inputs than these \(1 of 1 files differ, first a\.tif, fill\): --periods 2001-01/2001-12 makes them"
    with pytest.raises(NothingToDo, match=told):
        plan(**(given | other | {"current": version}))
    with pytest.raises(NothingToDo, match=r"other inputs than these \(models\)"):
        plan(**(given | {"current": version, "models": {"net": "3" * 64}}))


def test_periods_that_stay_and_were_made_with_another_model_are_told() -> None:
    given = GIVEN | {"facts": {"settings": {"fill": "ssa"}}, "models": {"net": "3" * 64}}
    version = published(plan(**(given | {"available": TimeAxis.regular("2001-01", "P1M", 3)})))
    more = given | {"current": version, "inputs": (*GIVEN["inputs"], Input(name="b.tif", size=1, sha256="5" * 64))}
    assert plan(**more).remarks == ()
    another = more | {"models": {"net": "6" * 64}, "facts": {"settings": {"fill": "linear"}}}
    found = plan(**another)
    (all_three,) = found.remarks
    assert all_three == (
        "note: 3 of the periods that stay (2001-01 to 2001-03) were made with other fill, models than these will be; "
        "--periods 2001-01/2001-03 makes them anew"
    )
    assert found.lines()[-1] == all_three
    (one,) = plan(**(another | {"periods": "2001-02/2001-12"})).remarks
    assert one.startswith("note: 1 of the periods that stay (2001-01) ")
    assert plan(**(another | {"periods": "2001-01/2001-12"})).remarks == ()
    assert plan(**(another | {"keep": False})).remarks == ()


@pytest.mark.parametrize(
    ("periods", "told"),
    [
        ("2001-11/2002-04", "end with 2001-12"),
        ("1999/2001-02", "begin with 2001-01"),
        ("2000-12/2003", "begin with 2001-01 and end with 2001-12"),
        ("../2002", "end with 2001-12"),
        ("2001-01/2001-12", ""),
        ("2001/..", ""),
        ("2001-05", ""),
        (None, ""),
    ],
)
def test_periods_beyond_the_inputs_are_told(periods: str | None, told: str) -> None:
    wanted = (f"note: of {periods} the inputs {told}",) if told else ()
    assert plan(**(GIVEN | {"periods": periods})).remarks == wanted
