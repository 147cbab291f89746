"""A Deep Ensemble of fully trained ResNets (Lakshminarayanan et al. 2017): the mark that an ensemble in one network is held to.

    for seed in 0 1 2 3; do python -m benchmarks.train_resnet --seed $seed; done
    python -m benchmarks.deep_ensemble
    python -m benchmarks.deep_ensemble --seeds 0 1    # what a cost of 2.0 is worth in independent networks
    python -m benchmarks.deep_ensemble --seeds 2 3

Its members are the networks of `benchmarks.train_resnet`, which differ in their seed alone: initial weights, order of the
images and crops. It costs as many dense networks as it has members, in training and in use. The row goes to
`results/main_job.jsonl`, beside those of ensembles that were cut from the first of them.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.progress import Progress

from benchmarks import cifar, main_job, rows
from subnet_search.backbones import load_backbone
from subnet_search.baselines.independent import IndependentEnsemble
from subnet_search.evaluate import EvaluateConfig, evaluate, result_row
from subnet_search.groups import find_groups
from subnet_search.provenance import device_name

METHOD = "deep_ensemble"


@dataclass(frozen=True)
class Members:
    """The members.

    Attributes:
        backbone: `resnet20-45k`, `resnet32-45k` or `resnet56-45k`.
        seeds: Seeds of `benchmarks.train_resnet`.
    """

    backbone: Literal["resnet20-45k", "resnet32-45k", "resnet56-45k"] = "resnet20-45k"
    seeds: tuple[int, ...] = (0, 1, 2, 3)


def main(members: Members) -> None:
    """Measures the ensemble on the test images, as `benchmarks.main_job` does."""
    name, size = cifar.architecture(members.backbone), len(set(members.seeds))
    if not size:
        sys.exit("no seeds are given, expected those of at least one network, as in --seeds 0 1 2 3")
    files = {seed: cifar.trained(members.backbone, seed) for seed in members.seeds}
    known = {row["network"]: row for row in rows.read("train_resnet")}
    if missing := [seed for seed, file in files.items() if not file.exists() or file.stem not in known]:
        commands = "; ".join(f"python -m benchmarks.train_resnet --backbone {name} --seed {seed}" for seed in missing)
        sys.exit(f"train the other members first: {commands}")
    measured = [(row["backbone"], row["method"], row["members"], row["seed"]) for row in rows.read("main_job")]
    if (members.backbone, METHOD, size, members.seeds[0]) in measured:
        sys.exit(
            f"there is a row already of {size} members of {members.backbone} that begin with seed {members.seeds[0]}"
        )
    first, *others = (known[file.stem] for file in files.values())
    alike = ("epochs", "learning_rate")
    if uneven := [row["network"] for row in others if any(row[key] != first[key] for key in alike)]:
        sys.exit(
            f"members are trained alike: {', '.join(uneven)} had other {' or '.join(alike)} than {first['network']}"
        )
    backbones = [load_backbone(name, file) for file in files.values()]
    card = backbones[0].card
    dense_macs = find_groups(backbones[0].model, torch.zeros(2, *card.input_shape)).dense_macs
    ensemble = IndependentEnsemble([backbone.model for backbone in backbones], card, size * dense_macs).eval()
    config = EvaluateConfig(precision="auto")
    began = time.perf_counter()
    with Progress(console=Console()) as progress:
        metrics = evaluate(
            ensemble,
            card=card,
            test=cifar.images("cifar10-test", card),
            validation=cifar.divided(card)[1],
            ood={name: cifar.images(name, card) for name in main_job.OOD},
            config=config,
            macs=ensemble.macs(),
            dense_macs=dense_macs,
            progress=progress,
        )
    row = result_row(
        method=METHOD,
        backbone=members.backbone,
        data="cifar10-train",
        seed=members.seeds[0],
        members=size,
        budget=float(size),
        epochs=first["epochs"],
        samples_seen=None,  # the trainings are rows of their own
        settings={"members": asdict(members), "evaluate": asdict(config)},
        metrics=metrics,
        device=device_name("cpu"),
        seconds=time.perf_counter() - began + sum(row["seconds"] for row in (first, *others)),
    )
    rows.append("main_job", row)


if __name__ == "__main__":
    main(tyro.cli(Members, description=__doc__))
