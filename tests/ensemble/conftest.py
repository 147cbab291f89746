"""A small network with every kind of site, its groups worked out by hand, and what its members should compute."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import networkx as nx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble import EnsembleConfig, MemberNorm, SubnetEnsemble
from subnet_search.groups import ChannelGroup, GroupGraph, Slice
from subnet_search.masks import MaskSet

MEMBERS = 3
CARD = Card("tiny", (3, 8, 8), ("a", "b", "c", "d"), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


class TinyNet(nn.Module):
    """A whole stem, a convolution with a norm, one without, and a linear layer before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn0 = nn.BatchNorm2d(4)
        self.conv1 = nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 5, 3, stride=2, padding=1)
        self.fc = nn.Linear(5, 7)
        self.head = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn0(self.stem(x)))
        out = F.relu(self.bn1(self.conv1(out)))
        out = F.relu(self.conv2(out)).mean(dim=(2, 3))
        logits: Tensor = self.head(F.relu(self.fc(out)))
        return logits


def _places(*positions: int) -> tuple[tuple[int, ...], ...]:
    return tuple((p,) for p in positions)


def tiny_graph() -> GroupGraph:
    """The even and the odd channels of conv1 are groups of their own, so that two groups share each module."""
    even, odd = _places(0, 2, 4), _places(1, 3, 5)
    groups = [
        ChannelGroup(name, 3, "inner", (Slice("conv1", "out", index), Slice("bn1", "out", index), Slice("conv2", "in", index)), (Slice("bn1", "out", index),))
        for name, index in (("conv1", even), ("conv1:2", odd))
    ]  # fmt: skip
    for name, reader, width in (("conv2", "fc", 5), ("fc", "head", 7)):
        site = Slice(name, "out", _places(*range(width)))
        groups.append(ChannelGroup(name, width, "inner", (site, Slice(reader, "in", _places(*range(width)))), (site,)))
    return GroupGraph(tuple(groups), (), nx.DiGraph(), ("bn0", "bn1"), "head", 4, (3, 8, 8))


def tiny_masks(members: int = MEMBERS, seed: int = 0) -> MaskSet:
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, width in tiny_graph().widths.items():
        mask = torch.rand(members, width, generator=generator) < 0.5
        mask[torch.arange(members), torch.randint(width, (members,), generator=generator)] = True
        masks[name] = mask
    return MaskSet(masks, "random", seed, {"overlap": 1.5})


@dataclass(frozen=True)
class Tiny:
    """The network in float64 with lively norms, and an ensemble of it whose members have norms of their own."""

    network: TinyNet
    graph: GroupGraph
    masks: MaskSet
    card: Card

    def ensemble(self, config: EnsembleConfig | None = None, masks: MaskSet | None = None) -> SubnetEnsemble:
        made = SubnetEnsemble(self.network, self.graph, masks or self.masks, self.card, config)
        enliven(made, seed=1)
        return made

    def input(self, batch: int, seed: int = 2) -> Tensor:
        dtype = self.network.stem.weight.dtype
        return torch.randn(batch, *self.card.input_shape, generator=torch.Generator().manual_seed(seed)).to(dtype)

    def twin(self, ensemble: SubnetEnsemble, member: int) -> nn.Module:
        """The naive twin of a member: a dense network of its own, with hooks that zero the channels it has cut."""
        dense = copy.deepcopy(self.network).train(ensemble.training)
        for name, module in dense.named_modules():
            norm = dict(ensemble.network.named_modules()).get(name)
            if isinstance(module, nn.BatchNorm2d) and isinstance(norm, MemberNorm):
                module.load_state_dict(
                    {key: getattr(norm, key)[member] for key in ("weight", "bias", "running_mean", "running_var")}
                    | {"num_batches_tracked": norm.num_batches_tracked}
                )
        for group in self.graph.groups:
            cut = (~ensemble.masks.masks[group.name][member]).nonzero().flatten().tolist()
            for site in group.sites:
                places = [place for channel in cut for place in site.index[channel]]
                dense.get_submodule(site.module).register_forward_hook(_zeroing(places))
        return dense


def _zeroing(places: list[int]) -> Callable[[nn.Module, object, Tensor], Tensor]:
    def zero(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        zeroed = output.clone()
        zeroed[:, places] = 0.0
        return zeroed

    return zero


def enliven(network: nn.Module, seed: int) -> None:
    """Gives norms random statistics and affine parameters; fresh ones would hide most mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5), (module.running_var, 0.5)):  # fmt: skip
                    assert tensor is not None
                    tensor.copy_(low + torch.rand(tensor.shape, generator=generator))


def _tiny(dtype: torch.dtype) -> Tiny:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TinyNet().to(dtype).eval()
    enliven(network, seed=3)
    return Tiny(network, tiny_graph(), tiny_masks(), CARD)


@pytest.fixture
def tiny() -> Tiny:
    """In float64, for comparisons with naive twins."""
    return _tiny(torch.float64)


@pytest.fixture
def tiny32() -> Tiny:
    """In float32, as `predict` wants it."""
    return _tiny(torch.float32)


@pytest.fixture
def make_masks() -> Callable[..., MaskSet]:
    """Random masks of the tiny network: `make_masks(members, seed)`."""
    return tiny_masks


@pytest.fixture(scope="module")
def tiny_once() -> tuple[Tiny, Callable[..., MaskSet]]:
    """The network for property tests, which want no fixture that is made anew for each function."""
    return _tiny(torch.float64), tiny_masks
