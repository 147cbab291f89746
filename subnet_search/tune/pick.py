"""From a front to one network: the trial that a user prefers, run in full, evaluated on test images and exported."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator
from rich.progress import Progress

from subnet_search.backbones import Backbone
from subnet_search.errors import SubnetSearchError
from subnet_search.inputs import Splits, check_splits, open_backbone, open_splits, training_digests
from subnet_search.masks import MaskSet
from subnet_search.pipeline import RunResult, run
from subnet_search.records import read_masks
from subnet_search.run_folder import RunFolder
from subnet_search.settings import RunConfig, from_dict
from subnet_search.tune.artifacts import ARTIFACTS
from subnet_search.tune.config import TuneConfig
from subnet_search.tune.objectives import OBJECTIVES
from subnet_search.tune.points import Point, Points, read_points
from subnet_search.tune.prefer import Condition, Preference, parse_preference
from subnet_search.tune.setup import inputs_of
from subnet_search.tune.study import read_study

log = logging.getLogger("subnet_search")


@dataclass(frozen=True)
class Picked:
    """A point that was chosen and run in full.

    Attributes:
        point: The trial, with its figures on the validation images, by which it was chosen.
        front: Whether it is on the front. A condition on what is no objective can be met beside it only.
        result: The run; its figures are on the test images.
    """

    point: Point
    front: bool
    result: RunResult


def pick(
    study: str | Path,
    prefer: str,
    out: str | Path,
    *,
    storage: str | None = None,
    study_name: str | None = None,
    backbone: Backbone | None = None,
    splits: Splits | None = None,
    accelerator: Accelerator | None = None,
    progress: Progress | None = None,
) -> Picked:
    """Chooses a trial of a study and runs it in full: its settings and masks, figures on test images, an export.

    Args:
        study: Folder of the study.
        prefer: What is wanted, as `nll<=0.30,macs<=1.0`; see `prefer`.
        out: Folder of the run; a run of the same trial there is continued.
        storage: URL of the database that holds the trials; None takes the journal in the folder.
        study_name: Name of the study; None takes the name of its folder.
        backbone: A network of the caller's own, as it was given to the study.
        splits: Images of the caller's own, as they were given to the study; with test images where there are any.
        accelerator: Device and processes; by default accelerate's own choice.
        progress: Bar to report to.

    Returns:
        The trial and its run.

    Raises:
        SubnetSearchError: where no trial meets the conditions (the message names the nearest), the preference cannot be
            read, or network or images are others than the study's.
    """
    study = Path(study)
    found = read_study(TuneConfig(out=study, storage=storage, study_name=study_name))
    points = read_points(found)
    point = choose(points, prefer)
    config = settings_of_run(point, Path(out))
    folder = RunFolder.check(config)
    backbone = backbone or open_backbone(config.network)
    opened = splits or open_splits(config.images, backbone.card)
    check_splits(opened, backbone.card)
    _check_inputs(points, found.user_attrs.get("inputs", {}), config, backbone, opened)
    prints = training_digests(backbone, opened)
    if folder.masks() is None and (masks := _masks_of(point, study)) is not None:
        folder = RunFolder.open(config, prints)
        folder.save_masks(masks)
    result = run(config, backbone=backbone, splits=splits, accelerator=accelerator, progress=progress)
    return Picked(point, point.number in {best.number for best in points.front()}, result)


def settings_of_run(point: Point, out: Path) -> RunConfig:
    """Returns the settings with which a trial is run in full, into a folder."""
    config = from_dict(RunConfig, dict(point.settings), f"settings of trial {point.number}")
    return replace(config, out=out)


def _check_inputs(
    points: Points, known: Mapping[str, str], config: RunConfig, backbone: Backbone, splits: Splits
) -> None:
    """Refuses another network, or other images than those that the trials were trained and judged on.

    Test and OOD images are for the final figures, of which the study knows nothing.
    """
    now = inputs_of(backbone, replace(splits, test=None, ood={}))
    changed = [name for name, told in now.items() if known.get(name, told) != told]
    if changed:
        images = config.images.data + (f", held out {config.images.held_out}" if config.images.held_out else "")
        raise SubnetSearchError(
            f"study {points.study!r} was made with another {' and another '.join(changed)} than there is now (network "
            f"{config.network.backbone}, images {images}): its figures say nothing about this one; give back what the "
            "study was made with, or make a new study"
        )


def _masks_of(point: Point, study: Path) -> MaskSet | None:
    """The masks of a trial; None where they have to be searched again, which gives the same."""
    path = study / ARTIFACTS / str(point.artifact)
    try:
        masks = read_masks(path)
    except SubnetSearchError as problem:
        why = problem.__cause__ or problem
        log.warning("the masks of trial %d are searched again: %s is damaged (%s)", point.number, path, why)
        return None
    if masks is None:  # the trial was run on a machine with a folder of its own
        log.warning("the masks of trial %d are not in %s; they are searched again", point.number, path.parent)
    return masks


def choose(points: Points, prefer: str) -> Point:
    """Chooses, of the trials that were trained in full, the best of those that meet all conditions.

    The best is the one that is best in what the preference names first; of equals, in what comes next, and at last the
    earliest. Where all conditions are on objectives, it is on the front.

    Args:
        points: What the study has found.
        prefer: What is wanted, as `nll<=0.30,macs<=1.0`; figures are those of the validation images.

    Raises:
        SubnetSearchError: where nothing meets the conditions, or the preference cannot be read.
    """
    full = points.full
    if not full:
        raise SubnetSearchError(
            f"study {points.study!r} has no trial that was trained in full yet ({len(points.points)} finished); let it "
            "go on with more --trials"
        )
    figures = dict.fromkeys([*OBJECTIVES, *(name for point in full for name in point.metrics)])
    wanted = parse_preference(prefer, tuple(points.lower), tuple(figures))
    for condition in wanted.conditions:
        if all(_figure(points, point, condition.name) is None for point in full):
            there = [name for name in figures if any(_figure(points, point, name) is not None for point in full)]
            raise SubnetSearchError(
                f"--prefer {prefer!r}: no trial has a figure {condition.name} on the validation images; expected one of "
                f"{', '.join(there)}"
            )
    meeting = [point for point in full if not any(_excess(points, point, wanted.conditions))]
    if not meeting:
        raise SubnetSearchError(_nearest(points, wanted, prefer))
    signs = [(name, 1.0 if points.lower[name] else -1.0) for name in wanted.order]
    return min(meeting, key=lambda point: ([sign * point.values[name] for name, sign in signs], point.number))


def _figure(points: Points, point: Point, name: str) -> float | None:
    return point.values[name] if name in points.lower else points.figure(point.metrics, name)


def _excess(points: Points, point: Point, conditions: Sequence[Condition]) -> list[float]:
    return [condition.excess(_figure(points, point, condition.name)) for condition in conditions]


def _nearest(points: Points, wanted: Preference, prefer: str) -> str:
    """Says which point misses the conditions least, each by the range of its figure, and what can be had."""
    ranges: list[tuple[float, float]] = []
    for condition in wanted.conditions:
        known = [f for point in points.full if (f := _figure(points, point, condition.name)) is not None]
        ranges.append((min(known), max(known)))
    spans = [high - low or 1.0 for low, high in ranges]
    missing = {point.number: _excess(points, point, wanted.conditions) for point in points.full}
    nearest = min(points.full, key=lambda p: sum(e / span for e, span in zip(missing[p.number], spans, strict=True)))
    words = []
    for condition, excess in zip(wanted.conditions, missing[nearest.number], strict=True):
        value = _figure(points, nearest, condition.name)
        verdict = f"{excess:.3g} too {'high' if condition.at_most else 'low'}" if excess else "met"
        words.append(f"{condition.name} {'is absent' if value is None else f'{value:.4g} ({verdict})'}")
    reached = {
        c.name: f"{c.name} from {low:.4g} to {high:.4g}"
        for c, (low, high) in zip(wanted.conditions, ranges, strict=True)
    }
    return (
        f"--prefer {prefer!r}: none of the {len(points.full)} trials in full meets this; the nearest is trial "
        f"{nearest.number}: {', '.join(words)}. There are {'; '.join(reached.values())}: loosen a condition, or let the "
        "study go on with more --trials"
    )
