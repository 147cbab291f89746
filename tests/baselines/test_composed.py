"""Masks and what they are combined with."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from subnet_search.backbones import load_backbone
from subnet_search.baselines import Setup, build, train
from subnet_search.baselines.sampled import Sampled
from subnet_search.ensemble import MemberMask, MemberNorm
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import find_groups
from subnet_search.search import BudgetConfig, SearchConfig


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("random", {}),
        ("random+bagging", {"bagging": True}),
        ("random+repeat", {"mode": "repeat"}),
        ("random+distill", {"distill": 0.5}),
        ("random+mimo", {"input_repetition": 0.5, "batch_repetition": 4}),
        ("random+stochastic_depth", {}),
        ("random+depth_masks+bagging+repeat", {"bagging": True, "mode": "repeat"}),
    ],
)
def test_parts_change_their_own_settings_of_the_training_and_no_others(setup, method, changes) -> None:
    (phase,) = build(method, setup).phases
    assert phase.config == replace(setup.run.seeded("finetune"), **changes)


def test_parts_leave_the_masks_as_they_are(setup) -> None:
    alone = build("masksembles", setup).predictor.masks
    assert build("masksembles+bagging", setup).predictor.masks.digest() == alone.digest()
    inside = build("masksembles+mimo", setup).predictor.predictor.masks
    assert set(inside.masks) == set(alone.masks)


@pytest.mark.parametrize(
    ("method", "algorithm"),
    [
        ("masksembles", "masksembles"),
        ("antirandom", "antirandom"),
        ("random", "random"),
        ("magnitude", "magnitude"),
        ("best_of_8", "best-of-n"),
        ("search", "core"),
        ("search+flow+bagging", "flow"),
        ("search+draft", "draft"),
    ],
)
def test_the_masks_are_those_of_the_algorithm_that_is_named(make_setup, method, algorithm) -> None:
    masks = build(method, make_setup(0, search=SearchConfig("core", candidates=2))).predictor.masks
    assert masks.algorithm == algorithm
    if algorithm == "best-of-n":
        assert len(masks.notes["measured"]) == 8


def test_depth_masks_alone_meet_the_budget_with_whole_channels(setup) -> None:
    system = build("depth_masks", setup)
    masks = system.predictor.masks
    assert all(mask.all() for mask in masks.masks.values())
    assert all(masks.left_out(member) for member in range(3))
    assert len({masks.left_out(member) for member in range(3)}) == 3
    assert system.predictor.macs() <= 1.8 * setup.graph.dense_macs


def test_with_masked_channels_the_branches_take_a_part_of_the_budget(setup) -> None:
    system, alone = build("random+depth_masks", setup), build("depth_masks", setup).predictor.masks
    masks = system.predictor.masks
    assert not all(mask.all() for mask in masks.masks.values())
    out = [sum(len(found.left_out(member)) for member in range(3)) for found in (masks, alone)]
    assert 0 < out[0] < out[1]
    assert system.predictor.macs() <= 1.8 * setup.graph.dense_macs


def test_members_that_keep_everything_share_their_norms_and_masked_ones_do_not(setup) -> None:
    alone = build("stochastic_depth", setup).predictor
    assert not any(isinstance(module, MemberNorm) for module in alone.modules())
    masked = build("random+stochastic_depth", setup).predictor
    sites = [module.layer for module in masked.modules() if isinstance(module, Sampled)]
    assert all(isinstance(site, MemberNorm) for site in sites)
    assert all(module.common for module in masked.modules() if isinstance(module, MemberMask))  # of the trunk


def test_statistics_are_measured_behind_the_masks_before_the_training(setup) -> None:
    system = build("random", setup)
    (phase,), norm = system.phases, system.predictor.network.layer2[1].bn2
    assert phase.recalibrate == setup.run.seed
    assert torch.equal(norm.running_mean[0], norm.running_mean[1])
    untrained = replace(phase, config=replace(phase.config, epochs=0))
    train(replace(system, phases=(untrained,)), setup, None, Accelerator())
    assert not torch.equal(norm.running_mean[0], norm.running_mean[1])
    assert build("stochastic_depth", setup).phases[0].recalibrate is None


@pytest.mark.parametrize("method", ["search+progressive", "search+gates"])
def test_masks_that_come_out_of_training_combine_with_what_leaves_the_ensemble_plain(make_setup, method) -> None:
    setup = make_setup()
    for part, changes in (
        ("bagging", {"bagging": True}),
        ("repeat", {"mode": "repeat"}),
        ("distill", {"distill": 0.5}),
    ):
        for phase in build(f"{method}+{part}", setup).phases:
            assert all(getattr(phase.config, name) == value for name, value in changes.items())
    system = build(f"{method}+depth_masks", setup)
    depth = system.predictor.masks.depth
    train(system, setup, None, Accelerator())
    found = system.masks()
    assert {name: kept.tolist() for name, kept in found.depth.items()} == {n: k.tolist() for n, k in depth.items()}
    assert all(found.left_out(member) for member in range(3))
    assert system.iou == found.mean_iou() < 1
    for part in ("mimo", "stochastic_depth", "mimo+stochastic_depth"):
        with pytest.raises(SubnetSearchError, match="come out of the training of a plain ensemble"):
            build(f"{method}+{part}", setup)


def chain(setup: Setup) -> Setup:
    """A setup with a network that has no residual branches."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.Conv2d(6, 6, 3),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 10),
    ).eval()  # fmt: skip
    return replace(
        setup, backbone=replace(setup.backbone, model=model), graph=find_groups(model, torch.zeros(2, 1, 8, 8))
    )


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("stochastic_depth", "has no branch to leave out at random"),
        ("random+stochastic_depth", "has no branch to leave out at random"),
        ("depth_masks", "has no residual branches, so it has no depth masks"),
        ("search+depth_masks", "has no residual branches, so it has no depth masks"),
    ],
)
def test_without_residual_branches_there_is_no_depth_to_leave_out(setup, method, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        build(method, chain(setup))


def test_without_residual_branches_all_else_can_be_built(setup) -> None:
    other = chain(setup)
    for method in ("msp", "mc_dropout", "deep_ensemble", "packed", "batch_ensemble", "mimo", "random+mimo", "singe"):
        assert build(method, other).predictor(torch.zeros(2, 1, 8, 8)).shape[1:] == (2, 10)


def test_depth_masks_need_a_budget(make_setup) -> None:
    with pytest.raises(SubnetSearchError, match="depth masks need a budget of MACs"):
        build("depth_masks", make_setup(0, budget=BudgetConfig(keep=0.5)))


def test_a_kept_share_is_that_of_the_members(make_setup) -> None:
    system = build("random", make_setup(0, budget=BudgetConfig(keep=0.5)))
    assert system.predictor.masks.widths["layer2.0.conv1"] == (4, 4, 4)
    assert system.budget is None


def test_zero_padded_shortcuts_are_widened_and_thinned_too(setup) -> None:
    backbone = load_backbone("resnet20", "random", width=4, input_shape=(1, 8, 8), mean=(0.3,), std=(0.4,))
    other = replace(setup, backbone=backbone, graph=find_groups(backbone.model, torch.zeros(2, 1, 8, 8)))
    for method in ("packed", "random+mimo+depth_masks"):
        predictor = build(method, other).predictor
        answers = predictor.predict(torch.rand(3, 1, 8, 8)).member_probabilities
        assert answers.shape == (predictor.members, 3, 10)
        assert not torch.allclose(answers[0], answers[-1])
