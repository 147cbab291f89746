"""A small network with every kind of site, and its members written out by hand."""

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.data import ArrayDataset
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.groups import ChannelGroup, GroupGraph, Slice
from subnet_search.masks import MaskSet

MEMBERS = 2
IMAGES = 6
CARD = Card("tiny", (2, 5, 5), ("a", "b", "c"), (0.4, 0.5), (0.2, 0.3))
MASKS = {
    "even": [[1, 0, 1], [1, 1, 0]],
    "odd": [[1, 1], [0, 1]],
    "conv2": [[1, 1, 0, 1], [0, 1, 1, 0]],
    "fc": [[0, 1, 1, 1], [1, 1, 0, 1]],
}


class TinyNet(nn.Module):
    """A convolution with a norm whose channels fall into two groups, one without a norm, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 4, 3, stride=2, padding=1)
        self.fc = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.conv2(out)).mean(dim=(2, 3))
        logits: Tensor = self.head(F.relu(self.fc(out)))
        return logits


def places(*positions: int) -> tuple[tuple[int, ...], ...]:
    return tuple((p,) for p in positions)


def tiny_graph() -> GroupGraph:
    """The even and the odd channels of conv1 are groups of their own, so that two groups share a module."""
    groups = []
    for name, index in (("even", places(0, 2, 4)), ("odd", places(1, 3))):
        slices = (Slice("conv1", "out", index), Slice("bn1", "out", index), Slice("conv2", "in", index))
        groups.append(ChannelGroup(name, len(index), "inner", slices, (slices[1],)))
    for name, reader in (("conv2", "fc"), ("fc", "head")):
        site = Slice(name, "out", places(0, 1, 2, 3))
        groups.append(ChannelGroup(name, 4, "inner", (site, Slice(reader, "in", places(0, 1, 2, 3))), (site,)))
    return GroupGraph(tuple(groups), (), nx.DiGraph(), ("bn1",), "head", 3, (2, 5, 5))


@dataclass(frozen=True)
class Tiny:
    """The network, an ensemble of two different members, and data of which every sample is used."""

    network: TinyNet
    ensemble: SubnetEnsemble
    data: ArrayDataset

    @property
    def masks(self) -> Mapping[str, Tensor]:
        return self.ensemble.masks.masks

    def rows(self) -> tuple[Tensor, Tensor]:
        """All images, prepared, in the precision of the network, and their labels."""
        return CARD.prepare(self.data.images).to(self.network.fc.weight.dtype), self.data.labels

    def folded(self, member: int) -> dict[str, Tensor]:
        """Weights and biases `[out, ...]` by layer, the member's normalisation folded into conv1."""
        network = self.ensemble.network
        norm = network.bn1
        factor = norm.weight[member] / (norm.running_var[member] + norm.eps).sqrt()
        found = {
            "conv1.weight": network.conv1.weight * factor[:, None, None, None],
            "conv1.bias": norm.bias[member] - norm.running_mean[member] * factor,
            "conv2.weight": network.conv2.layer.weight,
            "conv2.bias": network.conv2.layer.bias,
            "fc.weight": network.fc.layer.weight,
            "fc.bias": network.fc.layer.bias,
        }
        return {name: tensor.detach() for name, tensor in found.items()}

    def logits(self, member: int, x: Tensor, gates: Mapping[str, Tensor]) -> Tensor:
        """The naive twin of a gated member on `[batch, ...]`; gates `[channel]` or `[batch, channel]` by group."""
        return self.logits_of(self.folded(member), x, {n: gates.get(n, m[member]) for n, m in self.masks.items()})

    def logits_of(self, weights: Mapping[str, Tensor], x: Tensor, gates: Mapping[str, Tensor]) -> Tensor:
        """The network with given folded weights, each channel multiplied by its gate before the ReLU."""
        gates = {name: gate.to(x.dtype).expand(len(x), -1) for name, gate in gates.items()}
        first = torch.stack([gates["odd" if c % 2 else "even"][:, c // 2] for c in range(5)], dim=1)
        out = F.conv2d(x, weights["conv1.weight"], weights["conv1.bias"], padding=1)
        out = F.relu(out * first[:, :, None, None])
        out = F.conv2d(out, weights["conv2.weight"], weights["conv2.bias"], stride=2, padding=1)
        out = F.relu(out * gates["conv2"][:, :, None, None]).mean(dim=(2, 3))
        out = F.relu(F.linear(out, weights["fc.weight"], weights["fc.bias"]) * gates["fc"])
        head = self.ensemble.network.head
        return F.linear(out, head.weight.detach(), head.bias.detach())


def build(dtype: torch.dtype, seed: int = 0) -> Tiny:
    generator = torch.Generator().manual_seed(seed)
    network = TinyNet().to(dtype).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
        network.bn1.weight.add_(1.0)
    masks = MaskSet({name: torch.tensor(rows, dtype=torch.bool) for name, rows in MASKS.items()}, "hand")
    ensemble = SubnetEnsemble(network, tiny_graph(), masks, CARD)
    norm = ensemble.network.bn1
    with torch.no_grad():  # members must differ in their norms, or a mix-up of members would go unseen
        norm.weight.add_(torch.rand(norm.weight.shape, generator=generator))
        norm.running_mean.copy_(torch.randn(norm.running_mean.shape, generator=generator) * 0.3)
        norm.running_var.copy_(0.5 + torch.rand(norm.running_var.shape, generator=generator))
    images = torch.randint(0, 256, (IMAGES, 2, 5, 5), generator=generator, dtype=torch.uint8)
    return Tiny(network, ensemble, ArrayDataset(images, torch.arange(IMAGES) % 3))


@pytest.fixture
def tiny() -> Tiny:
    return build(torch.float32)


@pytest.fixture
def tiny64() -> Tiny:
    return build(torch.float64)


@pytest.fixture(scope="module")
def tiny_once() -> Tiny:
    """For property tests, which want no fixture that is made anew for each function."""
    with torch.random.fork_rng(devices=[]):
        return build(torch.float32)
