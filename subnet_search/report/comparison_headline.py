"""What a comparison has come to, in five figures: the search beside the dense network and the best of all methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from subnet_search.plots.families import SEARCHED
from subnet_search.plots.summary import Method
from subnet_search.report.headline import FIVE, Measure
from subnet_search.report.page import Tile, Verdict
from subnet_search.report.wording import listed
from subnet_search.tables import mean_of

DENSE = ("msp", "dense")
NLL = "cls/NLL"


def comparison_headline(methods: Sequence[Method], missing: Mapping[str, str]) -> tuple[str, list[Tile]]:
    """Compares the search to all other methods.

    Args:
        methods: All methods that could be run.
        missing: Those that could not, or not for all seeds, with the reason.

    Returns:
        The result in a sentence or two, and five tiles. Where nothing was searched, they are about the method with the
        lowest NLL.
    """
    own = _own(methods)
    dense = next((method for method in methods if method.name in DENSE), None)
    tiles = [_tile(measure, methods, own, dense) for measure in FIVE]
    return _sentence(methods, own, missing), tiles


def _own(methods: Sequence[Method]) -> Method:
    """The method that the report is about."""
    searched = [method for method in methods if method.family == SEARCHED]
    plain = [method for method in searched if method.name == "search"]
    return _ranked(plain or searched or methods, NLL, higher=False)[0]


def _mean(method: Method, key: str) -> float | None:
    found = method.spread(lambda metrics: mean_of(metrics, key))
    return None if found is None else found.mean


def _ranked(methods: Sequence[Method], key: str, *, higher: bool) -> list[Method]:
    """Those that have a figure, the best first."""
    known = [(value, method) for method in methods if (value := _mean(method, key)) is not None]
    return [method for _, method in sorted(known, key=lambda pair: pair[0], reverse=higher)]


def _tile(measure: Measure, methods: Sequence[Method], own: Method, dense: Method | None) -> Tile:
    ranked = _ranked(methods, measure.key, higher=measure.higher)
    if own not in ranked:
        return Tile(measure.title, measure.words, {own.title: "–"}, "absent", "not measured", measure.absent)
    place = ranked.index(own) + 1
    badge = f"best of {len(ranked)}" if place == 1 else f"place {place} of {len(ranked)}"
    shown = {"dense": dense, f"best: {ranked[0].title}": ranked[0]} if measure.noise else {"dense": dense}
    kept = {name: method for name, method in shown.items() if method is not None and method in ranked and method != own}
    if dense is not None and ranked[0] == dense:
        kept = {name: method for name, method in kept.items() if name == "dense"}
    values = {name: _text(measure, method) for name, method in {**kept, own.title: own}.items()}
    verdict: Verdict = "better" if place == 1 else "even"
    if dense is not None and dense in ranked and ranked.index(dense) < place - 1:
        verdict = "worse"
    return Tile(measure.title, measure.words, values, verdict, badge)


def _text(measure: Measure, method: Method) -> str:
    value = _mean(method, measure.key)
    assert value is not None  # only those that have it are ranked
    return measure.text(value)


def _sentence(methods: Sequence[Method], own: Method, missing: Mapping[str, str]) -> str:
    seeds = max(len(method.rows) for method in methods)
    count = f"{len(methods)} methods" if len(methods) > 1 else "One method"
    text = f"{count} on the same images, {seeds} {'seed' if seeds == 1 else 'seeds'} each."
    best = _ranked(methods, NLL, higher=False)
    if best and len(methods) > 1:
        text += f" By likelihood (NLL) {best[0].title} is best{_at(best[0])}"
        text += "." if best[0] == own else f"; {own.title} takes place {best.index(own) + 1}{_at(own)}."
    run = {method.name: method.title for method in methods}
    if absent := [name for name in missing if name not in run]:
        text += f" {listed(absent)} could not be run."
    if partial := [run[name] for name in missing if name in run]:
        text += f" Of {listed(partial)} some seeds are missing."
    return text


def _at(method: Method) -> str:
    """What a method costs, in brackets."""
    cost = _mean(method, "cplx/MACsRatio")
    return "" if cost is None else f" ({cost:.2f}\N{NO-BREAK SPACE}× the MACs of the dense network)"
