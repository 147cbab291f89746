"""Training steps that several processes compute together, with the result that one process would come to.

Each process runs its part of every member's rows. Normalisation sees the rows of all (`SyncedNorms`); the logits are
put together, so that each process computes the whole loss; gradients are averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn

from subnet_search.ensemble.predictor import Predictor
from subnet_search.ensemble.row_share import RowShare, sharing
from subnet_search.ensemble.synced_norm import SyncedNorms
from subnet_search.errors import SubnetSearchError
from subnet_search.processes import check_processes, from_main


class SharedSteps:
    """How the rows of a step are shared out.

    Args:
        accelerator: The processes.
        rows: Rows of each member in a step.

    Raises:
        SubnetSearchError: where there are fewer rows than processes.
    """

    def __init__(self, accelerator: Accelerator, rows: int) -> None:
        check_processes(accelerator)
        self.processes = accelerator.num_processes
        if rows < self.processes:
            raise SubnetSearchError(
                f"a step has {rows} rows of each member, which {self.processes} processes cannot share; raise finetune.batch_size, or start fewer processes"
            )
        number = accelerator.process_index
        start, stop = rows * number // self.processes, rows * (number + 1) // self.processes
        self.share = RowShare(start, stop, rows)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Lets layers that look at all rows see those of the other processes, while the block lasts."""
        if self.processes == 1:
            yield
            return
        with sharing(self.share), SyncedNorms():
            yield

    def part(self, rows: Tensor) -> Tensor:
        """Returns this process's part of `[member, row, ...]`."""
        return rows[:, self.share.start : self.share.stop]

    def whole(self, part: Tensor) -> Tensor:
        """Returns `[member, row, ...]` of all processes, with its gradient."""
        if self.processes == 1:
            return part
        joined: Tensor = _Joined.apply(part, self.share)  # type: ignore[no-untyped-call]
        return joined

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Averages the gradients of all processes.

        The whole loss is computed by every process, and the gradient of `whole` is the sum of theirs; so is that of the
        batch statistics. The mean over processes is then the gradient of the loss.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.processes == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = (flat / self.processes).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


class _Joined(torch.autograd.Function):
    """Puts the parts of all processes together."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, share: RowShare) -> Tensor:
        ctx.share = share
        joined = part.new_zeros(len(part), share.rows, *part.shape[2:])
        joined[:, share.start : share.stop] = part
        dist.all_reduce(joined)
        return joined

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient[:, ctx.share.start : ctx.share.stop], None


def take_over(accelerator: Accelerator, ensemble: Predictor) -> None:
    """Gives all processes the weights, masks and statistics of the main one.

    Raises:
        SubnetSearchError: where a predictor has layers that cannot be computed part by part.
    """
    if accelerator.num_processes == 1:
        return
    if not ensemble.shareable:
        raise SubnetSearchError(
            f"{type(ensemble).__name__} cannot be trained on {accelerator.num_processes} processes: it looks at all rows of a step at once; start one process"
        )
    state = from_main(accelerator, lambda: {name: tensor.cpu() for name, tensor in ensemble.state_dict().items()})
    ensemble.load_state_dict(state)
