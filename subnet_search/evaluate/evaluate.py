"""One network, one test set, all figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.backbones.card import Card
from subnet_search.data.array_dataset import UNLABELLED
from subnet_search.data.batches import batches
from subnet_search.data.corrupt import check_picture
from subnet_search.device import Precision
from subnet_search.ensemble import Predictor, thinned
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.cost import latency_ms, unique_parameters
from subnet_search.evaluate.figures import aleatoric_figures, diversity_figures, ood_set_figures, prediction_figures
from subnet_search.evaluate.keys import FIXED_KEYS, limit_key
from subnet_search.evaluate.outputs import Outputs, device_of, predict_dataset
from subnet_search.evaluate.refusal import limits
from subnet_search.evaluate.shift import shift_figures


@dataclass(frozen=True)
class EvaluateConfig:
    """How a network is evaluated.

    Attributes:
        batch_size: Samples a forward pass; changes no figure.
        precision: Of the forward passes. fp32 by default, so that figures of different devices compare.
        latency_batch: Samples in the batch whose forward pass is timed.
        latency_repeats: Timed passes, of which the median counts; 0 measures no latency.
        shift_samples: Of how many test images, spread evenly over them, all corruptions are made at all severities: 25
            passes over so many images. 0 computes no figures under shift.

    Raises:
        SubnetSearchError: where a number is too small.
    """

    batch_size: int = 256
    precision: Precision = "fp32"
    latency_batch: int = 64
    latency_repeats: int = 10
    shift_samples: int = 0

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("latency_batch", 1), ("latency_repeats", 0), ("shift_samples", 0)):
            if getattr(self, name) < least:
                raise SubnetSearchError(f"evaluate.{name} is {getattr(self, name)}, expected at least {least}")


def evaluate(
    network: nn.Module,
    *,
    card: Card,
    test: Dataset[Any],
    validation: Dataset[Any] | None = None,
    ood: Mapping[str, Dataset[Any]] | None = None,
    config: EvaluateConfig | None = None,
    macs: int | None = None,
    dense_macs: int | None = None,
    iou: float | None = None,
    human_counts: Tensor | None = None,
    seen: Callable[[str, Outputs], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, float | None]:
    """Computes all figures of a network on the device where it is, as fractions and not per cent.

    Args:
        network: A dense network (logits `[batch, class]`) or an ensemble (`[member, batch, class]`).
        card: What the network expects and means.
        test: Labelled test set, never seen by search or training.
        validation: Labelled set on which the temperature is fitted, and from which the limits for refusing images come;
            without it `cls/NLL_TS` and `cal/ECE_TS` are None, and there are no limits.
        ood: OOD sets by name; their labels are not used, as they may be of other classes.
        config: Settings.
        macs: Multiply-accumulates of the whole network, all members, for one sample.
        dense_macs: Those of the dense network.
        iou: Mean intersection over union of the members' masks.
        human_counts: Human labels of the test set, `[sample, class]`, in its order.
        seen: Called with `test` and `ood/NAME`, and what the network said there (OOD sets unlabelled), so that more can
            be kept of the same passes, of which only one is in memory at a time.
        progress: Bar to report to.

    Returns:
        Every key of `keys.FIXED_KEYS`, twelve `ood/NAME/...` for each OOD set, four `refuse/...` with validation, and
        75 `shift/...` where `config.shift_samples` is not 0; None where a figure is absent.

    Raises:
        SubnetSearchError: for an empty set, unlabelled test samples, shift figures of what are no pictures, logits that are not finite or have another shape than above, or costs and overlaps that
            cannot be.
    """
    config = config or EvaluateConfig()
    if iou is not None and not 0.0 <= iou <= 1.0:
        raise SubnetSearchError(f"iou is {iou}, expected a number in [0, 1] or None")
    if min(value for value in (macs, dense_macs, 1) if value is not None) < 1:
        raise SubnetSearchError(f"macs is {macs} and dense_macs {dense_macs}, expected positive numbers or None")
    if config.shift_samples:
        check_picture(card.input_shape, f"network {card.name!r}")

    # thin members give the same answers in a fraction of the time
    judged = thinned(network) if isinstance(network, Predictor) else network

    def outputs(dataset: Dataset[Any], stage: str) -> Outputs:
        return predict_dataset(judged, dataset, card, config.batch_size, config.precision, progress, stage)

    tested = outputs(test, "test")
    if seen:
        seen("test", tested)
    validated = None if validation is None else outputs(validation, "validation")
    found: dict[str, float | None] = dict.fromkeys(FIXED_KEYS)
    found |= prediction_figures(tested, validated)
    found |= aleatoric_figures(tested, human_counts)
    found |= diversity_figures(tested, iou)
    if validated is not None:
        found |= {limit_key(name): limit for name, limit in limits(validated).items()}
    for name, dataset in (ood or {}).items():
        outside = outputs(dataset, f"OOD set {name!r}")
        outside = replace(outside, labels=torch.full_like(outside.labels, UNLABELLED))
        found |= ood_set_figures(tested, outside, name)
        if seen:
            seen(f"ood/{name}", outside)
    if config.shift_samples:
        found |= shift_figures(test, config.shift_samples, outputs, progress)
    found["cplx/MACs"] = macs
    found["cplx/MACsRatio"] = macs / dense_macs if macs is not None and dense_macs is not None else None
    found["cplx/Params"] = unique_parameters(network)
    if config.latency_repeats:
        inputs = _example(test, card, config.latency_batch).to(device_of(network))
        found["cplx/LatencyMs"] = latency_ms(network, inputs, config.latency_repeats, precision=config.precision)
    return found


def _example(dataset: Dataset[Any], card: Card, size: int) -> Tensor:
    """Prepared input of exactly `size` samples; those of a smaller dataset are repeated."""
    images, _ = next(batches(dataset, size))
    return card.prepare(images[torch.arange(size) % len(images)])
