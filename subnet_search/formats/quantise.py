"""Eight-bit integers for weights and activations, and what they cost."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils.data import Dataset

from subnet_search.data.batches import batches, spread
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.calibration import expected_calibration_error
from subnet_search.evaluate.classification import accuracy, negative_log_likelihood
from subnet_search.evaluate.outputs import predict_dataset
from subnet_search.formats.deployable import Deployable
from subnet_search.formats.optional import quiet, require


@dataclass(frozen=True)
class Quality:
    """How good predictions are, of the averaged probabilities.

    Attributes:
        accuracy: Share of right answers, in [0, 1].
        nll: Mean negative log-likelihood in nats.
        ece: Expected calibration error, in [0, 1].
    """

    accuracy: float
    nll: float
    ece: float


@dataclass(frozen=True)
class QuantisationCost:
    """What eight-bit integers cost on a labelled set.

    Attributes:
        before: The network in float32, in PyTorch.
        after: The quantised file itself, in the runtime that it is meant for.
        images: Number of labelled images.
    """

    before: Quality
    after: Quality
    images: int


def quantise(deployable: Deployable, calibration: Dataset[Any], images: int = 512, batch_size: int = 32) -> Deployable:
    """Quantises the network between the normalisation of the images and the logits (PT2E; Jacob et al. 2018).

    Weights are symmetric for each output channel, activations have one scale and zero point each, found from the
    smallest and largest values that the calibration images cause. Probabilities and uncertainties stay in float32.

    Args:
        deployable: The network in float32; it stays as it was. A packed form, whose norms are folded, loses least.
        calibration: Dataset of (raw image, anything); images as they will come, such as training images.
        images: How many of them are used, spread evenly over them.
        batch_size: Images a forward pass.

    Returns:
        The same with a network whose numbers are rounded as eight-bit integers round them, but held in float32.

    Raises:
        SubnetSearchError: where executorch or torchao are missing (extra `edge`), there are no images, or the network
            cannot be written down.
    """
    schemes = require("executorch.backends.xnnpack.quantizer.xnnpack_quantizer", "edge")
    flow = require("torchao.quantization.pt2e.quantize_pt2e", "edge")
    if images < 1 or batch_size < 1:
        raise SubnetSearchError(
            f"got {images} images in batches of {batch_size} to calibrate with, expected at least 1"
        )
    rounded = copy.deepcopy(deployable)
    example = deployable.card.prepare(torch.full((2, *deployable.card.input_shape), 128, dtype=torch.uint8))
    with quiet(), torch.no_grad():
        written = torch.export.export(
            rounded.network, (example,), dynamic_shapes=({0: Dim("batch", min=1)},), strict=False
        )
        quantizer = schemes.XNNPACKQuantizer().set_global(
            schemes.get_symmetric_quantization_config(is_per_channel=True)
        )
        observed = flow.prepare_pt2e(written.module(), quantizer)
        chosen = spread(calibration, images)
        if not len(chosen):
            raise SubnetSearchError("got no images to calibrate the quantisation with, expected some hundred")
        for raw, _ in batches(calibration, batch_size, chosen):
            observed(deployable.card.prepare(raw))
        rounded.network = _Converted(flow.convert_pt2e(observed))
    return rounded


class _Converted(nn.Module):
    """A network that was written down in eval mode and stays in it: torchao lets such graphs change no mode."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        return self.graph(x)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> _Converted:  # noqa: ARG002 - as every module is called
        return self


def measure_cost(
    network: nn.Module,
    deployable: Deployable,
    run: Callable[[Tensor], Sequence[Tensor]],
    labelled: Dataset[Any],
    batch: int,
) -> QuantisationCost:
    """Compares a quantised file with the network that it was made from.

    Args:
        network: The network in float32.
        deployable: The network as it was exported.
        run: Runs the file, a batch of images of the deployable's kind at a time.
        labelled: Labelled set that neither training nor calibration has seen.
        batch: Batch size of the file.

    Returns:
        Figures of both.

    Raises:
        SubnetSearchError: where the set is empty or has images without labels.
    """
    before = predict_dataset(network, labelled, deployable.card, stage="labelled set")
    found = []
    for raw, _ in batches(labelled, batch):
        padded = deployable.of_raw(raw[torch.arange(batch) % len(raw)])  # the file takes whole batches only
        found.append(run(padded)[0][: len(raw)])
    labels = before.labels
    return QuantisationCost(
        _quality(before.member_probabilities.double().mean(dim=0), labels),
        _quality(torch.cat(found), labels),
        len(labels),
    )


def _quality(probabilities: Tensor, labels: Tensor) -> Quality:
    return Quality(
        accuracy(probabilities, labels),
        negative_log_likelihood(probabilities, labels),
        expected_calibration_error(probabilities, labels),
    )
