"""A small residual network with places for layers of the official package, and random masks for it."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble import EnsembleConfig
from subnet_search.formats.masksembles import official_layer
from subnet_search.groups import GroupGraph
from subnet_search.masks import MaskSet

MEMBERS = 3
CARD = Card("small", (3, 8, 8), ("a", "b", "c", "d"))
CONFIGS = [EnsembleConfig(norm, head) for norm in ("member", "shared") for head in ("shared", "member")]


class Block(nn.Module):
    """A residual block whose official layers, where there are any, stand before or after the activation."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden)
        self.conv2, self.bn2 = nn.Conv2d(hidden, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.before, self.after, self.end, self.joined = (nn.Identity() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        out = self.after(F.relu(self.before(self.bn1(self.conv1(x)))))
        return self.joined(F.relu(x + self.end(self.bn2(self.conv2(out)))))


class SmallResNet(nn.Module):
    """A residual stream, inner channels, a convolution without a norm, a flatten and a hidden linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.stem = nn.Identity()
        self.block1, self.block2 = Block(6, 8), Block(6, 5)
        self.conv2 = nn.Conv2d(6, 4, 3, stride=2, padding=1)
        self.spread = nn.Identity()
        self.fc = nn.Linear(4 * 4, 7)
        self.hidden = nn.Identity()
        self.head = nn.Linear(7, 4)
        self.logits = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.block2(self.block1(F.relu(self.stem(self.bn1(self.conv1(x))))))
        out = self.spread(F.max_pool2d(F.relu(self.conv2(out)), 2).flatten(1))
        logits: Tensor = self.logits(self.head(F.relu(self.hidden(self.fc(out)))))
        return logits


def enliven(network: nn.Module, seed: int = 0) -> nn.Module:
    """Gives weights and statistics that no initialisation gives, and each member its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and not name.endswith("masks"):
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.add_(noise if name.endswith("running_var") else 0.4 * noise - 0.2)
    return network


def draw(members: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(members, width, generator=generator) < 0.5
    mask[torch.arange(members), torch.randint(width, (members,), generator=generator)] = True
    return mask


def masks_of(graph: GroupGraph, members: int = MEMBERS, seed: int = 0, depth: bool = False) -> MaskSet:
    drawn = {name: draw(members, width, seed + i) for i, (name, width) in enumerate(graph.widths.items())}
    left_out = {branch.site: torch.arange(members) != i for i, branch in enumerate(graph.branches)} if depth else {}
    return MaskSet(drawn, "random", seed, depth=left_out)


def rows(members: int, batch: int, shape: tuple[int, ...] = CARD.input_shape) -> Tensor:
    return torch.randn(members * batch, *shape, generator=torch.Generator().manual_seed(5))


def official(small: tuple[nn.Module, GroupGraph], masks: dict[str, Tensor]) -> nn.Module:
    """The small network as a user of the official package would have built it: masks by the name of a module."""
    network = copy.deepcopy(small[0])
    for name, mask in masks.items():
        axes = 2 if name in ("spread", "hidden", "logits") else 4
        network.set_submodule(name, official_layer(mask, axes).eval())
    return network
