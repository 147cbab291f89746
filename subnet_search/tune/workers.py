"""`tune`: a study on one process, or on several of this machine that share it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import optuna
import torch
from accelerate import Accelerator
from rich.progress import Progress

from subnet_search.backbones import Backbone
from subnet_search.errors import SubnetSearchError
from subnet_search.inputs import Splits
from subnet_search.tune import ledger
from subnet_search.tune.config import TuneConfig
from subnet_search.tune.setup import open_setup
from subnet_search.tune.storage import explained
from subnet_search.tune.study import open_study
from subnet_search.tune.work import Worker, show

log = logging.getLogger("subnet_search")

LOOK = 1.0
"""Seconds between two looks at the workers."""


def tune(
    config: TuneConfig | None = None,
    *,
    backbone: Backbone | None = None,
    splits: Splits | None = None,
    accelerator: Accelerator | None = None,
    progress: Progress | None = None,
) -> optuna.Study:
    """Searches settings whose ensembles no other beats in all objectives at once.

    A study that was interrupted goes on where it was when it is called again; other processes, here or elsewhere, join
    with the same settings. It ends with exactly as many trials as were asked for.

    Args:
        config: All settings.
        backbone: A network of the caller's own, instead of the one that `config.network` names.
        splits: Images of the caller's own, instead of those that `config.images` names. Test images are not touched.
        accelerator: Device; by default accelerate's own choice. Several workers make their own.
        progress: Bar to report to.

    Returns:
        The study; its `best_trials` are the front.

    Raises:
        SubnetSearchError: where settings, network or images are wrong, the storage does not answer or holds another
            study of that name, or all workers died. Finished trials are kept.
    """
    config = config or TuneConfig()
    setup = open_setup(config, backbone, splits, accelerator, progress)
    study = open_study(setup)
    if config.workers == 1:
        Worker(study, setup).work()
    else:
        _share(study, config, backbone, splits, progress)
    return study


def _share(
    study: optuna.Study,
    config: TuneConfig,
    backbone: Backbone | None,
    splits: Splits | None,
    progress: Progress | None,
) -> None:
    """Starts the workers and looks after them until the last has ended."""
    context = multiprocessing.get_context("spawn")  # a forked process could not use a GPU
    single, threads = replace(config, workers=1), max(1, torch.get_num_threads() // config.workers)
    crew: list[tuple[SpawnProcess, Connection]] = []
    try:
        with _interrupts_ignored():  # Ctrl-C reaches the whole terminal; the workers are told here, once
            for number in range(config.workers):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=_worker, args=(single, number, threads, backbone, splits, theirs), daemon=True
                )
                process.start()
                theirs.close()
                crew.append((process, ours))
        _look_after(study, config, crew, progress)
    finally:
        for process, _ in crew:
            process.terminate()
        for process, _ in crew:
            process.join()
    trials = study.get_trials(deepcopy=False)
    if len(ledger.finished(trials)) < config.trials and any(process.exitcode for process, _ in crew):
        ends = ", ".join(str(process.exitcode) for process, _ in crew)
        raise SubnetSearchError(
            f'the workers ended with {ends} before the study was complete (-9: killed, as when memory runs out; 1: perhaps a script that calls tune outside of `if __name__ == "__main__":`, as each worker runs what stands outside of it again); give the same command again, perhaps with fewer --workers'
        )


def _look_after(
    study: optuna.Study, config: TuneConfig, crew: list[tuple[SpawnProcess, Connection]], progress: Progress | None
) -> None:
    """Shows the progress of all; passes on the first error of one."""
    left = dict(crew)
    while left:
        ended = wait([*(process.sentinel for process in left), *left.values()], timeout=LOOK)
        with explained(config):
            show(progress, study.get_trials(deepcopy=False), config.trials)
        for process, reports in crew:
            if reports in ended and process in left:
                with suppress(EOFError):
                    raise SubnetSearchError(reports.recv())
                process.join()  # it closes its end when it ends
            if process in left and not process.is_alive():
                del left[process]
                if process.exitcode:
                    log.warning("a worker ended with %d; what it had at hand is run again", process.exitcode)


def _worker(
    config: TuneConfig,
    number: int,
    threads: int,
    backbone: Backbone | None,
    splits: Splits | None,
    reports: Connection,
) -> None:
    """A worker process; it ends with its parent."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the trial at hand is left in order
    threading.Thread(target=_follow, daemon=True).start()
    torch.set_num_threads(threads)
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(number % torch.cuda.device_count())
    try:
        setup = open_setup(config, backbone, splits)
        Worker(open_study(setup), setup).work()
    except SubnetSearchError as problem:
        reports.send(str(problem))
    except KeyboardInterrupt:
        pass
    finally:
        reports.close()


def _follow() -> None:
    """Ends this process when its parent has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Lets processes that are started meanwhile ignore Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
