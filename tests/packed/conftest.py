"""Ensembles of the networks of every ordinary kind, as the tests of the architectures make them."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble import EnsembleConfig, MemberNorm, SubnetEnsemble
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.masks import MaskSet

MakeMasks = Callable[[GroupGraph], MaskSet]


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_ARCHITECTURES = _module("test_architectures")
CASES = {case.name: case for case in _ARCHITECTURES.CASES}


def input_of(shape: tuple[int, ...], batch: int, seed: int = 2) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def half_masks(graph: GroupGraph, members: int = 3) -> MaskSet:
    """Of equal widths, drawn for each member."""
    generator = torch.Generator().manual_seed(5)
    masks = {}
    for name, width in graph.widths.items():
        order = torch.rand(members, width, generator=generator).argsort(dim=1)
        masks[name] = order < max(1, width // 2)
    return MaskSet(masks, "random")


def ensemble_of(
    network: nn.Module, shape: tuple[int, ...], make_masks: MakeMasks, config: EnsembleConfig | None = None
) -> SubnetEnsemble:
    """With norms of every member's own, whose statistics differ."""
    model = _ARCHITECTURES.trained(network)
    graph = find_groups(model, input_of(shape, 2))
    card = Card("case", shape, tuple(map(str, range(graph.classes))))
    ensemble = SubnetEnsemble(model, graph, make_masks(graph), card, config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for norm in ensemble.modules():
            for tensor in (norm.weight, norm.bias, norm.running_mean) if isinstance(norm, MemberNorm) else ():
                if tensor is not None:
                    tensor.mul_(1 + 0.3 * torch.rand(tensor.shape, generator=generator))
    return ensemble


@pytest.fixture(params=CASES)
def unequal(request: pytest.FixtureRequest) -> SubnetEnsemble:
    """Every ordinary network in turn, with members of different widths."""
    case = CASES[request.param]
    return ensemble_of(case.model(), case.shape, _ARCHITECTURES.random_masks)


@pytest.fixture
def make() -> Callable[..., SubnetEnsemble]:
    """Makes an ensemble of a network by its name: `make(name, make_masks, config)`, of equal widths by default."""

    def build(name: str, make_masks: MakeMasks = half_masks, config: EnsembleConfig | None = None) -> SubnetEnsemble:
        case = CASES[name]
        return ensemble_of(case.model(), case.shape, make_masks, config)

    return build


@pytest.fixture
def halves() -> MakeMasks:
    """Masks of equal widths."""
    return half_masks


@pytest.fixture
def build() -> Callable[..., SubnetEnsemble]:
    """Makes an ensemble of any network: `build(network, shape)`."""

    def made(network: nn.Module, shape: tuple[int, ...], make_masks: MakeMasks = half_masks) -> SubnetEnsemble:
        return ensemble_of(network, shape, make_masks)

    return made


@pytest.fixture
def cases() -> list[Any]:
    """The networks themselves."""
    return list(CASES.values())
