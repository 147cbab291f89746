"""The skeleton of a member: its network without the channels and branches that it does not keep, and without weights.

Which entries of the shared tensors a member keeps is not derived a second time: `slice_network` cuts a copy whose
tensors hold the numbers of their own entries, and what is left tells.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from subnet_search.ensemble.member_layers import MemberLinear, MemberMask
from subnet_search.ensemble.replacing import replace_layers
from subnet_search.ensemble.subnet_ensemble import SubnetEnsemble
from subnet_search.groups import SlicedNetwork, slice_network, trunk_layers
from subnet_search.groups.resizing import plans_of

Places = tuple[tuple[int, Tensor], ...]
"""Which entries of a tensor are kept: `(axis, positions)`, int64 and sorted, for each axis that is cut."""


@dataclass(frozen=True)
class ThinMember:
    """A member's network without tensors: they are set as attributes of its modules for each forward pass.

    Attributes:
        network: Prepared input `[batch, ...]` → logits `[batch, class]`.
        holders: Name of each parameter and running statistic → module and attribute that read it.
        places: Such a name → what is kept of the shared tensor, without its member axis.
        recalled: The layers of the trunk, whose results are put there before a forward pass.
    """

    network: SlicedNetwork
    holders: Mapping[str, tuple[nn.Module, str]]
    places: Mapping[str, Places]
    recalled: Mapping[str, Recalled]


class Recalled(nn.Module):
    """Stands for a layer of the trunk: gives what was computed once for all members.

    Attributes:
        result: What the layer gives; None between the forward passes.
    """

    result: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:  # noqa: ARG002 - the layer's input is what its result was computed from
        """Returns the result."""
        assert self.result is not None
        return self.result


class ThinNorm(_BatchNorm):
    """A plain normalisation layer for input of any rank, which counts its calls for the member norm that it stands for.

    Attributes:
        calls: Batches that it has seen in training in this forward pass of the ensemble.
        before: Batches that the member norm had seen before; needed where `momentum` is None alone.
    """

    calls = 0
    before = 0.0

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name is _BatchNorm's
        """Normalises rows `[batch, channel, ...]` as `MemberNorm` does; same shape out."""
        vars(self)["calls"] = self.calls + self.training  # setattr of a module takes as long as a small layer
        factor = 1.0 / (self.before + self.calls) if self.training and self.momentum is None else self.momentum or 0.0
        batch_statistics = self.training or self.running_mean is None
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, batch_statistics, factor, self.eps
        )


class Nothing(nn.Module):
    """Zeros in the shape of what a layer would write: stands in a branch that is left out.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.value = 0.0
        # a norm changes no shape; a list, because a submodule's parameters would be the network's
        self.hidden = [] if isinstance(layer, _BatchNorm) else [copy.deepcopy(layer).to("meta").eval()]

    def forward(self, x: Tensor) -> Tensor:
        """Returns zeros of the input's type and memory layout."""
        shape = tuple(x.shape)
        if shape not in self.shapes:
            described = torch.empty(shape, device="meta")
            for layer in self.hidden:
                described = layer(described.to(next(layer.parameters()).dtype))
            self.shapes[shape] = tuple(described.shape)
        last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        memory = torch.channels_last if last else torch.contiguous_format
        # memory of its own, as the network's code may work in place
        empty = torch.empty(self.shapes[shape], dtype=x.dtype, device=x.device, memory_format=memory)
        return empty.fill_(self.value)


def thin_trunk(ensemble: SubnetEnsemble) -> ThinMember | None:
    """Cuts the skeleton of the trunk out of the ensemble's network: that of a member, of which no more is to be run.

    Returns:
        The skeleton, with the tensors of the trunk alone, in the ensemble's mode; None where nothing of it is cut.
    """
    trunk = trunk_layers(ensemble.graph, ensemble.config.trunk_share)
    modules = {name: ensemble.network.get_submodule(name) for name in trunk}
    if not any(isinstance(module, MemberMask) and module.cut for module in modules.values()):
        return None
    skeleton = thin_member(ensemble, 0, recall=False)
    holders = {name: holder for name, holder in skeleton.holders.items() if name.rpartition(".")[0] in trunk}
    return ThinMember(skeleton.network, holders, {name: skeleton.places[name] for name in holders}, {})


def thin_member(ensemble: SubnetEnsemble, member: int, recall: bool = True) -> ThinMember:
    """Cuts a member's skeleton out of the ensemble's network.

    Layers of branches that the member leaves out are not computed, and the norms between them keep their statistics.

    Args:
        ensemble: The ensemble; it is not changed.
        member: Number of the member.
        recall: Whether the layers of the trunk are not computed.

    Returns:
        The skeleton, in the ensemble's mode.
    """
    masks = ensemble.masks
    kept = {name: mask[member] for name, mask in masks.masks.items()}
    numbered = _numbered(ensemble, member)
    whole = dict(_tensors(numbered))
    sliced = slice_network(numbered, ensemble.graph, kept)
    places = {name: _places(whole[name].shape, small) for name, small in _tensors(sliced.network)}
    _leave_out(sliced, ensemble, masks.left_out(member))
    trunk = trunk_layers(ensemble.graph, ensemble.config.trunk_share) if recall else ()
    recalled = {name: Recalled() for name in trunk}
    layers = dict(sliced.network.named_modules())
    replace_layers(sliced.network, {layers[name]: result for name, result in recalled.items()})
    network = sliced if _changes_numbers(sliced) else SlicedNetwork(sliced.network, (), {})
    holders = {}
    for name, _ in list(_tensors(network.network)):
        path, _, attribute = name.rpartition(".")
        module = network.network.get_submodule(path)
        delattr(module, attribute)  # no longer registered: an ordinary attribute
        vars(module)[attribute] = None
        holders[name] = (module, attribute)
    network.train(ensemble.training)
    return ThinMember(network, holders, {name: places[name] for name in holders}, recalled)


def _numbered(ensemble: SubnetEnsemble, member: int) -> nn.Module:
    """A copy of the network in plain layers, where every tensor holds the numbers of its own entries."""
    network = ensemble.select([member]).network.cpu()
    replace_layers(network, {module: module.layer for module in network.modules() if isinstance(module, MemberMask)})
    plain: dict[nn.Module, nn.Module] = {}
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            tracked = module.track_running_stats and module.running_mean is not None
            norm = ThinNorm(module.num_features, module.eps, module.momentum, module.affine, tracked)
            norm.num_batches_tracked = None
            plain[module] = norm
        elif isinstance(module, MemberLinear):
            _, classes, features = module.weight.shape
            linear = nn.Linear(features, classes, module.bias is not None, device="meta")  # draws no weights there
            plain[module] = linear.to_empty(device="cpu")
        elif getattr(module, "inplace", False) and not isinstance(module, _DropoutNd):
            vars(module)["inplace"] = False  # it may write into what the trunk gives all members
    replace_layers(network, plain)
    network.double()  # exact up to 2^53
    with torch.no_grad():
        for _, tensor in _tensors(network):
            tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape))
    return network


def _tensors(network: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Parameters and running statistics."""
    yield from network.named_parameters()
    yield from network.named_buffers()


def _places(shape: torch.Size, small: Tensor) -> Places:
    """Which positions of each axis are left, read off the numbers."""
    numbers = small.detach().long()
    found = []
    expected = torch.arange(shape.numel()).view(shape)
    strides = expected.stride()
    for axis, (before, after) in enumerate(zip(shape, small.shape, strict=True)):
        if before != after:
            line = numbers[tuple(slice(None) if other == axis else 0 for other in range(len(shape)))]
            positions = line // strides[axis] % before
            expected = expected.index_select(axis, positions)
            found.append((axis, positions))
    assert torch.equal(expected, numbers)  # slicing cuts whole rows and columns
    return tuple(found)


def _leave_out(sliced: SlicedNetwork, ensemble: SubnetEnsemble, sites: Collection[str]) -> None:
    """Replaces the layers of some branches, and the norms that only they feed."""
    if not sites:
        return
    network = sliced.network
    branches = [branch for branch in ensemble.graph.branches if branch.site in sites]
    names = dict.fromkeys(name for branch in branches for name in (*branch.layers, branch.site))
    layers = {name: network.get_submodule(name) for name in names}
    nothing = {name: Nothing(layer) for name, layer in layers.items()}
    replace_layers(network, {layer: nothing[name] for name, layer in layers.items()})
    inside = [module for name, module in nothing.items() if name not in sites]
    idle = _reached(sliced, inside, ensemble.graph.example_shape)
    replace_layers(network, {network.get_submodule(name): nn.Identity() for name in idle})


def _reached(sliced: SlicedNetwork, sources: Collection[Nothing], shape: tuple[int, ...]) -> list[str]:
    """Names of the norms that read what some layers write: NaN is what spreads to all that depends on it."""
    with torch.no_grad():
        for name, tensor in _tensors(sliced.network):
            tensor.fill_(1.0 if name.endswith("running_var") else 0.0)
    found: list[str] = []

    def note(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].isnan().any():
                found.append(name)

        return hook

    norms = [(name, module) for name, module in sliced.network.named_modules() if isinstance(module, ThinNorm)]
    hooks = [module.register_forward_pre_hook(note(name)) for name, module in norms]
    for source in sources:
        source.value = float("nan")
    mode = sliced.training
    try:
        with torch.no_grad():
            logits = sliced.eval()(torch.zeros(2, *shape, dtype=torch.float64))
    finally:
        sliced.train(mode)
        for hook in hooks:
            hook.remove()
        for source in sources:
            source.value = 0.0
    assert not logits.isnan().any()  # nothing outside a branch reads what happens inside
    return found


def _changes_numbers(sliced: SlicedNetwork) -> bool:
    """Whether a number of channels in the network's code has to be another one."""
    dense = plans_of(sliced.resizes, {})
    return any(counts != dense[number][1] for number, (_, counts) in sliced.plans.items())
