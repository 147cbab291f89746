"""A study in a real PostgreSQL server that the test starts: workers and the server itself die in the middle of it."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from subnet_search.backbones import Backbone
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig
from subnet_search.inputs import Splits
from subnet_search.run_folder import RunFolder
from subnet_search.tune import SpaceConfig, TuneConfig, ledger
from subnet_search.tune.setup import open_setup
from subnet_search.tune.study import open_study, read_study

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
pytestmark = pytest.mark.skipif(
    not BINARIES, reason="no PostgreSQL server in /usr/lib/postgresql/*/bin; install Debian's package postgresql"
)

SLOW: dict[str, Any] = {
    "finetune": FinetuneConfig(epochs=4, batch_size=16, precision="fp32"),
    "rungs": (1.0,),
    "space": SpaceConfig(names=("budget", "lambda_overlap"), budget=(1.0, 1.9)),
    "heartbeat": 2,
}


@dataclass(frozen=True)
class Server:
    """A server of the test's own, on a free port of this machine."""

    folder: Path
    port: int
    user: str

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{self.user}:secret@127.0.0.1:{self.port}/postgres"

    def command(self, *words: str) -> list[str]:
        """PostgreSQL refuses to run as root; then Debian's user of that name runs it."""
        program = [str(BINARIES[-1].with_name(words[0])), *words[1:]]
        return ["runuser", "-u", self.user, "--", *program] if os.getuid() == 0 else program

    def control(self, action: str, *options: str) -> None:
        settings = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        more = ["-o", settings, "-l", str(self.folder / "log")] if action == "start" else ["-m", "fast"]
        subprocess.run(
            self.command("pg_ctl", action, "-D", str(self.folder / "data"), "-w", *more, *options),
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason="no psycopg; pip install 'subnet-search[postgres]'")
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    if os.getuid() == 0 and not shutil.which("runuser"):
        pytest.skip("PostgreSQL does not run as root, and there is no runuser to change that")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="subnet-search-postgres-"))
    found = Server(folder, port, user)
    try:
        password = folder / "password"
        password.write_text("secret\n")
        if os.getuid() == 0:
            shutil.chown(folder, user)
            shutil.chown(password, user)
        initdb = found.command(
            "initdb", "-D", str(folder / "data"), "-A", "scram-sha-256", f"--pwfile={password}", "-N"
        )
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd="/")
        found.control("start")
        yield found
        found.control("stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def made(network: Backbone, few: Splits) -> Callable[[TuneConfig], optuna.Study]:
    """Makes a study whose workers are to come."""
    return lambda config: open_study(open_setup(config, network, few))


@pytest.fixture
def study_in(server: Server, tiny: Callable[..., TuneConfig], tmp_path: Path) -> Callable[..., TuneConfig]:
    """Makes settings of a study in the server."""
    return lambda name, **changes: tiny(tmp_path / name, storage=server.url, study_name=name, **{**SLOW, **changes})


def running(study: optuna.Study, number: int) -> dict[int, int]:
    """Trial → process of the workers that are in the middle of one, once there are so many."""
    trials = study.get_trials(states=(TrialState.RUNNING,))
    found = {t.number: t.user_attrs["worker"]["pid"] for t in trials if "settings" in t.user_attrs}
    return found if len(found) >= number else {}


def check(study: optuna.Study, config: TuneConfig, total: int) -> None:
    """All was done exactly once, and no artifact is half-written."""
    done = ledger.finished(study.trials)
    assert len(done) == len(ledger.counted(study.trials)) == total
    assert {t.state for t in done} == {TrialState.COMPLETE}
    assert Counter(t.user_attrs["role"] for t in done) == {"default": 1, "control": 1, "search": total - 2}
    assert len({[*ledger.lineage(t), t.number][0] for t in done}) == total
    assert {t.state for t in study.trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    store = config.out / "artifacts"
    for trial in done:
        assert (store / trial.user_attrs["artifact_metrics"]).exists()
        (config.out / "masks.safetensors").write_bytes((store / trial.user_attrs["artifact"]).read_bytes())
        masks = RunFolder(config.out).masks()
        assert masks is not None
        assert masks.members == 2
    assert not list(store.glob(".*"))


def test_of_four_workers_two_are_killed_in_mid_trial(server, study_in, made, start, until) -> None:
    config = study_in("killed", trials=10)
    study = made(config)
    processes = [start(config, pause=0.1, url=server.url) for _ in range(4)]
    at_work = until(lambda: running(study, 2))
    killed = sorted(at_work)[:2]
    for number in killed:
        os.kill(at_work[number], signal.SIGKILL)
    assert Counter(p.wait(timeout=900) for p in processes) == {-signal.SIGKILL: 2, 0: 2}
    check(study, config, 10)
    assert set(killed) <= {number for t in study.trials for number in ledger.lineage(t)}
    assert {t.user_attrs["died"] for t in study.trials if "died" in t.user_attrs} == {1}


def test_the_server_restarts_in_mid_study(server, study_in, made, start, until) -> None:
    config = study_in("restarted", trials=6, heartbeat=30)
    study = made(config)
    processes = [start(config, pause=0.1, url=server.url) for _ in range(2)]
    until(lambda: running(study, 2))
    server.control("stop")
    time.sleep(2.0)
    server.control("start")
    ends = [p.wait(timeout=900) for p in processes]
    assert set(ends) <= {0, 2}  # they go on, or say what is wrong
    if ends != [0, 0]:
        assert start(config, url=server.url).wait(timeout=900) == 0
    check(study, config, 6)


def test_a_server_that_stays_away_is_said_and_the_study_can_be_taken_up(
    server, study_in, made, run, start, until
) -> None:
    config = study_in("away", trials=3)
    study = made(config)
    process = start(config, pause=0.2, url=server.url, patience=3.0)
    until(lambda: running(study, 1))
    server.control("stop")
    try:
        assert process.wait(timeout=900) == 2
        said = (config.out.parent / "errors-0.txt").read_text()
        assert "does not answer" in said
        assert "give the same command again" in said
        assert "Traceback" not in said
        assert "secret" not in said
        with pytest.raises(
            SubnetSearchError, match=r"storage postgresql\+psycopg://.*:\*\*\*@127.0.0.1:.* does not answer"
        ):
            run(config)
    finally:
        server.control("start")
    run(config)
    check(study, config, 3)


def test_a_trial_without_signs_of_life_is_run_again(study_in, run) -> None:
    """Of a worker of another machine, of which nothing can be known but that it is silent."""
    config = study_in("silent", trials=3, heartbeat=1)
    run(replace(config, trials=1))
    study = read_study(config)
    trials, number = study._storage, len(study.trials)
    elsewhere = trials.create_new_trial(study._study_id)
    trials.set_trial_user_attr(elsewhere, "worker", {"host": "elsewhere", "pid": 1, "started": "1"})
    trials.record_heartbeat(elsewhere)
    run(config)
    check(study, config, 3)
    assert study.trials[number].state is TrialState.FAIL


def test_studies_share_a_server(study_in, run) -> None:
    one, other = (study_in(name, trials=1) for name in ("one", "other"))
    for config in (one, other):
        run(config)
    assert [len(read_study(config).trials) for config in (one, other)] == [2, 2]
    with pytest.raises(SubnetSearchError, match="there is no study 'third' in postgresql"):
        read_study(replace(one, study_name="third"))
