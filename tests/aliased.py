"""A network whose code calls a norm, a convolution and the head by a second name."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.groups import find_groups
from subnet_search.masks import MaskSet

MEMBERS = 3
CARD = Card("aliased", (3, 8, 8), ("a", "b", "c", "d"))
PAIRS = (("bn1", "bn2"), ("bare", "again"), ("parts.1", "classifier"))
"""Both names of each layer that has two."""


class Aliased(nn.Module):
    """Three layers with two names each; the head is called by its second one alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv1, self.conv2, self.bn1 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)  # fmt: skip
        self.bn2 = self.bn1
        self.bare = nn.Conv2d(8, 8, 3, padding=1)
        self.again = self.bare
        self.last = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.parts = nn.Sequential(nn.Flatten(), nn.Linear(6 * 16, 4))
        self.classifier = self.parts[-1]

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn0(self.stem(x)))
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(out))))))
        out = F.relu(self.again(F.relu(self.bare(out))))
        logits: Tensor = self.classifier(F.relu(self.last(out)).flatten(1))
        return logits


def aliased(seed: int = 0) -> Aliased:
    """The network in eval mode, with lively norms."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Aliased().eval()
        for norm in (network.bn0, network.bn1):
            norm.bias.data.normal_()
            norm.running_mean.normal_(0, 0.3)
    return network


def aliased_ensemble(network: nn.Module, config: EnsembleConfig | None = None) -> SubnetEnsemble:
    """Half of each group for each member."""
    graph = find_groups(network, torch.zeros(2, *CARD.input_shape))
    generator = torch.Generator().manual_seed(0)
    masks = {
        name: torch.rand(MEMBERS, width, generator=generator).argsort(1) < width // 2
        for name, width in graph.widths.items()
    }
    return SubnetEnsemble(network, graph, MaskSet(masks, "random"), CARD, config)


def input_of(batch: int) -> Tensor:
    return torch.randn(batch, *CARD.input_shape, generator=torch.Generator().manual_seed(1))
