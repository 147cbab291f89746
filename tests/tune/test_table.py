import optuna

from subnet_search.tune import study_table


def test_the_best_stands_first_where_more_is_better(made_up_study) -> None:
    made = made_up_study(24)
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    for name, value in made.user_attrs.items():
        study.set_user_attr(name, value)
    study.set_user_attr("objectives", ["ood_auroc", "error_correlation", "macs"])
    study.add_trials(made.get_trials())
    table = study_table(study)
    named = {column.header: list(column.cells) for column in table.columns}
    rows = zip(named["ood_auroc"], named["settings"], strict=True)
    front = [float(value) for value, settings in rows if "(beaten)" not in settings]
    assert len(front) > 1
    assert front == sorted(front, reverse=True)


def test_settings_are_those_that_trials_had(lowered_study) -> None:
    (settings,) = (list(column.cells) for column in study_table(lowered_study).columns if column.header == "settings")
    searched = [cell for cell in settings if "the job's own" not in cell]
    assert searched
    assert all("budget=0.25 (" in cell and " asked)" in cell for cell in searched)
