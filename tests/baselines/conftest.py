"""A residual network, images that it learns from in a moment, and every system made and trained on them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from subnet_search.backbones import load_backbone
from subnet_search.baselines import BaselineConfig, Setup, System, build, train
from subnet_search.data import ArrayDataset
from subnet_search.finetune import FinetuneConfig, History
from subnet_search.groups import find_groups
from subnet_search.inputs import Splits, example_of, open_splits
from subnet_search.relevance import RelevanceConfig
from subnet_search.search import BudgetConfig
from subnet_search.settings import DataConfig, RunConfig

TRAINING = FinetuneConfig(epochs=2, batch_size=24, learning_rate=0.02, augment="crop", precision="fp32")


@cache
def setup_of(seed: int = 0, baselines: BaselineConfig | None = None, **changes: Any) -> Setup:
    """Four residual blocks of four and eight channels with random weights, and 48 digits."""
    backbone = load_backbone("digits", "random", seed=9, width=4)
    whole = open_splits(DataConfig(ood=()), backbone.card)
    assert isinstance(whole.train, ArrayDataset)
    assert isinstance(whole.validation, ArrayDataset)
    splits = Splits(whole.train.subset(range(48)), whole.validation.subset(range(40)))
    settings = {
        "members": 3,
        "budget": BudgetConfig(budget=1.8),
        "relevance": RelevanceConfig(samples=8, nodes=2, precision="fp32"),
        "finetune": TRAINING,
    }
    run = RunConfig(seed=seed, **{**settings, **changes})
    graph = find_groups(backbone.model, example_of(splits.train, backbone.card))
    return Setup(backbone, graph, splits, run, baselines or BaselineConfig(rounds=2, depth_drop=0.5, dropout=0.3))


@pytest.fixture(scope="session")
def make_setup() -> Callable[..., Setup]:
    """`make_setup(seed, baselines, **changes)`; changes are those of the run's settings."""
    return setup_of


@pytest.fixture(scope="session")
def setup() -> Setup:
    """The network and the images, three members, seed 0."""
    return setup_of()


@cache
def _trained(method: str, seed: int) -> tuple[System, History]:
    setup = setup_of(seed)
    system = build(method, setup)
    return system, train(system, setup, None, Accelerator())


@pytest.fixture(scope="session")
def trained() -> Callable[[str, int], tuple[System, History]]:
    """`trained(method, seed)`: the system and what happened in its training. It is shared: leave it as it is."""
    return _trained


class Stopped(Exception):  # noqa: N818 - it is no error
    """Stands for a process that is killed."""


@pytest.fixture(scope="session")
def resumed() -> Callable[[str, Path], System]:
    """`resumed(method, folder)`: a training that was stopped in the middle of its second epoch, and continued."""

    def make(method: str, folder: Path) -> System:
        setup = setup_of()
        system = build(method, setup)
        steps = 0
        step = torch.optim.SGD.step

        def stopping(*arguments: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if list(folder.glob("checkpoint-*.pt")) and steps % 2 == 0:  # of two steps in an epoch
                raise Stopped("in the middle of an epoch")
            return step(*arguments, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim.SGD, "step", stopping)
            with pytest.raises(Stopped, match="in the middle"):
                train(system, setup, folder, Accelerator())
        again = build(method, setup)
        train(again, setup, folder, Accelerator())
        return again

    return make
