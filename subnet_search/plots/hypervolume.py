"""Hypervolume over trials: how fast a study gets what it gets, and what of it a random choice gets too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from subnet_search.plots.families import SEARCHED, UNSEARCHED
from subnet_search.plots.page import FAINT, INK, LINE, MARGIN, SMALL, WIDTH, axes_at, house_style, new_page

HEIGHT, LEFT, RIGHT, BELOW = 2.9, 0.72, 0.3, 0.5
COLOURS = (SEARCHED.color, UNSEARCHED.color, "#0072B2", "#CC79A7", "#56B4E9", "#000000")


@dataclass(frozen=True)
class Course:
    """The course of a study.

    Attributes:
        name: What the legend says.
        volumes: Hypervolume after each finished trial, in the order of their numbers.
        full: How many of the trials were trained in full.
    """

    name: str
    volumes: Sequence[float]
    full: int


def hypervolume(
    title: str, courses: Sequence[Course], levels: Mapping[str, float], note: str, width: float = WIDTH
) -> Figure | None:
    """Draws the hypervolume after each finished trial.

    Args:
        title: Title of the figure.
        courses: One curve each.
        levels: Name → hypervolume that something else reaches, drawn as a line across.
        note: The reference point, and what counts as a trial.
        width: Width of the figure in inches.

    Returns:
        The figure; None where no trial has finished.
    """
    drawn = [course for course in courses if len(course.volumes)]
    if not drawn:
        return None
    with house_style():
        legend = 0.1 + 1.2 * LINE * (len(drawn) + len(levels))
        page, bottom = new_page(title, HEIGHT + BELOW + legend, note, width)
        axes = axes_at(page, LEFT, bottom + legend + BELOW, width - LEFT - RIGHT, HEIGHT)
        for name, level in levels.items():
            axes.axhline(level, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), label=f"{name}: {level:.3f}", zorder=2)
        for number, course in enumerate(drawn):
            n = len(course.volumes)
            words = f"{course.name}: {course.volumes[-1]:.3f} after {n} trials, {course.full} of them in full"
            axes.plot(
                range(1, n + 1),
                course.volumes,
                drawstyle="steps-post",
                color=COLOURS[number % len(COLOURS)],
                linewidth=max(1.2, 3.0 - 1.2 * number),  # those below stay visible where courses are the same
                marker="o",
                markevery=[n - 1],
                markersize=4,
                label=words,
                zorder=3,
            )
        most = max(len(course.volumes) for course in drawn)
        axes.set_xlim(0.5, most + 0.5)
        high = max([*levels.values(), *(max(course.volumes) for course in drawn)])
        axes.set_ylim(0, 1.06 * high if high > 0 else 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        axes.set_xlabel("finished trials, those that were stopped early too")
        axes.set_ylabel("hypervolume")
        axes.grid(visible=True, linewidth=0.6)
        axes.tick_params(length=3)
        page.legend(
            *axes.get_legend_handles_labels(),
            loc="upper left",
            bbox_to_anchor=(MARGIN / width, (bottom + legend) / page.get_size_inches()[1]),
            frameon=False,
            fontsize=SMALL,
            labelcolor=INK,
            edgecolor=FAINT,
            borderaxespad=0.0,
        )
    return page
