import math

import pytest
import torch

from subnet_search.errors import SubnetSearchError
from subnet_search.masks import MaskSet
from subnet_search.search import SearchConfig, search_masks

GROUPS = {"g": 24}, {"g": (12, 12, 12)}


def _loss(masks: MaskSet) -> float:
    return float((masks.masks["g"] * torch.arange(24)).sum(dim=1).max())


def test_the_lowest_measurement_wins_and_all_are_told() -> None:
    masks = search_masks(None, *GROUPS, SearchConfig("best-of-n", candidates=6), _loss)
    assert len(masks.notes["measured"]) == 6
    assert _loss(masks) == min(masks.notes["measured"])
    assert len(set(masks.notes["measured"])) > 1


def test_one_candidate_is_the_balanced_random_mask_set_of_that_seed() -> None:
    one = search_masks(None, *GROUPS, SearchConfig("best-of-n", candidates=1, seed=5), _loss)
    assert one.digest() == search_masks(None, *GROUPS, SearchConfig("random", seed=5)).digest()


def test_measurements_that_are_nan_lose() -> None:
    some, all_finite = iter([math.nan, 2.0, math.inf, 1.0]), iter([4.0, 3.0, 2.0, 1.0])
    config = SearchConfig("best-of-n", candidates=4)
    masks = search_masks(None, *GROUPS, config, lambda _: next(some))
    assert masks.digest() == search_masks(None, *GROUPS, config, lambda _: next(all_finite)).digest()


def test_without_any_finite_measurement_it_is_an_error() -> None:
    with pytest.raises(SubnetSearchError, match="none of 2 candidates"):
        search_masks(None, *GROUPS, SearchConfig("best-of-n", candidates=2), lambda _: math.nan)
