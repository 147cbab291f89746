"""A network small enough to be trained in a moment, and data that it can learn."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.data import ArrayDataset
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.masks import MaskSet, full_masks

CARD = Card("small", (2, 6, 6), ("a", "b", "c"), (0.5,), (0.25,))


class SmallNet(nn.Module):
    """Norms of two kinds, a hidden linear layer, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 5)
        self.last = nn.LayerNorm(3)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.conv2(out)).mean(dim=(2, 3))
        logits: Tensor = self.last(self.head(F.relu(self.fc(out))))
        return logits


@dataclass(frozen=True)
class Small:
    """The network, its groups, and learnable images."""

    network: SmallNet
    graph: GroupGraph
    data: ArrayDataset

    def ensemble(self, members: int = 3, full: bool = False, config: EnsembleConfig | None = None) -> SubnetEnsemble:
        masks = full_masks(self.graph.widths, members)
        if not full:
            generator = torch.Generator().manual_seed(members)
            drawn = {n: torch.rand(m.shape, generator=generator) < 0.6 for n, m in masks.masks.items()}
            for mask in drawn.values():
                mask[torch.arange(members), torch.arange(members) % mask.shape[1]] = True
                mask[:, -1] = False  # one channel that nobody keeps
            masks = MaskSet(drawn, "random")
        return SubnetEnsemble(self.network, self.graph, masks, CARD, config)


def learnable(count: int) -> ArrayDataset:
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 3, (count,), generator=generator)
    images = torch.rand(count, 2, 6, 6, generator=generator) * 0.5
    images[torch.arange(count), :, labels * 2] += 0.5  # a bright row tells the class
    return ArrayDataset(images, labels)


@pytest.fixture
def small() -> Small:
    network = SmallNet().eval()
    return Small(network, find_groups(network, torch.zeros(1, 2, 6, 6)), learnable(40))
