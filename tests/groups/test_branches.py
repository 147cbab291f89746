"""Residual branches, against what one finds by looking."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search.backbones import Card, load_backbone
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import find_groups, macs
from subnet_search.groups.branches import find_branches
from subnet_search.groups.cost import counted_macs
from subnet_search.groups.trace import trace
from subnet_search.masks import MaskSet, full_masks


class Bottleneck(nn.Module):
    """He et al. 2016, figure 5, with a projection where width or resolution change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = outputs // 2
        self.conv1, self.bn1 = nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.conv2, self.bn2 = nn.Conv2d(hidden, hidden, 3, stride, 1, bias=False), nn.BatchNorm2d(hidden)
        self.conv3, self.bn3 = nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


def network(*blocks: nn.Module, width: int = 4) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3),
    ).eval()  # fmt: skip


def bottlenecks() -> nn.Module:
    return network(Bottleneck(4, 8, 2), Bottleneck(8, 8, 1), width=8)


class Block(nn.Module):
    """A residual block of convolutions whose sum is a matter of the test."""

    def __init__(self, join: Callable[["Block", Tensor], Tensor], last: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, 1, 1), last or nn.BatchNorm2d(4)
        self.join = join

    def inside(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self, x)


def plain(block: Block, x: Tensor) -> Tensor:
    return x + block.bn2(block.conv2(block.inside(x)))


def read_elsewhere(block: Block, x: Tensor) -> Tensor:
    inside = block.inside(x)
    return (x + block.bn2(block.conv2(inside))) * torch.sigmoid(inside)


def end_read_elsewhere(block: Block, x: Tensor) -> Tensor:
    out = block.bn2(block.conv2(block.inside(x)))
    return (x + out) * torch.sigmoid(out)


def run_twice(block: Block, x: Tensor) -> Tensor:
    return x + block.bn2(block.conv2(block.conv2(block.inside(x))))


def equal_paths(block: Block, x: Tensor) -> Tensor:
    return block.bn1(block.conv1(x)) + block.bn2(block.conv2(x))


def activated(block: Block, x: Tensor) -> Tensor:
    return x + F.relu(block.bn2(block.conv2(block.inside(x))))


def broadcast(block: Block, x: Tensor) -> Tensor:
    return x + block.bn2(block.conv2(block.inside(x)).mean(dim=(2, 3), keepdim=True))


def with_a_constant(block: Block, x: Tensor) -> Tensor:
    return block.bn2(block.conv2(block.inside(x))) + 1.0


def with_itself(block: Block, x: Tensor) -> Tensor:
    out = block.bn2(block.conv2(block.inside(x)))
    return out + out


def nested(block: Block, x: Tensor) -> Tensor:
    inside = x + block.bn1(block.conv1(x))
    return x + block.bn2(block.conv2(inside))


def test_resnet20_has_nine_branches_of_two_convolutions() -> None:
    backbone = load_backbone("resnet20", "random", width=4)
    found = find_groups(backbone.model, torch.zeros(2, 3, 32, 32)).branches
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    assert [branch.site for branch in found] == [f"{block}.bn2" for block in blocks]
    assert [branch.layers for branch in found] == [(f"{block}.conv1", f"{block}.conv2") for block in blocks]


def test_of_a_bottleneck_the_projection_stays() -> None:
    found = find_groups(bottlenecks(), torch.zeros(2, 3, 8, 8)).branches
    assert [branch.site for branch in found] == ["3.bn3", "4.bn3"]
    assert [branch.layers for branch in found] == [tuple(f"{n}.conv{i}" for i in (1, 2, 3)) for n in (3, 4)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("padded", ["layer1.0.bn2", "layer2.0.bn2", "layer2.1.bn2", "layer3.0.bn2"]),
        ("projected", ["4.bn2", "5.bn2"]),
        ("pre-activation", ["1.conv2", "2.conv2"]),  # no norm follows, so the convolution is masked
        ("mobilenet", ["3.bn3"]),  # the other block has no shortcut
        ("squeeze-excitation", ["3.bn3"]),
        ("unnormalised", ["2.conv2"]),
        ("vgg", []),
        ("densenet", []),
        ("gated", []),
        ("parametric", []),
        ("perceptron", []),
    ],
)
def test_branches_of_every_ordinary_network(named, name, expected) -> None:
    case = named[name]
    graph = find_groups(case.model(), case.example())
    assert [branch.site for branch in graph.branches] == expected


@pytest.mark.parametrize(
    ("join", "expected"),
    [
        (plain, ["3.bn2"]),
        (nested, ["3.bn1", "3.bn2"]),
        (read_elsewhere, []),
        (end_read_elsewhere, []),
        (run_twice, []),
        (equal_paths, []),
        (activated, []),
        (broadcast, []),
        (with_a_constant, []),
        (with_itself, []),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_counts_as_a_branch(join, expected) -> None:
    model = network(Block(join))
    for parameter in model.parameters():
        parameter.requires_grad_()
    found = find_branches(trace(model, torch.rand(2, 3, 8, 8)))
    assert [branch.site for branch in found] == expected


@pytest.mark.parametrize(
    "last", [nn.GroupNorm(2, 4), nn.PReLU(4), nn.LayerNorm(8)], ids=lambda last: type(last).__name__
)
def test_a_branch_that_ends_where_no_mask_can_be_is_none(last) -> None:
    model = network(Block(plain), Block(plain, last))
    graph = find_groups(model, torch.zeros(2, 3, 8, 8))
    assert [branch.site for branch in graph.branches] == ["3.bn2"]
    SubnetEnsemble(model, graph, full_masks(graph.widths, 2), Card("own", (3, 8, 8), ("a", "b", "c")))


@pytest.mark.parametrize(
    "build", [bottlenecks, lambda: network(Block(plain), Block(nested))], ids=["bottlenecks", "nested"]
)
def test_macs_without_branches_are_those_of_what_still_runs(build) -> None:
    model = build()
    graph = find_groups(model, torch.zeros(2, 3, 8, 8))
    counts: Counter[str] = Counter()
    with torch.no_grad(), counted_macs(model, counts):
        model(torch.zeros(1, 3, 8, 8))
    every = [branch.site for branch in graph.branches]
    for out in ([], every[:1], every[1:], every):
        idle = {layer for branch in graph.branches if branch.site in out for layer in branch.layers}
        assert macs(graph, {}, out) == sum(n for layer, n in counts.items() if layer not in idle)
    with pytest.raises(SubnetSearchError, match=r"branches \['bn'\] are unknown"):
        macs(graph, {}, ["bn"])


@pytest.mark.parametrize("norm", ["member", "shared"])
@pytest.mark.parametrize("name", ["padded", "projected", "pre-activation", "mobilenet", "unnormalised"])
@torch.no_grad()
def test_a_left_out_branch_is_zero_in_a_naive_twin(named, name, norm) -> None:
    case = named[name]
    model = case.model()
    graph = find_groups(model, case.example())
    sites = [branch.site for branch in graph.branches]
    depth = {site: torch.tensor([k != i % 3 for k in range(3)]) for i, site in enumerate(sites)}
    masks = MaskSet(full_masks(graph.widths, 3).masks, "hand", depth=depth)
    classes = tuple(str(n) for n in range(graph.classes))
    ensemble = SubnetEnsemble(model, graph, masks, Card("own", case.shape, classes), EnsembleConfig(norm)).eval()
    x = torch.randn(4, *case.shape, generator=torch.Generator().manual_seed(3))
    for member, logits in enumerate(ensemble(x)):
        out = [site for site in sites if not depth[site][member]]
        hooks = [model.get_submodule(s).register_forward_hook(lambda _m, _x, y: torch.zeros_like(y)) for s in out]
        torch.testing.assert_close(logits, model(x))
        for hook in hooks:
            hook.remove()
    assert ensemble.masks.digest() == masks.digest()
    assert ensemble.macs() == sum(macs(graph, {}, masks.left_out(k)) for k in range(3))
