"""One network, pruned in rounds, on the digits."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from subnet_search.baselines import BaselineConfig, Setup, System, build, train
from subnet_search.baselines.singe import SPEED_UP, pruned
from subnet_search.data import ArrayDataset
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig
from subnet_search.groups import find_groups, macs
from subnet_search.inputs import Splits, example_of, open_backbone, open_splits
from subnet_search.masks import MaskSet
from subnet_search.relevance import RelevanceConfig
from subnet_search.search import BudgetConfig, allocate_quotas
from subnet_search.settings import RunConfig

ROUNDS = 3


def setup_of(budget: BudgetConfig, criterion: str = "ig", epochs: int = 3) -> Setup:
    run = RunConfig(
        members=2,
        budget=budget,
        relevance=RelevanceConfig(criterion=criterion, samples=16, nodes=2, precision="fp32"),  # type: ignore[arg-type]
        finetune=FinetuneConfig(epochs=epochs, batch_size=32, learning_rate=0.01, precision="fp32"),
    )
    backbone = open_backbone(run.network)
    splits = open_splits(replace(run.images, ood=()), backbone.card)
    assert isinstance(splits.train, ArrayDataset)
    few = Splits(splits.train.subset(range(96)), splits.validation)
    graph = find_groups(backbone.model, example_of(few.train, backbone.card))
    return Setup(backbone, graph, few, run, BaselineConfig(rounds=ROUNDS))


@pytest.fixture(scope="module")
def setup() -> Setup:
    return setup_of(BudgetConfig(budget=0.4))


def masks_of(system: System) -> MaskSet:
    assert isinstance(system.predictor, SubnetEnsemble)
    return system.predictor.masks


def after_each_round(system: System) -> list[MaskSet]:
    """The masks at the beginning, and after what each round does before it trains."""
    found = [masks_of(system)]
    for phase in system.phases:
        assert phase.masks is not None
        assert isinstance(system.predictor, SubnetEnsemble)
        system.predictor.set_masks(phase.masks(system.predictor))
        found.append(masks_of(system))
    return found


def test_the_last_round_meets_the_budget_with_its_widths(setup: Setup) -> None:
    system = build("singe", setup)
    last = after_each_round(system)[-1]
    quotas = allocate_quotas(setup.graph, 1, setup.run.budget)
    assert dict(last.widths) == quotas
    assert 0.37 < system.predictor.macs() / setup.graph.dense_macs <= 0.4
    assert system.predictor.members == 1
    assert system.budget == 0.4
    assert system.iou is None


@pytest.mark.parametrize("budget", [1.0, 2.0])
def test_a_budget_that_would_leave_it_whole_gives_the_published_speed_up(budget: float) -> None:
    system = build("singe", setup_of(BudgetConfig(budget=budget), "magnitude"))
    graph = setup_of(BudgetConfig(budget=budget)).graph
    after_each_round(system)
    assert system.budget == 1 / SPEED_UP
    assert SPEED_UP <= graph.dense_macs / system.predictor.macs() < 1.05 * SPEED_UP


def test_a_kept_share_stays_what_it_is() -> None:
    setup = setup_of(BudgetConfig(keep=0.5), "magnitude")
    system = build("singe", setup)
    last = after_each_round(system)[-1]
    for group in setup.graph.groups:
        assert last.widths[group.name] == ((group.width if group.kind == "stream" else group.width // 2),)
    assert system.budget is None


@pytest.mark.parametrize("criterion", ["ig", "singe", "fisher", "taylor", "magnitude", "random"])
def test_masks_are_nested_and_each_round_cuts_something(criterion: str) -> None:
    found = after_each_round(build("singe", setup_of(BudgetConfig(budget=0.4), criterion)))
    assert len(found) == ROUNDS + 1
    for earlier, later in pairwise(found):
        assert all((mask <= earlier.masks[name]).all() for name, mask in later.masks.items())
        assert sum(later.widths[name][0] for name in later.masks) < sum(earlier.widths[name][0] for name in later.masks)


def test_the_costs_of_the_rounds_fall_geometrically(setup: Setup) -> None:
    costs = [
        macs(setup.graph, {name: width[0] for name, width in masks.widths.items()}) / setup.graph.dense_macs
        for masks in after_each_round(build("singe", setup))
    ]
    assert costs == pytest.approx([0.4 ** (number / ROUNDS) for number in range(ROUNDS + 1)], abs=0.03)


def test_doing_it_again_changes_nothing(setup: Setup) -> None:
    system, again = build("singe", setup), build("singe", setup)
    digests = [masks.digest() for masks in after_each_round(system)]
    assert digests == [masks.digest() for masks in after_each_round(again)]
    assert system.phases[-1].masks is not None
    assert isinstance(system.predictor, SubnetEnsemble)
    assert system.phases[-1].masks(system.predictor).digest() == digests[-1]


def test_a_training_that_was_stopped_ends_with_the_same_weights(setup: Setup, tmp_path: Path) -> None:
    undisturbed = build("singe", setup)
    history = train(undisturbed, setup, None, Accelerator())
    assert len(history.losses) == 3
    stopped = build("singe", setup)
    train(replace(stopped, phases=stopped.phases[:2]), setup, tmp_path, Accelerator())
    resumed = build("singe", setup)
    train(resumed, setup, tmp_path, Accelerator())
    wanted = undisturbed.predictor.state_dict()
    for name, tensor in resumed.predictor.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


@pytest.mark.parametrize(("epochs", "each"), [(0, [0, 0, 0]), (1, [1, 1, 1]), (3, [1, 1, 1]), (7, [2, 2, 3])])
def test_the_epochs_are_shared_out_to_the_rounds(epochs: int, each: list[int]) -> None:
    system = build("singe", setup_of(BudgetConfig(budget=0.4), epochs=epochs))
    assert [phase.config.epochs for phase in system.phases] == each
    assert len({phase.config.seed for phase in system.phases}) == ROUNDS  # other images in each round's steps
    seen = [96 if phase.images is None else len(phase.images) for phase in system.phases]
    assert sum(epochs * images for epochs, images in zip(each, seen, strict=True)) == 96 * epochs


def test_scores_are_asked_of_the_network_as_it_is_and_the_lowest_go(setup: Setup) -> None:
    asked: list[tuple[int, MaskSet]] = []

    def score(network: SubnetEnsemble, number: int) -> dict[str, Tensor]:
        asked.append((number, network.masks))
        # higher for later channels, and highest of all for those that are gone
        rising = {name: torch.arange(width).float()[None] for name, width in setup.graph.widths.items()}
        return {name: scores + 1000 * ~network.masks.masks[name] for name, scores in rising.items()}

    found = after_each_round(pruned(setup, setup.run.budget, score))
    assert [number for number, _ in asked] == list(range(ROUNDS))
    assert [masks.digest() for _, masks in asked] == [masks.digest() for masks in found[:-1]]
    for name, mask in found[-1].masks.items():
        width = setup.graph.widths[name]
        assert mask[0].tolist() == [channel >= width - int(mask.sum()) for channel in range(width)]


def test_a_budget_that_cannot_be_met_is_an_error() -> None:
    with pytest.raises(SubnetSearchError, match="cannot be met with 1 member:"):
        build("singe", setup_of(BudgetConfig(budget=0.001)))
