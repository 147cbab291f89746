"""What a study has come to, for a terminal."""

from __future__ import annotations

import optuna
from rich.table import Table

from subnet_search.tune.points import Point, read_points


def study_table(study: optuna.Study) -> Table:
    """Returns the front of a study, and what it has to be better than.

    Args:
        study: A study of `subnet-search tune`.

    Returns:
        A row for each trial on the front, the best in the first objective first, and for the job's own settings and the
        control where they are not on it.

    Raises:
        SubnetSearchError: where it is no study of this tool.
    """
    points = read_points(study)
    front = points.front()
    beaten = [point for point in points.full if point.role != "search" and point not in front]
    ended = len(points.points) + points.failed
    title = f"study {points.study}: {ended} trials, {len(points.full)} of them in full, affordable, and of members that differ"
    table = Table(title=title, caption="on the validation images")
    for name in ("trial", *points.lower, "settings"):
        table.add_column(name, justify="left" if name == "settings" else "right")
    for point in (*front, *beaten):
        values = [f"{value:.4f}" for value in point.values.values()]
        table.add_row(str(point.number), *values, _settings(point) + (" (beaten)" if point in beaten else ""))
    return table


def _settings(point: Point) -> str:
    """What was searched, as `members=4 trunk=0.27 (0.48 asked)`; the name of what was given."""
    chosen = (f"{name}={words}" for name, words in point.settings_in_words.items())
    given = {"default": "the job's own", "control": "the job's own, with random masks"}
    return given.get(point.role) or " ".join(chosen)
