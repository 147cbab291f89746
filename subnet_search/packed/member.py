"""One member of an ensemble as a network of its own, in plain layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from subnet_search.ensemble import MemberLinear, MemberMask, MemberNorm, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import SlicedNetwork, slice_network
from subnet_search.groups.resizing import ResizedCalls

_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def member_network(ensemble: SubnetEnsemble, member: int) -> nn.Module:
    """Returns a member as a plain dense network: what pruning for a single network would have given.

    Its class is the backbone's, its layers are plain and as small as the member's, its state dict has the names of the
    backbone's, and the norms are the member's own, not folded. Branches that the member leaves out are there and give
    zero. Where the backbone's code has numbers of channels written into it (`F.pad`, `split`), two hooks on the network
    change them while it runs.

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
    sliced = slice_member(ensemble, member, kept, norm_ranks(ensemble))
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
        ranks: What `norm_ranks` says of the ensemble.

    Returns:
        The small network in eval mode, on the ensemble's device.
    """
    network = ensemble.select([member]).network
    for name, module in list(network.named_modules()):
        if isinstance(module, MemberNorm):
            network.set_submodule(name, _norm(module, ranks[name]))
        elif isinstance(module, MemberMask):
            network.set_submodule(name, _masked(module))
        elif isinstance(module, MemberLinear):
            network.set_submodule(name, _linear(module))
    return slice_network(network, ensemble.graph, kept).eval()


def norm_ranks(ensemble: SubnetEnsemble) -> dict[str, int]:
    """Returns how many axes the input of each member norm has, which tells the class of the norm that it replaced."""
    alone = ensemble.select([0]).eval()
    ranks: dict[str, int] = {}
    with _noted(alone.network, ranks), torch.no_grad():
        like = next(alone.network.parameters())
        alone(torch.zeros(1, *alone.graph.example_shape, dtype=like.dtype, device=like.device))
    return ranks


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


@contextmanager
def _noted(network: nn.Module, ranks: dict[str, int]) -> Iterator[None]:
    def note(name: str) -> Any:
        return lambda _module, inputs: ranks.__setitem__(name, inputs[0].ndim)

    norms = [(name, module) for name, module in network.named_modules() if isinstance(module, MemberNorm)]
    hooks = [module.register_forward_pre_hook(note(name)) for name, module in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _norm(module: MemberNorm, rank: int) -> nn.Module:
    """The plain norm of a single member."""
    through = _through(module.mask, module.kept)
    affine = module.weight is not None or not bool(through.all())
    plain = _NORMS[rank](module.num_features, module.eps, module.momentum, affine, module.track_running_stats)
    plain.to(next((t for t in (module.weight, module.running_mean) if t is not None), through.float()))
    if module.track_running_stats and module.running_mean is not None and module.running_var is not None:
        plain.running_mean, plain.running_var = module.running_mean[0].clone(), module.running_var[0].clone()
        count = module.num_batches_tracked
        plain.num_batches_tracked = None if count is None else count.clone()
    if affine:
        with torch.no_grad():
            plain.weight.copy_(through if module.weight is None else module.weight[0] * through)
            plain.bias.copy_(torch.zeros_like(plain.bias) if module.bias is None else module.bias[0] * through)
    return plain


def _masked(module: MemberMask) -> nn.Module:
    """The layer with zeros where its output is masked."""
    through, layer = _through(module.mask, module.kept), module.layer
    if bool(through.all()):
        return layer
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


def _linear(module: MemberLinear) -> nn.Linear:
    _, classes, features = module.weight.shape
    plain = nn.Linear(features, classes, module.bias is not None).to(module.weight)
    with torch.no_grad():
        plain.weight.copy_(module.weight[0])
        if module.bias is not None:
            plain.bias.copy_(module.bias[0])
    return plain


def _through(mask: Tensor, kept: Tensor | None) -> Tensor:
    """The channels of a single member that get through."""
    return mask[0] if kept is None else mask[0] & kept[0]
