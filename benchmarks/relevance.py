"""What a relevance criterion is worth without any training: half of the inner channels cut, statistics recalibrated.

    python -m benchmarks.relevance

One network, no ensemble: the channels with the highest scores stay. Chance is five balanced random masks. Rows go to
`results/relevance.jsonl`; a criterion that has its row is not run again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
import tyro
from rich.console import Console

from benchmarks import cifar, rows
from subnet_search import (
    MaskSet,
    RelevanceConfig,
    SubnetEnsemble,
    find_groups,
    load_backbone,
    load_data,
    score_relevance,
    split,
)
from subnet_search.ensemble import recalibrate
from subnet_search.evaluate import Outputs, predict_dataset
from subnet_search.evaluate.classification import accuracy, negative_log_likelihood
from subnet_search.masks import full_masks
from subnet_search.provenance import current_commit, device_name, library_versions

CRITERIA = (
    RelevanceConfig(criterion="random"),
    RelevanceConfig(criterion="magnitude"),
    RelevanceConfig(criterion="taylor"),
    RelevanceConfig(criterion="fisher"),
    RelevanceConfig(criterion="ig", path="joint"),
    RelevanceConfig(criterion="ig", path="joint", power=2.0),
    RelevanceConfig(criterion="ig", path="sampled"),
    RelevanceConfig(criterion="ig", path="sampled", power=2.0),
    RelevanceConfig(criterion="singe", path="joint"),
    RelevanceConfig(criterion="ig", path="group"),
    RelevanceConfig(criterion="ig", path="group", power=2.0),
    RelevanceConfig(criterion="ig", path="group", power=2.0, labels=False),
    RelevanceConfig(criterion="singe", path="group"),
)


@dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes:
        backbone: `resnet20`, `resnet32` or `resnet56`.
        keep: Share of each inner group that stays.
        samples: Images that are scored.
        nodes: Nodes of the integrals.
        seeds: Seeds of images and masks; chance takes all of them, and criteria the first three.
    """

    backbone: str = "resnet20"
    keep: float = 0.5
    samples: int = 256
    nodes: int = 16
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


def main(settings: Settings) -> None:
    """Runs what has no row yet."""
    backbone = load_backbone(settings.backbone, cifar.weights(settings.backbone))
    train, validation = split(load_data(cifar.npz("cifar10-train"), backbone.card), 0.1)
    test = load_data(cifar.npz("cifar10-test"), backbone.card)
    graph = find_groups(backbone.model, backbone.card.prepare(train.images[:2]))
    inner = [group.name for group in graph.groups if group.kind == "inner"]
    intact = SubnetEnsemble(backbone.model, graph, full_masks(graph.widths, 1), backbone.card)
    for criterion in CRITERIA:
        for seed in settings.seeds if criterion.criterion == "random" else settings.seeds[:3]:
            config = dataclasses.replace(criterion, samples=settings.samples, nodes=settings.nodes, seed=seed)
            asked = {"relevance": dataclasses.asdict(config), "keep": settings.keep, "backbone": settings.backbone}
            if any(row["settings"] == asked for row in rows.read("relevance")):
                continue
            relevance = score_relevance(intact, train, config, groups=inner, dense=backbone.model)
            masks = {name: torch.ones(1, width, dtype=torch.bool) for name, width in graph.widths.items()}
            for name in inner:
                order = relevance.scores[name][0].argsort(descending=True)
                masks[name][0, order[round(settings.keep * len(order)) :]] = False
            pruned = SubnetEnsemble(backbone.model, graph, MaskSet(masks, "top", seed), backbone.card)
            recalibrate(pruned, train, seed=seed)
            row = {
                "settings": asked,
                "seed": seed,
                "seconds": relevance.seconds,
                "completeness": relevance.completeness,
                "completeness_image": relevance.completeness_image,
                "validation": _figures(predict_dataset(pruned, validation, backbone.card, precision="auto")),
                "test": _figures(predict_dataset(pruned, test, backbone.card, precision="auto")),
                "commit": current_commit(),
                "versions": library_versions(),
                "device": device_name("cpu"),
            }
            rows.append("relevance", row)
            Console().print(
                config.criterion, config.path, config.power, seed, row["test"], f"{relevance.seconds:.1f} s"
            )


def _figures(outputs: Outputs) -> dict[str, float]:
    mean = outputs.member_probabilities.mean(dim=0)
    return {"Acc": accuracy(mean, outputs.labels), "NLL": negative_log_likelihood(mean, outputs.labels)}


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
