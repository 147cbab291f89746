"""Detection of images from another domain against MACs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from matplotlib.figure import Figure

from subnet_search.evaluate.keys import ood_key
from subnet_search.plots.cost_plane import Figured, cost_plane
from subnet_search.plots.page import WIDTH
from subnet_search.plots.summary import Metrics, Rows

_WORDS = {
    "msp": "max probability",
    "mi": "mutual information",
    "entropy": "predictive entropy",
    "energy": "free energy",
}


def ood_cost(
    rows: Rows, missing: Mapping[str, str] | None = None, criterion: str = "entropy", width: float = WIDTH
) -> Figure | None:
    """Draws the AUROC of telling foreign images from test images, mean over the OOD sets, against the MACs.

    Args:
        rows: Result rows of one comparison.
        missing: Method → why it, or a seed of it, could not be run.
        criterion: `entropy`, `msp`, `mi` or `energy`.
        width: Width of the figure in inches.

    Returns:
        The figure; None where no row has it. A method that lacks one of the sets is named in the note: a mean over
        fewer sets would be no match for the others.

    Raises:
        SubnetSearchError: where the rows are not of one comparison.
    """
    sets = ood_sets(rows, criterion)
    what = Figured(
        title="OOD detection against cost",
        label=f"AUROC by {_WORDS.get(criterion, criterion)}, mean over {', '.join(sets)}",
        of=lambda metrics: _mean(metrics, sets, criterion),
        absent="without AUROC on all of these sets, or MACs",
        lower=False,
        positive=False,
    )
    return cost_plane(rows, what, missing or {}, width)


def ood_sets(rows: Rows, criterion: str) -> list[str]:
    """Returns the names of the OOD sets on which some row has an AUROC, in the order of the rows."""
    names = dict.fromkeys(key.split("/")[1] for row in rows for key in row["metrics"] if key.startswith("ood/"))
    return [n for n in names if any(row["metrics"].get(ood_key(n, "AUROC", criterion)) is not None for row in rows)]


def _mean(metrics: Metrics, sets: list[str], criterion: str) -> float | None:
    known = [v for name in sets if (v := metrics.get(ood_key(name, "AUROC", criterion))) is not None]
    return statistics.mean(known) if sets and len(known) == len(sets) else None
