"""What kind of system a method is, and its colour: the same in every figure."""

from __future__ import annotations

from dataclasses import dataclass

from subnet_search.search import ALGORITHMS, CONTROLS


@dataclass(frozen=True)
class Family:
    """Methods that get their members in the same way.

    Attributes:
        title: What the legend says.
        color: Of Okabe and Ito's palette, which can be told apart without red-green vision.
        ink: The same for text, dark enough to be read on white.
    """

    title: str
    color: str
    ink: str


SINGLE = Family("single network", "#000000", "#000000")
SAMPLED = Family("sampled passes", "#CC79A7", "#A34A7C")
INDEPENDENT = Family("independent networks", "#0072B2", "#005F94")
BUILT_IN = Family("ensemble architectures", "#56B4E9", "#1F719F")
UNSEARCHED = Family("masks not searched (controls)", "#009E73", "#007A59")
SEARCHED = Family("searched masks", "#D55E00", "#B94F00")
OTHER = Family("other", "#8C8C8C", "#6B6B6B")

FAMILIES = (SINGLE, SAMPLED, INDEPENDENT, BUILT_IN, UNSEARCHED, SEARCHED, OTHER)
"""In the order of the legend."""

_MEMBERS = {
    SINGLE: ("msp", "dense", "singe"),
    SAMPLED: ("mc_dropout", "stochastic_depth"),
    INDEPENDENT: ("deep_ensemble", "deep_ensemble_finetuned", "bagging"),
    BUILT_IN: ("mimo", "packed", "batch_ensemble"),
    UNSEARCHED: ("depth_masks", "best_of_8", *CONTROLS),
    SEARCHED: ("search", *(name for name in ALGORITHMS if name not in CONTROLS)),
}


def family_of(method: str) -> Family:
    """Returns the family of a method, which is that of its masks where it is a combination.

    Args:
        method: Name as in the rows, such as `search+draft+bagging`.

    Returns:
        The family; `OTHER` of a name that is not known here, so that rows of a caller's own can be drawn too.
    """
    base, *parts = method.split("+")
    if base == "search" and parts and parts[0] in ALGORITHMS:
        base = parts[0]
    return next((family for family, names in _MEMBERS.items() if base in names), OTHER)


def title_of(method: str) -> str:
    """Returns how a figure names a method: as the table does, but for the dense network, which is told to strangers."""
    return "dense (msp)" if method == "msp" else method
