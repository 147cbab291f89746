"""The rows of a comparison by method, with their figures as mean and standard deviation over the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from subnet_search.errors import SubnetSearchError
from subnet_search.plots.families import Family, family_of, title_of

Metrics = Mapping[str, float | None]
Rows = Sequence[Mapping[str, Any]]

_NOT_DECISIVE = ("origin", "seed", "out")
"""Settings that may differ between rows that are averaged."""


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds.

    Attributes:
        mean: Its mean.
        sd: Its standard deviation (n - 1); None of one seed.
        n: Number of seeds where it is known.
    """

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Method:
    """All rows of one method.

    Attributes:
        name: Its name in the rows.
        title: Its name in a figure.
        family: What kind of system it is.
        scratch: Whether it was trained from scratch, not from the backbone.
        rows: One for each seed.
    """

    name: str
    title: str
    family: Family
    scratch: bool
    rows: tuple[Mapping[str, Any], ...]

    def spread(self, figure: Callable[[Metrics], float | None]) -> Spread | None:
        """Returns a figure of the metrics over the seeds, None where no seed has it."""
        return spread_of(figure(row["metrics"]) for row in self.rows)


def spread_of(values: Iterable[float | None]) -> Spread | None:
    """Returns mean and standard deviation of what is known, None where nothing is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def by_method(rows: Rows) -> list[Method]:
    """Puts the rows of each method together.

    Args:
        rows: Result rows of one comparison.

    Returns:
        The methods in the order of the rows.

    Raises:
        SubnetSearchError: where there are no rows, they are of several networks or data, or a method has two rows of
            one seed or rows of several settings: a mean over those would be of nothing.
    """
    if not rows:
        raise SubnetSearchError("figures of a comparison: there are no rows; run a comparison first")
    for key in ("backbone", "data"):
        found = sorted({row[key] for row in rows})
        if len(found) > 1:
            raise SubnetSearchError(f"figures of a comparison: rows of several {key}: {', '.join(found)}; draw one")
    methods = []
    for name in dict.fromkeys(row["method"] for row in rows):
        own = tuple(row for row in rows if row["method"] == name)
        seeds = [row["seed"] for row in own]
        differing = differing_settings(own)
        if len(set(seeds)) < len(seeds) or differing:
            raise SubnetSearchError(
                f"figures of a comparison: the rows of {name} have seeds {seeds} and differ in the settings "
                f"{differing}; expected one row a seed with the same settings: draw the rows of one comparison"
            )
        scratch = own[0]["settings"].get("origin") == "scratch"
        methods.append(Method(name, title_of(name), family_of(name), scratch, own))
    return methods


def differing_settings(rows: Rows) -> list[str]:
    """Returns the names of the settings that are not the same in all rows, such as `finetune.epochs`.

    A row of an older version lacks the settings that came later: what it lacks does not differ.
    """
    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in _flat(row["settings"]):
            values.setdefault(name, []).append(value)
    return [name for name, found in values.items() if any(value != found[0] for value in found)]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif prefix or name not in _NOT_DECISIVE:
            yield prefix + name, value
