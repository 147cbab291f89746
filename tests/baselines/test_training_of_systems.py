"""What a training leaves in its folder, and who may take it up."""

import pytest
from accelerate import Accelerator

from subnet_search.baselines import build, train
from subnet_search.errors import SubnetSearchError


@pytest.mark.parametrize("method", ["singe", "search+progressive", "search+gates"])
def test_a_finished_training_is_taken_up_as_it_is(setup, tmp_path, monkeypatch, method) -> None:
    system, again = build(method, setup), build(method, setup)
    history = train(system, setup, tmp_path, Accelerator())
    monkeypatch.setattr("torch.optim.SGD.step", None)  # no further step
    assert train(again, setup, tmp_path, Accelerator()) == history
    assert again.predictor.masks.digest() == system.predictor.masks.digest()


@pytest.mark.parametrize("other", ["masksembles", "random+bagging"])
def test_checkpoints_of_another_system_are_refused(setup, tmp_path, other) -> None:
    train(build("random", setup), setup, tmp_path, Accelerator())
    with pytest.raises(
        SubnetSearchError, match="belongs to a run with another network, other masks, settings or number of images"
    ):
        train(build(other, setup), setup, tmp_path, Accelerator())
