"""What is wanted of a point on a front: a small language, as `nll<=0.30,macs<=1.0`.

    PREFERENCE = PART {"," PART}
    PART       = NAME ("<=" | ">=") NUMBER      a condition on an objective or a metric
               | NAME                           an objective: what comes first among those that meet the conditions

The objectives that are not named follow in the order of the study.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from subnet_search.errors import SubnetSearchError

_PART = re.compile(r"(?P<name>[^<>=!\s]+)\s*(?:(?P<sign>[<>=!]+)\s*(?P<bound>.*))?")


@dataclass(frozen=True)
class Condition:
    """A bound on a figure.

    Attributes:
        name: Name of the objective or metric.
        at_most: Whether the bound is from above; else from below.
        bound: The bound, which the figure may meet.
    """

    name: str
    at_most: bool
    bound: float

    def excess(self, figure: float | None) -> float:
        """Returns by how much a figure is beyond the bound, 0 where it is not; an absent figure is infinitely beyond."""
        if figure is None:
            return math.inf
        return max(0.0, figure - self.bound if self.at_most else self.bound - figure)

    def __str__(self) -> str:
        return f"{self.name}{'<=' if self.at_most else '>='}{self.bound:g}"


@dataclass(frozen=True)
class Preference:
    """What is wanted.

    Attributes:
        conditions: All of them are to be met.
        order: The objectives, what counts first among the points that meet them.
    """

    conditions: tuple[Condition, ...]
    order: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.conditions))


def parse_preference(text: str, objectives: Sequence[str], figures: Collection[str]) -> Preference:
    """Reads what a user wants.

    Args:
        text: As `nll<=0.30,macs<=1.0`; spaces do not count.
        objectives: Names of the study's objectives, in its order.
        figures: Names of everything else that a condition may be on.

    Returns:
        Conditions and order.

    Raises:
        SubnetSearchError: where a part is no condition, a name is not known, or a bound is no number; the message says
            what is available.
    """
    conditions: list[Condition] = []
    order: list[str] = []
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise SubnetSearchError(
                f"--prefer {text!r}: cannot read {part.strip()!r}; expected conditions between commas, such as "
                f"{objectives[0]}<=0.30, and names of objectives, which then count first"
            )
        name, sign, bound = match["name"], match["sign"], match["bound"]
        if name not in objectives and name not in figures:
            raise SubnetSearchError(
                f"--prefer {text!r}: nothing is called {name!r}; expected an objective of the study "
                f"({', '.join(objectives)}) or another of its figures ({', '.join(sorted(set(figures) - set(objectives)))})"
            )
        if sign is None:
            if name not in objectives:
                raise SubnetSearchError(
                    f"--prefer {text!r}: {name} alone does not say what is good; expected a bound, as {name}<=0.1, "
                    f"or one of the objectives ({', '.join(objectives)})"
                )
            order.append(name)
            continue
        if sign not in ("<=", ">="):
            raise SubnetSearchError(f"--prefer {text!r}: got {sign!r} in {part.strip()!r}, expected <= or >=")
        conditions.append(Condition(name, sign == "<=", _number(bound, part.strip(), text)))
    return Preference(tuple(conditions), tuple(dict.fromkeys([*order, *objectives])))


def _number(bound: str, part: str, text: str) -> float:
    try:
        value = float(bound)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SubnetSearchError(f"--prefer {text!r}: got the bound {bound!r} in {part!r}, expected a number")
    return value
