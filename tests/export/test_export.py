"""What is written, and that it is written whole or not at all."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from subnet_search.backbones import Card
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.export import FORMAT, export, export_ensemble, load_ensemble, read_manifest
from subnet_search.groups import find_groups
from subnet_search.masks import full_masks


@pytest.fixture
def exported(tmp_path, plain) -> Path:
    return export_ensemble(plain, tmp_path / "deep" / "out", budget=1.5, metrics={"cls/Acc": 0.1, "cls/NLL": None}, settings={"out": "runs/x", "n": (1, 2)})  # fmt: skip


def test_the_manifest_tells_all(exported, plain) -> None:
    content = json.loads((exported / "manifest.json").read_text(encoding="utf-8"))
    assert content["format"] == FORMAT
    assert content["card"]["classes"] == ["cat", "dog", "Übung"]
    assert content["ensemble"] == {"norm": "member", "head": "shared", "trunk": 0.0, "members": 3}
    assert content["masks"]["sha256"] == plain.masks.digest()
    assert (content["masks"]["algorithm"], content["masks"]["seed"]) == ("random", 5)
    assert content["budget"] == 1.5
    assert content["macs"]["ensemble"] == plain.macs()
    assert content["macs"]["ratio"] == plain.macs() / plain.graph.dense_macs
    assert content["metrics"] == {"cls/Acc": 0.1, "cls/NLL": None}
    assert content["settings"] == {"out": "runs/x", "n": [1, 2]}
    assert content["versions"]["torch"] == torch.__version__
    weights = (exported / "model.safetensors").read_bytes()
    assert content["weights"]["sha256"] == hashlib.sha256(weights).hexdigest()


def test_masks_are_among_the_weights(exported, plain) -> None:
    with safe_open(exported / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(plain.state_dict())
        assert torch.equal(file.get_tensor("network.fc.mask"), plain.masks.masks["fc"])


def test_only_the_two_files_are_written(exported) -> None:
    assert sorted(path.name for path in exported.iterdir()) == ["manifest.json", "model.safetensors"]
    assert [path.name for path in exported.parent.iterdir()] == ["out"]


def test_the_same_ensemble_gives_the_same_bytes(tmp_path, plain) -> None:
    first, second = export_ensemble(plain, tmp_path / "1"), export_ensemble(plain, tmp_path / "2")
    for name in ("manifest.json", "model.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_the_manifest_reads_back(exported, plain) -> None:
    manifest = read_manifest(exported)
    assert manifest.card == plain.card
    assert manifest.masks.digest() == plain.masks.digest()
    assert (manifest.budget, manifest.macs) == (1.5, plain.macs())
    assert manifest.metrics == {"cls/Acc": 0.1, "cls/NLL": None}


@pytest.mark.parametrize("there", ["file", "folder"])
def test_nothing_is_written_over(tmp_path, plain, there) -> None:
    target = tmp_path / "out"
    kept = target if there == "file" else target / "kept.txt"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("kept")
    with pytest.raises(SubnetSearchError, match="expected nothing there; choose another name"):
        export_ensemble(plain, target)
    assert kept.read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_nothing(tmp_path, plain, monkeypatch, interruption) -> None:
    def interrupt(*_: object) -> None:
        raise interruption("stopped")

    monkeypatch.setattr(export, "write_bytes", interrupt)
    with pytest.raises(interruption, match="stopped"):
        export_ensemble(plain, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_not_written(tmp_path, plain) -> None:
    broken: SubnetEnsemble = plain.select([0, 1])
    with torch.no_grad():
        broken.network.fc.layer.weight[0, 0] = float("inf")
    with pytest.raises(
        SubnetSearchError, match=r"export: 1 of 640 values of 'network.fc.layer.weight' are NaN or infinite"
    ):
        export_ensemble(broken, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "part"),
    [({"metrics": {"nll": float("nan")}}, "metrics"), ({"settings": {"out": Path("x")}}, "settings")],
)
def test_what_json_cannot_hold_is_refused(tmp_path, plain, wrong, part) -> None:
    with pytest.raises(SubnetSearchError, match=f"the part '{part}' of the manifest cannot be written as JSON"):
        export_ensemble(plain, tmp_path / "out", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_the_ensemble_stays_as_it_is(tmp_path, plain) -> None:
    ensemble = plain.select([0, 1, 2]).train()
    before = {name: (value, value.clone()) for name, value in ensemble.state_dict().items()}
    export_ensemble(ensemble, tmp_path / "out")
    assert ensemble.training
    for name, value in ensemble.state_dict().items():
        assert value.data_ptr() == before[name][0].data_ptr()
        assert torch.equal(value, before[name][1])


def test_one_grey_convolution_in_channels_last_is_reloaded_bit_for_bit(tmp_path) -> None:
    class Grey(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 6, 3, padding=1)
            self.head = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(torch.relu(self.conv(x)).mean(dim=(2, 3)))
            return out

    network = Grey().eval()
    graph = find_groups(network, torch.zeros(1, 1, 8, 8))
    card = Card("grey", (1, 8, 8), ("a", "b", "c"))
    ensemble = SubnetEnsemble(network, graph, full_masks(graph.widths, 2), card).to(memory_format=torch.channels_last)
    loaded = load_ensemble(export_ensemble(ensemble, tmp_path / "grey"), network)
    assert read_manifest(tmp_path / "grey").memory_format == "channels_last"
    x = torch.randn(5, 1, 8, 8)
    assert torch.equal(loaded(x), ensemble(x))
