import torch

from subnet_search.masks import MaskSet
from subnet_search.search import SearchConfig, search_masks, shuffled


def _masks() -> MaskSet:
    groups = {"a": 30, "b": 17}, {"a": (10, 15, 20), "b": (5, 6, 7)}
    return search_masks(None, *groups, SearchConfig("masksembles"))


def test_the_twin_has_the_same_structure_on_other_channels() -> None:
    masks = _masks()
    twin = shuffled(masks, seed=1)
    assert twin.widths == masks.widths
    for name, mask in masks.masks.items():
        before, after = mask.double(), twin.masks[name].double()
        assert torch.equal(before @ before.T, after @ after.T)
        assert sorted(map(tuple, before.T.tolist())) == sorted(map(tuple, after.T.tolist()))
    assert twin.digest() != masks.digest()


def test_it_tells_its_origin_and_is_determined_by_the_seed() -> None:
    masks = _masks()
    twin = shuffled(masks, seed=1)
    assert twin.algorithm == "masksembles+shuffled"
    assert twin.seed == 1
    assert twin.notes["shuffled_from"] == masks.digest()
    assert twin.digest() == shuffled(masks, seed=1).digest()
    assert twin.digest() != shuffled(masks, seed=2).digest()
