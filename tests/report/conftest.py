"""Runs and comparisons that nobody computed, and two that were."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from subnet_search.backbones import load_backbone
from subnet_search.compare import CompareConfig
from subnet_search.data import ArrayDataset
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.evaluate import EvaluateConfig, Outputs, answers_of, result_row
from subnet_search.evaluate.figures import diversity_figures, ood_set_figures, prediction_figures
from subnet_search.evaluate.keys import FIXED_KEYS
from subnet_search.evidence import evidence_of
from subnet_search.files import write_json
from subnet_search.finetune import FinetuneConfig, History
from subnet_search.groups import find_groups
from subnet_search.pipeline import run
from subnet_search.plots.front import Axis, Mark, front
from subnet_search.plots.page import NARROW, WIDTH
from subnet_search.relevance import Relevance, RelevanceConfig
from subnet_search.report import write_study_report
from subnet_search.report.page import Drawing
from subnet_search.report.study_report import StudyContent, TrialLine
from subnet_search.run_folder import RunFolder
from subnet_search.search import SearchConfig, allocate_quotas, search_masks
from subnet_search.settings import BackboneConfig, DataConfig, RunConfig, to_dict

OOD = ("svhn", "noise")


METHODS = (
    *("msp", "mc_dropout", "deep_ensemble_finetuned", "bagging", "stochastic_depth", "depth_masks", "masksembles"),
    *("random", "mimo", "search", "search+stochastic_depth"),
)


@dataclass(frozen=True)
class MadeUp:
    rows: list[dict[str, Any]]
    curves: list[dict[str, Any]]


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run on the digits with hardly any training; tests leave it as it is."""
    config = RunConfig(
        out=tmp_path_factory.mktemp("digits") / "run",
        members=3,
        relevance=RelevanceConfig(samples=16, nodes=2, precision="fp32"),
        finetune=FinetuneConfig(epochs=2, precision="fp32"),
        evaluate=EvaluateConfig(latency_repeats=0),
    )
    return run(config).folder


def said(members: int, samples: int, sureness: float, draw: torch.Generator) -> Outputs:
    """Members that are right more often the surer they are."""
    labels = torch.randint(0, 10, (samples,), generator=draw)
    logits = torch.randn(members, samples, 10, generator=draw) + torch.randn(samples, 10, generator=draw)
    return Outputs((logits + sureness * torch.nn.functional.one_hot(labels, 10)).softmax(dim=2), labels)


@pytest.fixture(scope="session")
def made_up_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunFolder]:
    """Makes the folder of a run: the groups are those of the network, what it said is drawn at random."""

    def make(network: str = "resnet20", samples: int = 500, members: int = 4, **changes: Any) -> RunFolder:
        draw = torch.Generator().manual_seed(0)
        out = tmp_path_factory.mktemp(network) / "run"
        sources = DataConfig("npz:train.npz", "npz:test.npz", tuple(f"{name}=npz:{name}.npz" for name in OOD))
        settings = {"members": members, "network": BackboneConfig(network, Path("weights.th")), "images": sources}
        config = RunConfig(out=out, **{**settings, **changes})
        backbone = load_backbone(network, "random")
        graph = find_groups(backbone.model, torch.zeros(2, 3, 32, 32))
        quotas = allocate_quotas(graph, members, config.budget)
        masks = search_masks(None, graph.widths, quotas, SearchConfig("random"))
        ensemble = SubnetEnsemble(backbone.model, graph, masks, backbone.card)
        scores = {name: torch.rand(members, width, generator=draw) ** 3 for name, width in graph.widths.items()}
        folder = RunFolder.open(config, {"network": "1", "training set": "2"})
        folder.save_masks(masks)
        folder.save_relevance(Relevance(scores, "ig", samples=256))
        answers, metrics = {}, {}
        for name, count in (("dense", 1), ("ensemble", members)):
            tested = said(count, samples, 3.0 if name == "dense" else 4.0, draw)
            answers[f"{name}/test"] = answers_of(tested)
            found: dict[str, float | None] = dict.fromkeys(FIXED_KEYS)
            found |= prediction_figures(tested) | diversity_figures(tested, masks.mean_iou())
            for number, far in enumerate(OOD):
                outside = said(count, samples, 1.0 - number, draw)
                answers[f"{name}/ood/{far}"] = answers_of(outside)
                found |= ood_set_figures(tested, outside, far)
            macs = graph.dense_macs if count == 1 else ensemble.macs()
            found |= {"cplx/MACs": macs, "cplx/MACsRatio": macs / graph.dense_macs, "cplx/Params": 270_000}
            metrics[name] = result_row(
                method=name if name == "dense" else "search+random",
                backbone=network,
                data="npz:train.npz",
                seed=0,
                members=count,
                budget=None if name == "dense" else 2.0,
                epochs=None if name == "dense" else 10,
                samples_seen=None if name == "dense" else 500_000,
                settings=to_dict(config),
                metrics=found,
                device="cpu: none",
                seconds=1.0,
            )
        images = ArrayDataset(
            torch.randint(0, 256, (samples, 3, 32, 32), generator=draw, dtype=torch.uint8),
            answers["dense/test"].labels.long(),
        )
        history = History((1.2, 0.8, 0.7), (5.0, 5.0, 5.0), 500_000)
        folder.save_evidence(evidence_of(answers, images, ensemble, history, metrics))
        write_json(folder.metrics_file, metrics)
        return folder

    return make


@pytest.fixture(scope="session")
def made_up_comparison() -> MadeUp:
    """Two seeds of each of eleven methods."""
    draw = random.Random(0)
    rows, curves = [], []
    config = to_dict(CompareConfig())
    for number, method in enumerate(METHODS):
        for seed in range(1 if method == "msp" else 2):
            right = 0.9 + 0.005 * number + draw.gauss(0, 0.002)
            found: dict[str, float | None] = dict.fromkeys(FIXED_KEYS)
            found |= {"cls/Acc": right, "cls/NLL": 0.4 - 0.01 * number, "cal/ECE": 0.03, "sc/AURC": (1 - right) / 8}
            found |= {"cls/Brier": 0.1, "sc/AUGRC": 0.02, "sc/Cov@5Risk": 0.9, "cplx/MACsRatio": 1.0 + number % 4}
            found |= {"cplx/MACs": 1_000_000 * (1 + number % 4), "ood/svhn/AUROC/entropy": right - draw.random() / 20}
            row = result_row(
                method=method,
                backbone="net",
                data="npz:train.npz",
                seed=seed,
                members=1 if method == "msp" else 4,
                budget=None,
                epochs=10,
                samples_seen=None,
                settings={**config, "origin": "scratch" if method == "mimo" else "backbone"},
                metrics=found,
                device="cpu: none",
                seconds=1.0,
            )
            rows.append(row)
            bins = {
                "count": [0, 40, 60, 900],
                "confidence": [None, 0.4, 0.6, 0.95],
                "accuracy": [None, 0.5, 0.6, right],
            }
            risks = {"coverage": [0.5, 0.75, 1.0], "risk": [0.0, (1 - right) / 3, 1 - right]}
            curves.append({"method": method, "seed": seed, "settings": "", "reliability": bins, "risk_coverage": risks})
    return MadeUp(rows, curves)


@pytest.fixture(scope="session")
def made_up_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study of three objectives."""
    draw = random.Random(0)
    lower = {"nll": True, "ood_auroc": False, "macs": True}
    trials = []
    for number in range(20):
        values = {"nll": draw.uniform(0.2, 0.5), "ood_auroc": draw.uniform(0.7, 0.95), "macs": draw.uniform(0.5, 4)}
        role = "default" if number == 0 else "search"
        budget = 2 * draw.random()
        words = {"members": "4", "budget": f"{budget:.3g} (3.9 asked)"}
        trials.append(TrialLine(number, role, values, {"members": 4, "budget": budget}, words, number % 3 == 0))
    axes = [Axis("negative log likelihood", True), Axis("AUROC", False), Axis("MACs", True)]
    marks = [Mark(str(t.number), t.role, tuple(t.values.values()), t.front) for t in trials]
    wide, narrow = (front("Front: net", axes, marks, (0.4, 0.8, 1.0), "n = 20", width) for width in (WIDTH, NARROW))
    assert wide is not None
    drawn = Drawing("front", "What can be had?", "Filled points are beaten by no other.", "A front of seven trials of twenty.", wide, [{"trial": 1}], narrow, True)  # fmt: skip
    content = StudyContent(
        title="net on data",
        lower=lower,
        labels={"nll": "surprise (NLL)", "ood_auroc": "foreign images (OOD AUROC)", "macs": "cost (MACs)"},
        trials=trials,
        dense={"nll": 0.4, "ood_auroc": 0.8, "macs": 1.0},
        counts={"full": 20, "stopped_early": 30},
        volume=0.4,
        importances={name: {"members": 0.6, "budget": 0.4} for name in lower},
        note="of 20 trials",
        drawings=[drawn],
        config=CompareConfig(),
        stored=False,
        versions={"python": "3"},
    )
    return write_study_report(tmp_path_factory.mktemp("study"), content)
