"""Trains a ResNet on 45,000 images of CIFAR-10, so that the 5,000 that are held out are new to it.

    python -m benchmarks.train_resnet --backbone resnet20

The pretrained ResNets have seen all 50,000 training images. Settings that are chosen on held-out images then favour what
keeps much of the backbone, because it answers from memory (`search/README.md`). A network from here goes by the name
`resnet20-45k` in the other benchmarks. A killed training goes on where it was; the figures go to
`results/train_resnet.jsonl`, the weights to `weights/`. Those of other seeds are members of the Deep Ensemble of
`benchmarks.deep_ensemble`.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
import tyro
from rich.console import Console
from rich.progress import Progress

from benchmarks import cifar, rows
from benchmarks.markdown import markdown_table
from subnet_search.backbones import load_backbone
from subnet_search.baselines.independent import IndependentEnsemble
from subnet_search.data import ArrayDataset
from subnet_search.evaluate import EvaluateConfig, evaluate
from subnet_search.files import write_bytes
from subnet_search.finetune import FinetuneConfig, finetune
from subnet_search.provenance import current_commit, device_name, library_versions

RUNS = Path(__file__).parent / "runs"
FIGURES = ("cls/Acc", "cls/NLL", "cal/ECE")


@dataclass(frozen=True)
class Training:
    """The training.

    Attributes:
        backbone: `resnet20`, `resnet32` or `resnet56`.
        epochs: Epochs of 45,000 images.
        learning_rate: Peak of the one-cycle schedule.
        seed: Seed of the initial weights, the order and the crops.
        images: Only the first so many images of each set, to try the command; nothing is kept.

    Weights that are there are not trained again: rows of other benchmarks know them by their name alone.
    """

    backbone: Literal["resnet20", "resnet32", "resnet56"] = "resnet20"
    epochs: int = 40
    learning_rate: float = 0.1
    seed: int = 0
    images: int | None = None


def main(training: Training) -> None:
    """Trains, measures, and writes the weights."""
    console = Console()
    file = cifar.trained(f"{training.backbone}{cifar.HELD_OUT}", training.seed)
    name = file.stem
    if training.images is None and file.exists():
        sys.exit(f"{file} is there already; move it away to train {name} anew, and its rows with it")
    backbone = load_backbone(training.backbone, "random", seed=training.seed)
    train, held_out = cifar.divided(backbone.card, training.images)
    test = cifar.images("cifar10-test", backbone.card, training.images)
    config = FinetuneConfig(
        epochs=training.epochs,
        mode="independent",
        learning_rate=training.learning_rate,
        augment="crop-flip",
        seed=training.seed,
    )
    checkpoint = RUNS / f"{training.backbone}-45k-{training.epochs}-{training.seed}.pt"
    network = IndependentEnsemble([backbone.model], backbone.card, 1)
    with Progress(console=console) as progress:
        history = finetune(
            network, train, config, checkpoint=None if training.images else checkpoint, progress=progress
        )
    figures = {name: _figures(network, data) for name, data in (("held out", held_out), ("test", test))}
    console.print(figures)
    if training.images is not None:
        return
    weights = {key: tensor.contiguous() for key, tensor in backbone.model.state_dict().items()}
    write_bytes(file, safetensors.torch.save(weights))
    about = {"commit": current_commit(), "versions": library_versions(), "device": device_name("cpu")}
    rows.append(
        "train_resnet",
        {"network": name, **asdict(training), "seconds": sum(history.seconds), "figures": figures, **about},
    )


def table() -> str:
    """What the trained networks come to, on the images that they have not seen."""
    titles = ("network", "epochs", "images", "Acc %", "NLL", "ECE", "hours")
    lines = [
        [
            row["network"],
            str(row["epochs"]),
            name,
            f"{100 * figures['cls/Acc']:.2f}",
            *(f"{figures[key]:.3f}" for key in FIGURES[1:]),
            f"{row['seconds'] / 3600:.1f}",
        ]
        for row in rows.read("train_resnet")
        for name, figures in row["figures"].items()
    ]
    return markdown_table(titles, lines)


def _figures(network: IndependentEnsemble, data: ArrayDataset) -> dict[str, float | None]:
    found = evaluate(
        network,
        card=network.card,
        test=data,
        config=EvaluateConfig(precision="auto", latency_repeats=0),
        macs=1,
        dense_macs=1,
    )
    return {name: found[name] for name in FIGURES}


if __name__ == "__main__":
    main(tyro.cli(Training, description=__doc__))
