"""Training at the cost of what the members keep: thin networks on the shared weights of a masked ensemble.

A masked member runs through the whole network, and most of what it computes is multiplied by zero. Here each member is
a network of its kept channels alone, whose weights are gathered from the shared ones in every forward pass, so that the
gradients come back to the shared ones; what nobody keeps gets a gradient of zero, as it does behind a mask.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subnet_search.ensemble.gather import Gather
from subnet_search.ensemble.member_layers import MemberLinear, MemberMask, MemberNorm
from subnet_search.ensemble.modes import eval_mode
from subnet_search.ensemble.predictor import Predictor
from subnet_search.ensemble.remembered import Remembered
from subnet_search.ensemble.subnet_ensemble import SubnetEnsemble
from subnet_search.ensemble.thin_member import ThinMember, ThinNorm, thin_member, thin_trunk
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import SlicedNetwork, trunk_layers

log = logging.getLogger("subnet_search")

SAVING = 0.9
"""Largest share of the masked network's MACs at which thin members are taken."""
AGREEMENT = 1e-4
"""Largest difference of the logits from the masked network's, relative to the largest of them."""
SLOPES = 1e-2
"""Largest difference of a parameter's gradient from the masked network's, relative to the largest of the parameter, and
the smallest of those that counts, relative to the largest of all."""


class ThinEnsemble(Predictor):
    """The members of an ensemble as thin networks that share its parameters and running statistics.

    The trunk that members have in common is computed once, on the rows of all of them; where they all see the same
    images, once for these, and so is what follows from it alone (`Remembered`). Its running variances are then those of
    fewer rows (n / (n - 1) is that much larger). A trunk that is thinned is run thin, too.

    Its masks are those that the ensemble had when this was made. Running statistics of channels that a member does not
    keep stand still, where behind a mask they would follow what nobody reads.

    Args:
        ensemble: The ensemble; its tensors are those that are read and trained.

    Raises:
        SubnetSearchError: where its network has something that cannot be computed member by member, or the logits are
            others.
    """

    def __init__(self, ensemble: SubnetEnsemble) -> None:
        super().__init__()
        _check(ensemble)
        self.ensemble = ensemble
        self.members, self.card = ensemble.members, ensemble.card
        # in lists, as what the skeletons hold are no tensors of this module
        self.skeletons = [thin_member(ensemble, k) for k in range(self.members)]
        self.parameters_read, self.statistics_read = _gathers(ensemble, self.skeletons)
        self.norms = _norms(ensemble, self.skeletons)
        self.stem = thin_trunk(ensemble)
        self.stem_read = _stem_gathers(ensemble, self.stem)
        self.norms += _stem_norms(ensemble, self.stem)
        self.trunk = trunk_layers(ensemble.graph, ensemble.config.trunk_share)
        self.training = ensemble.training
        self.follow()
        self.unread: list[nn.Parameter] = []
        self.unread = _compared(self)

    def train(self, mode: bool = True) -> ThinEnsemble:
        """Puts the ensemble, and with it the thin networks, into training or eval mode."""
        super().train(mode)
        self.follow()
        return self

    def follow(self) -> None:
        """Puts the thin networks into the mode of this module."""
        for skeleton in (*self.skeletons, *([self.stem] if self.stem else [])):
            skeleton.network.train(self.training)

    def forward(self, x: Tensor, repeat: bool = True) -> Tensor:
        """Computes the logits `[member, batch, class]`; see `Predictor.forward`."""
        # chunks of rows are other tensors than the rows, and those of inference have no version to tell a change by
        memory = Remembered() if repeat and self.trunk and not torch.is_inference_mode_enabled() else None
        with memory or nullcontext():
            logits = self._members(x, repeat, memory)
        self._write()
        for parameter in self.unread:  # behind a mask it gets a gradient of zero, with which weights decay
            logits = logits + parameter.flatten()[:0].sum()
        return logits

    def _members(self, x: Tensor, repeat: bool, memory: Remembered | None) -> Tensor:
        """The logits of the thin networks, each on its rows."""
        rows = [x] * self.members if repeat else self._rows(x, repeat).chunk(self.members)
        for name, gather in (*self.parameters_read, *self.statistics_read):
            for member, part in zip(gather.members, gather.read(), strict=True):
                module, attribute = self.skeletons[member].holders[name]
                vars(module)[attribute] = part  # setattr of a module takes as long as a small layer
        for norm, thin in self.norms:
            count = norm.num_batches_tracked
            before = float(count) if norm.momentum is None and count is not None else 0.0
            for own in thin:
                if (own.training, own.momentum, own.before) != (norm.training, norm.momentum, before):
                    own.training, own.momentum, own.before = norm.training, norm.momentum, before
        if self.stem is not None:
            for name, gather in self.stem_read:
                module, attribute = self.stem.holders[name]
                vars(module)[attribute] = gather.read()[0]
        trunk = self._trunk(x, memory)
        parts = {name: [out] * self.members if repeat else out.chunk(self.members) for name, out in trunk.items()}
        for k, skeleton in enumerate(self.skeletons):
            for name, layer in skeleton.recalled.items():
                vars(layer)["result"] = parts[name][k]
        return torch.stack([skeleton.network(part) for skeleton, part in zip(self.skeletons, rows, strict=True)])

    def _trunk(self, rows: Tensor, memory: Remembered | None) -> dict[str, Tensor]:
        """Runs the network up to the end of the trunk; returns what each layer of it has given."""
        if not self.trunk:
            return {}
        found: dict[str, Tensor] = {}
        whole = self.ensemble.network if self.stem is None else self.stem.network
        network = whole.network if isinstance(whole, SlicedNetwork) else whole
        end = next(name for name in self.ensemble.graph.order if name not in self.trunk)
        hooks = [network.get_submodule(name).register_forward_hook(_kept(name, found, memory)) for name in self.trunk]
        hooks.append(network.get_submodule(end).register_forward_pre_hook(_stop))
        try:
            whole(rows)
        except _TrunkEndsError:
            return found
        finally:
            for hook in hooks:
                hook.remove()
        raise SubnetSearchError(f"the network's forward pass does not come to {end!r}, where the trunk ends")

    @torch.no_grad()
    def _write(self) -> None:
        """Puts running statistics where the ensemble has them, and lets go of all tensors."""
        for norm, thin in self.norms:
            if norm.training and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(max((own.calls for own in thin), default=1))
            for own in thin:
                vars(own)["calls"] = 0
        if self.training:
            for name, gather in (*self.statistics_read, *self.stem_read):
                if name.rpartition(".")[2].startswith("running"):
                    gather.write()
        for skeleton in (*self.skeletons, *([self.stem] if self.stem else [])):
            for module, attribute in skeleton.holders.values():
                vars(module)[attribute] = None
            for layer in skeleton.recalled.values():
                vars(layer)["result"] = None

    def macs(self) -> int:
        """Returns the ensemble's multiply-accumulates."""
        return self.ensemble.macs()

    def identity(self) -> dict[str, object]:
        """Returns the ensemble's identity, as the same is computed."""
        return self.ensemble.identity()


def thinned(predictor: Predictor, wanted: bool | None = None) -> Predictor:
    """Returns the thin form of an ensemble where it is worth it, else the predictor itself.

    Args:
        predictor: Any system; only an ensemble of masked members has a thin form.
        wanted: True asks for it even where it saves little, False for the masked form. By default it is taken on the
            CPU where members keep little enough; on an accelerator K small passes may cost more to launch than they
            save.

    Returns:
        A `ThinEnsemble` that computes what the predictor computes, with its tensors, or the predictor.
    """
    try:
        if wanted is False:
            raise SubnetSearchError("it was asked for")
        if not isinstance(predictor, SubnetEnsemble):
            raise SubnetSearchError(f"{type(predictor).__name__} is no plain ensemble of masked members")
        if wanted is None:
            _check_gain(predictor)
        thin = ThinEnsemble(predictor)
    except Exception as problem:  # a user's network may fail in any way when its layers are replaced
        log.debug("members are run masked: %s", problem)
        return predictor
    log.debug("members are run thin")
    return thin


class _TrunkEndsError(Exception):
    """Ends a forward pass of which only the first layers are wanted."""


def _stop(_module: nn.Module, _inputs: Any) -> None:
    raise _TrunkEndsError


def _kept(name: str, found: dict[str, Tensor], memory: Remembered | None) -> Any:
    def keep(_module: nn.Module, _inputs: Any, out: Tensor) -> None:
        found[name] = out
        if memory is not None:
            memory.know(out)

    return keep


def _check(ensemble: SubnetEnsemble) -> None:
    """Raises where a member's network cannot be run apart from the others'."""
    network, trunk = ensemble.network, trunk_layers(ensemble.graph, ensemble.config.trunk_share)
    for name, module in network.named_modules():
        if name.removesuffix(".layer") in trunk:
            continue
        if isinstance(module, _BatchNorm) and not isinstance(module, MemberNorm):
            raise SubnetSearchError(f"{name!r} normalises over the rows of all members")
        if not isinstance(module, MemberNorm | MemberMask) and any(True for _ in module.buffers(recurse=False)):
            raise SubnetSearchError(f"{name!r} has a state of its own, which every member would change")
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.inplace:
            raise SubnetSearchError(f"{name!r} changes in place, and by chance, what members have in common")
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
            raise SubnetSearchError(f"{name!r} has hooks, which want to see all members")
    if len(list(network.parameters())) != len(list(network.named_parameters(remove_duplicate=False))):
        raise SubnetSearchError("a parameter has several names")


def _check_gain(ensemble: SubnetEnsemble) -> None:
    device = next(ensemble.parameters()).device
    if device.type != "cpu":
        raise SubnetSearchError(f"on {device.type}, small passes may cost more to launch than they save")
    ours, masked = ensemble.macs(), ensemble.members * ensemble.graph.dense_macs
    if ours > SAVING * masked:
        raise SubnetSearchError(f"members keep {ours / masked:.0%} of the multiply-accumulates")


def _compared(thin: ThinEnsemble) -> list[nn.Parameter]:
    """Compares thin and masked members on random input, in eval mode, where nothing is changed by looking.

    Returns:
        The parameters that only the masked network reads, those of what no member keeps.
    """
    ensemble = thin.ensemble
    trained = [parameter for parameter in ensemble.parameters() if parameter.requires_grad]
    like = next(ensemble.parameters())
    shape = (2 * ensemble.members, *ensemble.graph.example_shape)
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(like)
    with eval_mode(thin), torch.inference_mode(False), torch.enable_grad():
        expected, got = (torch.stack([net(rows, repeat=False), net(rows[:2])]) for net in (ensemble, thin))
        read = [torch.autograd.grad(logits.sum(), trained, allow_unused=True) for logits in (expected, got)]
    thin.follow()
    difference = float((got - expected).detach().abs().max() / expected.detach().abs().max())
    if not difference <= AGREEMENT:
        raise SubnetSearchError(f"thin members' logits differ by {difference:.2g} relative to the largest")
    both = [(masked, ours) for masked, ours in zip(*read, strict=True) if masked is not None and ours is not None]
    steepest = max((float(masked.abs().max()) for masked, _ in both), default=0.0)
    for masked, ours in both:  # gradients too, as a network may treat them in ways that logits do not show
        if not float((ours - masked).abs().max()) <= SLOPES * max(float(masked.abs().max()), SLOPES * steepest):
            raise SubnetSearchError("thin members' gradients are others than those of masked ones")
    return [p for p, masked, ours in zip(trained, *read, strict=True) if masked is not None and ours is None]


def _gathers(
    ensemble: SubnetEnsemble, skeletons: list[ThinMember]
) -> tuple[list[tuple[str, Gather]], list[tuple[str, Gather]]]:
    """Name in the skeletons, and what is read there: parameters, and running statistics."""
    device = next(ensemble.parameters()).device
    trunk = trunk_layers(ensemble.graph, ensemble.config.trunk_share)
    parameters: list[tuple[str, Gather]] = []
    statistics: list[tuple[str, Gather]] = []
    for name, module in ensemble.network.named_modules():
        owned = isinstance(module, MemberNorm | MemberLinear)
        plain = name.removesuffix(".layer") if isinstance(_parent(ensemble.network, name), MemberMask) else name
        if plain in trunk:
            continue  # computed by the ensemble's own layers
        tensors = [attribute for attribute, _ in module.named_parameters(recurse=False)]
        if isinstance(module, MemberNorm) and module.running_mean is not None:
            tensors += ["running_mean", "running_var"]
        for attribute in tensors:
            small = f"{plain}.{attribute}".lstrip(".")
            parts = [(k, skeleton.places[small]) for k, skeleton in enumerate(skeletons) if small in skeleton.places]
            if parts:
                gather = Gather(module, attribute, owned, parts, device)
                (statistics if attribute.startswith("running") else parameters).append((small, gather))
    return parameters, statistics


def _stem_gathers(ensemble: SubnetEnsemble, stem: ThinMember | None) -> list[tuple[str, Gather]]:
    """Name in the skeleton of a thinned trunk, and what is read there."""
    device = next(ensemble.parameters()).device
    found = []
    for name, places in stem.places.items() if stem else ():
        path, _, attribute = name.rpartition(".")
        found.append((name, Gather(_layer(ensemble, path), attribute, False, [(0, places)], device)))
    return found


def _stem_norms(ensemble: SubnetEnsemble, stem: ThinMember | None) -> list[tuple[_BatchNorm, list[ThinNorm]]]:
    """Every norm of a thinned trunk, and the one that stands for it."""
    names = dict.fromkeys(name.rpartition(".")[0] for name in stem.holders) if stem else {}
    found = []
    for name in names:
        norm, thin = _layer(ensemble, name), stem.network.network.get_submodule(name) if stem else None
        if isinstance(norm, _BatchNorm) and isinstance(thin, ThinNorm):
            found.append((norm, [thin]))
    return found


def _layer(ensemble: SubnetEnsemble, name: str) -> nn.Module:
    """A layer of the ensemble's network, without its mask."""
    module = ensemble.network.get_submodule(name)
    return module.layer if isinstance(module, MemberMask) else module


def _parent(network: nn.Module, name: str) -> nn.Module | None:
    return network.get_submodule(name.rpartition(".")[0]) if name else None


def _norms(ensemble: SubnetEnsemble, skeletons: list[ThinMember]) -> list[tuple[_BatchNorm, list[ThinNorm]]]:
    """Every member norm, and those of the skeletons that stand for it."""
    found: list[tuple[_BatchNorm, list[ThinNorm]]] = []
    for name, module in ensemble.network.named_modules():
        if isinstance(module, MemberNorm):
            thin = [skeleton.network.network.get_submodule(name) for skeleton in skeletons]
            found.append((module, [norm for norm in thin if isinstance(norm, ThinNorm)]))
    return found
