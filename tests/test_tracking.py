"""What TensorBoard is told of a training."""

import importlib.util
import json
import math
from pathlib import Path

import pytest
from accelerate import Accelerator

import subnet_search.cli as cli
from subnet_search.backbones import load_backbone
from subnet_search.data import ArrayDataset, load_data
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig, finetune
from subnet_search.groups import find_groups
from subnet_search.masks import full_masks
from subnet_search.tracking import check_log, tracked

CONFIG = FinetuneConfig(epochs=2, batch_size=16, precision="fp32")
STEPS = 3  # of 48 images


def without_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))


def test_a_missing_package_is_named(tmp_path, monkeypatch) -> None:
    without_tensorboard(monkeypatch)
    check_log("none")
    with pytest.raises(SubnetSearchError, match=r"pip install 'subnet-search\[tensorboard\]'"):
        check_log("tensorboard")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", "--log", "tensorboard", "--out", str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert not (tmp_path / "run").exists()


def test_nothing_is_written_unless_it_is_asked_for(tmp_path) -> None:
    accelerator = Accelerator()
    with tracked(accelerator, "none", tmp_path / "logs"):
        assert accelerator.trackers == []
    assert list(tmp_path.iterdir()) == []


def small() -> tuple[SubnetEnsemble, ArrayDataset]:
    backbone = load_backbone("digits", "random", width=4)
    data = load_data("digits", backbone.card).subset(range(48))
    graph = find_groups(backbone.model, backbone.card.prepare(data.images[:2]))
    return SubnetEnsemble(backbone.model, graph, full_masks(graph.widths, 2), backbone.card), data


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_loss_and_learning_rate_of_every_step(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    (ensemble, data), accelerator = small(), Accelerator()
    with tracked(accelerator, "tensorboard", tmp_path):
        first = finetune(ensemble, data, CONFIG, accelerator=accelerator)
        second = finetune(ensemble, data, CONFIG, accelerator=accelerator)  # a further phase of the same training
    assert accelerator.trackers == []
    found = scalars(tmp_path / "training")
    assert set(found) == {"loss/step", "loss/epoch", "learning_rate"}
    assert [step for step, _ in found["loss/step"]] == list(range(4 * STEPS))
    assert [step for step, _ in found["loss/epoch"]] == [STEPS - 1, 2 * STEPS - 1, 3 * STEPS - 1, 4 * STEPS - 1]
    assert [value for _, value in found["loss/epoch"]] == pytest.approx(first.losses + second.losses)
    steps = [value for _, value in found["loss/step"]]
    assert sum(steps[:STEPS]) / STEPS == pytest.approx(first.losses[0])
    rates = [value for _, value in found["learning_rate"]]
    expected = [0.5 + 0.5 * math.cos(math.pi * step / 5) for step in range(5)]  # one step up, five down
    assert rates[: 2 * STEPS] == pytest.approx([0.05, *(0.05 * rate for rate in expected)])


def test_what_an_interrupted_epoch_has_written_is_hidden(tmp_path) -> None:
    pytest.importorskip("tensorboard")

    class KilledError(Exception):
        pass

    class Killing(ArrayDataset):
        def __getitems__(self, indices):
            left = self.__dict__.setdefault("left", [STEPS + 2])
            left[0] -= 1
            if left[0] < 0:
                raise KilledError
            return super().__getitems__(indices)

    accelerator, path = Accelerator(), tmp_path / "state.pt"
    ensemble, data = small()
    with pytest.raises(KilledError), tracked(accelerator, "tensorboard", tmp_path):
        finetune(ensemble, Killing(data.images, data.labels), CONFIG, accelerator=accelerator, checkpoint=path)
    with tracked(accelerator, "tensorboard", tmp_path):
        finetune(small()[0], data, CONFIG, accelerator=accelerator, checkpoint=path)
    files = len(list((tmp_path / "training").iterdir()))
    assert [step for step, _ in scalars(tmp_path / "training")["loss/step"]] == list(range(2 * STEPS))
    with tracked(accelerator, "tensorboard", tmp_path):
        finetune(small()[0], data, CONFIG, accelerator=accelerator, checkpoint=path)  # nothing is left to do
    assert len(list((tmp_path / "training").iterdir())) == files == 2


def test_the_commands_write_it_to_their_folder(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    tiny = ["--members=2", "--finetune.epochs=1", "--finetune.precision=fp32", "--search.algorithm=random", "--ood"]
    out = tmp_path / "run"
    cli.main(["finetune", "--out", str(out), "--log", "tensorboard", *tiny])
    assert len(scalars(out / "tensorboard" / "training")["loss/epoch"]) == 1
    cli.main(["finetune", "--out", str(out), "--log", "none"])  # is no other run
    assert json.loads((out / "config.json").read_text())["log"] == "none"
