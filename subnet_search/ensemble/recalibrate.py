"""Normalisation statistics of masked members, measured again after the masks have changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn
from torch.utils.data import Dataset

from subnet_search.data import batches
from subnet_search.data.batches import length
from subnet_search.device import Precision, autocast, drawing
from subnet_search.ensemble.modes import own_modes
from subnet_search.ensemble.predictor import Predictor
from subnet_search.ensemble.thin import thinned
from subnet_search.errors import SubnetSearchError


def recalibrate(
    ensemble: Predictor,
    dataset: Dataset[tuple[torch.Tensor, int]],
    *,
    samples: int = 2048,
    batch_size: int = 256,
    seed: int = 0,
    precision: Precision = "auto",
    thin: bool | None = None,
) -> None:
    """Replaces the running statistics of the normalisation layers by their mean over fresh batches.

    Masks change what every later layer sees; without this the ensemble is far from what it can be. Nothing is
    trained. The work is PyTorch's `update_bn`. Modes and momenta are afterwards what they were; where the work is
    interrupted or fails, the statistics are, too, as those of half the images are neither the old nor the new ones.

    Args:
        ensemble: Changed in place.
        dataset: Training images, never test images.
        samples: How many of them are used, drawn without replacement.
        batch_size: Images in a batch; the last incomplete one is dropped where there is another.
        seed: Seed of the draw, and of what the network's own dropout leaves out.
        precision: Arithmetic of the forward passes.
        thin: As in `thinned`. Thin members measure the channels that they keep; False measures those that are cut, too,
            of which otherwise mean 0 and variance 1 are left, for whoever opens the masks afterwards.

    Raises:
        SubnetSearchError: where no image would be used, which would leave statistics of nothing, or the dataset has no
            length.
    """
    generator = torch.Generator().manual_seed(seed)
    size = length(dataset)
    if min(size, samples, batch_size) < 1:
        raise SubnetSearchError(
            f"recalibration: got {size} images, samples={samples} and batch_size={batch_size}, expected at least one of each"
        )
    order = torch.randperm(size, generator=generator)[:samples]
    if len(order) > batch_size:
        order = order[: len(order) // batch_size * batch_size]
    device = next(ensemble.parameters()).device
    prepared = (ensemble.card.prepare(images.to(device)) for images, _ in batches(dataset, batch_size, order))
    # the layers are in training mode, dropout too
    with _all_or_nothing(ensemble), drawing(device, seed), autocast(device, precision):
        update_bn(prepared, thinned(ensemble, thin))


@contextmanager
def _all_or_nothing(ensemble: Predictor) -> Iterator[None]:
    """Puts back modes and momenta, which `update_bn` does only at its end, and the statistics where that is not reached."""
    norms = [module for module in ensemble.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    buffers = [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var, norm.num_batches_tracked)]
    statistics = [(tensor, tensor.clone()) for tensor in buffers if tensor is not None]
    with own_modes(ensemble):
        try:
            yield
        except BaseException:
            for tensor, before in statistics:
                tensor.copy_(before)
            raise
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
