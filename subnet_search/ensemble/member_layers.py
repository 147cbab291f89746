"""The layers that differ between members; everything else of the network is shared.

Rows are member-major throughout: of `[member * batch, ...]` rows, member k owns rows k * batch to (k + 1) * batch,
as in the layers of Masksembles (Durasov et al. 2021, section 3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class MemberNorm(_BatchNorm):
    """Batch normalisation with statistics and affine parameters of each member's own, and its mask on the output.

    Members see different channels below, so they need different statistics: sharing them costs several points of
    accuracy. A cut channel leaves with γ = β = 0. The class is a `_BatchNorm`, so that PyTorch's own tools
    (`torch.optim.swa_utils.update_bn`) recalibrate it.

    Args:
        norm: The normalisation layer of the dense network; its parameters and statistics are copied to each member.
        mask: bool `[member, channel]`, true where the member keeps the channel.
        kept: bool `[member]`, true where the member keeps the residual branch that ends here; None where none does.
    """

    mask: Tensor
    kept: Tensor | None

    def __init__(self, norm: _BatchNorm, mask: Tensor, kept: Tensor | None = None) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.members = mask.shape[0]
        if norm.affine:
            self.weight = _repeated(norm.weight, self.members)
            self.bias = _repeated(norm.bias, self.members)
        if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
            self.running_mean = norm.running_mean.detach().repeat(self.members, 1)
            self.running_var = norm.running_var.detach().repeat(self.members, 1)
            # a cumulative average (momentum=None) goes on where the dense network's has stopped
            self.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
        self.register_buffer("mask", mask.to(_device(norm), copy=True))
        self.register_buffer("kept", None if kept is None else kept.to(_device(norm), copy=True))
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name is _BatchNorm's
        """Normalises and masks member-major rows `[member * batch, channel, ...]`; same shape out."""
        batch_statistics = self.training or self.running_mean is None
        factor = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                factor = 1.0 / float(self.num_batches_tracked)
        # without affine parameters the mask is γ, in the precision of the statistics where there are any
        precision = next((t.dtype for t in (self.weight, self.running_mean) if t is not None), input.dtype)
        mask = _open(self.mask, self.kept).to(precision)
        weight = mask if self.weight is None else self.weight * mask
        bias = None if self.bias is None else self.bias * mask
        tracked = not self.training or self.track_running_stats
        outputs = [
            F.batch_norm(
                rows,
                self.running_mean[k] if tracked and self.running_mean is not None else None,
                self.running_var[k] if tracked and self.running_var is not None else None,
                weight[k],
                None if bias is None else bias[k],
                batch_statistics,
                factor,
                self.eps,
            )
            for k, rows in enumerate(input.chunk(self.members))
        ]
        return outputs[0] if self.members == 1 else torch.cat(outputs)

    def select(self, members: list[int]) -> None:
        """Keeps only the named members, in that order."""
        _select(self, members, ("weight", "bias", "running_mean", "running_var", "mask", "kept"))
        self.members = len(members)


class MemberMask(nn.Module):
    """A layer whose output channels are masked for each member: the site where no normalisation follows.

    Args:
        layer: The layer of the dense network, shared by the members.
        mask: bool `[member, channel]`.
        channel_axis: Axis of the layer's output that holds the channels: 1 for convolutions, -1 for linear layers.
        kept: bool `[member]`, true where the member keeps the residual branch that ends here; None where none does.
        common: Whether members have the layer in common: the mask is the same for all, and there may be any number of
            rows.
    """

    mask: Tensor
    kept: Tensor | None

    def __init__(
        self, layer: nn.Module, mask: Tensor, channel_axis: int, kept: Tensor | None = None, common: bool = False
    ) -> None:
        super().__init__()
        self.layer = layer
        self.common = common
        self.channel_axis = channel_axis
        self.register_buffer("mask", mask.to(_device(layer), copy=True))
        self.register_buffer("kept", None if kept is None else kept.to(_device(layer), copy=True))
        self.note_cut()
        self.register_load_state_dict_post_hook(_note_cut)  # type: ignore[no-untyped-call]  # PyTorch annotates no hooks

    def note_cut(self) -> None:
        """Looks whether anything is cut; asked where masks change, as asking an accelerator waits for it."""
        self.cut = not bool(self.mask.all())

    def forward(self, x: Tensor) -> Tensor:
        """Runs the layer on member-major rows `[member * batch, ...]` and masks its output, of as many rows."""
        out: Tensor = self.layer(x)
        members, channels = self.mask.shape
        if self.common:
            if not self.cut:
                return out
            shape = [1] * out.ndim
            shape[self.channel_axis] = channels
            return out * self.mask[0].to(out.dtype).view(shape)
        shape = [members] + [1] * out.ndim
        shape[self.channel_axis if self.channel_axis < 0 else self.channel_axis + 1] = channels
        return (torch.unflatten(out, 0, (members, -1)) * _open(self.mask, self.kept).to(out.dtype).view(shape)).flatten(
            0, 1
        )

    def select(self, members: list[int]) -> None:
        """Keeps only the named members, in that order."""
        _select(self, members, ("mask", "kept"))


def _note_cut(module: MemberMask, _keys: object) -> None:
    """After a state was loaded: a function of the module's, as hooks are copied with it."""
    module.note_cut()


class MemberLinear(nn.Module):
    """A classifier head of each member's own, all starting from the dense network's.

    Args:
        linear: The classifier of the dense network, which is copied.
        members: Number of members K.
    """

    def __init__(self, linear: nn.Linear, members: int) -> None:
        super().__init__()
        self.members = members
        self.weight = _repeated(linear.weight, members)
        self.bias = None if linear.bias is None else _repeated(linear.bias, members)

    def forward(self, x: Tensor) -> Tensor:
        """Maps member-major rows `[member * batch, feature]` to `[member * batch, class]`."""
        rows = torch.unflatten(x, 0, (self.members, -1))
        out = torch.bmm(rows, self.weight.transpose(1, 2).to(rows.dtype))
        if self.bias is not None:
            out = out + self.bias.to(out.dtype)[:, None, :]
        return out.flatten(0, 1)

    def select(self, members: list[int]) -> None:
        """Keeps only the named members, in that order."""
        _select(self, members, ("weight", "bias"))
        self.members = len(members)


def _open(mask: Tensor, kept: Tensor | None) -> Tensor:
    """The channels that get through: none of a branch that the member leaves out."""
    return mask if kept is None else mask & kept[:, None]


def _select(module: nn.Module, members: list[int], names: tuple[str, ...]) -> None:
    """Cuts the member axis, the first one, of parameters and buffers down to the named members."""
    for name in names:
        value = getattr(module, name)
        if isinstance(value, nn.Parameter):
            setattr(module, name, nn.Parameter(value.detach()[members], value.requires_grad))
        elif value is not None:
            setattr(module, name, value[members])


def _repeated(parameter: Tensor, members: int) -> nn.Parameter:
    """Gives each member its own copy along a new first axis; what is frozen stays frozen."""
    return nn.Parameter(parameter.detach().repeat(members, *([1] * parameter.ndim)), parameter.requires_grad)


def _device(layer: nn.Module) -> torch.device:
    """Returns where the layer's tensors are; the CPU where it has none."""
    tensors = (*layer.parameters(), *layer.buffers())
    return tensors[0].device if tensors else torch.device("cpu")
