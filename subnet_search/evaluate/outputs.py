"""What a network says about a dataset: all that the figures are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.backbones.card import Card
from subnet_search.data.batches import batches, length
from subnet_search.device import Precision, autocast
from subnet_search.ensemble.modes import eval_mode
from subnet_search.ensemble.uncertainty import free_energy
from subnet_search.errors import SubnetSearchError


@dataclass(frozen=True)
class Outputs:
    """What the members say about the samples of a dataset, on the CPU.

    Attributes:
        member_probabilities: float32 `[member, sample, class]`; rows sum to 1.
        labels: int64 `[sample]`; what the dataset says, so −1 where it is unlabelled.
        energy: Free energy of the logits, `[sample]`, as `free_energy` returns it; None where only probabilities are known.

    Raises:
        SubnetSearchError: where the shapes are others.
    """

    member_probabilities: Tensor
    labels: Tensor
    energy: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.member_probabilities.shape)
        if len(shape) != 3 or tuple(self.labels.shape) != shape[1:2]:
            raise SubnetSearchError(
                f"outputs: got probabilities {shape} and labels {tuple(self.labels.shape)}, expected [member, sample, class] and [sample]"
            )
        if self.energy is not None and self.energy.shape != self.labels.shape:
            raise SubnetSearchError(
                f"outputs: got energies {tuple(self.energy.shape)} of {len(self.labels)} samples, expected one of each"
            )

    @property
    def members(self) -> int:
        """Number of members K; 1 for a single network."""
        return self.member_probabilities.shape[0]


@torch.no_grad()
def predict_dataset(
    network: nn.Module,
    dataset: Dataset[Any],
    card: Card,
    batch_size: int = 256,
    precision: Precision = "fp32",
    progress: Progress | None = None,
    stage: str = "test",
) -> Outputs:
    """Runs a network over a dataset in eval mode, on the device of its parameters.

    Args:
        network: Takes prepared input and returns logits `[member, batch, class]`, or `[batch, class]` for a single
            network, which becomes one member. Its train/eval modes are left as they were.
        dataset: Map-style dataset of (raw image tensor, int label).
        card: What the network expects of its input.
        batch_size: Samples a forward pass.
        precision: Of the forward pass; the softmax is in float32 at every precision.
        progress: Bar to report to.
        stage: What the dataset is, for messages: `test`, `validation`, `OOD set 'svhn'`.

    Returns:
        Probabilities, labels and energies in the order of the dataset.

    Raises:
        SubnetSearchError: where there are no samples, the logits have another shape, their number of classes is not
            the card's, or some are NaN or infinite.
    """
    device = device_of(network)
    found: list[Tensor] = []
    energies: list[Tensor] = []
    labels: list[Tensor] = []
    broken = 0
    task = progress.add_task(f"evaluating: {stage}", total=length(dataset)) if progress else None
    with eval_mode(network):
        for images, batch_labels in batches(dataset, batch_size):
            with autocast(device, precision):
                output = network(card.prepare(images.to(device)))
            logits = _member_logits(output, len(images), len(card.classes), stage).float()
            broken += int((~torch.isfinite(logits)).any(dim=2).any(dim=0).sum())
            found.append(logits.softmax(dim=2).cpu())
            energies.append(free_energy(logits).cpu())
            labels.append(batch_labels.cpu())
            if progress and task is not None:
                progress.advance(task, len(images))
    if progress and task is not None:
        progress.remove_task(task)
    if not found:
        raise SubnetSearchError(
            f"{stage}: the dataset has no samples, expected at least one; check the data or the split"
        )
    samples = sum(len(part) for part in labels)
    check_broken(broken, samples, stage)
    return Outputs(torch.cat(found, dim=1), torch.cat(labels), torch.cat(energies))


def check_broken(broken: int, samples: int, stage: str) -> None:
    """Refuses what a network says where it is no number.

    Args:
        broken: Samples with logits that are NaN or infinite.
        samples: All samples that it was asked about.
        stage: What they are, for the error message.

    Raises:
        SubnetSearchError: where `broken` is not 0.
    """
    if broken:
        raise SubnetSearchError(
            f"{stage}: the logits of {broken} of {samples} samples are NaN or infinite, expected finite numbers; the "
            "weights are damaged or the training diverged (lower its learning rate), or fp32 is needed here"
        )


def device_of(network: nn.Module) -> torch.device:
    """Returns the device of the first parameter or buffer; the CPU where there is none."""
    for parameter in network.parameters():
        return parameter.device
    for buffer in network.buffers():
        return buffer.device
    return torch.device("cpu")


def _member_logits(output: object, batch: int, classes: int, stage: str) -> Tensor:
    """Checks what a network returned; gives `[member, batch, class]`."""
    if not isinstance(output, Tensor):
        raise SubnetSearchError(
            f"{stage}: the network returned a {type(output).__name__}, expected a tensor of logits [batch, class] or [member, batch, class]; wrap it so that it returns its logits"
        )
    logits = output[None] if output.ndim == 2 else output
    if logits.ndim != 3 or len(logits) == 0 or logits.shape[1] != batch:
        raise SubnetSearchError(
            f"{stage}: the network returned shape {tuple(output.shape)} for {batch} samples, expected [batch, class] or [member, batch, class]"
        )
    if logits.shape[2] != classes:
        raise SubnetSearchError(
            f"{stage}: the network returned {logits.shape[2]} logits a sample, its card names {classes} classes; give the card of this network"
        )
    return logits
