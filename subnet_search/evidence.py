"""What a run keeps beside its figures, so that a report can be drawn without a second evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import Answers
from subnet_search.evaluate.answers import from_tensors
from subnet_search.finetune import History
from subnet_search.groups import trunk_layers
from subnet_search.groups.cost import layer_macs

PICTURES = 8
"""How many test images are kept for each kind of uncertainty: those with the highest."""
SIDE = 128
"""Larger images are reduced to this many pixels a side."""


@dataclass(frozen=True)
class LayerCost:
    """What one convolution or linear layer costs, in multiply-accumulates a sample.

    Attributes:
        layer: Dotted name.
        dense: In the dense network.
        members: In each member; a single number where the layer is run once for all of them.
    """

    layer: str
    dense: int
    members: tuple[int, ...]


@dataclass(frozen=True)
class Evidence:
    """What the figures of one run are drawn from, beside its masks and scores.

    Attributes:
        answers: What `dense` and `ensemble` said on `test` and `ood/NAME`, as `ensemble/ood/svhn`.
        pictures: Index of a test image → the image, uint8 `[channel, height, width]` with one or three channels; none
            where the samples are no pictures.
        classes: Names of the classes.
        groups: Names of the searchable groups, in order of first use.
        layers: Costs, in order of execution.
        history: The course of the training.
        passed: Which of `network` and `images` were objects of Python, which no command can name.
        metrics: Digest of the figures that belong to it, see `digest_of`.
    """

    answers: Mapping[str, Answers]
    pictures: Mapping[int, Tensor]
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    layers: tuple[LayerCost, ...]
    history: History
    passed: tuple[str, ...]
    metrics: str

    def answers_by(self, network: str) -> dict[str, Answers]:
        """Returns what `dense` or `ensemble` said, by set: `test` and `ood/NAME`."""
        own = f"{network}/"
        return {name.removeprefix(own): found for name, found in self.answers.items() if name.startswith(own)}

    def tensors(self) -> dict[str, Tensor]:
        """Returns all tensors by name."""
        found = {f"{name}/{part}": t for name, a in self.answers.items() for part, t in a.tensors().items()}
        return found | {f"pictures/{index}": picture for index, picture in self.pictures.items()}

    def notes(self) -> dict[str, Any]:
        """Returns all that is no tensor as plain JSON values."""
        return {
            "answers": list(self.answers),
            "classes": list(self.classes),
            "groups": list(self.groups),
            "layers": [asdict(cost) for cost in self.layers],
            "history": asdict(self.history),
            "passed": list(self.passed),
            "metrics": self.metrics,
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> Evidence:
        """Makes evidence of `tensors` and `notes`.

        Raises:
            SubnetSearchError: where something is missing or does not belong together, as in a file of another version.
        """
        try:
            parts: dict[str, dict[str, Tensor]] = {name: {} for name in notes["answers"]}
            pictures: dict[int, Tensor] = {}
            for name, tensor in tensors.items():
                owner, _, part = name.rpartition("/")
                if owner == "pictures":
                    pictures[int(part)] = tensor
                else:
                    parts[owner][part] = tensor
            course = notes["history"]
            return cls(
                answers={name: from_tensors(own) for name, own in parts.items()},
                pictures=pictures,
                classes=tuple(notes["classes"]),
                groups=tuple(notes["groups"]),
                layers=tuple(LayerCost(c["layer"], c["dense"], tuple(c["members"])) for c in notes["layers"]),
                history=History(tuple(course["losses"]), tuple(course["seconds"]), course["samples_seen"]),
                passed=tuple(notes["passed"]),
                metrics=notes["metrics"],
            )
        except (KeyError, TypeError, ValueError) as problem:
            raise SubnetSearchError(f"what the report is drawn from cannot be read ({problem!r})") from problem


def evidence_of(
    answers: Mapping[str, Answers],
    test: Dataset[Any],
    ensemble: SubnetEnsemble,
    history: History,
    metrics: Mapping[str, Any],
    passed: tuple[str, ...] = (),
) -> Evidence:
    """Puts together what the figures of a run are drawn from.

    Args:
        answers: What `dense` and `ensemble` said on `test` and `ood/NAME`.
        test: The test images, raw; only those that are shown are read.
        ensemble: The trained ensemble.
        history: The course of its training.
        metrics: `{"dense": row, "ensemble": row}`.
        passed: Which of `network` and `images` were objects of Python.
    """
    shown = sorted({index for order in doubtful(answers["ensemble/test"]).values() for index in order})
    return Evidence(
        answers=answers,
        pictures={index: p for index in shown if (p := picture(test[index][0])) is not None},
        classes=ensemble.card.classes,
        groups=tuple(ensemble.graph.widths),
        layers=layer_costs(ensemble),
        history=history,
        passed=passed,
        metrics=digest_of(metrics),
    )


def doubtful(answers: Answers, count: int = PICTURES) -> dict[str, list[int]]:
    """Returns the samples with the highest `aleatoric` and the highest `epistemic` uncertainty, the highest first."""
    kinds = {"aleatoric": answers.aleatoric, "epistemic": answers.epistemic}
    return {name: doubt.argsort(descending=True, stable=True)[:count].tolist() for name, doubt in kinds.items()}


def picture(image: Tensor) -> Tensor | None:
    """Returns a raw image as one that can be shown, uint8 with at most `SIDE` pixels a side; None of no picture.

    Args:
        image: uint8 in 0..255 or floating point in [0, 1]; a picture where it is `[1 or 3, height, width]`.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        return None
    values = image.detach().cpu().float() / (255.0 if image.dtype == torch.uint8 else 1.0)
    size = [min(SIDE, max(1, round(n * SIDE / max(image.shape[1:])))) for n in image.shape[1:]]
    if max(image.shape[1:]) > SIDE:
        values = torch.nn.functional.interpolate(values[None], size, mode="area")[0]
    return values.clamp(0, 1).mul(255).round().to(torch.uint8)


def layer_costs(ensemble: SubnetEnsemble) -> tuple[LayerCost, ...]:
    """Returns what each layer costs, dense and in each member; the members' sum is `ensemble.macs()`."""
    graph, masks = ensemble.graph, ensemble.masks
    widths = [{name: kept[k] for name, kept in masks.widths.items()} for k in range(ensemble.members)]
    members = [layer_macs(graph, own, masks.left_out(k)) for k, own in enumerate(widths)]
    once = trunk_layers(graph, ensemble.config.trunk_share)
    dense = layer_macs(graph, {})
    return tuple(
        LayerCost(layer, cost, tuple(own[layer] for own in (members[:1] if layer in once else members)))
        for layer, cost in dense.items()
    )


def digest_of(metrics: Mapping[str, Any]) -> str:
    """Returns a digest of the figures of a run, which says whether evidence is of the same evaluation."""
    return hashlib.sha256(json.dumps(metrics, sort_keys=True).encode()).hexdigest()
