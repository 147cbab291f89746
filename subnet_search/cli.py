"""The command line: arguments → settings → function → files. No logic lives here."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from subnet_search.data import load_data
from subnet_search.errors import SubnetSearchError
from subnet_search.export import load_ensemble
from subnet_search.groups import find_groups
from subnet_search.inputs import example_of, open_backbone, open_splits
from subnet_search.pipeline import Stage, run
from subnet_search.predictions import write_predictions
from subnet_search.run_folder import RunFolder
from subnet_search.settings import BackboneConfig, DataConfig, Flat, RunConfig
from subnet_search.tables import groups_table, metrics_table

console = Console()
errors = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `subnet-search`; exits with 2 where something the user gave cannot work."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        tyro.extras.subcommand_cli_from_dict(
            _commands(given),
            prog="subnet-search",
            description="Finds K subnetworks inside a trained network and ships them as one that knows when it does not know.",
            args=given,
        )
    except SubnetSearchError as problem:
        errors.print(f"[bold red]error:[/] {escape(str(problem))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("[bold red]interrupted:[/] what was finished is kept; the same command continues there")
        sys.exit(2)


def _commands(given: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """The commands by name; a run that is already in the folder gives its settings as defaults."""
    default = _settings_of(given)

    def until(stage: Stage, words: str) -> Callable[..., None]:
        def command(config: Annotated[RunConfig, tyro.conf.arg(name="")] = default) -> None:
            _run(config, stage)

        command.__doc__ = words
        return command

    return {
        "run": until("export", "Run the main job: from a trained network to an exported ensemble and its figures."),
        "score": until("score", "Score the channels, and stop there."),
        "search": until("search", "Assign the channels to the members, and stop there."),
        "finetune": until("finetune", "Train the ensemble, and stop there."),
        "evaluate": until("evaluate", "Compute the figures, of other test and OOD images too, and stop there."),
        "export": until("export", "Export the ensemble; what comes before is run where it is missing."),
        "inspect": _inspect,
        "predict": _predict,
    }


def _settings_of(given: Sequence[str]) -> RunConfig:
    """The settings of the run in the folder that --out names; the defaults where there is none."""
    for place, word in enumerate(given):
        name, equals, value = word.partition("=")
        if name == "--out" and (equals or place + 1 < len(given)):
            folder = RunFolder(Path(value if equals else given[place + 1]))
            if given[0] != "predict" and folder.config_file.exists():
                return folder.config()
    return RunConfig()


def _run(config: RunConfig, until: Stage) -> None:
    log = logging.getLogger("subnet_search")
    log.setLevel(logging.INFO)
    with _progress() as progress:
        result = run(config, until=until, progress=progress)
    if result.metrics:
        console.print(metrics_table(result.metrics))
    elif result.masks:
        console.print(f"{result.masks.algorithm}: mean IoU of the members {result.masks.mean_iou():.3f}")
    console.print(f"in {result.folder.path}")


def _inspect(
    network: Annotated[BackboneConfig, Flat] = BackboneConfig(),  # noqa: B008 - frozen, and tyro reads defaults here
    images: Annotated[DataConfig, Flat] = DataConfig(),  # noqa: B008 - the same
) -> None:
    """Show the groups of channels, what they cost, and what is not searchable and why."""
    backbone = open_backbone(network)
    splits = open_splits(images, backbone.card)
    console.print(groups_table(find_groups(backbone.model, example_of(splits.train, backbone.card))))


def _predict(
    ensemble: Annotated[Path, tyro.conf.Positional],
    images: Annotated[str, tyro.conf.Positional],
    out: Path = Path("predictions.csv"),
    resize: bool = False,
    batch_size: int = 256,
) -> None:
    """Classify images with an exported ensemble and write probabilities and uncertainties.

    Args:
        ensemble: Folder of an exported ensemble.
        images: Images as `npz:FILE`, `folder:DIR` or `digits:test`; labels are not needed.
        out: The file to write, .csv or .json.
        resize: Whether images of another size are resized to the network's.
        batch_size: Images of one forward pass.
    """
    network = load_ensemble(ensemble)
    dataset = load_data(images, network.card, resize=resize, labelled=False)
    with _progress() as progress:
        count = write_predictions(network, dataset, out, batch_size, progress)
    console.print(f"{count} predictions in {out}")


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=errors)
