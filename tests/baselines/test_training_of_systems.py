"""The phases of a training."""

from dataclasses import replace

import pytest
from accelerate import Accelerator

from subnet_search.baselines import Phase, build, train
from subnet_search.ensemble import Predictor
from subnet_search.errors import SubnetSearchError


def test_phases_follow_each_other_and_are_added_up(setup, tmp_path) -> None:
    system = build("random", setup)
    called: list[tuple[int, bool]] = []

    def before(predictor: Predictor) -> None:
        called.append((len(list(tmp_path.iterdir())), predictor.training))

    config = replace(setup.run.finetune, epochs=1)
    phases = tuple(Phase(replace(config, epochs=epochs), before) for epochs in (1, 0, 2))
    history = train(replace(system, phases=phases), setup, tmp_path, Accelerator())
    assert [files for files, _ in called] == [0, 1, 1]  # a phase without epochs leaves nothing
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-0.pt", "checkpoint-2.pt"]
    assert (len(history.losses), len(history.seconds), history.samples_seen) == (3, 3, 3 * 48)
    assert not system.predictor.training


def test_a_finished_training_is_taken_up_as_it_is(setup, tmp_path, monkeypatch) -> None:
    system, again = build("singe", setup), build("singe", setup)
    history = train(system, setup, tmp_path, Accelerator())
    monkeypatch.setattr("torch.optim.SGD.step", None)  # no further step
    assert train(again, setup, tmp_path, Accelerator()) == history
    assert again.predictor.masks.digest() == system.predictor.masks.digest()


@pytest.mark.parametrize("other", ["masksembles", "random+bagging"])
def test_checkpoints_of_another_system_are_refused(setup, tmp_path, other) -> None:
    train(build("random", setup), setup, tmp_path, Accelerator())
    with pytest.raises(SubnetSearchError, match="belongs to a run with another network, other masks, settings or data"):
        train(build(other, setup), setup, tmp_path, Accelerator())
