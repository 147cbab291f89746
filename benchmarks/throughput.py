"""What the package's loops cost beside bare PyTorch ones that do the same work.

    python -m benchmarks.throughput [loops | thin]

- Fine-tuning: images/s of `finetune` against a loop of forward, loss, backward and step over random tensors in memory,
  with the same ensemble, batch and precision: what data, augmentation, checkpoints and progress cost.
- Relevance: seconds of `ig` along the joint path against a loop of forward and backward over the same number of rows.
- Thin training: images/s of such a loop with thin members against the same with masked ones, on one thread. The
  seconds are those of the processor, as other work may take it away for a while.

Each is measured in turns, ours and bare, and the medians are compared, because other work may share the machine.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from benchmarks import cifar, rows
from subnet_search import (
    BudgetConfig,
    FinetuneConfig,
    RelevanceConfig,
    SearchConfig,
    SubnetEnsemble,
    allocate_quotas,
    find_groups,
    full_masks,
    load_backbone,
    load_data,
    score_relevance,
    search_masks,
)
from subnet_search.backbones import Backbone
from subnet_search.data import ArrayDataset
from subnet_search.device import autocast
from subnet_search.ensemble import Predictor, thinned
from subnet_search.finetune import finetune
from subnet_search.groups import GroupGraph
from subnet_search.provenance import current_commit, device_name, library_versions

TURNS = 5
BATCH, STEPS = 256, 20
THIN_TURNS, THIN_STEPS = 9, 6
SAMPLES, NODES = 64, 16
PARTS = ("loops", "thin")


def main(parts: Sequence[str]) -> None:
    """Measures all, or the named parts, and appends a row for each figure."""
    if not set(parts) <= set(PARTS):
        sys.exit(f"unknown parts {' '.join(parts)}, expected some of {' '.join(PARTS)}")
    backbone = load_backbone("resnet20", cifar.weights("resnet20"))
    data = load_data(cifar.npz("cifar10-test"), backbone.card)  # its images are timed, not learned: nothing is kept
    graph = find_groups(backbone.model, backbone.card.prepare(data.images[:2]))
    if "loops" in (parts or PARTS):
        _loops(backbone, data, graph)
    if "thin" in (parts or PARTS):
        torch.set_num_threads(1)
        for budget in (1.0, 2.0):
            _thin(backbone, graph, budget)


def _loops(backbone: Backbone, data: ArrayDataset, graph: GroupGraph) -> None:
    """Our loops beside bare ones."""
    quotas = allocate_quotas(graph, 4, BudgetConfig(budget=2.0))
    masks = search_masks(None, graph.widths, quotas, SearchConfig(algorithm="random"))
    cpu = torch.device("cpu")

    ensemble = SubnetEnsemble(backbone.model, graph, masks, backbone.card)
    subset = data.subset(range(BATCH * STEPS))
    config = FinetuneConfig(epochs=1, batch_size=BATCH, augment="crop-flip")
    ours, bare = [], []
    for _ in range(TURNS):
        ours.append(BATCH * STEPS / finetune(ensemble, subset, config).seconds[0])
        bare.append(_bare_training(ensemble, cpu))
    _append("fine-tuning, K = 4, split", statistics.median(ours), statistics.median(bare), "images/s")

    intact = SubnetEnsemble(backbone.model, graph, full_masks(graph.widths, 1), backbone.card)
    inner = [group.name for group in graph.groups if group.kind == "inner"]
    relevance = RelevanceConfig(path="joint", nodes=NODES, samples=SAMPLES)
    ours, bare = [], []
    for _ in range(TURNS):
        ours.append(score_relevance(intact, data, relevance, groups=inner).seconds)
        bare.append(_bare_gradients(intact, relevance.batch_rows, cpu))
    _append("relevance, ig, joint path", statistics.median(ours), statistics.median(bare), "seconds")


def _thin(backbone: Backbone, graph: GroupGraph, budget: float) -> None:
    """Thin members beside masked ones."""
    quotas = allocate_quotas(graph, 4, BudgetConfig(budget=budget))
    masks = search_masks(None, graph.widths, quotas, SearchConfig(algorithm="random"))
    models = {}
    for thin in (True, False):
        ensemble = SubnetEnsemble(backbone.model, graph, masks, backbone.card)
        ensemble.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stubs know only devices
        models[thin] = thinned(ensemble, thin)
    speeds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(THIN_TURNS + 1):
        for thin, model in models.items():
            began = time.process_time()
            _bare_training(model, torch.device("cpu"), THIN_STEPS)
            if turn:  # the first is to warm up
                speeds[thin].append(BATCH * THIN_STEPS / (time.process_time() - began))
    what = f"fine-tuning, K = 4, split, budget {budget:g}: thin members, masked ones"
    _append(what, statistics.median(speeds[True]), statistics.median(speeds[False]), "images/s", THIN_TURNS)


def _bare_training(ensemble: Predictor, device: torch.device, steps: int = STEPS) -> float:
    """Images/s of the smallest loop that trains the ensemble."""
    optimizer = torch.optim.SGD(ensemble.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    images = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (BATCH,))
    ensemble.train()
    began = time.perf_counter()
    for _ in range(steps):
        with autocast(device, "auto"):
            logits = ensemble(images, repeat=False)
        F.cross_entropy(logits.float().flatten(0, 1), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    ensemble.eval()
    return BATCH * steps / (time.perf_counter() - began)


def _bare_gradients(network: SubnetEnsemble, batch: int, device: torch.device) -> float:
    """Seconds of forward and backward, down to the first activation, over as many rows as the integral takes."""
    images = torch.randn(batch, 3, 32, 32)
    labels = torch.randint(10, (batch,))
    gate = torch.ones(1, 16, 1, 1, requires_grad=True)
    handle = network.network.get_submodule("bn1").register_forward_hook(lambda _, __, output: output * gate)
    began = time.perf_counter()
    for _ in range(SAMPLES * NODES // batch):
        with autocast(device, "auto"):
            logits = network(images, repeat=False)
        torch.autograd.grad(F.cross_entropy(logits.float().flatten(0, 1), labels), gate)
    handle.remove()
    return time.perf_counter() - began


def _append(what: str, ours: float, bare: float, unit: str, turns: int = TURNS) -> None:
    row = {"what": what, "ours": ours, "bare": bare, "unit": unit, "turns": turns}
    origin = {"commit": current_commit(), "versions": library_versions(), "device": device_name("cpu")}
    rows.append("throughput", row | origin)
    print(what, row)


if __name__ == "__main__":
    main(sys.argv[1:])
