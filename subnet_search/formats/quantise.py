"""Eight-bit integers for weights and activations, and what they cost."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.utils.data import Dataset

from subnet_search.data.batches import batches, evenly
from subnet_search.errors import SubnetSearchError, first_line
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


def quantise(
    deployable: Deployable, calibration: Dataset[Any], images: int = 512, batch_size: int = 32, batch: int = 1
) -> Deployable:
    """Quantises the network between the normalisation of the images and the logits (PT2E; Jacob et al. 2018).

    Weights are symmetric for each output channel, activations have one scale and zero point each, found from the
    smallest and largest values that the calibration images cause. Probabilities and uncertainties stay in float32.

    Args:
        deployable: The network in float32; it stays as it was. A packed form, whose norms are folded, loses least.
        calibration: Dataset of (raw image, anything); images as they will come, such as training images.
        images: How many of them are used, spread evenly over them.
        batch_size: Images a forward pass.
        batch: Images in a pass of a network that can be written down for one number of images only; others are then
            run in as many passes as they need.

    Returns:
        The same with a network whose numbers are rounded as eight-bit integers round them, but held in float32.

    Raises:
        SubnetSearchError: where executorch or torchao are missing (extra `edge`), there are no images, or the network
            cannot be written down or quantised.
    """
    schemes = require("executorch.backends.xnnpack.quantizer.xnnpack_quantizer", "edge")
    flow = require("torchao.quantization.pt2e.quantize_pt2e", "edge")
    if batch < 1:
        raise SubnetSearchError(f"got a batch of {batch} images, expected at least 1")
    if images < 1 or batch_size < 1:
        raise SubnetSearchError(
            f"got {images} images in batches of {batch_size} to calibrate with, expected at least 1"
        )
    chosen = evenly(calibration, images)
    if not len(chosen):
        raise SubnetSearchError("got no images to calibrate the quantisation with, expected some hundred")
    rounded = copy.deepcopy(deployable)
    with _explained():
        graph, size = _written_down(rounded, batch)
        _own_constants(graph)
        quantizer = schemes.XNNPACKQuantizer().set_global(
            schemes.get_symmetric_quantization_config(is_per_channel=True)
        )
        observed = flow.prepare_pt2e(graph, quantizer)
    passes = _Graph(observed, size)
    for raw, _ in batches(calibration, batch_size, chosen):
        with _explained():
            passes(deployable.card.prepare(raw))
    with _explained():
        rounded.network = _Graph(flow.convert_pt2e(observed), size)
    return rounded


@contextmanager
def _explained() -> Iterator[None]:
    """While open, whatever PyTorch and torchao raise says that it is the quantisation that does not work."""
    try:
        with quiet(), torch.no_grad():
            yield
    except SubnetSearchError:
        raise
    except Exception as error:  # both raise of every kind
        raise SubnetSearchError(
            f"the network cannot be quantised ({type(error).__name__}: {first_line(error)}); export it without int8"
        ) from error


def _written_down(deployable: Deployable, batch: int) -> tuple[fx.GraphModule, int | None]:
    """Returns the network as a graph, for any number of images where that can be, and else for a batch of some size."""

    def write(size: int | None) -> fx.GraphModule:
        raw = torch.full((size or 2, *deployable.card.input_shape), 128, dtype=torch.uint8)
        shapes = None if size else ({0: Dim("batch", min=1)},)
        program = torch.export.export(
            deployable.network, (deployable.card.prepare(raw),), dynamic_shapes=shapes, strict=False
        )
        if any("_add_batch_dim" in str(node.target) for node in program.graph.nodes):
            program = program.run_decompositions({})  # what torch.vmap has mapped runs only under torch.vmap
        return program.module()

    try:
        return write(None), None
    except Exception:  # a network that takes one batch size is no fault: the file has one, too
        return write(batch), batch


def _own_constants(graph: fx.GraphModule) -> None:
    """Gives each operation weights and a bias of its own, where the graph has read them once for several.

    The quantiser passes over a layer with a bias that another layer has been given. Its inputs and its result may have been
    quantised for their other sides all the same, and XNNPACK refuses a convolution of integers with float weights.
    """
    for node in list(graph.graph.find_nodes(op="get_attr")):
        for user in list(node.users)[1:]:
            with graph.graph.inserting_before(node):
                user.replace_input_with(node, graph.graph.node_copy(node))
    graph.recompile()


class _Graph(nn.Module):
    """A network that was written down in eval mode and stays in it: torchao lets such graphs change no mode.

    Args:
        graph: Prepared input → logits `[member, batch, class]` or `[batch, class]`.
        batch: The only batch size that the graph takes; None for any.
    """

    def __init__(self, graph: nn.Module, batch: int | None) -> None:
        super().__init__()
        self.graph, self.batch = graph, batch
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        if self.batch is None or len(x) == self.batch:
            return self.graph(x)  # type: ignore[no-any-return]
        rows = torch.arange(-(-len(x) // self.batch) * self.batch) % len(x)
        return torch.cat([self.graph(x[some]) for some in rows.split(self.batch)], dim=-2)[..., : len(x), :]

    def train(self, mode: bool = True) -> _Graph:  # noqa: ARG002 - as every module is called
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
