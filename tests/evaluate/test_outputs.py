"""Running a network over a dataset."""

import pytest
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from subnet_search.backbones.card import Card
from subnet_search.ensemble.modes import eval_mode
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.outputs import Outputs, predict_dataset

CARD = Card("toy", (1, 2, 2), ("a", "b", "c"), mean=(0.5,), std=(0.25,))


class Pairs(Dataset[tuple[Tensor, int]]):
    """The plainest dataset: one (image, label) at a time."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


class Returns(nn.Module):
    """Gives back what a function makes of its input."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def data(samples: int = 7) -> Pairs:
    generator = torch.Generator().manual_seed(0)
    return Pairs(torch.rand(samples, 1, 2, 2, generator=generator), torch.arange(samples) % 3)


def linear() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_a_single_network_is_one_member_at_any_batch_size(batch_size: int) -> None:
    network, dataset = linear(), data()
    outputs = predict_dataset(network, dataset, CARD, batch_size)
    expected = network(CARD.prepare(dataset.images)).softmax(dim=1)
    assert outputs.members == 1
    assert outputs.member_probabilities.dtype == torch.float32
    torch.testing.assert_close(outputs.member_probabilities[0], expected.detach())
    logits = network(CARD.prepare(dataset.images)).detach()
    torch.testing.assert_close(outputs.energy, -logits.logsumexp(dim=1), check_dtype=False)
    assert torch.equal(outputs.labels, dataset.labels)


def test_members_keep_their_axis() -> None:
    network = linear()
    ensemble = Returns(lambda x: torch.stack([network(x), -network(x)]))
    outputs = predict_dataset(ensemble, data(), CARD, 3)
    assert outputs.member_probabilities.shape == (2, 7, 3)
    torch.testing.assert_close(
        outputs.member_probabilities[0], predict_dataset(network, data(), CARD).member_probabilities[0]
    )


def test_half_precision_logits_get_a_float32_softmax() -> None:
    network = linear()
    outputs = predict_dataset(network, data(), CARD, precision="bf16")
    assert outputs.member_probabilities.dtype == torch.float32
    torch.testing.assert_close(outputs.member_probabilities.sum(dim=2), torch.ones(1, 7))


def test_modes_are_left_as_they_were() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 3)).train()
    network[1].eval()
    first, second = predict_dataset(network, data(), CARD), predict_dataset(network, data(), CARD)
    assert torch.equal(first.member_probabilities, second.member_probabilities)
    assert [module.training for module in network.modules()] == [True, True, False, True]


def test_modes_are_restored_after_an_error() -> None:
    network = linear().train()
    with pytest.raises(RuntimeError, match="on purpose"), eval_mode(network):
        raise RuntimeError("on purpose")
    assert network.training


def test_broken_logits_are_counted_and_placed() -> None:
    def third_is_nan(x: Tensor) -> Tensor:
        logits = torch.zeros(2, len(x), 3)
        logits[1, 0, 1] = float("nan")
        return logits

    with pytest.raises(SubnetSearchError, match=r"OOD set 'svhn': the logits of 3 of 7 samples are NaN or infinite"):
        predict_dataset(Returns(third_is_nan), data(), CARD, 3, stage="OOD set 'svhn'")


def test_minus_infinity_is_broken_too() -> None:
    with pytest.raises(SubnetSearchError, match="the logits of 7 of 7 samples"):
        predict_dataset(Returns(lambda x: torch.tensor([[0.0, 0.0, -torch.inf]]).expand(len(x), 3)), data(), CARD)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: (x,), r"returned a tuple, expected a tensor of logits"),
        (lambda x: x, r"returned shape \(7, 1, 2, 2\) for 7 samples"),
        (lambda x: x.new_zeros(2, 3, 3), r"returned shape \(2, 3, 3\) for 7 samples"),
        (lambda x: x.new_zeros(14, 3), r"returned shape \(14, 3\) for 7 samples"),
        (lambda x: x.new_zeros(7, 5), r"returned 5 logits a sample, its card names 3 classes"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(function, message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        predict_dataset(Returns(function), data(), CARD)


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(SubnetSearchError, match="validation: the dataset has no samples"):
        predict_dataset(linear(), data(0), CARD, stage="validation")


def test_any_map_style_dataset_works() -> None:
    pairs = data()
    tensors = TensorDataset(pairs.images, pairs.labels)
    same = predict_dataset(linear(), tensors, CARD).member_probabilities
    assert torch.equal(same, predict_dataset(linear(), pairs, CARD).member_probabilities)


def test_progress_counts_the_samples_and_leaves() -> None:
    seen = []

    class Recorder(Progress):
        def advance(self, task_id, advance=1) -> None:
            super().advance(task_id, advance)
            task = self.tasks[0]
            seen.append((task.description, task.completed, task.total))

    progress = Recorder(console=Console(quiet=True))
    predict_dataset(linear(), data(), CARD, 3, progress=progress)
    assert seen == [("evaluating: test", done, 7) for done in (3, 6, 7)]
    assert progress.tasks == []


def test_outputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SubnetSearchError, match=r"expected \[member, sample, class\] and \[sample\]"):
        Outputs(torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(SubnetSearchError, match=r"energies \(2,\) of 3 samples, expected one of each"):
        Outputs(torch.zeros(2, 3, 4), torch.zeros(3, dtype=torch.int64), torch.zeros(2))
