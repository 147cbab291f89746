"""What a run does about files that are damaged, and about forms that a network does not have."""

from typing import Any

import pytest

import subnet_search.pipeline as pipeline
from subnet_search.errors import SubnetSearchError
from subnet_search.evidence import digest_of
from subnet_search.export import load_ensemble
from subnet_search.formats import FormatsConfig, write
from subnet_search.report import write_run_report
from tests.test_pipeline import FILES, figures, names, run, tiny


def test_a_form_that_cannot_be_written_costs_neither_the_report_nor_the_other_forms(tmp_path, monkeypatch) -> None:
    def refuse(*_: Any) -> None:
        raise SubnetSearchError("no official layers")

    monkeypatch.setattr(write, "to_masksembles", refuse)
    config = tiny(tmp_path / "run", export=FormatsConfig(("masksembles", "member")))
    with pytest.raises(
        SubnetSearchError, match=r"written: masksembles, .*\nmasksembles: no official .*\nall else .*run$"
    ):
        run(config, report=True)
    assert names(config.out) == FILES | {"formats"}
    members = {f"member-{k}.safetensors" for k in range(3)}
    assert names(config.out / "formats") == {"report.json", *members}
    load_ensemble(config.out / "ensemble")


@pytest.mark.parametrize(("name", "reason"), [("model.safetensors", "SHA-256 is"), ("manifest.json", "no JSON")])
def test_a_damaged_export_is_made_again(tmp_path, name, reason) -> None:
    config = tiny(tmp_path / "run")
    first = run(config)
    before = {path.name: path.read_bytes() for path in first.folder.ensemble.iterdir()}
    path = first.folder.ensemble / name
    path.write_bytes(before[name][:100])
    run(config, until="evaluate")  # leaves the damaged folder alone
    assert path.read_bytes() == before[name][:100]
    run(config)
    lines = (config.out / "log.txt").read_text().splitlines()
    assert any(f"exported again, because: {path}: " in line and reason in line for line in lines)
    assert (first.folder.ensemble / "model.safetensors").read_bytes() == before["model.safetensors"]
    assert load_ensemble(first.folder.ensemble).masks.digest() == first.masks.digest()


@pytest.mark.parametrize("content", ["{", "[]", ""])
@pytest.mark.parametrize("deleted", [False, True])
def test_damaged_figures_cost_an_evaluation_and_no_training(tmp_path, monkeypatch, content, deleted) -> None:
    config = tiny(tmp_path / "run")
    first = run(config)
    path = first.folder.metrics_file
    path.write_text(content)
    advice = rf"{path} cannot be read .*; delete this file alone, or run subnet-search evaluate --out {config.out}, "
    with pytest.raises(SubnetSearchError, match=advice):
        run(config)
    for stage in ("score", "search"):
        monkeypatch.setattr(pipeline, stage, lambda *_, stage=stage: pytest.fail(f"{stage} was run again"))
    checkpoint_before = first.folder.checkpoint.read_bytes()
    if deleted:
        path.unlink()
    assert figures(run(config, until="export" if deleted else "evaluate")) == figures(first)
    assert first.folder.metrics() is not None
    assert first.folder.checkpoint.read_bytes() == checkpoint_before


def test_damaged_evidence_is_made_again_by_the_command_that_is_named(tmp_path) -> None:
    config = tiny(tmp_path / "run")
    first = run(config, report=True)
    path = config.out / "evidence.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    advice = rf"{path} is damaged .*; run subnet-search evaluate --out {config.out}, which"
    with pytest.raises(SubnetSearchError, match=advice):
        write_run_report(first.folder)
    run(config, until="evaluate", report=True)
    evidence = first.folder.evidence()
    assert evidence is not None
    assert evidence.metrics == digest_of(first.folder.metrics())
    write_run_report(first.folder)


def test_an_export_among_other_files_is_not_made_again(tmp_path) -> None:
    config = tiny(tmp_path / "run")
    folder = run(config).folder.ensemble
    (folder / "manifest.json").write_text("{")
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(SubnetSearchError, match="found a folder that is not empty"):
        run(config)
    assert names(folder) == {"manifest.json", "model.safetensors", "thesis.tex"}
