"""The copy of a study for optuna-dashboard, and what a real browser shows of it, where there is one."""

import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from subnet_search.tune.dashboard import write_dashboard

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 120


def load(path: Path, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(path))))


def test_the_copy_has_the_same_front_and_numbers_and_nothing_that_stopped_early(made_up_study, tmp_path) -> None:
    study = made_up_study(24, max_macs=3.0)
    study.ask()  # one that runs
    study.enqueue_trial({"members": 4})
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
    write_dashboard(study, tmp_path / "dashboard.log")
    copy = load(tmp_path / "dashboard.log", study.study_name)
    assert [trial.number for trial in copy.best_trials] == [trial.number for trial in study.best_trials]
    assert copy.metric_names == ["nll", "error_correlation", "macs"]
    assert copy.user_attrs == study.user_attrs
    for own, there in zip(study.trials, copy.trials, strict=True):
        assert (own.number, own.params, own.user_attrs) == (there.number, there.params, there.user_attrs)
        if own.state is TrialState.COMPLETE:
            feasible = all(value <= 0 for value in own.constraints.values())
            assert there.state is (TrialState.COMPLETE if feasible else TrialState.PRUNED)
            assert there.values == (own.values if feasible else None)
        else:
            assert there.state is own.state
    assert [path.name for path in tmp_path.iterdir()] == ["dashboard.log"]
    assert study.trials[2].state is TrialState.COMPLETE  # the study itself is as it was


@pytest.fixture
def dashboard(made_up_study, tmp_path) -> Iterator[tuple[optuna.Study, str]]:
    """A study, and the address where the dashboard shows its copy."""
    study = made_up_study(60)
    write_dashboard(study, tmp_path / "dashboard.log")
    (tmp_path / "artifacts").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "import sys; from optuna_dashboard._cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "dashboard.log", "--artifact-dir", "artifacts", "--port", str(port)]
    with (tmp_path / "log.txt").open("w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            assert server.poll() is None, (tmp_path / "log.txt").read_text()
            assert time.monotonic() < deadline, "the dashboard does not start"
            try:
                urllib.request.urlopen(f"{address}/api/studies", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield study, address
    finally:
        server.kill()
        server.wait()


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium (Debian: apt-get install chromium)")
@pytest.mark.skipif(
    importlib.util.find_spec("optuna_dashboard") is None, reason="there is no dashboard (pip install optuna-dashboard)"
)
def test_a_browser_shows_the_front(dashboard, tmp_path) -> None:
    study, address = dashboard
    assert BROWSER is not None
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",  # which root cannot have
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1400,1700",
        "--virtual-time-budget=30000",
        "--dump-dom",
        f"{address}/dashboard/studies/0",
    ]
    page = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS).stdout
    assert study.study_name in page
    best = {int(number) for number in re.findall(r"Trial (\d+)", page.partition("Best Trials")[2])}
    assert best == {trial.number for trial in study.best_trials}
    plane = page.partition("Pareto Front")[2].partition("plot-history")[0]
    assert "error_correlation" in plane
    full = [trial for trial in study.trials if trial.user_attrs["fidelity"] == 1]
    assert plane.count('class="point"') == len(full)
