"""A training in phases: what happens before each, what is kept, and what is taken up again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import TensorDataset

from subnet_search.ensemble import Predictor, SubnetEnsemble
from subnet_search.entwined import Phase, joined, train_phases
from subnet_search.entwined import phases as module
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import History
from subnet_search.masks import MaskSet


def half(ensemble: SubnetEnsemble, first: int = 0) -> MaskSet:
    """Every second channel of all groups, for members in turn."""
    masks = {name: torch.zeros_like(mask) for name, mask in ensemble.masks.masks.items()}
    for mask in masks.values():
        for member in range(len(mask)):
            mask[member, (member + first) % 2 :: 2] = True
    return MaskSet(masks, "half", 5, {"present": ensemble.masks.digest()})


def state_of(predictor: Predictor) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in predictor.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_phases_follow_each_other_and_are_added_up(small, tmp_path) -> None:
    epochs = (1, 0, 2)
    phases = [Phase(replace(small.training, epochs=number), recalibrate=3) for number in epochs]
    ensemble = small.intact()
    history = train_phases(ensemble, phases, small.data, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-0.pt", "checkpoint-2.pt"]
    assert (len(history.losses), len(history.seconds), history.samples_seen) == (3, 3, 3 * 48)
    assert not ensemble.training
    assert train_phases(ensemble, (), small.data) == joined([]) == History((), (), 0)


def test_masks_are_those_of_the_phase_and_statistics_are_measured_behind_them(small) -> None:
    idle = replace(small.training, epochs=0)
    ensemble = small.intact()
    intact = ensemble.masks.digest()
    norm = ensemble.network.bn1
    before = norm.running_mean.clone()
    train_phases(ensemble, [Phase(idle, half)], small.data)
    assert ensemble.masks.digest() != intact
    assert ensemble.notes["present"] == intact
    assert torch.equal(norm.running_mean, before)
    train_phases(ensemble, [Phase(idle, half, recalibrate=1)], small.data)
    assert not torch.equal(norm.running_mean, before)


def test_masks_once_chosen_are_not_chosen_again(small, tmp_path) -> None:
    asked = []

    def choose(ensemble: SubnetEnsemble) -> MaskSet:
        asked.append(len(asked))
        return half(ensemble, first=asked[-1])  # others each time, as an accelerator may have it

    phases = [Phase(replace(small.training, epochs=1), choose, recalibrate=0), Phase(replace(small.training, epochs=1))]
    first = small.intact()
    history = train_phases(first, phases, small.data, tmp_path)
    again = small.intact()
    assert train_phases(again, phases, small.data, tmp_path) == history
    assert asked == [0]
    assert_same(state_of(again), state_of(first))
    assert (again.algorithm, again.seed, again.notes) == (first.algorithm, first.seed, first.notes)
    assert (tmp_path / "masks-0.safetensors").exists()


class Stopped(Exception):  # noqa: N818 - it is no error
    """Stands for a process that is killed."""


@pytest.mark.parametrize("after", [0, 3, 4, 7, 9])
def test_a_training_that_was_killed_ends_with_the_same_weights(small, tmp_path, monkeypatch, after) -> None:
    one = replace(small.training, epochs=1)
    phases = [Phase(one, half, 0), Phase(replace(one, seed=1), lambda ensemble: half(ensemble, 1), 0)]
    undisturbed = small.intact()
    history = train_phases(undisturbed, phases, small.data)
    step, steps = torch.optim.SGD.step, 0

    def stopping(*arguments: Any, **named: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == after + 1:
            raise Stopped("in the middle")
        return step(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", stopping)
        if after < 8:  # two epochs of four steps
            with pytest.raises(Stopped, match="in the middle"):
                train_phases(small.intact(), phases, small.data, tmp_path)
        else:
            train_phases(small.intact(), phases, small.data, tmp_path)
    resumed = small.intact()
    assert train_phases(resumed, phases, small.data, tmp_path).losses == history.losses
    assert_same(state_of(resumed), state_of(undisturbed))


def test_files_of_another_training_are_refused(small, tmp_path) -> None:
    phase = Phase(replace(small.training, epochs=1), half)
    train_phases(small.intact(), [phase], small.data, tmp_path)
    with pytest.raises(
        SubnetSearchError, match="belongs to a run with another network, other masks, settings or number of images"
    ):
        train_phases(small.intact(), [replace(phase, masks=None)], small.data, tmp_path)
    (tmp_path / "masks-0.safetensors").write_bytes(b"damaged")
    with pytest.raises(SubnetSearchError, match=r"masks-0.safetensors is damaged .*delete it"):
        train_phases(small.intact(), [phase], small.data, tmp_path)


@pytest.mark.parametrize("form", ["arrays", "tensors"])
def test_some_images_alone_are_shown(small, monkeypatch, form) -> None:
    seen: list[Tensor] = []
    original = module.finetune

    def noting(ensemble: Predictor, dataset: Any, *arguments: Any, **named: Any) -> History:
        seen.append(torch.stack([dataset[index][0] for index in range(len(dataset))]))
        return original(ensemble, dataset, *arguments, **named)

    monkeypatch.setattr(module, "finetune", noting)
    data = small.data if form == "arrays" else TensorDataset(small.data.images, small.data.labels)
    chosen = torch.arange(3, 27)
    phases = [Phase(replace(small.training, epochs=1), images=images) for images in (chosen, None)]
    history = train_phases(small.intact(), phases, data)
    assert torch.equal(seen[0], small.data.images[3:27])
    assert torch.equal(seen[1], small.data.images)
    assert history.samples_seen == 24 + 48


def test_something_else_can_be_trained_in_the_place_of_the_ensemble(small) -> None:
    open_now: list[str] = []

    @contextmanager
    def other(ensemble: SubnetEnsemble) -> Iterator[Predictor]:
        open_now.append(ensemble.algorithm)
        yield ensemble.select([2, 0])
        open_now.clear()

    ensemble = small.intact()
    before = state_of(ensemble)
    history = train_phases(ensemble, [Phase(replace(small.training, epochs=1), half, through=other)], small.data)
    assert history.samples_seen == 48
    assert open_now == []
    assert ensemble.algorithm == "half"
    weights = state_of(ensemble)
    assert torch.equal(weights["network.conv1.weight"], before["network.conv1.weight"])  # a copy was trained


def test_progress_is_that_of_the_phases(small) -> None:
    with Progress(disable=True) as progress:
        task = progress.add_task("somebody's own")
        one = replace(small.training, epochs=1)
        train_phases(small.intact(), [Phase(one)] * 3, small.data, progress=progress)
        bars = {bar.description: (bar.completed, bar.total) for bar in progress.tasks}
        assert bars == {"somebody's own": (0, 100), "phases of the training": (3, 3)}
        assert task in progress.task_ids
