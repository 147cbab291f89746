"""Names of the search algorithms and controls, and what each of them needs: the one place that lists them."""

from __future__ import annotations

from typing import Literal, get_args

Algorithm = Literal[
    "flow",
    "draft",
    "core",
    "pairs",
    "swap",
    "progressive",
    "gates",
    "random",
    "masksembles",
    "antirandom",
    "magnitude",
    "best-of-n",
]
Start = Literal["flow", "draft", "core", "pairs", "random", "masksembles", "antirandom", "magnitude", "best-of-n"]
"""The algorithms that `swap` and `gates` can start from."""

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
"""Names of all search algorithms and controls."""

CONTROLS: frozenset[Algorithm] = frozenset({"random", "masksembles", "antirandom", "magnitude", "best-of-n"})
"""Those that a search has to beat at the same cost."""

SCORE_DRIVEN: frozenset[Algorithm] = frozenset({"flow", "draft", "core", "pairs", "swap", "magnitude"})
"""Those that need a score for each member and channel; the others ignore scores."""

OVERLAPPING: frozenset[Algorithm] = frozenset({"flow", "pairs", "swap", "progressive", "gates"})
"""Those whose objective weighs the overlap of masks by `lambda_overlap`."""

MEASURING: frozenset[Algorithm] = frozenset({"swap", "best-of-n"})
"""Those that need a measure of mask sets."""

ENTWINED: frozenset[Algorithm] = frozenset({"progressive", "gates"})
"""Those that train while they search (`subnet_search.entwined`): they need scores too, and are no assignment of channels
that `search_masks` could make."""
