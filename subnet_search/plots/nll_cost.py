"""Negative log likelihood against MACs: what each method gives for its money."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from subnet_search.plots.cost_plane import Figured, cost_plane
from subnet_search.plots.page import WIDTH
from subnet_search.plots.summary import Rows


def nll_cost(rows: Rows, missing: Mapping[str, str] | None = None, width: float = WIDTH) -> Figure | None:
    """Draws the negative log likelihood on the test images against the MACs of a prediction.

    Args:
        rows: Result rows of one comparison.
        missing: Method → why it, or a seed of it, could not be run.
        width: Width of the figure in inches.

    Returns:
        The figure; None where no row has both.

    Raises:
        SubnetSearchError: where the rows are not of one comparison.
    """
    what = Figured(
        title="Likelihood against cost",
        label="negative log likelihood, nats",
        of=lambda metrics: metrics.get("cls/NLL"),
        absent="without NLL or MACs",
        lower=True,
        positive=True,
    )
    return cost_plane(rows, what, missing or {}, width)
