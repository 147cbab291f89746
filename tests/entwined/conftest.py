"""A small network with three groups of channels, and images that it can learn."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.data import ArrayDataset
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.finetune import FinetuneConfig
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.masks import full_masks
from subnet_search.search import SearchConfig

CARD = Card("small", (2, 6, 6), ("a", "b", "c"), (0.5,), (0.25,))


class SmallNet(nn.Module):
    """Channels that are masked behind a norm, behind a convolution, and behind a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.conv2(out)).mean(dim=(2, 3))
        logits: Tensor = self.head(F.relu(self.fc(out)))
        return logits


@dataclass(frozen=True)
class Small:
    """The network, its groups, learnable images, and settings that suit them."""

    network: SmallNet
    graph: GroupGraph
    data: ArrayDataset
    training: FinetuneConfig
    search: SearchConfig

    def intact(self, members: int = 3) -> SubnetEnsemble:
        return SubnetEnsemble(self.network, self.graph, full_masks(self.graph.widths, members), CARD)

    def quotas(self, members: int = 3) -> dict[str, tuple[int, ...]]:
        """Half of two groups; the last one stays whole."""
        names = list(self.graph.widths)
        return {
            name: ((width if name == names[-1] else width // 2),) * members for name, width in self.graph.widths.items()
        }

    def scores(self, members: int = 3, seed: int = 0) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.rand(members, width, generator=generator) for name, width in self.graph.widths.items()}

    def searching(self, algorithm: str, **changes: object) -> SearchConfig:
        return replace(self.search, algorithm=algorithm, **changes)  # type: ignore[arg-type]


def learnable(count: int) -> ArrayDataset:
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 3, (count,), generator=generator)
    images = torch.rand(count, 2, 6, 6, generator=generator) * 0.5
    images[torch.arange(count), :, labels * 2] += 0.5  # a bright row tells the class
    return ArrayDataset(images, labels)


@pytest.fixture
def small() -> Small:
    network = SmallNet().eval()
    training = FinetuneConfig(epochs=4, batch_size=12, learning_rate=0.02, augment="crop", precision="fp32")
    graph = find_groups(network, torch.zeros(1, 2, 6, 6))
    return Small(network, graph, learnable(48), training, SearchConfig("progressive", rounds=3, train_share=0.5))
