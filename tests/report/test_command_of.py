from pathlib import Path

import pytest
import tyro

from subnet_search.compare import CompareConfig
from subnet_search.finetune import FinetuneConfig
from subnet_search.report.command import command_of, settings_of
from subnet_search.search import BudgetConfig, SearchConfig
from subnet_search.settings import BackboneConfig, DataConfig, RunConfig

CONFIGS = [
    RunConfig(),
    RunConfig(out=Path("runs/a b's"), seed=3, members=8),
    RunConfig(
        network=BackboneConfig("my_net:build", Path("w.pt"), (3, 32, 32), ("a b", "c"), (0.5,), (0.25, 0.1, 1.0)),
        images=DataConfig("npz:x.npz", "folder:$HOME", ("svhn=npz:s.npz", "n=noise"), 0.1, 7, resize=True),
        budget=BudgetConfig(keep=0.5),
        search=SearchConfig("draft", cover=True),
        finetune=FinetuneConfig(epochs=3, augment="crop-flip", bagging=True),
    ),
    RunConfig(images=DataConfig(ood=())),
    CompareConfig(methods=("msp", "search+stochastic_depth"), seeds=(4,), scratch_epochs=9),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_command_line_reads_it_as_the_same_settings(config) -> None:
    import shlex

    program, name, *options = shlex.split(command_of("run", config))
    assert (program, name) == ("subnet-search", "run")
    read = tyro.cli(type(config), args=options)
    assert read.out == Path(f"{config.out}-again")
    assert settings_of(read) != settings_of(type(config)())
    assert [row for row in settings_of(read) if row[0] != "out"] == [
        row for row in settings_of(config) if row[0] != "out"
    ]


def test_only_what_differs_is_named() -> None:
    assert command_of("run", RunConfig(seed=2)) == "subnet-search run --out runs/digits-again --seed 2"


def test_all_settings_are_listed_under_the_names_of_their_options() -> None:
    listed = {name: (value, changed) for name, value, changed in settings_of(RunConfig(seed=2))}
    assert listed["seed"] == ("2", True)
    assert listed["finetune.learning-rate"] == (str(FinetuneConfig().learning_rate), False)
    assert listed["ood"] == ("photos=photos", False)
    assert listed["formats"] == ("none", False)
