"""Ensembles of the networks of every ordinary kind, as the tests of the architectures make them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble import EnsembleConfig, MemberNorm, SubnetEnsemble
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.masks import MaskSet
from tests.architectures import BY_NAME, CASES, Case, enlivened, half_masks, random_masks

MakeMasks = Callable[[GroupGraph], MaskSet]


def input_of(shape: tuple[int, ...], batch: int, seed: int = 2) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def ensemble_of(
    network: nn.Module, shape: tuple[int, ...], make_masks: MakeMasks, config: EnsembleConfig | None = None
) -> SubnetEnsemble:
    """With norms of every member's own, whose statistics differ."""
    model = enlivened(network)
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


@pytest.fixture(params=BY_NAME)
def unequal(request: pytest.FixtureRequest) -> SubnetEnsemble:
    """Every ordinary network in turn, with members of different widths."""
    case = BY_NAME[request.param]
    return ensemble_of(case.model(), case.shape, random_masks)


@pytest.fixture
def make() -> Callable[..., SubnetEnsemble]:
    """Makes an ensemble of a network by its name: `make(name, make_masks, config)`, of equal widths by default."""

    def build(name: str, make_masks: MakeMasks = half_masks, config: EnsembleConfig | None = None) -> SubnetEnsemble:
        case = BY_NAME[name]
        return ensemble_of(case.model(), case.shape, make_masks, config)

    return build


@pytest.fixture
def halves() -> MakeMasks:
    """Masks of equal widths."""
    return half_masks


@pytest.fixture
def build() -> Callable[..., SubnetEnsemble]:
    """Makes an ensemble of any network: `build(network, shape, make_masks, config)`."""

    def made(
        network: nn.Module,
        shape: tuple[int, ...],
        make_masks: MakeMasks = half_masks,
        config: EnsembleConfig | None = None,
    ) -> SubnetEnsemble:
        return ensemble_of(network, shape, make_masks, config)

    return made


@pytest.fixture
def cases() -> list[Case]:
    """The networks themselves."""
    return CASES
