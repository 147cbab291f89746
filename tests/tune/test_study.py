"""A study end to end on digits, at the smallest scale: what it leaves, and that it can be repeated and taken up."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from subnet_search.backbones import load_backbone
from subnet_search.data import load_data
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.keys import FIXED_KEYS
from subnet_search.finetune import FinetuneConfig, checkpoint
from subnet_search.inputs import Splits
from subnet_search.pipeline import run as run_job
from subnet_search.run_folder import RunFolder
from subnet_search.search import BudgetConfig
from subnet_search.settings import RunConfig, from_dict
from subnet_search.tune import SpaceConfig, TuneConfig, ledger, study_table
from subnet_search.tune.ladder import goes_on
from subnet_search.tune.objectives import losses_of, values_of
from subnet_search.tune.points import read_points
from subnet_search.tune.study import read_study

Finished = tuple[TuneConfig, optuna.Study]
CHEAP = {"names": ("members", "budget", "algorithm"), "algorithm": ("antirandom",), "members": (2, 3)}


def outcome(study: optuna.Study) -> list[tuple[Any, ...]]:
    """All that does not depend on the clock, of the trials that count."""
    names = ("role", "settings", "rung_values", "fidelity", "metrics")
    trials = ledger.finished(study.get_trials(deepcopy=False))
    trials.sort(key=lambda t: [*ledger.lineage(t), t.number])
    return [(t.params, t.values, t.constraints, *(t.user_attrs[name] for name in names)) for t in trials]


def stop_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends the signal that Ctrl-C sends when the so-manieth checkpoint has been written."""
    save, left = checkpoint.save, [epochs]

    def then_interrupt(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(checkpoint, "save", then_interrupt)


@pytest.fixture(autouse=True)
def ctrl_c() -> Any:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets background jobs ignore it
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def finished(tiny, run, tmp_path_factory) -> Finished:
    """A study of six trials; tests leave it as it is."""
    config = tiny(tmp_path_factory.mktemp("finished") / "digits", trials=6)
    return config, run(config)


def test_a_study_has_the_trials_that_were_asked_for_and_the_first_two_are_given(finished) -> None:
    _, study = finished
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 6
    assert [t.user_attrs["role"] for t in study.trials] == ["default", "control", *["search"] * 4]
    default, control, *rest = study.trials
    assert (default.params["algorithm"], control.params["algorithm"]) == ("flow", "random")
    assert (default.params["members"], default.params["budget"], default.params["epochs"]) == (2, 1.5, 3)
    assert all(t.user_attrs["fidelity"] == 1.0 for t in (default, control))
    assert len({json.dumps(t.params) for t in rest}) == len(rest)


def test_a_study_says_what_it_is_about(finished) -> None:
    config, study = finished
    notes = study.user_attrs
    assert notes["objectives"] == ["nll", "error_correlation", "macs"]
    assert notes["directions"] == ["minimize"] * 3
    assert from_dict(TuneConfig, notes["config"], "study") == config
    assert set(notes["inputs"]) == {"network", "card", "training set", "validation set"}
    assert set(notes["dense"]) == set(FIXED_KEYS)
    assert notes["dense"]["cplx/MACsRatio"] == 1.0
    assert notes["dense"]["ens/ErrCorr"] is None
    assert read_study(config).study_name == "digits"


def test_every_trial_keeps_all_that_is_known_of_it(finished) -> None:
    config, study = finished
    for trial in study.trials:
        notes = trial.user_attrs
        assert set(notes["metrics"]) == set(FIXED_KEYS)
        assert values_of(notes["metrics"], config.objectives) == trial.values == notes["rung_values"][-1]
        assert trial.constraints == {"fidelity": 1.0 - notes["fidelity"]}
        run = from_dict(RunConfig, notes["settings"], "trial")
        assert run.members == trial.params["members"]
        assert run.budget.budget <= trial.params["budget"]  # lower where it would leave every member whole
        assert notes["metrics"]["cplx/MACsRatio"] <= run.budget.budget
        assert 0 < sum(notes["stages"].values()) <= notes["seconds"]


def test_masks_and_figures_are_artifacts(finished, tmp_path) -> None:
    config, study = finished
    ids = set()
    for trial in study.trials:
        masks, figures = (config.out / "artifacts" / trial.user_attrs[n] for n in ("artifact", "artifact_metrics"))
        ids |= {masks.name, figures.name}
        assert json.loads(figures.read_text()) == trial.user_attrs["metrics"]
        (tmp_path / "masks.safetensors").write_bytes(masks.read_bytes())
        found = RunFolder(tmp_path).masks()
        assert found is not None
        assert found.members == trial.params["members"]
        assert found.mean_iou() == trial.user_attrs["metrics"]["ens/IoU"]
        listed = {meta.artifact_id for meta in optuna.artifacts.get_all_artifact_meta(trial, storage=study._storage)}
        assert listed == {masks.name, figures.name}
    assert {path.name for path in (config.out / "artifacts").iterdir()} == ids
    assert not list((config.out / "trials").iterdir())
    assert {path.name for path in config.out.iterdir()} == {"artifacts", "cache", "journal.log", "trials"}


def test_the_front_holds_nothing_that_was_stopped_early(finished) -> None:
    _, study = finished
    full = [t for t in study.trials if t.user_attrs["fidelity"] == 1.0]
    assert len(full) < len(study.trials)
    beaten = [t for t in full if any(dominates(o, t) for o in full)]
    assert {t.number for t in study.best_trials} == {t.number for t in full} - {t.number for t in beaten}


def dominates(one: FrozenTrial, other: FrozenTrial) -> bool:
    return all(a <= b for a, b in zip(one.values, other.values, strict=True)) and one.values != other.values


def test_trials_stop_where_the_ladder_says(finished) -> None:
    config, study = finished
    before: list[list[list[float]]] = []
    for trial in study.trials:
        reached = trial.user_attrs["rung_values"]
        if trial.user_attrs["role"] == "search":
            for rung, values in enumerate(reached):
                others = [losses_of(o[rung], config.objectives) for o in before if len(o) > rung]
                on = goes_on(losses_of(values, config.objectives), others, config.eta)
                assert on or rung == len(reached) - 1
                last = trial.user_attrs["fidelity"] == 1.0
                assert not on or rung < len(reached) - 1 or last
        before.append(reached)


def test_what_a_study_measures_is_what_a_run_would(finished, network, few, tmp_path) -> None:
    _, study = finished
    trial = next(t for t in reversed(study.trials) if t.user_attrs["fidelity"] == 1.0)
    config = replace(from_dict(RunConfig, trial.user_attrs["settings"], "trial"), out=tmp_path / "run")
    found = run_job(config, until="evaluate", backbone=network, splits=few, report=False)
    assert found.metrics["ensemble"]["metrics"] == trial.user_attrs["metrics"]
    assert found.metrics["dense"]["metrics"] == study.user_attrs["dense"]


def test_the_same_seed_gives_the_same_study(finished, tiny, run, tmp_path) -> None:
    again = run(tiny(tmp_path / "digits", trials=6))
    assert outcome(again) == outcome(finished[1])


def test_a_second_call_does_nothing_and_a_larger_total_goes_on(finished, tiny, run, tmp_path) -> None:
    config = tiny(tmp_path / "digits", trials=3)
    study = run(config)
    before = study.trials
    run(config)
    run(replace(config, trials=2))
    assert study.trials == before
    run(replace(config, trials=5))
    assert outcome(study) == outcome(finished[1])[:5]


@pytest.mark.parametrize("epochs", [1, 6])
def test_an_interrupted_study_ends_as_if_nothing_had_been(finished, tiny, run, tmp_path, monkeypatch, epochs) -> None:
    config = tiny(tmp_path / "digits", trials=3)
    with monkeypatch.context() as patch:
        stop_after(epochs, patch)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    stopped = read_study(config)
    (failed,) = [t for t in stopped.trials if t.state is TrialState.FAIL]
    assert failed.user_attrs["stopped"] == "KeyboardInterrupt"
    assert list((config.out / "trials").rglob("checkpoint.pt"))
    study = run(config)
    assert outcome(study) == outcome(finished[1])[:3]
    (again,) = [t for t in study.trials if "lineage" in t.user_attrs]
    assert again.user_attrs["lineage"] == [failed.number]
    assert again.user_attrs["died"] == 0
    assert not list((config.out / "trials").iterdir())


def test_what_other_trials_have_computed_is_not_computed_again(finished, tiny, run, monkeypatch) -> None:
    config, study = finished
    other = tiny(config.out, trials=4, study_name="again")
    monkeypatch.setattr("torch.optim.SGD.step", None)
    monkeypatch.setattr("subnet_search.tune.trial.score", None)
    again = run(other)
    assert outcome(again) == outcome(study)[:4]


def test_what_costs_too_much_is_not_trained_and_not_on_the_front(tiny, run, tmp_path) -> None:
    space = SpaceConfig(**CHEAP, budget=(1.0, 2.0))
    study = run(tiny(tmp_path / "s", trials=8, max_macs=1.3, space=space))
    over = [t for t in study.trials if t.user_attrs["metrics"]["cplx/MACsRatio"] > 1.3]
    assert 2 < len(over) < 8
    for trial in study.trials:
        assert trial.constraints["budget"] == pytest.approx(trial.user_attrs["metrics"]["cplx/MACsRatio"] - 1.3)
        assert trial not in over or trial.user_attrs["role"] != "search" or trial.user_attrs["fidelity"] == 0.0
    assert {t.user_attrs["role"] for t in over if t.user_attrs["fidelity"] == 1.0} == {"default", "control"}
    assert not {t.number for t in over} & {t.number for t in study.best_trials}


def test_members_that_all_keep_everything_are_not_trained_and_not_on_the_front(tiny, run, tmp_path, caplog) -> None:
    names = ("algorithm", "members")
    space = SpaceConfig(**{**CHEAP, "names": names})
    with caplog.at_level("WARNING", "subnet_search"):
        study = run(tiny(tmp_path / "s", trials=8, budget=BudgetConfig(budget=2.1), space=space))
    whole = [t for t in study.trials if t.user_attrs["metrics"]["ens/IoU"] == 1.0]
    assert {t.params["members"] for t in whole} == {2}
    assert len(whole) < 8
    for trial in whole:
        assert trial.constraints["fidelity"] == 1.0
        assert trial.user_attrs["role"] != "search" or trial.user_attrs["fidelity"] == 0.0
    assert not {t.number for t in whole} & {t.number for t in study.best_trials}
    assert not {t.number for t in whole} & {point.number for point in read_points(study).front()}
    assert "budget 2.1 leaves all channels and branches outside the trunk to each of the 2 members" in caplog.text


def test_one_objective_may_have_a_pruner(tiny, run, tmp_path) -> None:
    space = SpaceConfig(**CHEAP)
    study = run(tiny(tmp_path / "s", trials=8, objectives=("nll",), pruner="hyperband", space=space))
    states = [t.state for t in study.trials]
    assert len(states) == 8
    assert states[:2] == [TrialState.COMPLETE] * 2
    pruned = [t for t in study.trials if t.state is TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        assert trial.user_attrs["fidelity"] < 1
        assert trial.value == trial.user_attrs["metrics"]["cls/NLL"]
        assert (tmp_path / "s" / "artifacts" / trial.user_attrs["artifact"]).exists()
    assert study.best_trial.user_attrs["fidelity"] == 1.0
    assert not list((tmp_path / "s" / "trials").iterdir())


def test_one_objective_without_a_pruner_has_the_ladder(tiny, run, tmp_path) -> None:
    study = run(tiny(tmp_path / "s", trials=4, objectives=("error",), space=SpaceConfig(**CHEAP)))
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 4
    assert study.best_trial.user_attrs["fidelity"] == 1.0


@pytest.mark.parametrize("sampler", ["nsga2", "gp", "random"])
def test_other_samplers_make_studies_too(tiny, run, tmp_path, sampler) -> None:
    config = tiny(tmp_path / "s", trials=3, sampler=sampler, rungs=(0.0, 1.0), space=SpaceConfig(**CHEAP))
    assert len(outcome(run(config))) == 3


def test_what_is_chosen_by_is_validation_and_an_ood_set_of_its_own(tiny, run, few, network, tmp_path) -> None:
    class Untouched:
        def __len__(self) -> int:
            raise AssertionError("test images were touched")

        __getitem__ = __len__

    noise = load_data("noise", network.card, labelled=False).subset(range(20))
    splits = Splits(few.train, few.validation, Untouched(), {"noise": noise, "svhn": Untouched()})
    config = tiny(
        tmp_path / "s",
        trials=2,
        objectives=("ood_auroc", "nll"),
        choose_ood="noise",
        finetune=FinetuneConfig(epochs=0, batch_size=24),
    )
    study = run(config, splits=splits)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.trials[0].values[0] == study.trials[0].user_attrs["metrics"]["ood/noise/AUROC/entropy"]
    assert set(study.user_attrs["inputs"]) == {"network", "card", "training set", "validation set", "OOD set noise"}
    assert all(t.user_attrs["fidelity"] == 1.0 and len(t.user_attrs["rung_values"]) == 1 for t in study.trials)
    with pytest.raises(SubnetSearchError, match=r"choose_ood is 'cifar', expected NAME=SOURCE or one of noise, svhn"):
        run(replace(config, choose_ood="cifar"), splits=splits)
    other = run(replace(config, out=tmp_path / "t", trials=1, choose_ood="mine=noise"), splits=splits)
    assert other.trials[0].user_attrs["metrics"]["ood/mine/AUROC/entropy"] is not None


def test_settings_that_cannot_work_count_as_tried(tiny, run, tmp_path) -> None:
    space = SpaceConfig(names=("budget",), budget=(1e-6, 2e-6))
    study = run(tiny(tmp_path / "s", trials=4, space=space, rungs=(1.0,), seed=1))
    failed = [t for t in study.trials if t.state is TrialState.FAIL]
    assert failed
    assert all("cannot be met with 2 members" in t.user_attrs["error"] for t in failed)
    assert len(study.trials) == 4
    assert "in full, affordable, and of members that differ" in str(study_table(study).title)


def test_a_job_that_cannot_work_is_said_at_once(tiny, run, tmp_path) -> None:
    config = tiny(tmp_path / "s", budget=BudgetConfig(budget=1e-6))
    for _ in range(2):
        with pytest.raises(
            SubnetSearchError, match=r"the job's own settings.* cannot be tried.* budget 1e-06 cannot be met"
        ):
            run(config)
    assert ledger.finished(read_study(config).trials) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": 3}, r"has other settings: members: 2 there, 3 asked for; use another --study-name"),
        ({"objectives": ("nll", "macs")}, r"has other settings: objectives: \['nll', 'error_correlation', 'macs'\] there"),
        ({"finetune": FinetuneConfig(epochs=2, batch_size=24, precision="fp32")}, r"finetune.epochs: 3 there, 2 asked"),
        ({"seed": 3}, r"seed: 0 there, 3 asked for"),
    ],
)  # fmt: skip
def test_a_study_of_other_settings_is_not_taken_up(finished, run, changes, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        run(replace(finished[0], **changes))


def test_a_study_of_another_network_or_other_images_is_not_taken_up(finished, run, few) -> None:
    with pytest.raises(
        SubnetSearchError, match=r"study 'digits' in .* is of another network; use another --study-name"
    ):
        run(finished[0], backbone=load_backbone("digits", "random", seed=1, width=4))
    with pytest.raises(SubnetSearchError, match="is of another training set and other validation set"):
        run(finished[0], splits=Splits(few.validation, few.train))


def test_a_study_of_another_tool_is_not_taken_up(tiny, run, tmp_path) -> None:
    config = tiny(tmp_path)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log")))
    optuna.create_study(storage=storage, study_name=config.name).optimize(lambda _: 1.0, n_trials=1)
    with pytest.raises(SubnetSearchError, match="is not one of this tool; use another --study-name"):
        run(config)


def test_a_study_that_is_not_there_cannot_be_read(tiny, finished, tmp_path) -> None:
    with pytest.raises(SubnetSearchError, match="there is no study 'missing' in"):
        read_study(tiny(tmp_path / "missing"))
    assert not (tmp_path / "missing").exists()
    with pytest.raises(SubnetSearchError, match="there is no study 'other' in"):
        read_study(replace(finished[0], study_name="other"))


def test_a_folder_that_cannot_be_made_is_said(tiny, run, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SubnetSearchError, match=r"cannot be written .*; use another --out"):
        run(tiny(tmp_path / "file" / "study"))


def test_the_table_shows_the_front_and_what_it_beats(finished) -> None:
    _, study = finished
    table = study_table(study)
    numbers = list(table.columns[0].cells)
    assert {int(n) for n in numbers} == {t.number for t in study.best_trials} | {0, 1}
    assert [c.header for c in table.columns] == ["trial", "nll", "error_correlation", "macs", "settings"]
