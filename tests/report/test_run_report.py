"""The report of a run: what is in it, what it costs to make, and what it says where something is missing."""

import csv
import io
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import nn

from subnet_search.backbones import Backbone, Card
from subnet_search.data import ArrayDataset
from subnet_search.ensemble import EnsembleConfig
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import EvaluateConfig
from subnet_search.finetune import FinetuneConfig
from subnet_search.inputs import Splits
from subnet_search.pipeline import run
from subnet_search.report import write_run_report
from subnet_search.run_folder import RunFolder
from subnet_search.search import BudgetConfig, SearchConfig
from subnet_search.settings import DataConfig, RunConfig

FIGURES = {"masks", "pairs", "member-accuracy", "reliability", "risk-coverage", "epistemic", "most-aleatoric", "most-epistemic", "relevance", "macs", "training"}  # fmt: skip


class Links(HTMLParser):
    """Collects what a page refers to, and its ids."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.references += [v for k in ("href", "src", "xlink:href", "srcset", "action") if (v := named.get(k))]
        self.ids += [named["id"]] if named.get("id") else []
        self.images += [named] if tag == "svg" else []
        assert tag != "script"
        assert not any(name.startswith("on") for name in named)


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def read(page: Path) -> Links:
    links = Links()
    links.feed(page.read_text())
    return links


def test_everything_is_drawn_and_kept_beside_the_page(digits_run) -> None:
    folder = digits_run.path / "report"
    assert {path.stem for path in folder.iterdir()} == FIGURES | {"figures"}
    for name in FIGURES:
        assert (folder / f"{name}.svg").read_bytes().startswith(b"<?xml")
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        rows = table(folder / f"{name}.csv")
        assert rows
        assert None not in rows[0]  # no cell without a column
    text = digits_run.report.read_text()
    for name in FIGURES:
        assert f'id="figure-{name}"' in text


def test_the_page_refers_to_nothing_outside_itself(digits_run) -> None:
    links = read(digits_run.report)
    assert len(links.ids) == len(set(links.ids))
    for reference in links.references:
        assert reference.startswith(("#", "data:"))
        if reference.startswith("#"):
            assert reference[1:] in links.ids
    style = re.findall(r"<style>(.*?)</style>", digits_run.report.read_text(), re.DOTALL)
    assert len(style) == 1
    assert not re.search(r"@import|url\((?!#)", style[0])
    assert all(image["role"] == "img" and len(image["aria-label"] or "") > 30 for image in links.images)
    assert len(links.images) == len(FIGURES)


def test_the_figures_are_those_of_the_run(digits_run) -> None:
    metrics = digits_run.metrics()
    text = digits_run.report.read_text().replace("\N{NO-BREAK SPACE}", " ")
    for row in metrics.values():
        assert f"{100 * row['metrics']['cls/Acc']:.2f} %" in text
        assert f"{row['metrics']['cls/NLL']:.3f}" in text
        assert f"{100 * row['metrics']['ood/photos/AUROC/entropy']:.1f} %" in text
    limit = metrics["ensemble"]["metrics"]["refuse/total"]
    said = digits_run.evidence().answers_by("ensemble")
    shares = [100 * float((said[name].total > limit).float().mean()) for name in ("test", "ood/photos")]
    assert f"refuses {shares[0]:.0f} % of the test images, {shares[1]:.0f} % of photos." in text
    folder = digits_run.path / "report"
    accuracies = {r["network"]: float(r["accuracy"]) for r in table(folder / "member-accuracy.csv")}
    assert accuracies["dense"] == pytest.approx(metrics["dense"]["metrics"]["cls/Acc"])
    assert accuracies["ensemble"] == pytest.approx(metrics["ensemble"]["metrics"]["cls/Acc"])
    members = [value for name, value in accuracies.items() if name.startswith("member")]
    assert sum(members) / 3 == pytest.approx(metrics["ensemble"]["metrics"]["ens/MemberAcc"])
    costs = table(folder / "macs.csv")
    assert sum(int(row["together"]) for row in costs) == metrics["ensemble"]["metrics"]["cplx/MACs"]
    assert sum(int(row["dense"]) for row in costs) == metrics["dense"]["metrics"]["cplx/MACs"]
    masks = digits_run.masks()
    rows = table(folder / "masks.csv")
    for row in rows:
        kept = [row[f"member_{k + 1}"] == "1" for k in range(3)]
        assert kept == masks.masks[row["group"]][:, int(row["channel"])].tolist()
    scores = digits_run.relevance().scores
    for name in {row["group"] for row in rows}:
        ranked = [float(row["relevance"]) for row in rows if row["group"] == name]
        assert ranked == sorted(ranked, reverse=True)
        assert sum(ranked) == pytest.approx(float(scores[name].mean(dim=0).sum()), rel=1e-5)


def test_the_same_run_gives_the_same_report(digits_run) -> None:
    before = {path: path.read_bytes() for path in [digits_run.report, *(digits_run.path / "report").iterdir()]}
    write_run_report(digits_run)
    assert {path: path.read_bytes() for path in before} == before


def test_a_large_network_takes_seconds_and_few_megabytes(made_up_run) -> None:
    folder = made_up_run("resnet56", samples=10_000)
    began = time.process_time()  # other jobs on the machine do not count
    write_run_report(folder)
    assert time.process_time() - began < 20  # six on a machine that does nothing else
    assert folder.report.stat().st_size < 5_000_000
    sheets = sorted(path.stem for path in (folder.path / "report").glob("masks-*.svg"))
    assert len(sheets) > 1
    rows = [row for name in sheets for row in table(folder.path / "report" / f"{name}.csv")]
    assert len({row["group"] for row in rows}) == 27  # the inner channels of all blocks


def test_what_an_older_folder_lacks_is_said(made_up_run) -> None:
    folder = made_up_run()
    write_run_report(folder)
    (folder.path / "report" / "notes.txt").write_text("mine")
    (folder.path / "evidence.safetensors").unlink()
    (folder.path / "relevance.safetensors").unlink()
    write_run_report(folder)
    text = folder.report.read_text()
    assert "no answers to single images that belong to these figures" in text
    assert "asked for no scores" in text
    left = {path.name for path in (folder.path / "report").iterdir() if path.suffix == ".svg"}
    assert left == {"masks.svg", "pairs.svg"}
    assert (folder.path / "report" / "notes.txt").read_text() == "mine"


def test_evidence_of_other_figures_is_not_drawn(made_up_run) -> None:
    folder = made_up_run()
    metrics = folder.metrics()
    metrics["dense"]["seed"] = 1
    folder.metrics_file.write_text(json.dumps(metrics))
    write_run_report(folder)
    assert "no answers to single images that belong to these figures" in folder.report.read_text()


def test_a_run_that_was_not_evaluated_has_no_report(tmp_path) -> None:
    with pytest.raises(SubnetSearchError, match=r"holds no figures yet, .* run subnet-search evaluate --out"):
        write_run_report(RunFolder(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_names_from_outside_are_text_and_no_markup(made_up_run) -> None:
    folder = made_up_run()
    metrics = folder.metrics()
    evil = '<script>alert("1")</script>'
    for row in metrics.values():
        row["backbone"] = evil
        row["settings"]["network"]["classes"] = [evil, '"><img src=x onerror=alert(1)>']
        row["metrics"] = {key.replace("svhn", "<b>"): value for key, value in row["metrics"].items()}
    folder.metrics_file.write_text(json.dumps(metrics))
    write_run_report(folder)
    text = folder.report.read_text()
    assert "&lt;script&gt;" in text
    read(folder.report)  # asserts that there are no scripts
    assert "<img" not in text
    assert "<b>" not in text


class Flat(nn.Module):
    """A network for samples that are no pictures, with two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm, self.head = nn.Linear(5, 24), nn.BatchNorm1d(24), nn.Linear(24, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.relu(self.norm(self.hidden(x))))
        return logits


def flat_run(out: Path, sets: int) -> RunFolder:
    """A run on training and validation samples and, of three sets, test samples."""
    draw = torch.Generator().manual_seed(0)
    parts = [torch.rand(60, 5, generator=draw) for _ in range(sets)]
    data = [ArrayDataset(x, (x.sum(dim=1) > 2.5).long()) for x in parts]
    backbone = Backbone(Flat().eval(), Card("flat", (5,), ("low", "high")))
    config = RunConfig(
        out=out,
        members=16,
        budget=BudgetConfig(4.0),
        search=SearchConfig("random"),
        finetune=FinetuneConfig(epochs=0, precision="fp32"),
        evaluate=EvaluateConfig(latency_repeats=0),
    )
    return run(config, backbone=backbone, splits=Splits(*data)).folder


def test_figures_on_held_out_samples_are_said_to_be(tmp_path) -> None:
    text = flat_run(tmp_path / "run", 2).report.read_text()
    assert "60 held-out images" in text
    assert "No test images were given" in text
    assert "test images" not in text.replace("No test images were given", "").replace("Give test images", "")


def test_samples_that_are_no_pictures_have_a_report_without_pictures(tmp_path) -> None:
    folder = flat_run(tmp_path / "run", 3)
    text = folder.report.read_text()
    assert "60 test images" in text
    assert "held-out images" not in text.replace("of the held-out images keep", "")
    assert "The samples are no pictures" in text
    assert "There was no fine-tuning" in text
    assert "No foreign images were given" in text
    assert "The network and the images of this run came from Python" in text
    names = {path.stem for path in (folder.path / "report").glob("*.svg")}
    assert names == FIGURES - {"most-aleatoric", "most-epistemic", "training", "relevance"}


def test_branches_that_members_leave_out_and_a_trunk_are_told(tmp_path) -> None:
    config = RunConfig(
        out=tmp_path / "run",
        members=3,
        images=DataConfig(ood=()),
        budget=BudgetConfig(2.0, depth=True),
        search=SearchConfig("random"),
        ensemble=EnsembleConfig(trunk=0.2),
        finetune=FinetuneConfig(epochs=0, precision="fp32"),
        evaluate=EvaluateConfig(latency_repeats=0),
    )
    folder = run(config).folder
    masks = folder.masks()
    rows = {row["branch"]: row for row in table(folder.path / "report" / "branches.csv")}
    assert set(rows) == set(masks.depth)
    for site, kept in masks.depth.items():
        assert [rows[site][f"member {k + 1}"] == "kept" for k in range(3)] == kept.tolist()
    assert "layers are run once for all members" in folder.report.read_text()
