"""What each member has of its own as plain layers, for networks that leave the ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subnet_search.ensemble.member_layers import MemberLinear, MemberMask, MemberNorm
from subnet_search.ensemble.subnet_ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError

KINDS: Mapping[int, type[_BatchNorm]] = MappingProxyType(
    {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
)
"""The class of a norm by the number of axes of its input."""

UNSEEN = 4
"""The number of axes of what a network never calls, so that it gets a class, too."""


def layer_ranks(ensemble: SubnetEnsemble) -> dict[str, int]:
    """Returns how many axes each member norm and each masked layer gives, which tells the class of the norm that was there.

    Args:
        ensemble: The ensemble; it is not changed.

    Returns:
        Name in the network → number of axes; for norms that of the input as well.
    """
    alone = ensemble.select([0]).eval()
    ranks: dict[str, int] = {}
    for name, module in alone.network.named_modules():
        if isinstance(module, MemberNorm | MemberMask):
            ranks[name] = UNSEEN
            module.register_forward_hook(lambda _module, _inputs, out, name=name: ranks.update({name: out.ndim}))
    like = next(alone.network.parameters())
    with torch.no_grad():  # two rows, as of one there are no statistics where none are kept
        alone(torch.zeros(2, *alone.graph.example_shape, dtype=like.dtype, device=like.device))
    return ranks


def plain_norm(module: MemberNorm, member: int, rank: int) -> _BatchNorm:
    """Returns a member's norm as a plain one that masks nothing.

    Args:
        module: The norms of all members; they are copied.
        member: Number of the member.
        rank: Number of axes of its input, from `layer_ranks`.

    Returns:
        The norm in training mode; what is frozen stays frozen.

    Raises:
        SubnetSearchError: where PyTorch has no norm for so many axes.
    """
    if rank not in KINDS:
        raise SubnetSearchError(
            f"a batch normalisation layer has an input of {rank} axes, expected 2 to 5, for which PyTorch has plain ones; keep the ensemble as it is"
        )
    device = module.mask.device
    plain = KINDS[rank](
        module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats, device
    )
    for name in ("weight", "bias"):
        setattr(plain, name, _parameter(getattr(module, name), member))
    for name in ("running_mean", "running_var"):
        statistics = getattr(module, name)
        setattr(plain, name, None if statistics is None else statistics[member].clone())
    count = module.num_batches_tracked
    plain.num_batches_tracked = None if count is None else count.clone()
    return plain


def plain_linear(module: MemberLinear, member: int) -> nn.Linear:
    """Returns a member's head as a plain linear layer.

    Args:
        module: The heads of all members; they are copied.
        member: Number of the member.

    Returns:
        The head; what is frozen stays frozen.
    """
    _, classes, features = module.weight.shape
    with torch.device("meta"):  # elsewhere weights would be drawn, from the global random state
        plain = nn.Linear(features, classes)
    plain.register_parameter("weight", _parameter(module.weight, member))
    plain.register_parameter("bias", _parameter(module.bias, member))
    return plain


def _parameter(parameters: Tensor | None, member: int) -> nn.Parameter | None:
    return None if parameters is None else nn.Parameter(parameters.detach()[member].clone(), parameters.requires_grad)
