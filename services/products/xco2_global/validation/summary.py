"""The report in a few lines for a person."""

from collections.abc import Mapping
from typing import Any


def summary(report: Mapping[str, Any]) -> list[str]:
    """Lines; a part that was not computed has one that says why."""
    label = " (synthetic: no measurement)" if report["synthetic"] else ""
    first, last, count = report["periods"]
    without = report["months_without_soundings"]
    lines = [
        (
            f"{report['collection']} version {report['version']}, {count} months {first}..{last}, CO2 scale "
            f"{report['co2_scale']}{label}"
        ),
        f"sampling: {report['sampling']}",
    ]
    trees = report["guesses"].get("xgboost")
    if isinstance(trees, Mapping):
        lines.append(f"xgboost: not computed: {trees['not_computed']}")
    if without:
        lines.append(f"{len(without)} months have no sounding, first {without[0]}: the model speaks alone there")
    parts = {"stations": _stations, "held_out": _held_out, "folds": _folds, "truth": _truth, "attention": _attention}
    for name, told in parts.items():
        part = report[name]
        if "not_computed" in part:
            lines.append(f"{name.replace('_', ' ')}: not computed: {part['not_computed']}")
        else:
            lines += told(part)
    return lines


def _stations(part: Mapping[str, Any]) -> list[str]:
    label = " (synthetic)" if part["synthetic"] else ""
    one = part["methods"]["published"]
    reach = one.get("intervals", {}).get("rmse")
    interval = "" if reach is None else f" ({reach[0]:.2f}..{reach[1]:.2f})"
    lines = [
        (
            f"TCCON{label}: {part['pairs']} months at {part['stations']} stations: bias {_number(one['bias'], '+.2f')},"
            f" RMSE {_number(one['rmse'])}{interval} ppm, R2 {_number(one['r2'], '.3f')}, squared correlation "
            f"{_number(one['r2_pearson'], '.3f')}, slope {_number(one['slope'], '.3f')}"
        ),
        f"TCCON{label}, trend and season taken off: {_detrended(one)}",
    ]
    others = {
        name: told for name, told in part["methods"].items() if name != "published" and "not_computed" not in told
    }
    lines.append(
        f"TCCON{label}, same months: "
        + "; ".join(f"{_name(name)} RMSE {_number(told['rmse'])}" for name, told in others.items())
    )
    shares = [
        f"{told['share_within']['0.95']:.0%} {_name(name)}"
        for name, told in part["coverage"].items()
        if "not_computed" not in told
    ]
    lines.append(f"TCCON{label}, within the 95 % interval of the stated uncertainty: {', '.join(shares)}")
    return lines


def _attention(part: Mapping[str, Any]) -> list[str]:
    shares = part["mean_share_of_months_before"]
    most = max(range(len(shares)), key=shares.__getitem__)
    beside = f", most at {most} months before ({shares[most]:.0%})" if most else ", more than at any before"
    line = f"the network looks at the month itself for {shares[0]:.0%} of its answer{beside}"
    return [f"{line}; evenly it would be {1 / len(shares):.0%}"]


def _held_out(part: Mapping[str, Any]) -> list[str]:
    label = " (synthetic)" if part["synthetic"] else ""
    return [
        (
            f"blocks that the network never saw{label}: {_methods(part)}; "
            f"{part['within_95_percent_interval']:.0%} within the 95 % interval"
        )
    ]


def _folds(part: Mapping[str, Any]) -> list[str]:
    label = " (synthetic)" if part["synthetic"] else ""
    lines = []
    for split in ("sample", "space", "time", "space_time"):
        one = part[split]
        told = f"not computed: {one['not_computed']}" if "not_computed" in one else _methods(one)
        lines.append(f"folds by {_name(split)}{label}: {told}")
    return lines


def _truth(part: Mapping[str, Any]) -> list[str]:
    kinds, grown = part["kinds"], part["growth"]
    lines = []
    for kind in ("all", "with_soundings", "without_soundings"):
        one = kinds[kind]
        lines.append(
            f"against the truth (synthetic), {_name(kind)}: not computed: {one['not_computed']}"
            if "not_computed" in one
            else f"against the truth (synthetic), {_name(kind)}: {one['cells']} cells, RMSE {_number(one['rmse'])}, "
            f"bias {_number(one['bias'], '+.2f')} ppm; {one['share_within']['0.95']:.1%} within the 95 % interval"
        )
    for kind in ("all", "without_soundings"):
        one = part["same_points"][kind]
        if "not_computed" in one:
            continue
        told = "; ".join(f"{_name(name)} RMSE {_number(scores['rmse'])}" for name, scores in one["methods"].items())
        below = f", {one['rmse_below_best_guess']:.0%} below {_name(one['best_guess'])}" if "best_guess" in one else ""
        lines.append(f"against the truth (synthetic), {one['points']} same points, {_name(kind)}: {told}{below}")
    lines.append(
        f"growth of the global mean (synthetic): not computed: {grown['not_computed']}"
        if "not_computed" in grown
        else f"growth of the global mean (synthetic): {grown['published_ppm_a_year']:.3f} ppm a year, true "
        f"{grown['true_ppm_a_year']:.3f}"
    )
    return lines


def _methods(part: Mapping[str, Any]) -> str:
    told = "; ".join(
        f"{_name(name)} RMSE {_number(scores['rmse'])} R2 {_number(scores['r2'], '.3f')}"
        for name, scores in part["methods"].items()
    )
    return f"{part['points']} cells: {told}"


def _detrended(one: Mapping[str, Any]) -> str:
    told = one["detrended"]
    if "not_computed" in told:
        return f"not computed: {told['not_computed']}"
    return f"R2 {_number(told['r2'], '.3f')}, RMSE {_number(told['rmse'])} ppm in {told['n']} months"


def _name(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None, form: str = ".2f") -> str:
    return "unknown" if value is None or value != value else format(value, form)  # noqa: PLR0124 - NaN is not itself
