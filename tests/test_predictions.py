import csv
import io
import json
from dataclasses import replace

import pytest
import torch

from subnet_search.backbones import Backbone, load_backbone
from subnet_search.data import load_data
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import find_groups
from subnet_search.masks import MaskSet
from subnet_search.predictions import UNCERTAINTIES, write_predictions


@pytest.fixture(scope="module")
def ensemble() -> SubnetEnsemble:
    backbone: Backbone = load_backbone("digits")
    graph = find_groups(backbone.model, torch.zeros(2, 1, 8, 8))
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(3, width, generator=generator) < 0.8 for name, width in graph.widths.items()}
    for mask in masks.values():
        mask[:, 0] = True
    return SubnetEnsemble(backbone.model, graph, MaskSet(masks, "random"), backbone.card)


@pytest.fixture(scope="module")
def images(ensemble: SubnetEnsemble):
    return load_data("digits:test", ensemble.card).subset(range(11))


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_records_are_those_of_predict_in_order(tmp_path, ensemble, images, batch_size) -> None:
    path = tmp_path / "new" / "p.json"
    assert write_predictions(ensemble, images, path, batch_size) == 11
    records = json.loads(path.read_text())
    expected = ensemble.predict(images.images)
    assert [record["index"] for record in records] == list(range(11))
    for name in UNCERTAINTIES:
        found = torch.tensor([record[name] for record in records])
        torch.testing.assert_close(found, getattr(expected, name).float(), rtol=1e-4, atol=1e-5)
    for record, probabilities in zip(records, expected.probabilities, strict=True):
        assert record["class"] == str(int(probabilities.argmax()))
        assert sum(record[f"p_{c}"] for c in ensemble.card.classes) == pytest.approx(1, abs=1e-5)


def test_members_are_run_thin(tmp_path, ensemble, images, monkeypatch) -> None:
    monkeypatch.setattr(ensemble, "predict", lambda _: pytest.fail("predicted behind masks"))
    assert write_predictions(ensemble, images, tmp_path / "p.csv") == 11


def test_images_beyond_one_of_the_limits_are_refused(tmp_path, ensemble, images) -> None:
    answer = ensemble.predict(images.images)
    limits = {  # half-way between two images, as thin members round otherwise
        "max_probability": float(answer.max_probability.sort().values[4:6].mean()),
        "energy": float(answer.energy.sort().values[-2:].mean()),
    }
    write_predictions(ensemble, images, tmp_path / "p.json", 4, refuse=limits)
    found = [record["refused"] for record in json.loads((tmp_path / "p.json").read_text())]
    beyond = (answer.max_probability < limits["max_probability"]) | (answer.energy > limits["energy"])
    assert found == beyond.int().tolist()
    assert 5 <= sum(found) <= 6
    write_predictions(ensemble, images, tmp_path / "p.json")
    assert "refused" not in json.loads((tmp_path / "p.json").read_text())[0]


def test_csv_and_json_hold_the_same(tmp_path, ensemble, images) -> None:
    for name in ("p.csv", "p.json"):
        write_predictions(ensemble, images, tmp_path / name)
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    records = json.loads((tmp_path / "p.json").read_text())
    assert [{key: str(value) for key, value in record.items()} for record in records] == rows


@pytest.mark.parametrize("name", ["p.CSV", "p.Json"])
def test_images_from_files_are_named_and_capital_suffixes_count(tmp_path, ensemble, images, name) -> None:
    write_predictions(ensemble, replace(images, files=tuple(f"x/{k}.png" for k in range(11))), tmp_path / name, 4)
    text = (tmp_path / name).read_text()
    records = json.loads(text) if name == "p.Json" else list(csv.DictReader(io.StringIO(text)))
    assert list(records[0])[:3] == ["index", "file", "class"]
    assert [(str(record["index"]), record["file"]) for record in records] == [(str(k), f"x/{k}.png") for k in range(11)]
    write_predictions(ensemble, images, tmp_path / name)
    assert "file" not in (tmp_path / name).read_text()


def test_a_file_there_is_replaced(tmp_path, ensemble, images) -> None:
    (tmp_path / "p.csv").write_text("old")
    write_predictions(ensemble, images, tmp_path / "p.csv")
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 12


@pytest.mark.parametrize(("name", "batch_size", "message"), [("p.txt", 4, "go to a .csv or .json"), ("p.csv", 0, "batch_size is 0")])  # fmt: skip
def test_nothing_is_written_where_the_wish_cannot_be_met(tmp_path, ensemble, images, name, batch_size, message) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(SubnetSearchError, match=message):
        write_predictions(ensemble, images, tmp_path / name, batch_size)
    assert (tmp_path / name).read_text() == "old"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["p.csv", "p.json"])
def test_answers_that_are_no_numbers_are_not_written(tmp_path, ensemble, images, name, value) -> None:
    broken = ensemble.select([0, 1])
    with torch.no_grad():
        broken.network.get_submodule(broken.graph.head).bias.fill_(value)
    with pytest.raises(SubnetSearchError, match=r"^predictions: the logits of 11 of 11 samples are NaN or infinite"):
        write_predictions(broken, images, tmp_path / name, 4)
    assert not (tmp_path / name).exists()


def test_a_place_that_cannot_be_written_is_named_before_the_images_are_predicted(tmp_path, ensemble, images, monkeypatch) -> None:  # fmt: skip
    (tmp_path / "file").touch()
    monkeypatch.setattr(ensemble, "predict", lambda _: pytest.fail("predicted"))
    with pytest.raises(SubnetSearchError, match="cannot be written"):
        write_predictions(ensemble, images, tmp_path / "file" / "p.csv")
