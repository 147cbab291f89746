"""From the name of a method to its system: the only list of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from subnet_search.baselines.batch_ensemble import batch_ensemble
from subnet_search.baselines.composed import PARTS, composed
from subnet_search.baselines.deep_ensemble import bagging, deep_ensemble, deep_ensemble_finetuned, single
from subnet_search.baselines.mc_dropout import mc_dropout
from subnet_search.baselines.packed_ensembles import packed
from subnet_search.baselines.singe import singe
from subnet_search.baselines.system import Setup, System
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import check_groups
from subnet_search.search import ALGORITHMS
from subnet_search.search.algorithms import Algorithm

SYSTEMS: Mapping[str, Callable[[Setup], System]] = {
    "msp": single,
    "mc_dropout": mc_dropout,
    "deep_ensemble": deep_ensemble,
    "deep_ensemble_finetuned": deep_ensemble_finetuned,
    "bagging": bagging,
    "packed": packed,
    "batch_ensemble": batch_ensemble,
    "singe": singe,
    "stochastic_depth": lambda setup: composed(setup, None, {"stochastic_depth"}),
    "depth_masks": lambda setup: composed(setup, None, {"depth_masks"}),
    "mimo": lambda setup: composed(setup, None, {"mimo"}),
}
"""Systems that are no masked ensembles; each stands alone."""

WHOLE = ("msp", "deep_ensemble", "deep_ensemble_finetuned", "bagging")
"""Systems of whole networks, which need no channels that can be masked."""

CONTROL_MASKS: Mapping[str, Algorithm] = {
    "masksembles": "masksembles",
    "antirandom": "antirandom",
    "random": "random",
    "magnitude": "magnitude",
    "best_of_8": "best-of-n",
}
"""Masks that are not searched."""


def build(method: str, setup: Setup) -> System:
    """Builds the untrained system of a method.

    Args:
        method: A key of `SYSTEMS`; a key of `CONTROL_MASKS`, or `search` for the search of the settings, or
            `search+ALGORITHM`; the last three may be followed by `+PART` for some of `PARTS`.
        setup: What it is made from.

    Raises:
        SubnetSearchError: where there is no such method, or the network does not have what it needs.
    """
    check(method)
    if method not in WHOLE:
        check_groups(setup.graph)
    if method in SYSTEMS:
        return SYSTEMS[method](setup)
    base, *rest = method.split("+")
    config = setup.run.search
    if base in CONTROL_MASKS:
        config = replace(config, algorithm=CONTROL_MASKS[base], candidates=8)
    elif rest and rest[0] in ALGORITHMS:
        config = replace(config, algorithm=cast(Algorithm, rest.pop(0)))
    return composed(setup, config, rest)


def check(method: str) -> None:
    """Raises where there is no method of that name.

    Args:
        method: The name; see `build`.

    Raises:
        SubnetSearchError: with the names that there are.
    """
    if method in SYSTEMS:
        return
    base, *parts = method.split("+")
    if base == "search" and parts and parts[0] in ALGORITHMS:
        parts = parts[1:]
    if (base == "search" or base in CONTROL_MASKS) and set(parts) <= set(PARTS) and len(set(parts)) == len(parts):
        return
    raise SubnetSearchError(
        f"method {method!r}: expected one of {', '.join(SYSTEMS)}; or one of {', '.join(CONTROL_MASKS)}, search, "
        f"search+ALGORITHM ({', '.join(ALGORITHMS)}), which may be followed by +PART ({', '.join(PARTS)})"
    )
