from pathlib import Path

import pytest
import torch

from benchmarks.unequal import take_unequal, unequal
from subnet_search.backbones import load_backbone
from subnet_search.data import ArrayDataset
from subnet_search.ensemble import EnsembleConfig
from subnet_search.inputs import Splits
from subnet_search.pipeline import run
from subnet_search.search import BudgetConfig, SearchConfig
from subnet_search.settings import RunConfig


@pytest.mark.parametrize(
    ("kept", "size", "expected"),
    [((16,) * 4, 64, (26, 19, 13, 6)), ((1,) * 4, 4, (1, 1, 1, 1)), ((7,) * 4, 8, (8, 8, 6, 3))],
)
def test_channels_are_dealt_out_in_unequal_parts(kept, size, expected) -> None:
    assert unequal(kept, size) == expected


def test_members_of_unequal_sizes_cost_what_equal_ones_do(tmp_path: Path) -> None:
    backbone = load_backbone("resnet20", "random")
    images = ArrayDataset(torch.rand(40, 3, 32, 32), torch.arange(40) % 10, "few")
    config = RunConfig(
        out=tmp_path / "run",
        budget=BudgetConfig(1.0, trunk_keep=1.0),
        search=SearchConfig("random", lambda_overlap=100),
        ensemble=EnsembleConfig(trunk=0.89),
    )

    def searched():
        return run(config, until="search", backbone=backbone, splits=Splits(images, images), report=False)

    before = searched()
    take_unequal(before)
    after = searched()
    changed = {name for name, kept in before.masks.widths.items() if after.masks.widths[name] != kept}
    assert changed
    for name in changed:
        assert sum(after.masks.widths[name]) == sum(before.masks.widths[name])
        assert len(set(after.masks.widths[name])) == 4
    digest = after.masks.digest()
    take_unequal(after)
    assert searched().masks.digest() == digest
