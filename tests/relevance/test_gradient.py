from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from subnet_search.relevance import RelevanceConfig, score_relevance

SETTINGS = {"samples": 6, "precision": "fp32"}


def gradient_at(tiny, member, image, gates):
    """∂L/∂g of one image, by plain autograd."""
    x, labels = tiny.rows()
    leaves = {name: gate.float().requires_grad_() for name, gate in gates.items()}
    F.cross_entropy(tiny.logits(member, x[image : image + 1], leaves), labels[image : image + 1]).backward()
    return {name: leaf.grad * tiny.masks[name][member] for name, leaf in leaves.items()}


@pytest.mark.parametrize(("criterion", "power"), [("fisher", 2), ("taylor", 1)])
@pytest.mark.parametrize("batch_rows", [1, 7, 512])
def test_criteria_equal_gradients_image_by_image(tiny, criterion, power, batch_rows):
    config = RelevanceConfig(criterion=criterion, batch_rows=batch_rows, **SETTINGS)
    got = score_relevance(tiny.ensemble, tiny.data, config).scores
    for member in range(2):
        open_gates = {name: mask[member] for name, mask in tiny.masks.items()}
        each = [gradient_at(tiny, member, image, open_gates) for image in range(6)]
        for name in open_gates:
            wanted = torch.stack([gradient[name].abs() ** power for gradient in each]).mean(dim=0)
            torch.testing.assert_close(got[name][member], wanted, rtol=1e-4, atol=1e-7)


def test_sampled_tends_to_the_mean_over_the_path_of_each_group(tiny):
    x, labels = tiny.rows()
    steps = 64
    alphas = ((torch.arange(steps) + 0.5) / steps).repeat_interleave(6)[:, None]
    draws = RelevanceConfig(path="sampled", nodes=600, batch_rows=12, **SETTINGS)  # each group gets a quarter of them
    for power in (1.0, 2.0):
        got = score_relevance(tiny.ensemble, tiny.data, replace(draws, power=power)).scores
        for name, mask in tiny.masks.items():
            for member in range(2):
                gate = (mask[member] * alphas).requires_grad_()
                logits = tiny.logits(member, x.repeat(steps, 1, 1, 1), {name: gate})
                F.cross_entropy(logits, labels.repeat(steps), reduction="sum").backward()
                wanted = (gate.grad * mask[member]).abs().pow(power).mean(dim=0)
                atol = 0.02 * float(wanted.max())
                torch.testing.assert_close(got[name][member], wanted, rtol=0.1 * power, atol=atol)


def test_sampled_is_an_upper_bound_of_the_group_path(tiny):
    upper = score_relevance(tiny.ensemble, tiny.data, RelevanceConfig(path="sampled", nodes=100, **SETTINGS)).scores
    exact = score_relevance(tiny.ensemble, tiny.data, RelevanceConfig(path="group", nodes=16, **SETTINGS)).scores
    for name in exact:
        assert (upper[name] * 1.25 + 1e-4 >= exact[name]).all(), name


def test_a_group_that_no_row_has_drawn_scores_zero(tiny):
    config = RelevanceConfig(path="sampled", nodes=1, samples=1, precision="fp32")
    scores = score_relevance(tiny.ensemble, tiny.data, config).scores
    drawn = torch.stack([(s > 0).any(dim=1) for s in scores.values()]).sum(dim=0)
    assert (drawn <= 1).all()  # one row for each member, so one group at most
    assert all(torch.isfinite(s).all() for s in scores.values())
