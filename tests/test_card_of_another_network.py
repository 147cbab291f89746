"""A card that names other classes than the network has logits is found out before anything is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from subnet_search.backbones import Backbone, Card
from subnet_search.compare import CompareConfig, compare
from subnet_search.data import ArrayDataset
from subnet_search.errors import SubnetSearchError
from subnet_search.inputs import Splits
from subnet_search.pipeline import run
from subnet_search.settings import RunConfig
from subnet_search.tune.config import TuneConfig
from subnet_search.tune.setup import open_setup

CARD = Card("own", (1, 8, 8), tuple("abcdef"))
JOBS = {
    "run": lambda out, *given: run(RunConfig(out=out), backbone=given[0], splits=given[1]),
    "compare": lambda out, *given: compare(CompareConfig(out=out), backbone=given[0], splits=given[1]),
    "tune": lambda out, *given: open_setup(TuneConfig(out=out), *given),
}


def backbone_of(logits: int) -> Backbone:
    layers = nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, logits)
    return Backbone(nn.Sequential(*layers).eval(), CARD)


def images() -> ArrayDataset:
    return ArrayDataset(torch.zeros(12, *CARD.input_shape, dtype=torch.uint8), torch.arange(12) % 6)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
@pytest.mark.parametrize(("logits", "got"), [(1, "1 logit for"), (4, "4 logits for"), (8, "8 logits for")])
def test_a_network_without_one_logit_for_each_class_leaves_no_trace(
    tmp_path: Path, job: Callable[..., Any], logits: int, got: str
) -> None:
    message = f"network 'own' gives {got} each image, expected 6, .* give the card of this network"
    with pytest.raises(SubnetSearchError, match=message):
        job(tmp_path / "out", backbone_of(logits), Splits(images(), images()))
    assert not (tmp_path / "out").exists()


def test_a_card_of_the_network_itself_is_taken(tmp_path: Path) -> None:
    setup = JOBS["tune"](tmp_path / "out", backbone_of(6), Splits(images(), images()))
    assert setup.graph.classes == 6
