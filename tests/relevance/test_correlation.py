"""The correlation of errors, and what each channel adds to it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.ensemble import SubnetEnsemble
from subnet_search.masks import full_masks
from subnet_search.relevance import RelevanceConfig, correlation, ig, score_relevance
from subnet_search.relevance.correlation import ErrorCorrelation, error_correlation
from subnet_search.relevance.scope import Scope

LAMBDA = 0.4


def pearson(one, other):
    """By NumPy's own formula, over all images and classes."""
    return float(np.corrcoef(one.detach().flatten().numpy(), other.detach().flatten().numpy())[0, 1])


def drawn(members, images, classes, seed=0):
    """Residuals p − onehot of random answers, `[owner, image, member, class]`, and the targets and logits behind them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(members, images, members, classes, generator=generator) * 2
    labels = torch.randint(classes, (members, images), generator=generator)
    target = torch.nn.functional.one_hot(labels, classes).float()
    return logits.softmax(-1) - target[:, :, None], target, logits


def own_rows(logits, target):
    """The owner's logits and targets, `[row, class]`, in the order of places."""
    owners = torch.arange(len(logits))
    return logits[owners, :, owners].flatten(0, 1), target.flatten(0, 1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), members=st.integers(2, 4), images=st.integers(1, 6), classes=st.integers(2, 5))
def test_unchanged_answers_have_pearsons_correlation(seed, members, images, classes):
    residuals, target, logits = drawn(members, images, classes, seed)
    rows, targets = own_rows(logits, target)
    got = ErrorCorrelation(residuals).of_rows(rows, targets, torch.arange(members * images))
    for owner in range(members):
        own = residuals[owner, :, owner]
        wanted = sum(pearson(own, residuals[owner, :, k]) for k in range(members) if k != owner)
        torch.testing.assert_close(got.view(members, images)[owner] / images, torch.full((images,), wanted), rtol=1e-3, atol=1e-4)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.0, 50.0))
def test_a_changed_answer_gives_the_correlation_of_the_changed_set(seed, scale):
    residuals, target, _ = drawn(3, 4, 5, seed)
    errors, images = ErrorCorrelation(residuals), 4
    new = torch.randn(5, generator=torch.Generator().manual_seed(seed + 1)) * scale
    for owner, image in ((0, 0), (1, 3), (2, 2)):
        got = errors.of_rows(new[None], target[owner, image][None], torch.tensor([owner * images + image]))
        own = residuals[owner, :, owner].clone()
        own[image] = new.softmax(-1) - target[owner, image]
        wanted = sum(pearson(own, residuals[owner, :, k]) for k in range(3) if k != owner)
        assert float(got) / images == pytest.approx(wanted, abs=1e-3)
        assert abs(float(got)) <= images * 2 + 1e-4


def test_the_mean_change_of_single_answers_is_the_change_of_all():
    residuals, target, logits = drawn(2, 40, 4)
    rows, targets = own_rows(logits, target)
    errors, places = ErrorCorrelation(residuals), torch.arange(80)
    nudge = 1e-2 * torch.randn(80, 4, generator=torch.Generator().manual_seed(7))
    before, after = (errors.of_rows(r, targets, places).view(2, 40) for r in (rows, rows + nudge))
    for owner in range(2):
        own = residuals[owner, :, owner]
        moved = (rows + nudge).view(2, 40, 4)[owner].softmax(-1) - target[owner]
        other = residuals[owner, :, 1 - owner]
        assert float((after - before)[owner].mean()) == pytest.approx(pearson(moved, other) - pearson(own, other), rel=0.05)  # fmt: skip


def test_gradients_are_those_of_finite_differences():
    residuals, target, logits = drawn(3, 3, 4)
    rows, targets = own_rows(logits, target)
    errors, places = ErrorCorrelation(residuals), torch.arange(9)
    leaf = rows.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(errors.of_rows(leaf, targets, places).sum(), leaf)
    for label in range(4):
        step = torch.zeros_like(rows)
        step[:, label] = 1e-2
        up, down = (errors.of_rows(rows + sign * step, targets, places) for sign in (1, -1))
        torch.testing.assert_close((up - down) / 2e-2, gradient[:, label], rtol=0.02, atol=2e-3)


def test_members_that_are_always_right_have_no_correlation():
    errors = ErrorCorrelation(torch.zeros(2, 3, 2, 4))
    leaf = torch.zeros(6, 4, requires_grad=True)
    right = torch.full((6, 4), 0.25)
    value = errors.of_rows(leaf, right, torch.arange(6))
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    assert (value == 0).all()
    assert torch.isfinite(gradient).all()


def answers(tiny, member, x, gates):
    return tiny.logits(member, x, gates).softmax(-1)


def naive(tiny, nodes):
    """Image by image: |∫∂L| less λ·∫∂corr, each along its own group, by plain autograd and the definition."""
    x, labels = tiny.rows()
    target = torch.nn.functional.one_hot(labels, 3).float()
    points, weights = np.polynomial.legendre.leggauss(nodes)
    scores = {name: torch.zeros(mask.shape) for name, mask in tiny.masks.items()}
    for member in range(2):
        own, other = (answers(tiny, k, x, {}).detach() - target for k in (member, 1 - member))
        for name, mask in tiny.masks.items():
            of_loss, of_correlation = torch.zeros(mask.shape[1]), torch.zeros(mask.shape[1])
            for image in range(len(x)):
                integrals = torch.zeros(2, mask.shape[1])
                for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
                    gate = (mask[member] * point).float().requires_grad_()
                    p = answers(tiny, member, x[image : image + 1], {name: gate})
                    r = torch.cat([own[:image], p - target[image], own[image + 1 :]])
                    alike = len(x) * (r * other).sum() / (r.norm() * other.norm())
                    for part, value in enumerate((-p[0, labels[image]].log(), alike)):
                        (gradient,) = torch.autograd.grad(value, gate, retain_graph=True)
                        integrals[part] += weight * gradient * mask[member]
                of_loss += integrals[0].abs() / len(x)
                of_correlation += integrals[1] / len(x)
            scores[name][member] = (of_loss - LAMBDA * of_correlation).clamp(min=0)
    return scores


SETTINGS = {"criterion": "ig", "path": "group", "nodes": 4, "samples": 6, "precision": "fp32"}


@pytest.mark.parametrize("batch_rows", [5, 512])
def test_scores_equal_a_loop_over_images_and_channels(tiny, batch_rows):
    config = RelevanceConfig(**SETTINGS, lambda_corr=LAMBDA, batch_rows=batch_rows)
    got = score_relevance(tiny.ensemble, tiny.data, config).scores
    for name, wanted in naive(tiny, 4).items():
        torch.testing.assert_close(got[name], wanted, rtol=1e-3, atol=1e-5)


def test_the_sampled_path_has_the_same_part_for_the_correlation_in_the_mean(tiny):
    # without absolute values sampling has no bias; the loss is the same with and without the correlation
    parts = {}
    for path, nodes in (("group", 32), ("sampled", 800)):
        config = RelevanceConfig(**{**SETTINGS, "path": path, "nodes": nodes, "batch_rows": 12})
        plain = score_relevance(tiny.ensemble, tiny.data, config).scores
        little = RelevanceConfig(**{**SETTINGS, "path": path, "nodes": nodes, "batch_rows": 12}, lambda_corr=1e-2)
        both = score_relevance(tiny.ensemble, tiny.data, little).scores
        parts[path] = {name: (plain[name] - both[name]) / 1e-2 for name in plain}
    for name, wanted in parts["group"].items():
        torch.testing.assert_close(parts["sampled"][name], wanted, rtol=0.2, atol=0.1 * float(wanted.abs().max()))


@pytest.mark.parametrize("cut", [False, True])
def test_attributions_of_the_correlation_add_up_to_its_change(tiny, cut):
    config = RelevanceConfig(**{**SETTINGS, "nodes": 64})
    errors = error_correlation(tiny.ensemble.eval(), tiny.data, config, None)
    scope = Scope(("fc",), tiny.masks, cut)
    x, labels = tiny.rows()
    order = torch.cat([torch.randperm(6, generator=torch.Generator().manual_seed(104_729 * (k + 1))) for k in range(2)])
    extra = (torch.arange(12), x[order], labels[order])
    function = ig._CorrelationOfGates(tiny.ensemble, scope, ["fc"], 12, config, errors)
    with scope.opened(tiny.ensemble):
        end = scope.end("fc", 12, torch.device("cpu"))
        (shares,) = ig._integrated(function, (end,), extra, config)
        change = function(end, *extra) - function(torch.zeros_like(end), *extra)
    torch.testing.assert_close(shares.sum(dim=1).float(), change, rtol=1e-2, atol=1e-2)
    assert change.abs().max() > 0.1


def test_without_its_weight_nothing_is_computed_for_it(tiny, monkeypatch):
    wanted = score_relevance(tiny.ensemble, tiny.data, RelevanceConfig(**SETTINGS)).scores
    monkeypatch.setattr(correlation, "ErrorCorrelation", lambda *_: pytest.fail("computed all the same"))
    got = score_relevance(tiny.ensemble, tiny.data, RelevanceConfig(**SETTINGS, lambda_corr=0.0)).scores
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("path", ["sampled", "group", "joint"])
def test_it_is_determined_by_the_seed_and_needs_no_labels(tiny, path):
    config = RelevanceConfig(**{**SETTINGS, "path": path, "labels": False}, lambda_corr=1.0)
    one, two = (score_relevance(tiny.ensemble, tiny.data, config, dense=tiny.network).scores for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    plain = RelevanceConfig(**{**SETTINGS, "path": path, "labels": False})
    other = score_relevance(tiny.ensemble, tiny.data, plain, dense=tiny.network).scores
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_equal_members_are_as_alike_as_can_be(tiny):
    intact = SubnetEnsemble(
        tiny.network, tiny.ensemble.graph, full_masks(tiny.ensemble.graph.widths, 2), tiny.ensemble.card
    ).eval()
    config = RelevanceConfig(**SETTINGS)
    errors = error_correlation(intact, tiny.data, config, None)
    x, labels = tiny.rows()
    order = torch.cat([torch.randperm(6, generator=torch.Generator().manual_seed(104_729 * (k + 1))) for k in range(2)])
    leaf = intact(x[order], repeat=False).flatten(0, 1).detach().requires_grad_()
    target = correlation.targets(labels[order], None, 3)
    value = errors.of_rows(leaf, target, torch.arange(12))
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    torch.testing.assert_close(value, torch.full((12,), 6.0), rtol=1e-4, atol=0)
    assert gradient.abs().max() < 1e-3  # nothing that a first step could follow


def test_a_channel_that_makes_errors_alike_loses_and_never_falls_below_zero(tiny):
    plain = score_relevance(tiny.ensemble, tiny.data, RelevanceConfig(**SETTINGS)).scores
    some = score_relevance(tiny.ensemble, tiny.data, RelevanceConfig(**SETTINGS, lambda_corr=0.1)).scores
    much = score_relevance(tiny.ensemble, tiny.data, RelevanceConfig(**SETTINGS, lambda_corr=100.0)).scores
    lower = [some[name] < plain[name] for name in plain]
    assert any(bool(mask.any()) for mask in lower)
    for name, mask in zip(plain, lower, strict=True):
        assert (much[name][mask] == 0).all()
        assert (much[name] >= 0).all()
