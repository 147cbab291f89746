"""All figures of one network, and what must not change them."""

import time
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from subnet_search.backbones.card import Card
from subnet_search.ensemble import free_energy
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.evaluate import EvaluateConfig, evaluate
from subnet_search.evaluate.figures import (
    aleatoric_figures,
    diversity_figures,
    ood_set_figures,
    prediction_figures,
)
from subnet_search.evaluate.keys import CRITERIA, FIGURES, is_key
from subnet_search.evaluate.outputs import Outputs, predict_dataset

CARD = Card("toy", (1, 2, 2), ("a", "b", "c"))
QUICK = EvaluateConfig(batch_size=16, latency_batch=4, latency_repeats=1)
DOCUMENTED = {
    *("cls/Acc", "cls/NLL", "cls/Brier", "cls/NLL_TS", "cal/ECE", "cal/ECE_TS"),
    *("sc/AURC", "sc/AUGRC", "sc/Cov@5Risk", "sc/ErrAUROC", "aleatoric/Spearman"),
    *("ens/MemberAcc", "ens/Disagreement", "ens/ErrCorr", "ens/KL", "ens/IoU"),
    *("cplx/MACs", "cplx/MACsRatio", "cplx/Params", "cplx/LatencyMs"),
}


class Heads(nn.Module):
    """K linear classifiers; a single network where K is None."""

    def __init__(self, members: int | None, seed: int = 0) -> None:
        super().__init__()
        self.members = members
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(2 * torch.randn(members or 1, 4, 3, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        logits = x.flatten(1) @ self.weight
        return logits[0] if self.members is None else logits


def dataset(samples: int, seed: int, shift: float = 0.0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    images = (torch.rand(samples, 1, 2, 2, generator=generator) + shift).clamp(0, 1)
    return TensorDataset(images, torch.randint(0, 3, (samples,), generator=generator))


def random_outputs(members: int, samples: int, classes: int, seed: int = 0) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (samples,), generator=generator)
    logits = torch.randn(members, samples, classes, generator=generator)
    logits += 2 * torch.nn.functional.one_hot(labels, classes)
    return Outputs(logits.softmax(dim=2), labels, free_energy(logits))


def test_the_keys_are_those_documented_and_all_there() -> None:
    found = evaluate(
        Heads(3),
        card=CARD,
        test=dataset(60, 0),
        validation=dataset(40, 1),
        ood={"far": dataset(30, 2, 0.5)},
        config=QUICK,
        macs=24,
        dense_macs=12,
        iou=0.25,
        human_counts=torch.randint(1, 9, (60, 3), generator=torch.Generator().manual_seed(3)),
    )
    ood = {f"ood/far/{figure}/{score}" for figure in ("AUROC", "AUPR", "FPR95") for score in CRITERIA}
    limits = {f"refuse/{score}" for score in ("max_probability", "total", "epistemic", "energy")}
    assert set(found) == DOCUMENTED | ood | limits
    assert [key for key, value in found.items() if value is None] == []
    assert found["cplx/MACsRatio"] == 2.0
    assert found["cplx/Params"] == 36
    assert found["ens/IoU"] == 0.25


def test_what_was_not_given_is_absent() -> None:
    found = evaluate(Heads(2), card=CARD, test=dataset(50, 0), config=EvaluateConfig(latency_repeats=0), dense_macs=12)
    absent = {key for key, value in found.items() if value is None}
    given_only = {"cls/NLL_TS", "cal/ECE_TS", "aleatoric/Spearman", "ens/IoU"}
    assert absent == given_only | {"cplx/MACs", "cplx/MACsRatio", "cplx/LatencyMs"}
    assert set(found) == DOCUMENTED


def test_shift_adds_its_keys_and_changes_no_other() -> None:
    options = {"card": CARD, "test": dataset(50, 0), "validation": dataset(40, 1), "macs": 12}
    plain = evaluate(Heads(2), config=EvaluateConfig(latency_repeats=0), **options)
    shifted = evaluate(Heads(2), config=EvaluateConfig(latency_repeats=0, shift_samples=20), **options)
    added = set(shifted) - set(plain)
    assert len(added) == 75
    assert all(key.startswith("shift/") and is_key(key) and shifted[key] is not None for key in added)
    assert {key: shifted[key] for key in plain} == plain


def test_what_is_no_picture_is_refused_before_any_pass() -> None:
    network = Heads(2)
    network.forward = lambda _: pytest.fail("a pass")  # type: ignore[method-assign, assignment]
    card = Card("toy", (2, 2, 1), ("a", "b", "c"))
    with pytest.raises(SubnetSearchError, match=r"'toy': samples have shape \(2, 2, 1\), only pictures"):
        evaluate(network, card=card, test=dataset(8, 0), config=EvaluateConfig(shift_samples=4))


def test_one_member_equals_the_single_network_in_every_figure() -> None:
    def run(members: int | None) -> dict[str, float | None]:
        return evaluate(
            Heads(members),
            card=CARD,
            test=dataset(60, 0),
            validation=dataset(40, 1),
            ood={"far": dataset(30, 2, 0.5)},
            config=EvaluateConfig(latency_repeats=0),
            macs=12,
            dense_macs=12,
            iou=1.0,
        )

    single = run(None)
    assert run(1) == single
    assert all(single[key] is None for key in single if key.startswith("ens/") or key.endswith(("/mi", "/epistemic")))
    assert single["ood/far/AUROC/entropy"] is not None


def test_copies_of_one_network_are_worth_as_much_as_it() -> None:
    one = random_outputs(1, 80, 4)
    copies = Outputs(one.member_probabilities.expand(3, 80, 4), one.labels)
    assert prediction_figures(copies) == pytest.approx(prediction_figures(one))
    found = diversity_figures(copies, 1.0)
    assert (found["ens/Disagreement"], found["ens/ErrCorr"]) == (0.0, pytest.approx(1.0))
    assert found["ens/MemberAcc"] == pytest.approx(prediction_figures(one)["cls/Acc"])


def test_batch_size_and_order_change_nothing() -> None:
    test, order = dataset(60, 0), torch.randperm(60, generator=torch.Generator().manual_seed(5))
    shuffled = TensorDataset(*(tensor[order] for tensor in test.tensors))
    options = {"card": CARD, "validation": dataset(40, 1), "ood": {"far": dataset(30, 2, 0.5)}}
    first = evaluate(Heads(3), test=test, config=EvaluateConfig(batch_size=7, latency_repeats=0), **options)
    second = evaluate(Heads(3), test=shuffled, config=EvaluateConfig(batch_size=60, latency_repeats=0), **options)
    assert first == pytest.approx(second, abs=1e-6)


def test_mean_probabilities_are_scored_and_not_mean_logits() -> None:
    members = torch.tensor([[[0.98, 0.02]], [[0.3, 0.7]]], dtype=torch.float32)
    found = prediction_figures(Outputs(members, torch.tensor([0])))
    assert found["cls/NLL"] == pytest.approx(0.4462871, abs=1e-6)  # −log 0.64


def test_the_temperature_comes_from_validation() -> None:
    test, validation = random_outputs(2, 300, 4), random_outputs(2, 300, 4, seed=1)
    found, other = prediction_figures(test, validation), prediction_figures(test, test)
    assert found["cls/NLL"] == other["cls/NLL"]
    assert found["cls/NLL_TS"] > other["cls/NLL_TS"]


def test_ten_thousand_samples_take_well_under_a_second_a_figure() -> None:
    test = random_outputs(4, 10_000, 100)
    start = time.perf_counter()
    prediction_figures(test, test)
    diversity_figures(test)
    ood_set_figures(test, test, "same")
    aleatoric_figures(test, torch.rand(10_000, 100, generator=torch.Generator().manual_seed(0)))
    assert time.perf_counter() - start < 10.0  # about one second on an idle core


def test_unlabelled_test_samples_are_refused_but_fine_as_ood() -> None:
    unlabelled = TensorDataset(torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.full((8,), -1))
    with pytest.raises(SubnetSearchError, match=r"8 of 8 labels are outside 0\.\.2"):
        evaluate(Heads(2), card=CARD, test=unlabelled, config=QUICK)
    assert (
        evaluate(Heads(2), card=CARD, test=dataset(8, 0), ood={"u": unlabelled}, config=QUICK)["ood/u/AUROC/mi"]
        is not None
    )


def test_a_name_that_would_break_the_key_is_refused() -> None:
    with pytest.raises(SubnetSearchError, match="expected a name without '/'"):
        evaluate(Heads(2), card=CARD, test=dataset(8, 0), ood={"a/b": dataset(8, 1)}, config=QUICK)


def test_outputs_of_different_networks_are_not_compared() -> None:
    with pytest.raises(SubnetSearchError, match="outputs of 3 members, the test set of 2"):
        ood_set_figures(random_outputs(2, 5, 3), random_outputs(3, 5, 3), "far")


def test_a_criterion_that_one_of_the_sets_has_no_scores_by_is_absent() -> None:
    known, unknown = random_outputs(2, 5, 3), replace(random_outputs(2, 5, 3), energy=None)
    assert ood_set_figures(known, known, "far")["ood/far/AUROC/energy"] == pytest.approx(0.5)
    for test, outside in ((known, unknown), (unknown, known)):
        found = ood_set_figures(test, outside, "far")
        assert {key for key, value in found.items() if value is None} == {f"ood/far/{f}/energy" for f in FIGURES}


def test_impossible_costs_are_refused() -> None:
    with pytest.raises(SubnetSearchError, match=r"iou is 1\.5"):
        evaluate(Heads(2), card=CARD, test=dataset(8, 0), iou=1.5)
    with pytest.raises(SubnetSearchError, match="dense_macs 0, expected positive"):
        evaluate(Heads(2), card=CARD, test=dataset(8, 0), dense_macs=0)
    with pytest.raises(SubnetSearchError, match=r"evaluate\.batch_size is 0, expected at least 1"):
        EvaluateConfig(batch_size=0)
    with pytest.raises(SubnetSearchError, match=r"evaluate\.shift_samples is -1, expected at least 0"):
        EvaluateConfig(shift_samples=-1)


def test_what_the_network_said_can_be_kept_of_the_same_passes() -> None:
    network, test, far, near = Heads(3), dataset(20, 0), dataset(10, 1), dataset(12, 2)
    passes: list[int] = []
    network.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    seen: dict[str, Outputs] = {}
    config = EvaluateConfig(latency_repeats=0)
    evaluate(network, card=CARD, test=test, ood={"far": far, "near": near}, config=config, seen=seen.__setitem__)
    assert passes == [20, 10, 12]
    assert list(seen) == ["test", "ood/far", "ood/near"]
    for name, images in (("test", test), ("ood/far", far), ("ood/near", near)):
        expected = predict_dataset(network, images, CARD)
        assert torch.equal(seen[name].member_probabilities, expected.member_probabilities)
    assert torch.equal(seen["test"].labels, test.tensors[1])
    assert seen["ood/far"].labels.unique().tolist() == [-1]  # theirs may be of other classes
