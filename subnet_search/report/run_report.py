"""The report of a run: what the search did, whether the ensemble can be trusted, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subnet_search.data import source_name
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import Answers
from subnet_search.evaluate.keys import limit_key
from subnet_search.evidence import Evidence, digest_of
from subnet_search.masks import MaskSet
from subnet_search.report.command import command_of, settings_of
from subnet_search.report.doubt_section import doubt_section
from subnet_search.report.effort_section import effort_section
from subnet_search.report.headline import headline
from subnet_search.report.judged_images import judged_images
from subnet_search.report.masks_section import masks_section
from subnet_search.report.noise import differences
from subnet_search.report.page import Page, Section, Table
from subnet_search.report.trust_section import trust_section
from subnet_search.report.write import write_page
from subnet_search.run_folder import RunFolder
from subnet_search.settings import RunConfig, from_dict
from subnet_search.tables import in_words, metrics_rows


def write(folder: RunFolder) -> Path:
    """Writes the report of a run; see `subnet_search.report.write_run_report`."""
    metrics, masks = folder.metrics(), folder.masks()
    if metrics is None or masks is None:
        raise SubnetSearchError(
            f"{folder.path} holds no figures yet, of which a report could be made; run subnet-search evaluate --out {folder.path}"
        )
    evidence = folder.evidence()
    if evidence is not None and evidence.metrics != digest_of(metrics):
        evidence = None
    settings = {name: value for name, value in metrics["ensemble"]["settings"].items() if name != "inputs"}
    config = from_dict(RunConfig, settings, str(folder.metrics_file))
    return write_page(_page(folder, config, metrics, masks, evidence), folder.report)


def _page(
    folder: RunFolder, config: RunConfig, metrics: Mapping[str, Any], masks: MaskSet, evidence: Evidence | None
) -> Page:
    dense, ensemble = metrics["dense"], metrics["ensemble"]
    intervals = {}
    if evidence is not None:
        intervals = differences(evidence.answers_by("dense"), evidence.answers_by("ensemble"))
    answers = {} if evidence is None else evidence.answers
    samples = len(answers["ensemble/test"].labels) if answers else None
    images = judged_images(ensemble)
    lead, tiles = headline(metrics, intervals, samples, images)
    facts = [
        f"{masks.members} members found by {masks.algorithm} in {ensemble['backbone']}",
        f"{ensemble['epochs']} {'epoch' if ensemble['epochs'] == 1 else 'epochs'} of fine-tuning",
        f"seed {ensemble['seed']}",
        *([f"{samples:,} {images}"] if samples else []),
        ensemble["device"],
    ]
    return Page(
        title=f"{ensemble['backbone']} on {source_name(ensemble['data'])}: dense network against ensemble",
        facts=facts,
        lead=lead,
        tiles=tiles,
        sections=_sections(folder, metrics, masks, evidence),
        command=command_of("run", config),
        command_note=_note(evidence),
        settings=settings_of(config),
        versions={
            "commit": ensemble["commit"] or "not from a checkout",
            "device": dense["device"],
            **ensemble["versions"],
        },
    )


def _sections(
    folder: RunFolder, metrics: Mapping[str, Any], masks: MaskSet, evidence: Evidence | None
) -> list[Section]:
    relevance = folder.relevance()
    groups = list(masks.masks) if evidence is None else list(evidence.groups)
    answers: Mapping[str, Answers] = {} if evidence is None else evidence.answers
    dense, ensemble = answers.get("dense/test"), answers.get("ensemble/test")
    scores = {} if relevance is None else relevance.scores
    sections = [masks_section(masks, scores, groups, dense, ensemble)]
    if evidence is not None and dense is not None and ensemble is not None:
        calibration = [metrics[name]["metrics"]["cal/ECE"] for name in ("dense", "ensemble")]
        limit = metrics["ensemble"]["metrics"].get(limit_key("total"))
        sections += [
            trust_section(dense, ensemble, calibration),
            doubt_section(evidence, limit, judged_images(metrics["ensemble"])),
        ]
    layers, history = ((), None) if evidence is None else (evidence.layers, evidence.history)
    sections.append(effort_section(masks, relevance, groups, layers, history))
    missing = []
    if evidence is None:
        missing.append(
            "Reliability, uncertainties, images, costs of the layers and the training are not drawn: the folder holds "
            f"no answers to single images that belong to these figures. subnet-search evaluate --out {folder.path} "
            "computes them."
        )
    return [*sections, Section("figures", "All figures", tables=[_table(metrics)], missing=missing)]


def _table(metrics: Mapping[str, Any]) -> Table:
    rows = metrics_rows(metrics)
    return Table(
        "Dense network and ensemble on the same images; the better figure is bold",
        ["figure", "dense", f"ensemble of {metrics['ensemble']['members']}"],
        [[title, *(in_words(value) for value in values)] for title, values, _ in rows],
        frozenset((k, best + 1) for k, (*_, best) in enumerate(rows) if best is not None),
        name="figures",
    )


def _note(evidence: Evidence | None) -> str:
    if evidence is None or not evidence.passed:
        return ""
    return (
        f"The {' and the '.join(evidence.passed)} of this run came from Python, and no command can name them: pass the "
        "same to subnet_search.run."
    )
