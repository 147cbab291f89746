"""The command line: arguments → settings → function → files. No logic lives here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from subnet_search.backbones import build_network
from subnet_search.bench import BenchConfig, bench, write_bench
from subnet_search.compare import CompareConfig, compare
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import known_limits
from subnet_search.evaluate.keys import Score
from subnet_search.export import load_ensemble, read_manifest
from subnet_search.files import check_out
from subnet_search.groups import find_groups
from subnet_search.inputs import open_backbone, open_images
from subnet_search.pipeline import Stage, run
from subnet_search.predictions import write_predictions
from subnet_search.processes import started
from subnet_search.report import write_run_report
from subnet_search.run_folder import REPORT, RunFolder
from subnet_search.settings import BackboneConfig, Flat, RunConfig
from subnet_search.tables import bench_tables, comparison_table, groups_table, metrics_table
from subnet_search.tune import TuneConfig, study_table, tune
from subnet_search.tune.front import write_front
from subnet_search.tune.pick import pick
from subnet_search.tune.report import report_front

DESCRIPTION = "Finds K subnetworks inside a trained network and ships them as one that knows when it does not know."

SHARED = ("run", "score", "search", "finetune", "evaluate", "export", "compare")
"""Commands that train, which several processes can do together."""

CONTINUED = (*SHARED, "tune", "pick")
"""Commands that find in their folder what an interrupted one has finished."""

console = Console(emoji=False, highlight=False)  # names of data such as digits:train: are no emoji
errors = Console(stderr=True, emoji=False, highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `subnet-search`; exits with 2 where something the user gave cannot work."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    number, processes = started()
    console.quiet = errors.quiet = number > 0  # the main process speaks for all
    try:
        if processes > 1 and given and given[0] not in SHARED:
            raise SubnetSearchError(
                f"{given[0]} runs in one process, got {processes}; start it without accelerate launch, which is for {', '.join(SHARED)}"
            )
        commands = _commands(given)
        if given and given[0] in commands:
            tyro.cli(commands[given[0]], prog=f"subnet-search {given[0]}", args=given[1:])
        else:
            tyro.extras.subcommand_cli_from_dict(commands, prog="subnet-search", description=DESCRIPTION, args=given)
    except SubnetSearchError as problem:
        errors.print(f"[bold red]error:[/] {escape(str(problem))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        kept = ": what was finished is kept; the same command continues there" if {*given[:1]} & {*CONTINUED} else ""
        errors.print(f"[bold red]interrupted[/]{kept}")
        sys.exit(2)


def _commands(given: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """The commands by name; a run that is already in the folder gives its settings as defaults."""
    stages: dict[str, tuple[Stage, str]] = {
        "run": ("export", "Run the main job: from a trained network to an exported ensemble and its figures."),
        "score": ("score", "Run as far as the scores of the channels."),
        "search": ("search", "Run as far as the masks, which assign channels to members."),
        "finetune": ("finetune", "Run as far as the trained ensemble."),
        "evaluate": ("evaluate", "Run as far as the figures, and compute them anew, of other test and OOD images too."),
        "export": ("export", "Run as far as the exported ensemble."),
    }
    default = _settings_of(given) if given and given[0] in stages else RunConfig()

    def until(stage: Stage, words: str) -> Callable[..., None]:
        def command(config: Annotated[RunConfig, tyro.conf.arg(name="")] = default) -> None:
            _run(config, stage)

        command.__doc__ = words if stage == "export" else f"{words} What is in the folder already is not done again."
        return command

    return {
        **{name: until(*stage) for name, stage in stages.items()},
        "compare": _compare,
        "tune": _tune,
        "pick": _pick,
        "inspect": _inspect,
        "report": _report,
        "predict": _predict,
        "bench": _bench,
    }


def _settings_of(given: Sequence[str]) -> RunConfig:
    """The settings of the run in the folder that --out names; the defaults where there is none."""
    default = RunConfig()
    out = str(default.out)
    for word, following in zip(given, [*given[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == "--out":
            out = value if equals else following
    folder = RunFolder(Path(out))
    if not folder.exists():
        return default
    errors.print(f"continuing the run in {escape(out)} with its settings")
    return replace(folder.config(), out=Path(out))


def _run(config: RunConfig, until: Stage) -> None:
    with _progress() as progress:
        result = run(config, until=until, progress=progress)
    if result.metrics:
        console.print(metrics_table(result.metrics))
    elif result.masks:
        console.print(f"{result.masks.algorithm}: mean IoU of the members {result.masks.mean_iou():.3f}")
    exported = f", the ensemble in {result.folder.ensemble}" if result.folder.ensemble.exists() else ""
    if config.export.formats and until == "export":
        exported += f", {' '.join(config.export.formats)} in {result.folder.formats}"
    console.print(escape(f"in {result.folder.path}{exported}"))
    if result.metrics:
        console.print(escape(f"report: {result.folder.report}"))


def _compare(
    config: Annotated[CompareConfig, tyro.conf.arg(name="")] = CompareConfig(),  # noqa: B008 - frozen
) -> None:
    """Train and evaluate other uncertainty methods beside the search, on the same images.

    What is finished in the folder is not done again.
    """
    with _progress() as progress:
        found = compare(config, progress=progress)
    console.print(comparison_table(found.rows, found.missing, len(set(config.seeds))))
    console.print(escape(f"in {config.out}, the report in {config.out / REPORT}"))


def _tune(
    config: Annotated[TuneConfig, tyro.conf.arg(name="")] = TuneConfig(),  # noqa: B008 - frozen
) -> None:
    """Search settings: which accuracy, at which independence, at which cost.

    The same command continues a study that was interrupted, and joins one that runs, here or, with --storage and
    --study-name, on another machine.
    """
    with _progress() as progress:
        study = tune(config, progress=progress)
    page = report_front(write_front(study, config.out), config)
    console.print(study_table(study))
    console.print(escape(f"in {config.out}, the report in {page}"))


def _pick(
    study: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")],
    prefer: str,
    out: Path = Path("runs/picked"),
    storage: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None,
    study_name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None,
) -> None:
    """Run one trial of a study in full: figures on the test images, and an exported ensemble.

    Args:
        study: Folder of the study, such as runs/tune.
        prefer: What it must meet, on the validation images, as "nll<=0.30,macs<=1.0"; objectives and metrics have
            bounds. Of those that do, the best in the first objective is taken; an objective without a bound, as
            "nll<=0.30,macs", counts first.
        out: Folder of the run.
        storage: URL of the database that holds the trials, where the study has one.
        study_name: Name of the study, where it is not that of its folder.
    """
    with _progress() as progress:
        found = pick(study, prefer, out, storage=storage, study_name=study_name, progress=progress)
    values = ", ".join(f"{name} {value:.4g}" for name, value in found.point.values.items())
    beside = "" if found.front else "; not on the front, but others do not meet this"
    console.print(escape(f"trial {found.point.number} ({found.point.role}), on validation: {values}{beside}"))
    console.print(metrics_table(found.result.metrics))
    console.print(escape(f"in {found.result.folder.path}, the ensemble in {found.result.folder.ensemble}"))
    console.print(escape(f"report: {found.result.folder.report}"))


def _inspect(
    network: Annotated[BackboneConfig, Flat] = BackboneConfig(),  # noqa: B008 - frozen, and tyro reads defaults here
) -> None:
    """Show the groups of channels, where they are masked, and what is not searchable and why."""
    backbone = open_backbone(network)
    console.print(groups_table(find_groups(backbone.model, torch.zeros(2, *backbone.card.input_shape))))


def _report(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
) -> None:
    """Write the report of a run that is there: report.html, and its figures and their data in the folder report.

    Args:
        folder: Folder of a run that has been evaluated, such as runs/digits.
    """
    console.print(escape(f"report: {write_run_report(RunFolder(folder))}"))


def _predict(
    ensemble: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ENSEMBLE")],
    images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")],
    out: Path = Path("predictions.csv"),
    resize: bool = False,
    batch_size: int = 256,
    refuse: tuple[Score, ...] = (),
    import_code: bool = False,
) -> None:
    """Classify images with an exported ensemble and write probabilities and uncertainties.

    Args:
        ensemble: Folder of an exported ensemble, such as runs/digits/ensemble.
        images: One image, a folder of images, an `.npz` file (key x), or a source such as `digits:test`.
        out: The file to write, .csv or .json; one that is there is replaced.
        resize: Whether images of another size are resized to the network's.
        batch_size: Images of one forward pass.
        refuse: Scores by which images are refused, in a column `refused`: those beyond the limit that 95 % of the
            run's held-out images keep, by any of them.
        import_code: Whether the `module:callable` that the ensemble was made from may be imported and called; only
            for ensembles from people whose code you would run.
    """
    network = load_ensemble(ensemble, import_code=import_code)
    limits = known_limits(read_manifest(ensemble).metrics, refuse)
    dataset = open_images(images, network.card, resize)
    with _progress() as progress:
        count = write_predictions(network, dataset, out, batch_size, progress, limits)
    console.print(f"{count} predictions in {escape(str(out))}")


def _bench(
    ensemble: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ENSEMBLE")],
    config: Annotated[BenchConfig, tyro.conf.arg(name="")] = BenchConfig(),  # noqa: B008 - frozen
    out: Path | None = None,
    import_code: bool = False,
) -> None:
    """Measure what an exported ensemble costs in each form and runtime, beside the dense network.

    Args:
        ensemble: Folder of an exported ensemble, such as runs/digits/ensemble.
        config: What to measure.
        out: A file for the figures, as JSON, written after each batch and precision; one that is there is replaced.
        import_code: Whether the `module:callable` that the ensemble was made from may be imported and called; only
            for ensembles from people whose code you would run.
    """
    network = load_ensemble(ensemble, import_code=import_code)
    if out:
        check_out(out)
    with _progress() as progress:
        keep = partial(write_bench, path=out) if out else None
        found = bench(network, build_network(network.card), config, progress, keep)
    console.print(*bench_tables(found.rows, found.missing), sep="\n")
    if out:
        console.print(escape(f"in {out}"))


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=errors)
