"""One member of an ensemble as a network of its own, in plain layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from subnet_search.ensemble import MemberLinear, MemberMask, MemberNorm, SubnetEnsemble
from subnet_search.ensemble.plain_layers import layer_ranks, plain_linear, plain_norm
from subnet_search.ensemble.replacing import replace_layers
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import SlicedNetwork, slice_network
from subnet_search.groups.resizing import ResizedCalls


def member_network(ensemble: SubnetEnsemble, member: int) -> nn.Module:
    """Returns a member as a plain dense network: what pruning for a single network would have given.

    Its class is the backbone's, its layers are plain and as small as the member's, its state dict has the names of the
    backbone's, and the norms are the member's own, not folded. What PyTorch's parametrizations (`weight_norm`) compute
    in the backbone is a plain parameter. Branches that the member leaves out are there and give zero. Where the
    backbone's code has numbers of channels written into it (`F.pad`, `split`), two hooks on the network change them
    while it runs.

    Args:
        ensemble: The ensemble; it is not changed.
        member: Number of the member, 0 to K - 1.

    Returns:
        The network in eval mode, on the ensemble's device: prepared input `[batch, ...]` → logits `[batch, class]`.

    Raises:
        SubnetSearchError: where there is no such member.
    """
    if not 0 <= member < ensemble.members:
        raise SubnetSearchError(f"got member {member}, expected one of 0 to {ensemble.members - 1}")
    kept = {name: mask[member] for name, mask in ensemble.masks.masks.items()}
    sliced = slice_member(ensemble, member, kept, layer_ranks(ensemble))
    network = sliced.network
    if sliced.resizes:
        resizing = _Resizing(sliced)
        network.register_forward_pre_hook(resizing.begin)
        network.register_forward_hook(resizing.end, always_call=True)
    return network


def slice_member(
    ensemble: SubnetEnsemble, member: int, kept: Mapping[str, Tensor], ranks: Mapping[str, int]
) -> SlicedNetwork:
    """Returns a member cut down to some channels, those among them that it does not keep giving zero.

    Args:
        ensemble: The ensemble; it is not changed.
        member: Number of the member.
        kept: Group → bool `[channel]`, the channels to stay: at least those that the member keeps.
        ranks: What `layer_ranks` says of the ensemble.

    Returns:
        The small network in eval mode, on the ensemble's device.
    """
    network = ensemble.select([member]).network.eval()
    for module in list(network.modules()):
        _settle(module)
    plain: dict[nn.Module, nn.Module] = {}
    for name, module in network.named_modules():
        if isinstance(module, MemberNorm):
            plain[module] = _cut(plain_norm(module, 0, ranks[name]), _through(module.mask, module.kept))
        elif isinstance(module, MemberMask):
            plain[module] = _cut(module.layer, _through(module.mask, module.kept))
        elif isinstance(module, MemberLinear):
            plain[module] = plain_linear(module, 0)
    replace_layers(network, plain)
    return slice_network(network, ensemble.graph, kept).eval()


class _Resizing:
    """Hooks that change the numbers of channels in the code of a network while it runs."""

    def __init__(self, sliced: SlicedNetwork) -> None:
        self.plans = sliced.plans
        self.running: list[ResizedCalls] = []

    def begin(self, _module: nn.Module, _inputs: Any) -> None:
        """Starts to change them."""
        calls = ResizedCalls(self.plans)
        calls.__enter__()  # type: ignore[no-untyped-call]  # PyTorch's modes are not annotated
        self.running.append(calls)

    def end(self, _module: nn.Module, _inputs: Any, _result: Any) -> None:
        """Stops."""
        if self.running:
            self.running.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]  # the same


def _settle(layer: nn.Module) -> None:
    """Makes plain parameters of those that PyTorch's parametrizations compute, with the same values.

    PyTorch's `remove_parametrizations` changes the class of the layer, which is that of the layer in the ensemble, too.
    """
    if not parametrize.is_parametrized(layer):
        return
    with torch.no_grad():
        values = {name: getattr(layer, name).clone() for name in layer.parametrizations}  # type: ignore[union-attr]  # a ModuleDict
    learned = {name: list(layer.get_submodule(f"parametrizations.{name}").parameters()) for name in values}
    plain: type[nn.Module] = parametrize.type_before_parametrizations(layer)
    del layer.parametrizations
    layer.__class__ = plain
    for name, value in values.items():
        trained = any(parameter.requires_grad for parameter in learned[name])
        setattr(layer, name, nn.Parameter(value, trained) if learned[name] else nn.Buffer(value))


def _cut(layer: nn.Module, through: Tensor) -> nn.Module:
    """The layer with zeros where its output is masked."""
    if bool(through.all()):
        return layer
    if isinstance(layer, _BatchNorm) and layer.weight is None:
        like = through.float() if layer.running_mean is None else layer.running_mean
        layer.affine = True
        layer.weight, layer.bias = nn.Parameter(torch.ones_like(like)), nn.Parameter(torch.zeros_like(like))
    assert isinstance(layer.weight, Tensor)
    if isinstance(layer, _ConvTransposeNd):
        # [in, out / groups, ...]: the rows of each group of input channels write that group's output channels
        factor = through.view(layer.groups, -1).repeat_interleave(layer.in_channels // layer.groups, dim=0)
        factor = factor.view(*factor.shape, *[1] * (layer.weight.ndim - 2))
    elif isinstance(layer, nn.Linear | _ConvNd | _BatchNorm):
        factor = through.view(-1, *[1] * (layer.weight.ndim - 1))
    else:
        raise SubnetSearchError(f"no rule to mask {type(layer).__name__}; expected a convolution, linear layer or norm")
    layer.weight = nn.Parameter(layer.weight.detach() * factor, layer.weight.requires_grad)
    if isinstance(layer.bias, Tensor):
        layer.bias = nn.Parameter(layer.bias.detach() * through, layer.bias.requires_grad)
    return layer


def _through(mask: Tensor, kept: Tensor | None) -> Tensor:
    """The channels of a single member that get through."""
    return mask[0] if kept is None else mask[0] & kept[0]
