"""Figures under shift: which images are shown to the network, and what is made of its answers."""

from typing import Any

import pytest
import torch
from rich.progress import Progress
from torch.utils.data import Dataset, Subset, TensorDataset

from subnet_search.data.array_dataset import ArrayDataset
from subnet_search.data.corrupt import KINDS, SEVERITIES, corrupt
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.keys import is_key, shift_key
from subnet_search.evaluate.outputs import Outputs
from subnet_search.evaluate.shift import shift_figures


def pictures(count: int, shape: tuple[int, ...] = (1, 8, 8)) -> ArrayDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    return ArrayDataset(images, torch.randint(0, 2, (count,), generator=generator))


def brightness(dataset: Dataset[Any], _: str) -> Outputs:
    """A network with two members that agree: the mean of the image is the probability of class 1."""
    assert isinstance(dataset, ArrayDataset)
    bright = dataset.images.float().div(255).flatten(1).mean(dim=1)
    return Outputs(torch.stack([1 - bright, bright], dim=1).expand(2, -1, -1), dataset.labels)


def test_every_kind_and_severity_is_shown_once_and_scored() -> None:
    test, shown = pictures(30), []

    def predict(dataset: Dataset[Any], name: str) -> Outputs:
        shown.append((dataset, name))
        return brightness(dataset, name)

    found = shift_figures(test, 20, predict)
    evenly = [30 * place // 20 for place in range(20)]  # a test set may be sorted by class
    assert set(found) == {shift_key(k, s, f) for k in KINDS for s in SEVERITIES for f in ("Acc", "NLL", "ECE")}
    assert all(is_key(key) for key in found)
    cells = [(kind, severity) for kind in KINDS for severity in SEVERITIES]
    for (kind, severity), (dataset, name) in zip(cells, shown, strict=True):
        expected = corrupt(Subset(test, evenly), kind, severity)
        assert torch.equal(dataset.images, expected.images)
        assert torch.equal(dataset.labels, test.labels[evenly])
        assert name == f"{kind}, severity {severity}"
        probabilities = brightness(expected, "").member_probabilities[0]
        likelihood = torch.nn.functional.nll_loss(probabilities.log(), expected.labels)
        right = (probabilities.argmax(dim=1) == expected.labels).float().mean()
        assert found[shift_key(kind, severity, "NLL")] == pytest.approx(float(likelihood), abs=1e-5)
        assert found[shift_key(kind, severity, "Acc")] == pytest.approx(float(right))


def test_the_images_are_read_once() -> None:
    class Counted(TensorDataset):
        reads = 0

        def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
            self.reads += 1
            return super().__getitem__(index)

    test = Counted(pictures(9).images, pictures(9).labels)
    shift_figures(test, 6, brightness)
    assert test.reads == 6


def test_the_bar_counts_the_sets_and_goes() -> None:
    progress, steps = Progress(disable=True), []

    def predict(dataset: Dataset[Any], name: str) -> Outputs:
        (task,) = progress.tasks
        steps.append((task.description, task.completed, task.total))
        return brightness(dataset, name)

    shift_figures(pictures(4), 4, predict, progress)
    assert steps == [("evaluating: shift", n, 25) for n in range(25)]
    assert progress.tasks == []


def test_unlabelled_samples_are_refused() -> None:
    unlabelled = ArrayDataset(pictures(4).images, torch.full((4,), -1))
    with pytest.raises(SubnetSearchError, match=r"4 of 4 labels are outside 0\.\.1"):
        shift_figures(unlabelled, 4, brightness)


def test_messages_name_the_test_set_and_not_a_part_of_it() -> None:
    flat = ArrayDataset(torch.zeros(4, 6, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), "data flat.npz")
    with pytest.raises(SubnetSearchError, match=r"^data flat\.npz: samples have shape \(6,\)"):
        shift_figures(flat, 4, brightness)
    with pytest.raises(SubnetSearchError, match=r"^TensorDataset: samples have shape \(6,\)"):
        shift_figures(TensorDataset(flat.images, flat.labels), 4, brightness)
