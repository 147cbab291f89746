"""No file is written before the runtime that will run it has been seen to answer as PyTorch does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble import Predictor, Uncertainty
from subnet_search.ensemble.modes import eval_mode
from subnet_search.ensemble.uncertainty import uncertainty_of
from subnet_search.errors import SubnetSearchError, first_line
from subnet_search.evaluate.outputs import device_of
from subnet_search.formats.deployable import OUTPUTS, Deployable

TOLERANCE = 1e-4
"""Largest absolute difference of any output (probabilities, and entropies in nats) from PyTorch's, in fp32; of an energy, as a share of it where it is above 1 in size."""
BATCHES = (1, 2, 7, 64)
"""Batch sizes with which a file that takes any is checked."""


@dataclass(frozen=True)
class Written:
    """A file that was written, and how well it was checked.

    Attributes:
        path: Where it is.
        bytes: Its size, with that of the weights where they are in a file beside it.
        difference: Largest absolute difference of any output from what PyTorch says; of an energy as a share of it.
        batches: Batch sizes that were compared.
    """

    path: Path
    bytes: int
    difference: float
    batches: tuple[int, ...]


def check_answers(
    network: nn.Module,
    deployable: Deployable,
    run: Callable[[Tensor], Sequence[Tensor]],
    *,
    path: Path,
    batches: Sequence[int],
    images: Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> float:
    """Compares what a file answers with what the network predicts in PyTorch.

    Args:
        network: The network that the file stands for; `Predictor.predict` has the last word, in float64.
        deployable: The network as it was exported.
        run: Runs the file: images of the deployable's kind → the tensors of `OUTPUTS`.
        path: Where the file is to go, for the message.
        batches: Batch sizes to compare at.
        images: Raw images to compare on, `[n, *input_shape]`, uint8 or floating point in [0, 1]; None takes random ones.
        tolerance: Largest absolute difference that is let pass; of an energy, as a share of it where it is above 1 in size.

    Returns:
        The largest difference of any output.

    Raises:
        SubnetSearchError: where the file does not run, its outputs have other shapes, they differ by more, or the card names
            another number of classes.
    """
    if device_of(network).type != "cpu":  # files are checked on the CPU, and a GPU may round to TF32
        network = copy.deepcopy(network).cpu()
    worst = 0.0
    for batch in batches:
        raw = _pictures(deployable.card, batch, images)
        expected = _predict(network, deployable.card, raw)
        if expected.probabilities.shape[1] != len(deployable.card.classes):
            raise SubnetSearchError(
                f"{path}: the network tells {expected.probabilities.shape[1]} classes apart, its card names {len(deployable.card.classes)}; give the card of this network"
            )
        given = deployable.of_raw(raw)
        try:
            answers = run(given)
        except Exception as error:  # whatever a runtime raises for a file that it cannot run
            raise SubnetSearchError(
                f"{path}: does not run with {batch} images ({type(error).__name__}: {first_line(error)}); nothing was written"
            ) from error
        for name, answer in zip(OUTPUTS, answers, strict=True):
            wanted = getattr(expected, name)
            if answer.shape != wanted.shape:
                raise SubnetSearchError(
                    f"{path}: output {name!r} has shape {tuple(answer.shape)} for {batch} images, expected {tuple(wanted.shape)}; nothing was written"
                )
            # the energy is as large as the logits, and float32 has seven digits
            size = wanted.abs().clamp(min=1.0) if name == "energy" else torch.ones_like(wanted)
            difference = float(((answer.to(wanted) - wanted).abs() / size).max())
            if not difference <= tolerance:  # NaN too
                raise SubnetSearchError(
                    f"{path}: output {name!r} differs from PyTorch's by {difference:.2g} with {batch} images, expected at most {tolerance:g}; "
                    "nothing was written. Please report it with the network, or choose another form or a larger tolerance"
                )
            worst = max(worst, difference)
    return worst


def _pictures(card: Card, batch: int, images: Tensor | None) -> Tensor:
    """Raw uint8 images: the given ones over and over, or random ones, some of them flat and some lively."""
    if images is None:
        generator = torch.Generator().manual_seed(batch)
        contrast = torch.rand(batch, *[1] * len(card.input_shape), generator=generator)
        images = (torch.rand(batch, *card.input_shape, generator=generator) - 0.5) * contrast + 0.5
    if len(images) == 0:
        raise SubnetSearchError("got no images to check the file with, expected at least one or None")
    chosen = images[torch.arange(batch) % len(images)].cpu()
    return chosen if chosen.dtype == torch.uint8 else chosen.mul(255).round().to(torch.uint8)


@torch.no_grad()
def _predict(network: nn.Module, card: Card, raw: Tensor) -> Uncertainty:
    """What the network says in PyTorch."""
    if isinstance(network, Predictor):
        return network.predict(raw)
    with eval_mode(network):
        logits = network(card.prepare(raw))
    return uncertainty_of(logits)
