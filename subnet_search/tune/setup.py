"""What all trials of a worker have in common: network, images, and what was computed before."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from accelerate import Accelerator
from rich.progress import Progress
from torch import nn

from subnet_search.backbones import Backbone
from subnet_search.data import load_data
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import evaluate
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.inputs import (
    Splits,
    check_logits,
    check_splits,
    evaluation_digests,
    example_of,
    open_backbone,
    open_splits,
    training_digests,
)
from subnet_search.processes import open_accelerator
from subnet_search.settings import RunConfig
from subnet_search.stages import settled
from subnet_search.tune.cache import Cache
from subnet_search.tune.config import TuneConfig
from subnet_search.tune.space import Dimension, dimensions


@dataclass(frozen=True)
class TuneSetup:
    """What all trials of a worker have in common.

    Attributes:
        config: Settings of the study.
        backbone: The trained network, on the device of the worker.
        graph: Its channel groups.
        splits: Training and validation images; `ood` holds nothing but the set to choose by. There are no test images.
        accelerator: Device of the worker.
        progress: Bar to report to.
    """

    config: TuneConfig
    backbone: Backbone
    graph: GroupGraph
    splits: Splits
    accelerator: Accelerator
    progress: Progress | None = None

    @cached_property
    def inputs(self) -> dict[str, str]:
        """What tells network and images from others: digests, and the card in words."""
        return inputs_of(self.backbone, self.splits)

    @cached_property
    def cache(self) -> Cache:
        """What trials have computed before, on a device of this kind."""
        return Cache(self.config.out / "cache", {**self.inputs, "device": self.accelerator.device.type})

    @cached_property
    def own(self) -> RunConfig:
        """The job's own settings, with what they leave open; that they cannot work, their trial says."""
        run = self.config.run()
        with suppress(SubnetSearchError):
            return settled(run, self.graph)
        return dataclasses.replace(run, ensemble=dataclasses.replace(run.ensemble, head="shared", trunk=0.0))

    @cached_property
    def space(self) -> tuple[Dimension, ...]:
        """What is searched."""
        return dimensions(self.config.space, self.own, self.graph)

    @property
    def ood(self) -> str:
        """Name of the OOD set to choose by; empty where there is none."""
        return next(iter(self.splits.ood), "")

    @property
    def evaluated(self) -> dict[str, Any]:
        """The settings that decide figures, beside the network."""
        return {"precision": self.config.evaluate.precision, "ood": list(self.splits.ood)}

    def dense_figures(self) -> dict[str, Any]:
        """Returns the figures of the dense network on the validation images."""
        return self.cache.figures({"dense": self.evaluated}, lambda: self.figures(self.backbone.model))

    def figures(self, network: nn.Module) -> dict[str, Any]:
        """Returns the figures of the dense network or an ensemble on the validation images."""
        ensemble = network if isinstance(network, SubnetEnsemble) else None
        return evaluate(
            network,
            card=self.backbone.card,
            test=self.splits.validation,
            ood=self.splits.ood,
            config=dataclasses.replace(self.config.evaluate, latency_repeats=0, shift_samples=0),
            macs=ensemble.macs() if ensemble else self.graph.dense_macs,
            dense_macs=self.graph.dense_macs,
            iou=ensemble.masks.mean_iou() if ensemble else None,
            progress=self.progress,
        )


def inputs_of(backbone: Backbone, splits: Splits) -> dict[str, str]:
    """Tells apart what the trials of a study depend on.

    Args:
        backbone: The trained network.
        splits: The images, all of which are read.

    Returns:
        `network`, `training set`, `validation set`, `OOD set NAME` where there is one → SHA-256; `card` → its words.
    """
    card = str(sorted(backbone.card.to_dict().items()))
    return {**training_digests(backbone, splits), **evaluation_digests(splits), "card": card}


def open_setup(
    config: TuneConfig,
    backbone: Backbone | None = None,
    splits: Splits | None = None,
    accelerator: Accelerator | None = None,
    progress: Progress | None = None,
) -> TuneSetup:
    """Loads network and images, and finds the network's groups.

    Args:
        config: Settings of the study.
        backbone: A network of the caller's own, instead of the one that `config.network` names.
        splits: Images of the caller's own; test images are not touched, of the OOD sets the one that
            `config.choose_ood` names is taken.
        accelerator: Device; by default accelerate's own choice.
        progress: Bar to report to.

    Raises:
        SubnetSearchError: where network or images are wrong, or there are several processes, which would all run the
            same trial.
    """
    accelerator = accelerator or open_accelerator()
    if accelerator.num_processes > 1:
        raise SubnetSearchError(
            f"a study was started on {accelerator.num_processes} processes of one training; start it once, with --workers {accelerator.num_processes}"
        )
    backbone = backbone or open_backbone(config.network)
    name, _, source = (config.choose_ood or "").partition("=")
    if splits is None:
        chosen = (config.choose_ood,) if config.choose_ood else ()
        splits = open_splits(dataclasses.replace(config.images, test=None, ood=chosen), backbone.card)
    elif source:
        ood = load_data(source, backbone.card, resize=config.images.resize, labelled=False)
        splits = dataclasses.replace(splits, ood={name: ood})
    elif name and name not in splits.ood:
        raise SubnetSearchError(f"choose_ood is {name!r}, expected NAME=SOURCE or one of {', '.join(splits.ood)}")
    else:
        splits = dataclasses.replace(splits, ood={name: splits.ood[name]} if name else {})
    splits = dataclasses.replace(splits, test=None)
    check_splits(splits, backbone.card)
    graph = find_groups(backbone.model, example_of(splits.train, backbone.card))
    check_logits(graph, backbone.card)
    backbone.model.to(accelerator.device)
    return TuneSetup(config, backbone, graph, splits, accelerator, progress)
