"""Scores of channels that a member has cut."""

import numpy as np
import pytest
import torch

from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.masks import full_masks
from subnet_search.relevance import RelevanceConfig, gradient, score_relevance

SETTINGS = {"criterion": "ig", "samples": 6, "precision": "fp32"}


def naive(tiny, nodes):
    """The group on the path is there as a whole, the others as the member has them."""
    x, labels = tiny.rows()
    points, weights = np.polynomial.legendre.leggauss(nodes)
    totals = {name: torch.zeros(mask.shape) for name, mask in tiny.masks.items()}
    for member in range(2):
        for name, mask in tiny.masks.items():
            for image in range(len(x)):
                integral = torch.zeros(mask.shape[1])
                for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
                    gate = torch.full((mask.shape[1],), float(point), requires_grad=True)
                    logits = tiny.logits(member, x[image : image + 1], {name: gate})
                    (slope,) = torch.autograd.grad(-logits.log_softmax(-1)[0, labels[image]], gate)
                    integral += weight * slope
                totals[name][member] += integral.abs() / len(x)
    return totals


@pytest.mark.parametrize("batch_rows", [7, 512])
def test_cut_channels_are_scored_as_if_their_group_were_whole(tiny, batch_rows):
    config = RelevanceConfig(**SETTINGS, path="group", nodes=3, batch_rows=batch_rows)
    got = score_relevance(tiny.ensemble, tiny.data, config, cut=True).scores
    for name, wanted in naive(tiny, 3).items():
        torch.testing.assert_close(got[name], wanted, rtol=1e-4, atol=1e-6)
        assert (wanted[~tiny.masks[name]] > 0).any(), name


def test_the_sampled_path_scores_them_too(tiny):
    config = RelevanceConfig(**SETTINGS, path="sampled", nodes=200)
    got = score_relevance(tiny.ensemble, tiny.data, config, cut=True).scores
    for name, exact in naive(tiny, 8).items():
        assert (got[name] * 1.25 + 1e-4 >= exact).all(), name  # the mean stands outside of the power


@pytest.mark.parametrize("path", ["group", "sampled"])
def test_where_nothing_is_cut_it_makes_no_difference(tiny, path):
    graph = tiny.ensemble.graph
    whole = SubnetEnsemble(tiny.network, graph, full_masks(graph.widths, 2), tiny.ensemble.card)
    config = RelevanceConfig(**SETTINGS, path=path, nodes=3)
    one, two = (score_relevance(whole, tiny.data, config, cut=cut).scores for cut in (False, True))
    for name in one:
        torch.testing.assert_close(one[name], two[name])


def test_the_masks_are_put_back_after_a_failure_too(tiny, monkeypatch):
    before = tiny.ensemble.masks.digest()
    config = RelevanceConfig(**SETTINGS, path="sampled", nodes=1)
    score_relevance(tiny.ensemble, tiny.data, config, cut=True, groups=["fc"])
    assert tiny.ensemble.masks.digest() == before

    def stop(*_):
        assert all(mask.all() for mask in tiny.ensemble.masks.masks.values())
        raise RuntimeError("stop")

    monkeypatch.setattr(gradient, "losses", stop)
    with pytest.raises(RuntimeError, match="stop"):
        score_relevance(tiny.ensemble, tiny.data, config, cut=True)
    assert tiny.ensemble.masks.digest() == before


@pytest.mark.parametrize(("criterion", "path"), [("taylor", "sampled"), ("magnitude", "group"), ("ig", "joint")])
def test_other_criteria_cannot(tiny, criterion, path):
    config = RelevanceConfig(criterion=criterion, path=path, samples=6)
    with pytest.raises(SubnetSearchError, match=f"cannot be scored by '{criterion}'.*use relevance.criterion=ig"):
        score_relevance(tiny.ensemble, tiny.data, config, cut=True)
