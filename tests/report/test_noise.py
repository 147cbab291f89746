import math

import pytest
import torch

from subnet_search.evaluate import Answers, Outputs, answers_of
from subnet_search.evaluate.figures import ood_set_figures, prediction_figures
from subnet_search.report.noise import _Ranked, _Tested, differences


def said(members: int, samples: int, sureness: float, seed: int) -> Outputs:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % 5
    logits = torch.randn(members, samples, 5, generator=draw) + sureness * torch.nn.functional.one_hot(labels, 5)
    return Outputs(logits.softmax(dim=2), labels)


def test_with_every_sample_once_the_figures_are_those_of_the_evaluation() -> None:
    tested, outside = said(3, 400, 2.0, 0), said(3, 300, 0.5, 1)
    once = torch.ones(400).double().numpy()
    found = _Tested(answers_of(tested)).figures(once)
    figures = prediction_figures(tested)
    assert found == {key: pytest.approx(figures[key], abs=1e-6) for key in ("cls/Acc", "cls/NLL", "cal/ECE")}
    area = _Ranked(answers_of(tested), answers_of(outside)).auroc(once, torch.ones(300).double().numpy())
    assert area == pytest.approx(ood_set_figures(tested, outside, "far")["ood/far/AUROC/entropy"], abs=1e-6)


def test_the_interval_of_the_accuracy_has_the_width_of_its_standard_error() -> None:
    one, other = answers_of(said(1, 2000, 1.0, 0)), answers_of(said(1, 2000, 1.2, 1))
    gain = (~other.errors).double() - (~one.errors).double()
    low, high = differences({"test": one}, {"test": other}, repeats=1000)["cls/Acc"]
    assert (low + high) / 2 == pytest.approx(float(gain.mean()), abs=0.003)
    assert high - low == pytest.approx(2 * 1.96 * float(gain.std()) / math.sqrt(2000), rel=0.1)


def test_a_network_does_not_differ_from_itself_and_a_better_one_does() -> None:
    same = {"test": answers_of(said(2, 300, 1.0, 0)), "ood/far": answers_of(said(2, 200, 0.2, 1))}
    assert differences(same, same) == dict.fromkeys(("cls/Acc", "cls/NLL", "cal/ECE", "ood"), (0.0, 0.0))
    better: dict[str, Answers] = {**same, "test": answers_of(said(2, 300, 4.0, 2))}
    found = differences(same, better)
    assert found["cls/Acc"][0] > 0
    assert found["cls/NLL"][1] < 0
    assert found["ood"][0] > 0
    assert differences(same, better) == found
    assert set(differences({"test": same["test"]}, {"test": better["test"]})) == {"cls/Acc", "cls/NLL", "cal/ECE"}
