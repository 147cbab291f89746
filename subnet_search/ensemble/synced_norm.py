"""Batch statistics over the rows of all processes (as PyTorch's `SyncBatchNorm`, which has no CPU form)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from subnet_search.ensemble.norm_calls import NormCalls


class SyncedNorms(NormCalls):
    """While open, normalisation in training mode takes mean and variance over the rows of all processes."""

    def __init__(self) -> None:
        super().__init__(_batch_norm)


def _batch_norm(
    input: Tensor,  # noqa: A002 - the names are those of torch.nn.functional.batch_norm
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm` with statistics of all processes."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    precise = torch.float64 if input.dtype == torch.float64 else torch.float32
    scale = input.new_ones(input.shape[1]) if weight is None else weight
    shift = input.new_zeros(input.shape[1]) if bias is None else bias
    result: Tensor
    result, mean, variance, count = _Normalise.apply(input, scale.to(precise), shift.to(precise), eps)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            unbiased = variance * (count / (count - 1).clamp(min=1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    return result


class _Normalise(torch.autograd.Function):
    """(x − mean) / √(variance + eps) · scale + shift over all axes but the channels' (Ioffe and Szegedy 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = x.to(scale.dtype)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        variance, mean = torch.var_mean(values, dim=axes, correction=0)
        own = torch.stack([mean, variance, torch.full_like(mean, x.numel() / x.shape[1])])
        means, variances, counts = gathered(own).unbind(1)
        total = counts.sum(0)
        mean = (means * counts).sum(0) / total
        # the parts' variances, and what their means are apart (Chan et al. 1979)
        variance = ((variances + (means - mean).square()) * counts).sum(0) / total
        inverse = (variance + eps).rsqrt()
        shape = [1, -1] + [1] * (x.ndim - 2)
        ctx.axes, ctx.shape, ctx.total = axes, shape, total
        ctx.save_for_backward(x, scale, mean, inverse)
        result = (values - mean.view(shape)) * (inverse * scale).view(shape) + shift.view(shape)
        count = total[0].clone()
        ctx.mark_non_differentiable(mean, variance, count)
        return result.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, scale, mean, inverse = ctx.saved_tensors
        own = gradient.to(scale.dtype)
        unit = (x.to(scale.dtype) - mean.view(ctx.shape)) * inverse.view(ctx.shape)
        of_shift, of_scale = own.sum(ctx.axes), (own * unit).sum(ctx.axes)
        sums = torch.stack([of_shift, of_scale])
        dist.all_reduce(sums)
        first, second = (sums / ctx.total).unbind(0)
        centred = own - first.view(ctx.shape) - unit * second.view(ctx.shape)
        return (centred * (inverse * scale).view(ctx.shape)).to(x.dtype), of_scale, of_shift, None


def gathered(own: Tensor) -> Tensor:
    """Returns the tensors of all processes, of one shape, along a new first axis."""
    everything = own.new_zeros(dist.get_world_size(), *own.shape)
    everything[dist.get_rank()] = own
    dist.all_reduce(everything)
    return everything
