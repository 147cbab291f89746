import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from rich.progress import Progress

from subnet_search.errors import SubnetSearchError
from subnet_search.masks import MaskSet
from subnet_search.search import SearchConfig, search_masks
from subnet_search.search.overlap import pair_overlap
from subnet_search.search.swap import Swapped, swap

WIDTHS = {"a": 12, "b": 8}
QUOTAS = {"a": (6, 6, 6, 6), "b": (3, 4, 4, 5)}


def start(seed: int = 0) -> dict[str, np.ndarray]:
    masks = search_masks(None, WIDTHS, QUOTAS, SearchConfig("random", seed=seed))
    return {name: mask.numpy() for name, mask in masks.masks.items()}


def flat() -> dict[str, np.ndarray]:
    return {name: np.ones((4, width)) for name, width in WIDTHS.items()}


def worth(seed: int = 3) -> dict[str, np.ndarray]:
    """What each channel is really worth to each member, which the relevance does not know."""
    rng = np.random.default_rng(seed)
    return {name: rng.random((4, width)) for name, width in WIDTHS.items()}


def hidden(masks: Mapping[str, np.ndarray]) -> float:
    return -sum(float(value[masks[name]].sum()) for name, value in worth().items())


def best_of_all() -> float:
    """Without a price on overlap each member simply keeps what is worth most to it."""
    return -sum(
        float(np.sort(value[k])[-quota:].sum())
        for name, value in worth().items()
        for k, quota in enumerate(QUOTAS[name])
    )


def run(measure: Callable[..., float] = hidden, candidates: int = 100, **settings: object) -> Swapped:
    return swap(start(), flat(), measure, np.random.default_rng(0), candidates=candidates, **settings)


def test_it_finds_what_is_worth_more_than_relevance_knows() -> None:
    found = run(candidates=1500)
    assert found.before == hidden(start())
    assert found.after == hidden(found.masks)
    assert found.before - found.after > 0.85 * (found.before - best_of_all())


def test_quotas_stay_and_nothing_gets_worse() -> None:
    values = []
    found = run(lambda masks: values.append(hidden(masks)) or values[-1])
    for name, mask in found.masks.items():
        assert mask.sum(axis=1).tolist() == list(QUOTAS[name])
    assert found.after == min(values) <= found.before == values[0]
    assert len(values) == 101
    assert found.candidates == 100
    better = [value for number, value in enumerate(values) if number and value < min(values[:number])]
    assert found.accepted == len(better) > 0


def test_the_start_is_not_changed_and_the_result_determined_by_the_generator() -> None:
    first = start()
    before = {name: mask.copy() for name, mask in first.items()}
    one, two = (swap(first, flat(), hidden, np.random.default_rng(4), candidates=60) for _ in range(2))
    assert all((first[name] == before[name]).all() for name in first)
    assert all((one.masks[name] == two.masks[name]).all() for name in first)
    other = swap(first, flat(), hidden, np.random.default_rng(5), candidates=60)
    assert any((one.masks[name] != other.masks[name]).any() for name in first)


@pytest.mark.parametrize("algorithm", ["pairs", "antirandom"])
def test_complements_stay_complements(algorithm) -> None:
    scores = {"g": torch.rand(4, 16, generator=torch.Generator().manual_seed(0))}
    value = np.random.default_rng(1).random((4, 16))

    def measure(masks: MaskSet) -> float:
        return -float((value * masks.masks["g"].numpy()).sum())

    config = SearchConfig("swap", start=algorithm, swaps=100)
    masks = search_masks(scores, {"g": 16}, {"g": (8,) * 4}, config, measure)
    assert masks.notes["accepted"] > 3
    shared = pair_overlap(masks.masks["g"].numpy())
    assert shared[0, 1] == shared[2, 3] == 0


def test_cover_is_kept() -> None:
    for seed in range(3):
        first = {name: search_masks(None, WIDTHS, QUOTAS, SearchConfig("random", seed=seed)).masks[name].numpy() for name in WIDTHS}  # fmt: skip
        assert all(mask.any(axis=0).all() for mask in first.values())
        found = swap(first, flat(), hidden, np.random.default_rng(seed), candidates=300, cover=True)
        assert found.accepted > 3
        assert all(mask.any(axis=0).all() for mask in found.masks.values())


def test_proposals_are_indifferent_in_relevance_and_lower_the_overlap() -> None:
    """A channel far above the border is hardly ever given up, and what many have is given up first."""
    scores = {"a": np.tile(np.r_[np.full(4, 9.0), np.ones(8)], (4, 1))}
    mask = np.zeros((4, 12), dtype=bool)
    mask[:, :4] = True
    mask[:, 4] = True  # a channel that all share
    mask[[0, 1, 2, 3], [5, 6, 7, 8]] = True
    lost = np.zeros(12)

    def measure(masks: Mapping[str, np.ndarray]) -> float:
        lost[:] += (mask & ~masks["a"]).sum(axis=0)
        return 0.0  # nothing is ever better

    swap({"a": mask}, scores, measure, np.random.default_rng(0), candidates=400)
    assert lost[:4].sum() == 0
    assert lost[4] > lost[5:9].max()


def test_progress_is_shown_up_to_the_last_candidate() -> None:
    with Progress(disable=True) as progress:
        run(candidates=30, progress=progress)
        (task,) = progress.tasks
    assert task.completed == task.total == 30


def test_no_candidates_give_the_start() -> None:
    found = run(candidates=0)
    assert all((found.masks[name] == mask).all() for name, mask in start().items())
    assert found.after == found.before
    whole = {"a": np.ones((3, 5), dtype=bool)}
    found = swap(whole, {"a": np.ones((3, 5))}, lambda _: 1.0, np.random.default_rng(0), candidates=10)
    assert found.masks["a"].all()
    assert found.candidates == 0


def test_measurements_that_are_nan_are_never_taken_and_no_start() -> None:
    values = iter([1.0] + [math.nan] * 100)
    found = run(lambda _: next(values), candidates=50)
    assert found.accepted == 0
    with pytest.raises(SubnetSearchError, match="the masks to start from measure nan, expected a finite loss"):
        run(lambda _: math.nan)


def test_notes_tell_what_was_measured() -> None:
    scores = {name: torch.rand(4, width, generator=torch.Generator().manual_seed(0)) for name, width in WIDTHS.items()}

    def measure(masks: MaskSet) -> float:
        return hidden({name: mask.numpy() for name, mask in masks.masks.items()})

    masks = search_masks(scores, WIDTHS, QUOTAS, SearchConfig("swap", swaps=40), measure)
    flow = search_masks(scores, WIDTHS, QUOTAS, SearchConfig("flow"))
    assert masks.notes["before"] == measure(flow)
    assert masks.notes["after"] == measure(masks) < masks.notes["before"]
    assert masks.notes["measured"] == 40
    assert masks.notes["objective"] <= flow.notes["bound"]
    normal = {name: value / value.double().mean() for name, value in scores.items()}
    relevance = sum(float(normal[name][mask].sum()) for name, mask in masks.masks.items())
    assert masks.notes["relevance"] == pytest.approx(relevance)
    assert masks.notes["objective"] == pytest.approx(relevance - masks.notes["overlap"])
