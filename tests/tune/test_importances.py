import optuna

from subnet_search.tune.importances import FEWEST, parameter_importances

OBJECTIVES = {"nll": True, "error_correlation": True, "macs": True}


def test_what_decides_an_objective_comes_first(made_up_study) -> None:
    found = parameter_importances(made_up_study(160), OBJECTIVES)
    assert found.trials >= 40
    assert list(found.of) == list(OBJECTIVES)
    assert next(iter(found.of["macs"])) == "budget"
    assert next(iter(found.of["error_correlation"])) == "members"
    for shares in found.of.values():
        assert abs(sum(shares.values()) - 1) < 1e-9
    assert found.note.startswith(f"PED-ANOVA: what sets the best 12% of {found.trials} trials")


def test_trials_that_stopped_early_have_no_say(made_up_study) -> None:
    study = made_up_study(100)
    only = optuna.create_study(directions=study.directions)
    only.add_trials([trial for trial in study.trials if trial.user_attrs["fidelity"] == 1])
    assert parameter_importances(study, OBJECTIVES) == parameter_importances(only, OBJECTIVES)


def test_a_higher_objective_is_turned() -> None:
    study = optuna.create_study(directions=["maximize"], sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(40):
        trial = study.ask()
        # only the best differ in x: were the worst looked at, y would decide
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        trial.set_user_attr("fidelity", 1.0)
        study.tell(trial, x if x > 0.6 else 0.1 * y)
    assert next(iter(parameter_importances(study, {"ood_auroc": False}).of["ood_auroc"])) == "x"


def test_too_few_trials_are_said_to_be_too_few(made_up_study) -> None:
    found = parameter_importances(made_up_study(40), OBJECTIVES)
    assert found.of == {}
    assert found.note == f"too few: {found.trials} trials in full, expected at least {FEWEST}"


def test_settings_that_hardly_any_trial_has_are_said_to_be_uncertain(made_up_study) -> None:
    study = made_up_study(100)
    odd = study.trials[0]
    odd.params["lambda_overlap"] = 1.0
    odd.distributions["lambda_overlap"] = optuna.distributions.FloatDistribution(0.1, 10)
    study.add_trial(odd)
    assert "Some regimes for parameter `lambda_overlap`" in parameter_importances(study, OBJECTIVES).note
