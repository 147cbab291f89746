"""The ensemble as a network of official Masksembles layers, for people who already use those.

The official layers (Durasov et al. 2021, "Masksembles for Uncertainty Estimation", package `masksembles`) draw their
masks unseeded, and since version 1.1.1 keep them out of the state dict, so that a network which is saved and loaded is
another one. Ours hold the masks that were searched, and save them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from subnet_search.ensemble import MemberLinear, MemberMask, MemberNorm, SubnetEnsemble
from subnet_search.ensemble.plain_layers import layer_ranks, plain_linear, plain_norm
from subnet_search.ensemble.replacing import replace_layers
from subnet_search.errors import SubnetSearchError

TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4}
"""Largest difference of two networks' logits, relative to the largest logit, where they count as the same."""

COARSE = 5e-2
"""The same for half precision."""


class PerMember(nn.ModuleList):
    """Layers of each member's own, in a network that has only shared ones otherwise.

    Members see different channels below, so that norms with statistics of their own save several points of accuracy;
    the official package has no such layer. Rows are member-major, as its own layers have them.

    Args:
        layers: One layer for each member.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Runs each member's layer on its rows of `[member * batch, ...]`."""
        return torch.cat([layer(rows) for layer, rows in zip(self, x.chunk(len(self)), strict=True)])


class MaskedLayer(nn.Module):
    """A layer with the official one behind it that masks its output.

    Args:
        layer: The layer of the network, one of the members' own or a shared one.
        masksembles: The official layer.
    """

    def __init__(self, layer: nn.Module, masksembles: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.masksembles = masksembles
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """Runs both on member-major rows `[member * batch, ...]`."""
        out: Tensor = self.masksembles(self.layer(x))
        return out


def official_kinds() -> tuple[type[nn.Module], type[nn.Module]]:
    """Returns `Masksembles1D` and `Masksembles2D` of the official package.

    Raises:
        SubnetSearchError: where it is not installed.
    """
    try:
        from masksembles.torch import Masksembles1D, Masksembles2D
    except ImportError as error:
        raise SubnetSearchError(
            f"the official layers are not there ({error}), expected the package masksembles; install it with pip install 'subnet-search[masksembles]'"
        ) from error
    return Masksembles1D, Masksembles2D


def official_layer(mask: Tensor, axes: int) -> nn.Module:
    """Makes an official layer with given masks, which are saved and loaded with the network.

    Its constructor is passed over: it draws masks from NumPy's global state, which takes at least 10 channels.

    Args:
        mask: bool or 0 and 1, `[member, channel]`; a member may keep nothing (a residual branch that it leaves out).
        axes: Number of axes of what is masked: 2 gives a `Masksembles1D`, 4 a `Masksembles2D`.

    Returns:
        The layer; its `scale`, which only the drawing of masks would ask for, is channels / mean number kept.
    """
    kind = official_kinds()[0 if axes == 2 else 1]
    layer: Any = kind.__new__(kind)
    nn.Module.__init__(layer)
    layer.n, layer.channels = mask.shape
    layer.scale = mask.numel() / max(1, int(mask.sum()))
    layer.register_buffer("masks", mask.to(torch.float32, copy=True))
    made: nn.Module = layer
    return made


def to_masksembles(ensemble: SubnetEnsemble) -> nn.Module:
    """Writes an ensemble as a network of its backbone's class with official Masksembles layers and its masks.

    Behind every site of a mask stands an official layer, so that the names of the state dict depend on the network
    alone: the state of one ensemble loads into the network of another with as many members. Branches that a member
    leaves out are rows of zeros. Norms and heads of each member's own become `PerMember` layers.

    Args:
        ensemble: The ensemble; it stays as it is.

    Returns:
        A network as the official package's users have them: member-major rows `[member * batch, ...]`, such as
        `x.repeat(K, 1, 1, 1)`, to logits `[member * batch, class]`. It shares no memory with the ensemble.

    Raises:
        SubnetSearchError: where the package is not installed, or a mask lies on what its layers cannot mask: they take
            `[batch, channel]` and `[batch, channel, height, width]`.
    """
    official_kinds()
    axes = layer_ranks(ensemble)
    sites = {site.module for group in ensemble.graph.groups for site in group.sites}
    sites |= {branch.site for branch in ensemble.graph.branches}
    network = copy.deepcopy(ensemble.network)
    others: dict[nn.Module, nn.Module] = {}
    for name, module in network.named_modules():
        if isinstance(module, MemberNorm):
            made: nn.Module = PerMember(plain_norm(module, k, axes[name]) for k in range(module.members))
        elif isinstance(module, MemberMask):
            made = module.layer
        elif isinstance(module, MemberLinear):
            made = PerMember(plain_linear(module, k) for k in range(module.members))
        else:
            continue
        if name in sites and isinstance(module, MemberNorm | MemberMask):
            _check_site(name, module, axes)
            mask = module.mask if module.kept is None else module.mask & module.kept[:, None]
            made = MaskedLayer(made, official_layer(mask, axes[name]))
        others[module] = made.train(module.training)
    replace_layers(network, others)
    _check_equal(ensemble, network)
    return network


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Returns the largest difference of two networks' logits, relative to the largest of them; NaN where one is."""
    found, expected = found.cpu().double(), expected.cpu().double()  # MPS has no float64
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


@torch.no_grad()
def random_rows(ensemble: SubnetEnsemble, shape: Sequence[int], batch: int = 2) -> Tensor:
    """Draws member-major rows `[member * batch, *shape]` on the ensemble's device, in its precision."""
    parameter = next(ensemble.parameters())
    rows = torch.randn(ensemble.members * batch, *shape, generator=torch.Generator().manual_seed(0))
    return rows.to(parameter.device, parameter.dtype)


def _check_site(name: str, module: MemberNorm | MemberMask, axes: dict[str, int]) -> None:
    last = isinstance(module, MemberMask) and module.channel_axis == -1
    if axes[name] not in ((2,) if last else (2, 4)):
        raise SubnetSearchError(
            f"official Masksembles layers mask [batch, channel] and [batch, channel, height, width], but {name!r} gives {axes[name]} axes"
            f"{', channels last' if last else ''}; take another format, such as packed"
        )


@torch.no_grad()
def _check_equal(ensemble: SubnetEnsemble, network: nn.Module) -> None:
    """Raises where the network does not compute what the ensemble does."""
    rows = random_rows(ensemble, ensemble.graph.example_shape)
    expected = copy.deepcopy(ensemble).eval()(rows, repeat=False).flatten(0, 1)
    difference = relative_difference(copy.deepcopy(network).eval()(rows), expected)
    if not difference <= TOLERANCES.get(rows.dtype, COARSE):
        raise SubnetSearchError(
            f"the network with official layers differs from the ensemble by {difference:.2g} of the largest logit, expected the same; keep the ensemble as it is, and report this network"
        )
