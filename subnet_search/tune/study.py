"""The study in its storage: made, or taken up where it is the same, with what must be tried first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import TrialState

from subnet_search.errors import SubnetSearchError
from subnet_search.settings import from_dict
from subnet_search.tune import ledger
from subnet_search.tune.config import TuneConfig
from subnet_search.tune.objectives import directions_of
from subnet_search.tune.sampler import make_pruner, make_sampler
from subnet_search.tune.setup import TuneSetup
from subnet_search.tune.space import CONTROL, enqueued
from subnet_search.tune.storage import explained, file_of, open_storage, shown


def open_study(setup: TuneSetup) -> optuna.Study:
    """Makes a study, or takes up the one of that name, and sees to it that the first trials are in it.

    Args:
        setup: Settings, network and images.

    Returns:
        The study. Its user attributes are `objectives`, `directions`, `config`, `inputs` (digests of network and
        images) and `dense` (figures of the dense network on the validation images).

    Raises:
        SubnetSearchError: where the storage does not answer, or holds another study under the name.
    """
    config = setup.config
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise SubnetSearchError(f"{config.out} cannot be written ({problem}); use another --out") from problem
    with explained(config), quiet():
        study = optuna.create_study(
            storage=open_storage(config),
            sampler=make_sampler(config.sampler, config.seed),
            pruner=make_pruner(config.pruner, len(config.rungs), config.eta),
            study_name=config.name,
            directions=directions_of(config.objectives),
            load_if_exists=True,
        )
        _check(study, setup)
        _describe(study, setup)
        _enqueue(study, setup)
    return study


def read_study(config: TuneConfig) -> optuna.Study:
    """Opens a study that is there, to look at.

    Raises:
        SubnetSearchError: where there is none of that name, or the storage does not answer.
    """
    missing = SubnetSearchError(
        f"there is no study {config.name!r} in {shown(config)}; give the --out, --storage and --study-name it was made with"
    )
    file = file_of(config)
    if file is not None and not file.exists() and (config.storage is None or file.parent.is_dir()):
        # to open it would make it; that a database has no folder either is said when it is opened
        raise missing
    with explained(config), quiet():
        try:
            return optuna.load_study(study_name=config.name, storage=open_storage(config))
        except KeyError as problem:
            raise missing from problem


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna from writing between the bars of the progress; what it has to say is in the study."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def _check(study: optuna.Study, setup: TuneSetup) -> None:
    """Refuses a study of other settings, of another network or other images, or of another tool."""
    config, notes = setup.config, study.user_attrs
    where = f"study {config.name!r} in {shown(config)}"
    if "objectives" not in notes and study.get_trials(deepcopy=False):
        raise SubnetSearchError(f"{where} is not one of this tool; use another --study-name")
    if "config" in notes:
        before = from_dict(TuneConfig, notes["config"], where)
        differing = _differences(before.decisive(), config.decisive())
        if differing:
            raise SubnetSearchError(
                f"{where} has other settings: {'; '.join(differing)}; use another --study-name, or another --out"
            )
    changed = [name for name, digest in setup.inputs.items() if notes.get("inputs", setup.inputs).get(name) != digest]
    if changed:
        raise SubnetSearchError(
            f"{where} is of another {' and other '.join(changed)}; use another --study-name, or another --out"
        )


def _describe(study: optuna.Study, setup: TuneSetup) -> None:
    """Notes in the study what it is about, where that is not there yet."""
    config = setup.config
    described: dict[str, Callable[[], Any]] = {
        "config": config.record,
        "inputs": lambda: setup.inputs,
        "dense": setup.dense_figures,
        "directions": lambda: directions_of(config.objectives),
        "objectives": lambda: list(config.objectives),
    }
    for name, content in described.items():
        if name not in study.user_attrs:
            study.set_user_attr(name, content())


def _enqueue(study: optuna.Study, setup: TuneSetup) -> None:
    """Queues the job's own settings and the control, so that the study can never end below them."""
    run = setup.own
    roles = ("default",) if run.search.algorithm == CONTROL else ("default", "control")
    trials = study.get_trials(deepcopy=False)
    again = {trial.number for trial in ledger.lost(trials)}
    there = {ledger.role(t) for t in trials if t.state is not TrialState.FAIL or t.number in again}
    for role in roles:
        if role not in there:
            study.enqueue_trial(enqueued(setup.space, run, role), user_attrs={ledger.ROLE: role})


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """The settings that differ, as `name: value there, value asked for`."""
    found: list[str] = []
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            found += _differences(old, value, f"{where}{name}.")
        elif old != value:
            found.append(f"{where}{name}: {old} there, {value} asked for")
    return found
