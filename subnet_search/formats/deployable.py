"""A network with all that its user would do before and after it: what every exported file computes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble import MemberNorm
from subnet_search.ensemble.replacing import replace_layers
from subnet_search.errors import SubnetSearchError
from subnet_search.packed import PackedEnsemble

InputKind = Literal["uint8", "float", "normalised"]
"""What a file takes in: raw images 0..255, raw images in [0, 1], or what `Card.prepare` returns."""

INPUT = "images"
"""Name of the only input."""

OUTPUTS: Mapping[str, str] = MappingProxyType(
    {
        "probabilities": "[batch, class]: mean over the members, rows sum to 1",
        "member_probabilities": "[member, batch, class]: what each member says, rows sum to 1",
        "total": "[batch]: predictive entropy in nats, aleatoric + epistemic",
        "aleatoric": "[batch]: mean entropy of the members in nats",
        "epistemic": "[batch]: mutual information of prediction and member in nats",
        "max_probability": "[batch]: largest mean probability",
        "energy": "[batch]: mean free energy of the members, -log sum exp logits; higher for images from elsewhere",
    }
)
"""Name → shape and meaning of each output, in their order; all are float32."""

_SERIES = 0.1
"""|p / mean − 1| below which the mutual information's terms are summed as a series."""
_NOISE = 1e-13
"""Mutual information below this is what the rounding of the mean leaves of equal members."""


class Deployable(nn.Module):
    """Images in, probabilities and uncertainties out, in float32 throughout: phones, browsers and most accelerators have no float64.

    `decompose` subtracts two entropies and needs float64 for it. Here the mutual information is the mean over the
    members of Σ_class m · f(p / m) with m the mean probability and f(r) = r log r − r + 1, which is the same number:
    the added terms p − m sum to zero over the members. Every term is at least 0, so nothing cancels, and near r = 1, where
    f itself would, it is summed as a series. Total is the sum of the two parts, so that the identity holds in every
    digit.

    Args:
        network: Prepared input `[batch, ...]` → logits `[member, batch, class]` (or `[batch, class]` of a single
            network), in fp32. It is copied to the CPU and stays as it was.
        card: What the network expects and means.
        input_kind: What the images are that it is given.

    Raises:
        SubnetSearchError: where the kind is unknown, or the weights are not float32.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, card: Card, input_kind: InputKind = "uint8") -> None:
        super().__init__()
        if input_kind not in get_args(InputKind):
            raise SubnetSearchError(f"input_kind is {input_kind!r}, expected one of {get_args(InputKind)}")
        self.network = _plain(network)
        self.card, self.input_kind = card, input_kind
        others = {str(p.dtype) for p in self.network.parameters() if p.is_floating_point()} - {"torch.float32"}
        if others:
            raise SubnetSearchError(
                f"the network has weights of {', '.join(sorted(others))}, expected torch.float32; export an fp32 form (pack with precision='fp32')"
            )
        broadcast = (-1,) + (1,) * (len(card.input_shape) - 1)
        self.register_buffer("mean", torch.tensor(card.mean).view(broadcast), persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(broadcast), persistent=False)
        super().train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps `[batch, *card.input_shape]` to the tensors of `OUTPUTS`, in that order."""
        return decompose_float32(self.network(self.prepare(images)))

    def prepare(self, images: Tensor) -> Tensor:
        """Normalises `[batch, *card.input_shape]` as `Card.prepare` does, for the kind of images that was chosen."""
        if self.input_kind == "normalised":
            return images
        scaled = images.float().div(255.0) if self.input_kind == "uint8" else images
        return (scaled - self.mean) / self.std

    def example(self, batch: int) -> Tensor:
        """Returns grey images of the kind that was chosen, `[batch, *card.input_shape]`."""
        return self.of_raw(torch.full((batch, *self.card.input_shape), 128, dtype=torch.uint8))

    def of_raw(self, images: Tensor) -> Tensor:
        """Turns raw images `[batch, *card.input_shape]`, uint8 or floating point in [0, 1], into the kind that was chosen."""
        if self.input_kind == "normalised":
            return self.card.prepare(images)
        if self.input_kind == "float":
            return images.float().div(255.0) if images.dtype == torch.uint8 else images.float()
        return images if images.dtype == torch.uint8 else images.mul(255.0).round().to(torch.uint8)


def decompose_float32(logits: Tensor) -> tuple[Tensor, ...]:
    """Computes the tensors of `OUTPUTS` from logits `[member, batch, class]` or `[batch, class]`."""
    logits = logits if logits.ndim == 3 else logits[None]
    members = logits.softmax(dim=-1)
    mean = members.mean(dim=0)
    aleatoric = -_p_log_p(members).sum(dim=-1).mean(dim=0)
    ratio = members / mean.clamp(min=torch.finfo(torch.float32).tiny)
    epistemic = (mean * _divergence(ratio)).sum(dim=-1).mean(dim=0)
    epistemic = torch.where(epistemic <= _NOISE, torch.zeros_like(epistemic), epistemic)  # NaN stays NaN
    largest = logits.amax(dim=-1)
    energy = -(largest + (logits - largest[..., None]).exp().sum(dim=-1).log()).mean(dim=0)
    return mean, members, aleatoric + epistemic, aleatoric, epistemic, mean.amax(dim=-1), energy


def _p_log_p(p: Tensor) -> Tensor:
    """The product p log p, and 0 at 0."""
    return p * p.clamp(min=torch.finfo(torch.float32).tiny).log()


def _divergence(ratio: Tensor) -> Tensor:
    """f(r) = r log r − r + 1 = Σ_{n ≥ 2} (1 − r)^n / (n (n − 1)), accurate on both sides of r = 1."""
    below = 1.0 - ratio
    near = below.clamp(-_SERIES, _SERIES)  # elsewhere the series is not taken
    series = near / 56.0
    for n in range(7, 2, -1):  # Horner's scheme; what is left out is 1e-8 of the sum
        series = (series + 1.0 / (n * (n - 1))) * near
    return torch.where(below.abs() < _SERIES, (series + 0.5) * near * near, _p_log_p(ratio) + below)


class _Affine(nn.Module):
    """What a `MemberNorm` is in eval mode: a factor and a summand for each member and channel.

    Its own code takes the rows apart with `chunk`, which neither ONNX nor XNNPACK knows for a batch of any size.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: MemberNorm) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        opened = (norm.mask if norm.kept is None else norm.mask & norm.kept[:, None]).float()
        scale = opened * (norm.running_var + norm.eps).rsqrt() * (1.0 if norm.weight is None else norm.weight.detach())
        shift = opened * (0.0 if norm.bias is None else norm.bias.detach()) - norm.running_mean * scale
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.unflatten(x, 0, (self.scale.shape[0], -1))
        shape = (self.scale.shape[0], 1, -1, *[1] * (x.ndim - 2))
        return (rows * self.scale.view(shape) + self.shift.view(shape)).flatten(0, 1)


def _plain(network: nn.Module) -> nn.Module:
    """A copy on the CPU, contiguous, in eval mode, without what only matters to PyTorch."""
    inner = network.network if isinstance(network, PackedEnsemble) else network
    inner = getattr(inner, "_orig_mod", inner)  # what torch.compile has wrapped
    copied = copy.deepcopy(inner).cpu().eval()
    affine: dict[nn.Module, nn.Module] = {}
    for module in copied.modules():
        if isinstance(module, MemberNorm) and module.track_running_stats and module.running_mean is not None:
            affine[module] = _Affine(module)
    replace_layers(copied, affine)
    return copied.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload,no-any-return]
