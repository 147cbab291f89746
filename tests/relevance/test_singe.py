import pytest
import torch
import torch.nn.functional as F

from subnet_search.ensemble import SubnetEnsemble
from subnet_search.relevance import RelevanceConfig, score_relevance, singe
from subnet_search.relevance.sample import member_batches

ROWS = {"even": ("conv1", [0, 2, 4]), "odd": ("conv1", [1, 3]), "conv2": ("conv2", [0, 1, 2, 3]), "fc": ("fc", [0, 1, 2, 3])}  # fmt: skip


def naive(tiny, path, steps):
    """Really folds the norm, cuts and scales the weights, and takes the gradient at the scaled weights (Yvinec et al. 2022)."""
    x, labels = tiny.rows()
    names = list(tiny.masks)
    totals = {name: torch.zeros(tiny.masks[name].shape) for name in names}
    open_gates = {name: torch.ones(mask.shape[1]) for name, mask in tiny.masks.items()}
    for member in range(2):
        intact = tiny.folded(member)
        for name, (layer, rows) in ROWS.items():
            cut = torch.tensor(rows)[~tiny.masks[name][member]]
            intact = {n: t.index_fill(0, cut, 0.0) if n.startswith(layer) else t for n, t in intact.items()}
        for moving in [names] if path == "joint" else [[name] for name in names]:
            for step in range(steps):
                scale = 0.01 ** (step / (steps - 1))
                scaled = {n: t.clone() for n, t in intact.items()}
                for name in moving:
                    layer, rows = ROWS[name]
                    for kind in ("weight", "bias"):
                        scaled[f"{layer}.{kind}"][rows] *= scale
                weights = {n: t.requires_grad_() for n, t in scaled.items()}
                F.cross_entropy(tiny.logits_of(weights, x, open_gates), labels).backward()
                for name in moving:
                    layer, rows = ROWS[name]
                    weight = weights[f"{layer}.weight"]
                    totals[name][member] += (weight.grad * weight).detach()[rows].flatten(1).norm(dim=1)
    return totals


@pytest.mark.parametrize("path", ["joint", "group"])
def test_singe_equals_folded_and_scaled_weights(tiny, path):
    config = RelevanceConfig(criterion="singe", path=path, nodes=3, samples=6, precision="fp32")
    got = score_relevance(tiny.ensemble, tiny.data, config).scores
    for name, wanted in naive(tiny, path, 3).items():
        assert wanted.max() > 1e-4
        torch.testing.assert_close(got[name], wanted, rtol=1e-3, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_singe_takes_the_default_path_for_that_of_each_group(tiny):
    settings = {"criterion": "singe", "nodes": 3, "samples": 6, "precision": "fp32"}
    default = score_relevance(tiny.ensemble, tiny.data, RelevanceConfig(**settings)).scores
    group = score_relevance(tiny.ensemble, tiny.data, RelevanceConfig(path="group", **settings)).scores
    assert all(torch.equal(default[name], group[name]) for name in group)


def test_frozen_weights_are_scored_all_the_same(tiny):
    config = RelevanceConfig(criterion="singe", path="joint", nodes=2, samples=6, precision="fp32")
    wanted = score_relevance(tiny.ensemble, tiny.data, config).scores
    tiny.ensemble.requires_grad_(False)
    got = score_relevance(tiny.ensemble, tiny.data, config).scores
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    assert not any(parameter.requires_grad for parameter in tiny.ensemble.parameters())


@pytest.mark.parametrize("bootstrap", [False, True])
def test_members_see_the_images_that_they_see_under_the_other_criteria(tiny, monkeypatch, bootstrap):
    config = RelevanceConfig(criterion="singe", path="joint", nodes=1, samples=3, bootstrap=bootstrap, precision="fp32")
    seen = []

    def spying(ensemble: SubnetEnsemble, *others):
        for rows, labels in member_batches(ensemble, *others):
            seen.append(rows)
            yield rows, labels

    monkeypatch.setattr(singe, "member_batches", spying)
    score_relevance(tiny.ensemble, tiny.data, config)
    ((wanted, _),) = member_batches(tiny.ensemble, tiny.data, config, 3)
    assert torch.equal(torch.cat(seen), wanted)
    assert torch.equal(wanted[:3], wanted[3:]) is not bootstrap
