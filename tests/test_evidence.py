"""What is kept for the report: small, exact and refused where it is something else."""

import pytest
import torch

from subnet_search.backbones import load_backbone
from subnet_search.data import ArrayDataset
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import Outputs, answers_of
from subnet_search.evidence import Evidence, digest_of, doubtful, evidence_of, layer_costs, picture
from subnet_search.finetune import History
from subnet_search.groups import find_groups
from subnet_search.run_folder import RunFolder
from subnet_search.search import BudgetConfig, SearchConfig, allocate_quotas, search_masks

METRICS = {"dense": {"a": 1.5}, "ensemble": {"a": None}}


def ensemble(trunk: float = 0.0) -> SubnetEnsemble:
    backbone = load_backbone("digits", "random")
    graph = find_groups(backbone.model, torch.zeros(2, 1, 8, 8))
    quotas = allocate_quotas(graph, 3, BudgetConfig(2.5), trunk=trunk)
    masks = search_masks(None, graph.widths, quotas, SearchConfig("random"))
    return SubnetEnsemble(backbone.model, graph, masks, backbone.card, EnsembleConfig(trunk=trunk))


def evidence() -> tuple[Evidence, ArrayDataset]:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 8, 8), generator=draw, dtype=torch.uint8)
    test = ArrayDataset(images, torch.randint(0, 10, (60,), generator=draw))
    answers = {
        name: answers_of(Outputs(torch.randn(k, 60, 10, generator=draw).softmax(2), test.labels))
        for name, k in (("dense/test", 1), ("ensemble/test", 3), ("dense/ood/far", 1), ("ensemble/ood/far", 3))
    }
    history = History((2.0, 1.0), (0.5, 0.25), 120)
    return evidence_of(answers, test, ensemble(), history, METRICS, ("images",)), test


def test_it_comes_back_from_the_folder(tmp_path) -> None:
    kept, test = evidence()
    folder = RunFolder(tmp_path)
    assert folder.evidence() is None
    folder.save_evidence(kept)
    back = folder.evidence()
    assert back is not None
    assert (back.classes, back.groups, back.layers, back.history) == (
        kept.classes,
        kept.groups,
        kept.layers,
        kept.history,
    )
    assert (back.passed, back.metrics) == (("images",), digest_of(METRICS))
    assert list(back.answers) == list(kept.answers)
    for name, answers in kept.answers.items():
        assert all(torch.equal(part, back.answers[name].tensors()[key]) for key, part in answers.tensors().items())
    for index, shown in back.pictures.items():
        assert torch.equal(shown, test.images[index])
    assert (tmp_path / "evidence.safetensors").stat().st_size < 100 * 4 * 60 + 64 * 16 + 8000


def test_the_images_are_those_with_the_most_doubt() -> None:
    kept, _ = evidence()
    answers = kept.answers["ensemble/test"]
    orders = doubtful(answers)
    assert set(kept.pictures) == {index for order in orders.values() for index in order}
    for kind, order in orders.items():
        doubt = getattr(answers, kind)
        assert len(order) == 8
        assert doubt[order].tolist() == sorted(doubt.tolist(), reverse=True)[:8]


@pytest.mark.parametrize("trunk", [0.0, 0.4])
def test_costs_of_the_layers_add_up(trunk) -> None:
    network = ensemble(trunk)
    costs = layer_costs(network)
    assert sum(sum(cost.members) for cost in costs) == network.macs()
    assert sum(cost.dense for cost in costs) == network.graph.dense_macs
    assert {len(cost.members) for cost in costs} == ({1, 3} if trunk else {3})


def test_images_are_shown_as_they_are_or_reduced() -> None:
    exact = torch.arange(192, dtype=torch.uint8).view(3, 8, 8)
    assert torch.equal(picture(exact), exact)
    assert torch.equal(picture(exact / 255), exact)
    assert torch.equal(picture(torch.full((1, 4, 4), 1.00005)), torch.full((1, 4, 4), 255, dtype=torch.uint8))
    assert picture(torch.zeros(3, 512, 256, dtype=torch.uint8)).shape == (3, 128, 64)
    assert picture(torch.zeros(1, 5, 4000)).shape == (1, 1, 128)
    assert picture(torch.zeros(7)) is None
    assert picture(torch.zeros(4, 8, 8)) is None


def test_evidence_of_another_version_is_refused() -> None:
    kept, _ = evidence()
    with pytest.raises(SubnetSearchError, match="cannot be read"):
        Evidence.of(kept.tensors(), {**kept.notes(), "layers": [{"layer": "a"}]})
    with pytest.raises(SubnetSearchError, match="cannot be read"):
        Evidence.of({"other/test/votes": torch.zeros(1)}, kept.notes())
    with pytest.raises(SubnetSearchError, match="cannot be read"):
        Evidence.of(kept.tensors(), {})
