"""Members that are accurate against members that err alike: what λ_overlap trades, drawn from the rows of the laboratory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import NamedTuple

from matplotlib.figure import Figure

from benchmarks import lab, rows
from subnet_search.files import write_bytes
from subnet_search.plots.page import FAINT, FRONT, INK, MARGIN, axes_at, house_style, new_page, rendered

AXES = (("ens/ErrCorr", 1), ("ens/MemberAcc", 100))
"""Key of the metrics and factor: across, up."""
HEIGHT, LEFT, BELOW = 3.6, 0.68, 0.5
"""Inches: the axes, what is left of them and below them."""
OVERLAP, TRUNK = "search.lambda_overlap", "ensemble.trunk"
LEAST = 3
"""So many values of λ_overlap make a front."""
NOTE = (
    "Points are means over seeds, bars one standard deviation; the line joins them in the order of λ_overlap. Up and left is "
    "better: accurate members whose errors have little in common."
)

Metrics = Mapping[str, float]


class Setting(NamedTuple):
    """What the points of a front have in common; the trunk is a share of the dense MACs."""

    backbone: str
    on: str
    budget: float
    epochs: int
    images: int
    trunk: float

    @property
    def slug(self) -> str:
        """For the name of a file."""
        trunk = f"-trunk-{100 * self.trunk:.0f}" if self.trunk else ""
        return f"{self.backbone}-{self.budget}{trunk}-{self.epochs}x{self.images}-{self.on}"

    @property
    def words(self) -> str:
        """For a title."""
        trunk = f", trunk {100 * self.trunk:.0f} %" if self.trunk else ""
        return f"{self.backbone}, budget {self.budget}{trunk}, {self.epochs} × {self.images:,} images, {self.on}"


def fronts() -> dict[Setting, dict[float, list[Metrics]]]:
    """Returns setting → λ_overlap of `flow` → metrics, a line for each seed, in the order of λ_overlap."""
    found: dict[Setting, dict[float, list[Metrics]]] = defaultdict(lambda: defaultdict(list))
    for row in rows.read("lab"):
        changed = {} if row["method"] == "dense" else lab.changes(row["method"])
        if lab.other_masks(row["method"]):
            continue
        if changed.pop("search.algorithm", None) == "flow" and changed.keys() <= {OVERLAP, TRUNK}:
            images = int(row["data"].rpartition(":")[2])
            about = (row["backbone"], row["settings"]["on"], row["budget"], row["epochs"], images)
            price = row["settings"]["search"]["lambda_overlap"]
            found[Setting(*about, changed.get(TRUNK, 0.0))][price].append(row["metrics"])
    return {setting: dict(sorted(points.items())) for setting, points in found.items() if len(points) >= LEAST}


def draw_front(title: str, points: Mapping[float, Sequence[Metrics]]) -> Figure:
    """Draws the mean accuracy of the members against the correlation of their errors.

    Args:
        title: Title of the figure.
        points: λ_overlap → metrics, a line for each seed.
    """
    with house_style():
        seeds = sorted({len(found) for found in points.values()})
        page, bottom = new_page(title, HEIGHT + BELOW, f"{NOTE} Seeds: {' or '.join(map(str, seeds))}.")
        width = page.get_size_inches()[0]
        axes = axes_at(page, LEFT, bottom + BELOW, width - LEFT - MARGIN, HEIGHT)
        axes.set_xlabel("correlation of the members' errors (lower is better)")
        axes.set_ylabel("mean accuracy of the members, % (higher is better)")
        axes.grid(visible=True, linewidth=0.6)
        x, y = ([[scale * m[name] for m in found] for found in points.values()] for name, scale in AXES)
        axes.plot([mean(v) for v in x], [mean(v) for v in y], color=FRONT, linewidth=1.6, zorder=1.5, gid="front")
        axes.errorbar(
            [mean(v) for v in x],
            [mean(v) for v in y],
            xerr=[_sd(v) for v in x],
            yerr=[_sd(v) for v in y],
            fmt="o",
            color=INK,
            elinewidth=1.0,
            capsize=2,
        )
        for value, across, up in zip(points, x, y, strict=True):
            axes.annotate(f"λ = {value:g}", (mean(across), mean(up)), (7, -12), textcoords="offset points", color=FAINT)
        axes.margins(0.12)
    return page


def _sd(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def draw() -> None:
    """Draws every front that the rows have, into `results/lab`."""
    for setting, points in fronts().items():
        page = draw_front(f"What λ_overlap trades: {setting.words}", points)
        write_bytes(rows.RESULTS / "lab" / f"overlap-{setting.slug}.png", rendered(page, "png"))
