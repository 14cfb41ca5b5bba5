"""The report in a few lines for a person."""

from collections.abc import Mapping
from typing import Any


def summary(report: Mapping[str, Any]) -> list[str]:
    """Lines; a part that was not computed has one that says why."""
    label = " (synthetic: no measurement)" if report["synthetic"] else ""
    first, last, count = report["periods"]
    lines = [f"{report['collection']} version {report['version']}, {count} months {first}..{last}{label}"]
    for name, told in (
        ("cross_scale", _cross_scale),
        ("folds", _folds),
        ("regions", _regions),
        ("wells", _wells),
        ("seams", _seams),
        ("centres", _centres),
        ("land_models", _land_models),
        ("cells", _cells),
        ("footprint", _footprint),
        ("truth", _truth),
    ):
        part = report[name]
        if "not_computed" in part:
            lines.append(f"{name.replace('_', ' ')}: not computed: {part['not_computed']}")
        else:
            lines += told(part)
    return lines


def _cross_scale(part: Mapping[str, Any]) -> list[str]:
    before, after = part["before_closure"], part["after_closure"]
    alone = f"not computed: {before['not_computed']}" if "not_computed" in before else _errors(before)
    published = (
        f"{_errors(after)}; largest {part['largest_after_closure_cm']:.4f} cm, "
        f"{'within' if part['within_bound'] else 'NOT WITHIN'} the bound of {part['bound_cm']:.4f} cm"
    )
    return [
        f"1/4 degree means before closure: {alone}",
        f"1/4 degree means as published: {published}",
    ]


def _folds(part: Mapping[str, Any]) -> list[str]:
    lines = []
    for split in ("random", "space", "time"):
        one = part[split]
        lines += [
            f"folds at 1/4 degree, {split}: {region} is not computed: {why}"
            for region, why in one["regions_not_computed"].items()
        ]
        lines.append(
            f"folds at 1/4 degree, {split}: not computed: {one['not_computed']}"
            if "not_computed" in one
            else f"folds at 1/4 degree, {split}: R2 {one['r2']:.3f}, RMSE {one['rmse_cm']:.2f} cm; "
            f"{one['baseline']}: R2 {one['baseline_r2']:.3f}, RMSE {one['baseline_rmse_cm']:.2f} cm; "
            f"skill {one['skill']:.3f}"
        )
    return lines


def _regions(part: Mapping[str, Any]) -> list[str]:
    return [
        f"detail of {name}: weight {one['weight']:.2f}; in folds it leaves {one['rmse_cm']:.3f} of "
        f"{one['rmse_of_conservative_bilinear_cm']:.3f} cm"
        for name, one in part["regions"].items()
    ]


def _wells(part: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in ("strict", "loose"):
        one = part[name]
        why = ", ".join(f"{count} {reason}" for reason, count in one["excluded"].items() if count)
        if "not_computed" in one:
            lines.append(f"wells, {name}: not computed: {one['not_computed']}")
            continue
        field, reference, gain = one["field"], one["reference"], one["gain"]
        lines.append(
            f"wells, {name}: {one['used']} of {one['wells']} used ({why or 'none left out'}"
            f"{'; ' + one['shortened'] if 'shortened' in one else ''}); trends R2 {_number(field['trend_r2'])} "
            f"(bilinear {_number(reference['trend_r2'])}), RMSE {_number(field['trend_rmse'])} "
            f"({_number(reference['trend_rmse'])}) cm a year; correlation of series "
            f"{_number(field['anomaly_correlation'])} ({_number(reference['anomaly_correlation'])}); gain in RMSE "
            f"{_number(gain['trend_rmse'])}"
        )
    return lines


def _seams(part: Mapping[str, Any]) -> list[str]:
    lines = []
    for kind, inside in (("cell_edges", "inside"), ("region_borders", "beside them")):
        one, plain = part["published"][kind], part["plain"][kind]
        if "not_computed" in one:
            lines.append(f"steps at {kind.replace('_', ' ')}: not computed: {one['not_computed']}")
            continue
        other = "not computed" if "not_computed" in plain else _number(plain["ratio"])
        line = (
            f"steps at {kind.replace('_', ' ')}: {_number(one['ratio'])} times those {inside} (bilinear {other}), "
            f"{'within' if one['holds'] else 'NOT WITHIN'} {part['allowed']:g}"
        )
        if kind == "region_borders":
            line += f"; {_number(one['ratio_to_interior'])} times all that are inside"
        lines.append(line)
    return lines


def _centres(part: Mapping[str, Any]) -> list[str]:
    return [f"{part['centres']}: {_apart(part)}"]


def _land_models(part: Mapping[str, Any]) -> list[str]:
    return [
        f"land model {name}: " + (f"not computed: {one['not_computed']}" if "not_computed" in one else _apart(one))
        for name, one in part["models"].items()
    ]


def _apart(part: Mapping[str, Any]) -> str:
    apart = part["rms_difference_of_trends_cm_a_year"]
    trends = f"not computed: {apart['not_computed']}" if isinstance(apart, Mapping) else f"{apart:.3f} cm a year"
    return (
        f"{part['rms_difference_cm']:.2f} cm apart (rms), median correlation {part['median_correlation']:.3f}, trends "
        f"{trends}"
    )


def _cells(part: Mapping[str, Any]) -> list[str]:
    why = ", ".join(f"{count} {reason}" for reason, count in part["lacks"].items() if count)
    return [
        f"cells of 1/4 degree with land and no value: {part['without_value']} of {part['with_land']} ({why or 'none'})"
    ]


def _footprint(part: Mapping[str, Any]) -> list[str]:
    error = part["residual_standard_error_km3_a_year"]
    first = (
        f"footprint: of {part['trend_km3_a_year']:+.3f} km3 a year the climate ({', '.join(part['climate'])}) explains "
        f"{part['climate_km3_a_year']:+.3f}; left are {part['residual_km3_a_year']:+.3f} "
        f"± {'unknown' if error is None else format(error, '.3f')}; {part['footprint_cells']} of {part['cells']} cells "
        f"lose {part['loss_from_cm_a_year']:g} cm a year or more (5 % level): {part['footprint_km3_a_year']:+.3f} km3 "
        f"a year on {part['footprint_km2']:.0f} km2"
    )
    lines = [first]
    proxy, truth = part["proxy"], part["truth"]
    lines.append(
        f"footprint and use of water: not computed: {proxy['not_computed']}"
        if "not_computed" in proxy
        else f"footprint and {proxy['name']}: rank correlation {_number(proxy['rank_correlation_with_residual'])} in "
        f"{proxy['cells']} cells; {_share(proxy['share_of_residual_loss_where_used'])} of the loss lies where it is "
        f"{proxy['used_from']:g} or more, {_share(proxy['share_of_area_where_used'])} of the area"
    )
    if "not_computed" not in truth:
        lines.append(
            f"footprint against the truth (synthetic): {truth['residual_km3_a_year']:+.3f} km3 a year left, "
            f"{truth['steady_km3_a_year']:+.3f} true; RMSE {truth['residual_rmse_cm_a_year']:.3f} cm a year, of the "
            f"whole trend {truth['trend_rmse_cm_a_year']:.3f}; {truth['within_two_standard_errors']:.0%} within two "
            "standard errors"
        )
    return lines


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.0%}"


def _truth(part: Mapping[str, Any]) -> list[str]:
    one, other = part["published"], part["conservative_bilinear"]
    told = (
        f"against the truth (synthetic): RMSE {one['rmse_cm']:.3f} cm, conservative bilinear {other['rmse_cm']:.3f}; "
        f"within 1/4 degree {one['rmse_within_cells_cm']:.3f} and {other['rmse_within_cells_cm']:.3f} cm; correlation "
        f"of detail {_number(one['correlation_of_detail'])} and {_number(other['correlation_of_detail'])}; better in "
        f"{part['months_better']} of {part['months']} months; {one['within_uncertainty']:.0%} of errors within the "
        "stated uncertainty"
    )
    return [told]


def _errors(one: Mapping[str, Any]) -> str:
    return f"R2 {one['r2']:.4f}, RMSE {one['rmse_cm']:.4f} cm, bias {one['bias_cm']:+.4f} cm"


def _number(value: float | None) -> str:
    return "unknown" if value is None or value != value else f"{value:.3f}"  # noqa: PLR0124 - NaN is not itself
