"""What a comparison has no row of, and why, in words: a method, or some of its seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def reasons_of(failed: Mapping[tuple[str, int], str], seeds: Mapping[str, Collection[int]]) -> dict[str, str]:
    """Puts the reasons of each method together.

    Args:
        failed: Method and seed → why there is no row.
        seeds: Method → all seeds that were asked for.

    Returns:
        Method → why it is missing, once where that is the same for all of its seeds; otherwise the seeds stand before
        their reason, as in `seed 1: the loss is nan`.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for (method, seed), reason in failed.items():
        found.setdefault(method, {}).setdefault(reason, []).append(seed)
    return {method: _in_words(reasons, len(seeds[method])) for method, reasons in found.items()}


def _in_words(reasons: Mapping[str, list[int]], asked: int) -> str:
    (first, own), *others = reasons.items()
    if not others and len(own) == asked:
        return first
    said = (f"{'seed' if len(s) == 1 else 'seeds'} {', '.join(map(str, s))}: {why}" for why, s in reasons.items())
    return "; ".join(said)
