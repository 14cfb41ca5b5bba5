import time
from datetime import date
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.errors import DeclarationError, QueryError, TimeOutsideAxis
from services.core.time_axis import Step, TimeAxis, blocks, parse_instant, start_of

MONTH, DAY, HOUR = Step.parse("P1M"), Step.parse("P1D"), Step.parse("PT1H")
STEPS = ["P1Y", "P1M", "P3M", "P1D", "P8D", "PT1H", "PT3H", "PT15M"]
GAPPED = TimeAxis.regular("2004-01", "P1M", 6).take([0, 1, 4, 5])
"""2004-01, 2004-02, 2004-05, 2004-06."""


def instant(text: str) -> np.datetime64:
    return np.datetime64(text, "us")


@st.composite
def axes(draw: st.DrawFn) -> TimeAxis:
    """Any step, gaps, before and after 1970, with or without times of the source's own."""
    step = Step.parse(draw(st.sampled_from(STEPS)))
    first = draw(st.integers(-300, 300)) * step.count
    gaps = draw(st.lists(st.integers(1, 4), max_size=20))
    starts = [first]
    for gap in gaps:
        starts.append(starts[-1] + gap * step.count)
    axis = TimeAxis(step=step, starts=tuple(starts))
    if draw(st.booleans()):
        return axis
    bounds = axis.bounds.astype("datetime64[us]").astype(np.int64)
    times = tuple(draw(st.integers(int(low), int(high))) for low, high in bounds)
    return TimeAxis.with_times(step, axis.starts, times)


@pytest.mark.parametrize("text", STEPS)
def test_a_step_is_an_iso_duration(text: str) -> None:
    assert str(Step.parse(text)) == text


def test_a_week_is_seven_days() -> None:
    assert str(Step.parse("P2W")) == "P14D"


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "P0M", "P1S", "P1M2D", "1M", "P1m", "PT1S", "P-1D", "P1.5D", "P1M\n", "PT1D", "P1H"]
)
def test_a_duration_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(DeclarationError, match="is not an ISO 8601 duration of one unit"):
        Step.parse(text)


def test_a_step_of_nothing_is_refused() -> None:
    with pytest.raises(DeclarationError, match="needs at least one unit, not 0"):
        Step(count=0, unit="D")


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2004", "2004-01-01", "2004-12-31T23:59:59.999999"),
        ("2004-02", "2004-02-01", "2004-02-29T23:59:59.999999"),
        ("200402", "2004-02-01", "2004-02-29T23:59:59.999999"),
        ("2004-02-29", "2004-02-29", "2004-02-29T23:59:59.999999"),
        ("20040229", "2004-02-29", "2004-02-29T23:59:59.999999"),
        ("2004-02-29T05", "2004-02-29T05:00", "2004-02-29T05:59:59.999999"),
        ("2004-02-29T05:07", "2004-02-29T05:07", "2004-02-29T05:07:59.999999"),
        ("2004-02-29T05:07:08", "2004-02-29T05:07:08", "2004-02-29T05:07:08"),
        ("2004-02-29 05:07:08Z", "2004-02-29T05:07:08", "2004-02-29T05:07:08"),
        ("2004-02-29T05:07:08.25Z", "2004-02-29T05:07:08.25", "2004-02-29T05:07:08.25"),
        ("2004-02-29T05:07:08.123456789Z", "2004-02-29T05:07:08.123456", "2004-02-29T05:07:08.123456"),
        ("2004-02-29T05:07:08+02:00", "2004-02-29T03:07:08", "2004-02-29T03:07:08"),
        ("2004-02-29T05:07:08-0330", "2004-02-29T08:37:08", "2004-02-29T08:37:08"),
        ("2004-03-01T00:30+01:00", "2004-02-29T23:30", "2004-02-29T23:30:59.999999"),
        (" 1969-12-31 ", "1969-12-31", "1969-12-31T23:59:59.999999"),
    ],
)
def test_an_instant_covers_what_its_text_covers(text: str, first: str, last: str) -> None:
    assert parse_instant(text) == (instant(first), instant(last))


@pytest.mark.parametrize(
    "text",
    ["", "latest", "2004-13", "2004-02-30", "2004-2-3", "04-02-03", "2004-02-29T24", "2004-02-29T05:60", "noon",
     "2004/05", "2004-02-29T05:07:08.Z", "2004Z", "2004-02-29T", "-2004-01-01", "2004-01-01T00:00:00+1",
     "\u0662\u0660\u0660\u0664"],
)  # fmt: skip
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match="is not a"):
        parse_instant(text)


@settings(deadline=None)
@given(axes())
def test_ids_name_the_start_and_are_read_back(axis: TimeAxis) -> None:
    assert len(set(axis.ids)) == len(axis)
    assert TimeAxis.of_ids(axis.step, axis.ids).starts == axis.starts
    for name, start in zip(axis.ids, axis.starts, strict=True):
        assert start_of(name, axis.step) == start
        assert parse_instant(name)[0] == np.datetime64(start, axis.step.unit)


def test_ids_have_the_resolution_of_the_axis() -> None:
    assert TimeAxis.regular("2004", "P1Y", 2).ids == ("2004", "2005")
    assert GAPPED.ids == ("2004-01", "2004-02", "2004-05", "2004-06")
    assert TimeAxis.regular("2004-02-28", "P1D", 3).ids == ("2004-02-28", "2004-02-29", "2004-03-01")
    assert TimeAxis.regular("2004-01-15T03", "PT1H", 1).ids == ("2004-01-15T03",)
    assert TimeAxis.regular("2004-01-15T03:45", "PT15M", 2).ids == ("2004-01-15T03:45", "2004-01-15T04:00")
    assert TimeAxis.regular("1969-11", "P1M", 3).ids == ("1969-11", "1969-12", "1970-01")


@settings(deadline=None)
@given(axes())
def test_bounds_are_half_open_and_one_step_long(axis: TimeAxis) -> None:
    assert axis.bounds.shape == (len(axis), 2)
    assert (axis.bounds[:, 1] - axis.bounds[:, 0] == axis.step.delta()).all()
    assert all(before <= after for before, after in pairwise(axis.bounds[:, 0]))
    assert (axis.instants >= axis.bounds[:, 0]).all()
    assert (axis.instants <= axis.bounds[:, 1]).all()


@settings(deadline=None)
@given(axes(), st.data())
def test_the_period_that_contains_an_instant(axis: TimeAxis, data: st.DataObject) -> None:
    """Against a search through all of them."""
    low, high = (int(edge) for edge in axis.bounds.astype("datetime64[us]").astype(np.int64)[[0, -1], [0, 1]])
    length = high - low
    at = np.datetime64(data.draw(st.integers(low - length, high + length)), "us")
    holding = [place for place, (first, end) in enumerate(axis.bounds) if first <= at < end]
    if holding:
        assert [axis.index(at)] == holding
        return
    with pytest.raises(TimeOutsideAxis, match="no period contains") as outside:
        axis.index(at)
    before = [name for name, (_, end) in zip(axis.ids, axis.bounds, strict=True) if end <= at][-1:]
    after = [name for name, (first, _) in zip(axis.ids, axis.bounds, strict=True) if first > at][:1]
    assert str(outside.value).endswith(" and ".join([*before, *after]))


def test_the_nearest_periods_are_named() -> None:
    with pytest.raises(TimeOutsideAxis, match=r"2004-03-15T00:00:00Z; the nearest periods are 2004-02 and 2004-05$"):
        GAPPED.index(instant("2004-03-15"))
    with pytest.raises(TimeOutsideAxis, match=r"the nearest period is 2004-06$"):
        GAPPED.index(instant("2005-01-01"))
    with pytest.raises(TimeOutsideAxis, match=r"the nearest period is 2004-01$"):
        GAPPED.index(instant("2003-12-31T23:59:59.999999"))
    with pytest.raises(TimeOutsideAxis, match="there are none"):
        TimeAxis(step=MONTH, starts=()).index(instant("2004-01-01"))


@settings(deadline=None)
@given(axes(), st.data())
def test_an_interval_takes_every_period_that_it_touches(axis: TimeAxis, data: st.DataObject) -> None:
    """A closed interval touches a half-open period unless it ends before it, or begins at its end or later."""
    low, high = (int(edge) for edge in axis.bounds.astype("datetime64[us]").astype(np.int64)[[0, -1], [0, 1]])
    span = st.one_of(st.none(), st.integers(2 * low - high, 2 * high - low))
    ends = [data.draw(span), data.draw(span)]
    if ends[0] is not None and ends[1] is not None:
        ends.sort(key=lambda end: end or 0)
    first, last = (None if end is None else np.datetime64(end, "us") for end in ends)
    touched = [
        place
        for place, (start, end) in enumerate(axis.bounds)
        if (last is None or start <= last) and (first is None or end > first)
    ]
    if touched:
        assert list(axis.between(first, last)) == touched
    else:
        with pytest.raises(TimeOutsideAxis, match=r"no period of the axis touches .*; it has "):
            axis.between(first, last)


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        (None, GAPPED.ids),
        ("latest", GAPPED.ids[-1:]),
        ("2004-02", ("2004-02",)),
        ("2004-02-29T23:59:59Z", ("2004-02",)),
        ("2004-05-01", ("2004-05",)),
        ("2004-02/2004-05", ("2004-02", "2004-05")),
        ("2004-01-31/2004-02-01", ("2004-01", "2004-02")),
        ("2004-02/..", ("2004-02", "2004-05", "2004-06")),
        ("../2004-02", ("2004-01", "2004-02")),
        ("/2004-01", ("2004-01",)),
        ("2004-06/", ("2004-06",)),
        ("../..", GAPPED.ids),
        ("2003/2004", GAPPED.ids),
        ("2004/2004-04", ("2004-01", "2004-02")),
        ("2004-03-15/2004-05-01", ("2004-05",)),
        ("1900/2100", GAPPED.ids),
    ],
)
def test_datetime_expressions(expression: str | None, names: tuple[str, ...]) -> None:
    assert tuple(GAPPED.ids[place] for place in GAPPED.select(expression)) == names


@pytest.mark.parametrize(
    ("expression", "error", "said"),
    [
        ("2004-03", TimeOutsideAxis, "the nearest periods are 2004-02 and 2004-05"),
        ("2004-03/2004-04", TimeOutsideAxis, "it has 2004-01 to 2004-06"),
        ("2010/..", TimeOutsideAxis, "it has 2004-01 to 2004-06"),
        ("../2003", TimeOutsideAxis, "it has 2004-01 to 2004-06"),
        ("2004-05/2004-02", QueryError, "ends before it starts"),
        ("2004-01/2004-02/2004-03", QueryError, "is not an interval a/b"),
        ("Latest", QueryError, "is not an ISO 8601 date"),
        ("", QueryError, "is not an ISO 8601 date"),
        ("2004-02-30/..", QueryError, "is not a date"),
    ],
)
def test_expressions_that_name_nothing_or_are_none(expression: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        GAPPED.select(expression)


@pytest.mark.parametrize("expression", [None, "latest", "2004-01", "../.."])
def test_an_empty_axis_has_nothing(expression: str | None) -> None:
    with pytest.raises(TimeOutsideAxis, match="no period"):
        TimeAxis(step=MONTH, starts=()).select(expression)


@settings(deadline=None)
@given(axes())
def test_json_gives_the_axis_back(axis: TimeAxis) -> None:
    assert TimeAxis.from_json(axis.to_json()) == axis


def test_201_624_hours_are_one_line_and_quick() -> None:
    started = time.perf_counter()
    axis = TimeAxis.regular("2000-01-01", "PT1H", 201_624)
    assert axis.ids[-1] == "2022-12-31T23"
    document = axis.to_json()
    assert document == {"step": "PT1H", "runs": [["2000-01-01T00", 201_624]]}
    assert TimeAxis.from_json(document) == axis
    for _ in range(100):
        assert axis.index(instant("2011-06-15T12:34:56")) == (date(2011, 6, 15) - date(2000, 1, 1)).days * 24 + 12
        assert list(axis.select("2022-12-31/..")) == list(range(201_600, 201_624))
    assert sum(1 for _ in blocks(axis, 720, axis.starts[0])) == 281
    assert time.perf_counter() - started < 5  # about 0.5 s; a scan of the axis for each question takes minutes


def test_runs_break_at_gaps() -> None:
    assert GAPPED.to_json() == {"step": "P1M", "runs": [["2004-01", 2], ["2004-05", 2]]}


@settings(deadline=None)
@given(axes(), st.data())
def test_parts_of_an_axis_make_it_whole_again(axis: TimeAxis, data: st.DataObject) -> None:
    one = [place for place in range(len(axis)) if data.draw(st.booleans())]
    other = [place for place in range(len(axis)) if place not in one]
    assert axis.take(one).union(axis.take(other)) == axis
    assert axis.union(axis.take(one)) == axis
    assert axis.take(range(len(axis))) == axis
    for place, name in zip(one, axis.take(one).ids, strict=True):
        assert name == axis.ids[place]


def test_where_two_axes_have_a_period_the_time_is_the_later_ones() -> None:
    start = TimeAxis.regular("2004-01", "P1M", 2)
    middle = TimeAxis.with_times(
        MONTH,
        start.starts[1:],
        (int(instant("2004-02-15").astype(np.int64)),),
    )
    assert start.union(middle).instants.tolist() == [
        instant("2004-01-01").astype(object),
        instant("2004-02-15").astype(object),
    ]
    assert middle.union(start).times is None
    with pytest.raises(DeclarationError, match="an axis of step P1D does not continue one of step P1M"):
        start.union(TimeAxis.regular("2004-01-01", "P1D", 1))


@settings(deadline=None)
@given(axes(), st.integers(1, 7), st.integers(-50, 50))
def test_blocks_are_a_function_of_the_period_alone(axis: TimeAxis, length: int, anchor: int) -> None:
    found = list(blocks(axis, length, anchor))
    assert [place for _, members in found for place in members] == list(range(len(axis)))
    numbers = [number for number, _ in found]
    assert numbers == sorted(set(numbers))
    for number, members in found:
        first = anchor + number * length * axis.step.count
        for place in members:
            assert first <= axis.starts[place] < first + length * axis.step.count


@settings(deadline=None)
@given(axes(), st.integers(1, 7), st.data())
def test_a_period_that_is_added_or_filled_touches_one_block_only(
    axis: TimeAxis, length: int, data: st.DataObject
) -> None:
    steps = (axis.starts[-1] - axis.starts[0]) // axis.step.count
    start = axis.starts[0] + axis.step.count * data.draw(st.integers(-length, steps + length))
    anchor = axis.starts[0]
    more = TimeAxis(step=axis.step, starts=tuple(sorted({*axis.starts, start})))
    before, after = (
        {number: [one.starts[place] for place in members] for number, members in blocks(one, length, anchor)}
        for one in (axis, more)
    )
    touched = (start - anchor) // (axis.step.count * length)
    assert {number: members for number, members in after.items() if number != touched} == {
        number: members for number, members in before.items() if number != touched
    }


@pytest.mark.parametrize(
    ("step", "starts", "said"),
    [
        (MONTH, (408, 408), "periods 2004-01 and 2004-01 overlap or "),
        (MONTH, (409, 408), "periods 2004-02 and 2004-01 overlap or "),
        (Step.parse("P3M"), (408, 410), r"2004-01 and 2004-03 overlap or .*\(step P3M\)"),
    ],
)
def test_periods_that_overlap_are_refused(step: Step, starts: tuple[int, ...], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        TimeAxis(step=step, starts=starts)


def test_times_outside_their_period_are_refused() -> None:
    with pytest.raises(DeclarationError, match=r"time 2004-02-01T00:00:00.000001 lies outside its period 2004-01"):
        TimeAxis(step=MONTH, starts=(408,), times=(int(instant("2004-02-01T00:00:00.000001").astype(np.int64)),))
    with pytest.raises(DeclarationError, match="1 times for 2 periods"):
        TimeAxis(step=MONTH, starts=(408, 409), times=(0,))
    # the end itself is allowed: some sources stamp a mean with the end of its period
    TimeAxis(step=MONTH, starts=(408,), times=(int(instant("2004-02-01").astype(np.int64)),))


def test_a_regular_axis_begins_with_the_period_that_holds_its_start() -> None:
    assert TimeAxis.regular("2004-01-15", "P1M", 1) == TimeAxis.regular("2004-01", "P1M", 1)
    with pytest.raises(QueryError, match="is not an ISO 8601"):
        TimeAxis.regular("January", "P1M", 1)
