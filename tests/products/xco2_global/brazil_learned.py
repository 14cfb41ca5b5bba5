"""What learns, as contestants: the product's network and trees, alone, with what is told from nearby, and together."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from services.products.xco2_global.residuals import MOST_ROWS
from services.products.xco2_global.table import BLOCK, GROUPS
from tests.products.xco2_global.brazil_nearby import NEXT_TO, Said, mean_of, once, with_nearby
from tests.products.xco2_global.brazil_network import networks
from tests.products.xco2_global.brazil_network import settings as network_settings
from tests.products.xco2_global.brazil_study import LEARNED, Case, Contestant, Values
from tests.products.xco2_global.brazil_trees import TREES as GROWN
from tests.products.xco2_global.brazil_trees import trees, trees_without_held

NETWORK, TREES = "attention Bi-LSTM", "XGBoost"
NEARBY = " + nearby"


def learned(design: str) -> dict[str, tuple[str, Contestant]]:
    """Kind and contestant by name; what is learned once serves several."""
    said, grown = once(networks), once(trees_without_held)

    def mean(case: Case) -> list[Said]:
        return [mean_of(said(case))]

    def together(case: Case) -> list[Said]:
        return [mean_of([mean_of(said(case)), mean_of(grown(case))])]

    def with_growth(case: Case) -> list[Values]:
        return trees(replace(case, growth=True))

    found: dict[str, Contestant] = {
        TREES: trees,
        NETWORK: _alone(said),
        f"mean of three {NETWORK}": _alone(mean),
        f"mean of three {NETWORK} and {TREES}": _alone(together),
    }
    if design == "time":
        found[f"{TREES}, with Mauna Loa's growth"] = with_growth
    else:
        found |= {
            f"{TREES}{NEARBY}": _nearby(grown),
            f"{NETWORK}{NEARBY}": _nearby(said),
            f"mean of three {NETWORK}{NEARBY}": _nearby(mean),
        }
    return {name: (LEARNED, one) for name, one in found.items()}


def products(design: str) -> dict[str, str]:
    """The contestant that does what the product does in a design, and the same with trees."""
    nearby = NEARBY if design == "gaps" else ""
    return {"network": f"{NETWORK}{nearby}", "trees": f"{TREES}{nearby}"}


def settings() -> dict[str, Any]:
    """For the report."""
    return {
        "trees": GROWN,
        "network": network_settings(),
        "nearby": {
            "covariance_of_rows": MOST_ROWS,
            "held_out": f"one of {GROUPS} groups of blocks of {BLOCK:g} degrees and a month, as the product's",
            "next_to_degrees": NEXT_TO,
        },
    }


def _alone(learn: Callable[[Case], list[Said]]) -> Contestant:
    def play(case: Case) -> list[Values]:
        return [one.asked for one in learn(case)]

    return play


def _nearby(learn: Callable[[Case], list[Said]]) -> Contestant:
    def play(case: Case) -> list[Values]:
        return [with_nearby(case, one) for one in learn(case)]

    return play
