"""BatchEnsemble: shared weights, and for each member a rank-one matrix that multiplies them (Wen et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from subnet_search.baselines.rewired import RewiredEnsemble
from subnet_search.baselines.scratch import untrained
from subnet_search.baselines.system import Setup, System
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.ensemble.replacing import replace_layers
from subnet_search.entwined import Phase
from subnet_search.masks import full_masks


class RankOne(nn.Module):
    """A shared layer whose weights are W ∘ (γ αᵀ) for each member (Wen et al. 2020, equation 3).

    Args:
        layer: A convolution or linear layer without groups; a bias is multiplied by γ too, so each member has its own.
        members: Number of members K.
        generator: Draws the factors, +1 or −1 with equal probability (appendix B of the paper).
    """

    def __init__(self, layer: nn.Module, members: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layer = layer
        self.linear = isinstance(layer, nn.Linear)
        out, inside = ("out_features", "in_features") if self.linear else ("out_channels", "in_channels")
        self.alpha = nn.Parameter(_signs(members, getattr(layer, inside), generator))
        self.gamma = nn.Parameter(_signs(members, getattr(layer, out), generator))

    def forward(self, x: Tensor) -> Tensor:
        """Runs the layer on member-major rows, channels first or, for linear layers, last."""
        out: Tensor = self.layer(self._scaled(x, self.alpha))
        return self._scaled(out, self.gamma)

    def _scaled(self, x: Tensor, factors: Tensor) -> Tensor:
        members, channels = factors.shape
        shape = [members] + [1] * x.ndim
        shape[-1 if self.linear else 2] = channels
        return (torch.unflatten(x, 0, (members, -1)) * factors.to(x.dtype).view(shape)).flatten(0, 1)


class BatchEnsemble(RewiredEnsemble):
    """A network every convolution and linear layer of which is multiplied by the members' rank-one matrices.

    Attention (`nn.MultiheadAttention`) stays whole and shared, its output projection too, as it is when masks are searched:
    PyTorch reads those weights without calling a layer. The factors are not counted in its multiply-accumulates.

    Args:
        ensemble: Members that keep everything, with normalisation of their own; taken over and changed.
        seed: Seed of the factors.
    """

    def __init__(self, ensemble: SubnetEnsemble, seed: int) -> None:
        super().__init__(ensemble, {"rank one": seed})
        generator = torch.Generator().manual_seed(seed)
        modules = dict(self.network.named_modules())
        scaled: dict[nn.Module, nn.Module] = {}
        for name, layer in modules.items():
            shared = isinstance(modules.get(name.rpartition(".")[0]), nn.MultiheadAttention)
            if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) and not shared:
                scaled[layer] = RankOne(layer, self.members, generator)
        replace_layers(self.network, scaled)


def batch_ensemble(setup: Setup) -> System:
    """Builds a BatchEnsemble with fresh weights; as in the paper, `split` mode deals the images of a step out to the members."""
    run = setup.run
    network = untrained(setup.backbone.model, 1000 * run.seed)
    whole = full_masks(setup.graph.widths, run.members)
    ensemble = SubnetEnsemble(network, setup.graph, whole, setup.backbone.card)
    return System(BatchEnsemble(ensemble, run.seed), (Phase(run.seeded("finetune")),), origin="scratch")


def _signs(members: int, channels: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (members, channels), generator=generator).float() * 2 - 1
