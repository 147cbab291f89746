"""One battery that every search algorithm and control must pass."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.errors import SubnetSearchError
from subnet_search.masks import MaskSet
from subnet_search.search import ALGORITHMS as ALL
from subnet_search.search import ENTWINED, SearchConfig, search_masks
from subnet_search.search.algorithms import MEASURING, SCORE_DRIVEN

ALGORITHMS = [algorithm for algorithm in ALL if algorithm not in ENTWINED]

SHAPES = {
    "half": (16, (8, 8, 8, 8)),
    "members=channels": (4, (2, 2, 2, 2)),
    "quota=channels": (6, (6, 6, 6)),
    "one each": (5, (1, 1)),
    "disjoint": (12, (4, 4, 4)),
    "unequal": (11, (1, 11, 5)),
    "sparse": (30, (3, 4, 5, 2)),
    "odd members": (20, (9, 10, 11, 10, 10)),
    "one channel": (1, (1, 1)),
}


def _scores(members: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(members, width, generator=torch.Generator().manual_seed(seed))


def _measure(masks: MaskSet) -> float:
    """Any fixed function of the masks: small where early channels are kept."""
    return sum(float((mask * torch.arange(mask.shape[1])).sum()) for mask in masks.masks.values())


def _search(algorithm: str, width: int, quota: tuple[int, ...], **settings: object) -> MaskSet:
    scores = {"a": _scores(len(quota), width), "b": _scores(len(quota), width, 1)}
    config = SearchConfig(algorithm=algorithm, **settings)
    return search_masks(scores, {"a": width, "b": width}, {"a": quota, "b": quota}, config, _measure)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_quotas_are_exact_and_the_result_is_determined_by_the_seed(algorithm: str, shape: str) -> None:
    width, quota = SHAPES[shape]
    masks = _search(algorithm, width, quota, seed=3)
    assert masks.widths == {"a": quota, "b": quota}
    assert masks.masks["a"].shape == (len(quota), width)
    assert masks.algorithm == algorithm
    assert masks.seed == 3
    assert masks.notes["settings"]["algorithm"] == algorithm
    assert masks.digest() == _search(algorithm, width, quota, seed=3).digest()
    iou = masks.iou()
    assert ((iou >= 0) & (iou <= 1)).all()
    for mask in masks.masks.values():
        shared = mask.double() @ mask.double().T
        size = torch.tensor(quota, dtype=torch.float64)
        assert (shared >= (size[:, None] + size[None] - width).clamp(min=0)).all()
        assert (shared <= torch.minimum(size[:, None], size[None])).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_cover_uses_as_many_channels_as_quotas_allow(algorithm: str, shape: str) -> None:
    width, quota = SHAPES[shape]
    masks = _search(algorithm, width, quota, cover=True)
    assert masks.widths["a"] == quota
    if sum(quota) >= width:
        assert masks.masks["a"].any(dim=0).all()


@pytest.mark.parametrize("algorithm", ["random", "masksembles", "antirandom", "best-of-n"])
def test_controls_depend_on_the_seed_and_not_on_scores(algorithm: str) -> None:
    one, other = _search(algorithm, 40, (20, 20, 20), seed=0), _search(algorithm, 40, (20, 20, 20), seed=1)
    assert one.digest() != other.digest()
    groups = {"a": 40, "b": 40}, {"a": (20, 20, 20), "b": (20, 20, 20)}
    without = search_masks(None, *groups, SearchConfig(algorithm=algorithm), _measure)
    assert without.digest() == one.digest()
    assert not torch.equal(one.masks["a"], one.masks["b"])


@pytest.mark.parametrize("algorithm", sorted(SCORE_DRIVEN - MEASURING))
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), members=st.integers(2, 4), width=st.integers(2, 12), data=st.data())
def test_score_driven_algorithms_are_equivariant_under_permutations_of_channels(
    algorithm: str, seed: int, members: int, width: int, data: st.DataObject
) -> None:
    quota = tuple(data.draw(st.lists(st.integers(1, width), min_size=members, max_size=members)))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(width))
    scores = _scores(members, width, seed)
    config = SearchConfig(algorithm=algorithm)
    straight = search_masks({"g": scores}, {"g": width}, {"g": quota}, config)
    permuted = search_masks({"g": scores[:, order]}, {"g": width}, {"g": quota}, config)
    assert torch.equal(straight.masks["g"][:, order], permuted.masks["g"])


@pytest.mark.parametrize("algorithm", sorted(SCORE_DRIVEN - MEASURING))
def test_relevant_channels_are_preferred_and_the_objective_is_told(algorithm: str) -> None:
    scores = _scores(4, 64)
    masks = search_masks({"g": scores}, {"g": 64}, {"g": (32,) * 4}, SearchConfig(algorithm=algorithm))
    kept = masks.masks["g"]
    assert scores[kept].mean() > scores[~kept].mean() + 0.1
    relevance = float(scores[kept].double().sum() / scores.double().mean())
    shared = masks.overlap().triu(diagonal=1)
    penalty = float((shared**2).sum() / 64)
    assert masks.notes["relevance"] == pytest.approx(relevance)
    assert masks.notes["overlap"] == pytest.approx(penalty)
    assert masks.notes["objective"] == pytest.approx(relevance - penalty)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_groups_kept_whole_count_for_nothing(algorithm: str) -> None:
    scores = {"thinned": _scores(3, 20), "whole": _scores(3, 50)}
    config = SearchConfig(algorithm=algorithm)
    one = search_masks(scores, {"thinned": 20}, {"thinned": (9, 9, 9)}, config, _measure)
    widths, quotas = {"thinned": 20, "whole": 50}, {"thinned": (9, 9, 9), "whole": (50, 50, 50)}
    both = search_masks(scores, widths, quotas, config, _measure)
    assert both.masks["whole"].all()
    for figure in ("overlap", "relevance", "objective", "bound", "gap"):
        assert one.notes.get(figure) == pytest.approx(both.notes.get(figure))


@pytest.mark.parametrize("algorithm", sorted(ENTWINED))
def test_masks_that_come_out_of_training_cannot_be_had_before_it(algorithm: str) -> None:
    with pytest.raises(SubnetSearchError, match=f"'{algorithm}' trains while it searches"):
        search_masks({"g": _scores(2, 8)}, {"g": 8}, {"g": (4, 4)}, SearchConfig(algorithm=algorithm))


def test_what_is_needed_and_not_given_is_an_error() -> None:
    groups = {"g": 8}, {"g": (4, 4)}
    with pytest.raises(SubnetSearchError, match="'core' needs relevance scores"):
        search_masks(None, *groups, SearchConfig(algorithm="core"))
    with pytest.raises(SubnetSearchError, match="best-of-n needs a measure"):
        search_masks(None, *groups, SearchConfig(algorithm="best-of-n"))
    with pytest.raises(SubnetSearchError, match="swap needs a measure"):
        search_masks({"g": torch.rand(2, 8)}, *groups, SearchConfig(algorithm="swap"))
    with pytest.raises(SubnetSearchError, match="'swap' needs relevance scores"):
        search_masks(None, *groups, SearchConfig(algorithm="swap"), _measure)
    with pytest.raises(SubnetSearchError, match="'g' has no scores"):
        search_masks({}, *groups, SearchConfig(algorithm="draft"))
    with pytest.raises(SubnetSearchError, match=r"shape \(2, 7\).*\(2, 8\)"):
        search_masks({"g": torch.rand(2, 7)}, *groups, SearchConfig(algorithm="draft"))
    with pytest.raises(SubnetSearchError, match="NaN"):
        search_masks({"g": torch.full((2, 8), torch.nan)}, *groups, SearchConfig(algorithm="draft"))


@pytest.mark.parametrize(
    ("widths", "quotas", "message"),
    [
        ({"g": 8}, {"h": (4, 4)}, "different groups"),
        ({}, {}, "no group"),
        ({"g": 8}, {"g": (4,)}, "at least 2"),
        ({"g": 8, "h": 8}, {"g": (4, 4), "h": (4, 4, 4)}, "one number"),
        ({"g": 8}, {"g": (4, 9)}, r"1\.\.8"),
        ({"g": 8}, {"g": (0, 4)}, r"1\.\.8"),
    ],
)
def test_quotas_that_do_not_fit_are_an_error(widths: dict, quotas: dict, message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        search_masks(None, widths, quotas, SearchConfig(algorithm="random"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "magic"}, "unknown search algorithm 'magic'"),
        ({"lambda_overlap": -1.0}, "lambda_overlap"),
        ({"lambda_overlap": float("nan")}, "lambda_overlap"),
        ({"core_share": 1.5}, "core_share"),
        ({"candidates": 0}, "candidates"),
        ({"start": "swap"}, "start is 'swap', expected one of flow, draft"),
        ({"swaps": -1}, "swaps is -1"),
        ({"rescoring": -1}, "rescoring is -1"),
        ({"rounds": 0}, "rounds"),
        ({"train_share": -0.1}, "train_share"),
        ({"train_share": float("nan")}, "train_share"),
        ({"gate_rate": -1.0}, "gate_rate"),
        ({"gate_rate": float("inf")}, "gate_rate"),
        ({"gate_noise": 0.0}, "gate_noise"),
        ({"gate_corr": -0.1}, "gate_corr"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_outside_their_range_are_an_error(settings: dict, message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        SearchConfig(**settings)
