"""An exported ensemble is the same when it comes back, and nothing else comes back."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from subnet_search.backbones import Backbone, Card, load_backbone
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.export import export_ensemble, load_ensemble
from tests.aliased import PAIRS, aliased, aliased_ensemble


@torch.no_grad()
def assert_same(back: SubnetEnsemble, ensemble: SubnetEnsemble) -> None:
    assert back.card == ensemble.card
    assert back.config == ensemble.config
    assert back.masks.digest() == ensemble.masks.digest()
    assert not back.training
    state, expected = back.state_dict(), ensemble.state_dict()
    assert list(state) == list(expected)
    for name, tensor in state.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])
    dtype = next(ensemble.parameters()).dtype
    for batch in (1, 2, 7):
        x = torch.randn(batch, *ensemble.card.input_shape).to(dtype)
        assert torch.equal(back(x), ensemble(x))


@pytest.mark.parametrize("config", [EnsembleConfig(norm, head) for norm in ("member", "shared") for head in ("shared", "member")], ids=str)  # fmt: skip
def test_outputs_of_a_built_in_network_are_bit_equal(tmp_path, make_ensemble, config) -> None:
    ensemble = make_ensemble(load_backbone("digits", "random"), config=config)
    assert_same(load_ensemble(export_ensemble(ensemble, tmp_path / "out")), ensemble)


def test_resnet_comes_back_with_all_that_is_known_of_it(tmp_path, resnet) -> None:
    back = load_ensemble(export_ensemble(resnet, tmp_path / "out"))
    assert_same(back, resnet)
    assert back.graph.groups == resnet.graph.groups
    assert (back.algorithm, back.seed) == ("random", 5)
    assert back.notes == {"settings": {"phi": [1, 2]}, "overlap": 0.5}
    assert back.macs() == resnet.macs()
    images = torch.rand(3, 3, 32, 32)
    assert torch.equal(back.predict(images).epistemic, resnet.predict(images).epistemic)


def test_a_network_object_comes_back_into_another_of_its_kind(tmp_path, plain, another_plain) -> None:
    network = another_plain()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    back = load_ensemble(export_ensemble(plain, tmp_path / "out"), network)
    assert_same(back, plain)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_network_may_have_a_mask_of_its_own(tmp_path, plain, make_ensemble, another_plain) -> None:
    def masked() -> nn.Module:
        network = another_plain().eval()
        network.conv1.register_buffer("mask", torch.ones(2), persistent=False)
        network.register_buffer("kept", torch.ones(2))
        return network

    ensemble = make_ensemble(Backbone(masked(), plain.card))
    assert_same(load_ensemble(export_ensemble(ensemble, tmp_path / "out"), masked()), ensemble)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_precision_comes_back(tmp_path, make_ensemble, plain_network, plain, another_plain, dtype) -> None:
    ensemble = make_ensemble(Backbone(plain_network, plain.card)).to(dtype)
    assert_same(load_ensemble(export_ensemble(ensemble, tmp_path / "out"), another_plain()), ensemble)


def test_the_memory_format_comes_back(tmp_path, make_ensemble) -> None:
    ensemble = make_ensemble(load_backbone("resnet20", "random", width=4))
    ensemble.to(memory_format=torch.channels_last)
    back = load_ensemble(export_ensemble(ensemble, tmp_path / "out"))
    assert_same(back, ensemble)
    assert [p.stride() for p in back.parameters()] == [p.stride() for p in ensemble.parameters()]


def test_a_network_in_another_memory_format_may_be_given(tmp_path, plain, another_plain) -> None:
    network = another_plain().to(memory_format=torch.channels_last)
    back = load_ensemble(export_ensemble(plain, tmp_path / "out"), network)
    assert_same(back, plain)
    assert [p.stride() for p in back.parameters()] == [p.stride() for p in plain.parameters()]


def test_selected_members_come_back(tmp_path, resnet) -> None:
    chosen = resnet.select([2, 0])
    assert_same(load_ensemble(export_ensemble(chosen, tmp_path / "out")), chosen)


def test_tied_weights_come_back_tied(tmp_path, make_ensemble, tied_network) -> None:
    card = Card("tied", (4,), ("a", "b", "c", "d"), (0.0,), (1.0,))
    ensemble = make_ensemble(Backbone(tied_network, card))
    back = load_ensemble(export_ensemble(ensemble, tmp_path / "out"), tied_network)
    assert_same(back, ensemble)
    assert back.network.first.layer.weight is back.network.last.weight


def test_layers_with_two_names_come_back_as_one(tmp_path) -> None:
    ensemble = aliased_ensemble(aliased(), EnsembleConfig(head="member")).eval()
    back = load_ensemble(export_ensemble(ensemble, tmp_path / "out"), aliased(seed=1))
    assert_same(back, ensemble)
    for one, two in PAIRS:
        assert back.network.get_submodule(one) is back.network.get_submodule(two)


@pytest.fixture
def tied_network() -> nn.Module:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner, self.last = nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(4, 4)
            self.back = nn.Linear(6, 4)
            self.last.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = torch.relu(self.inner(torch.relu(self.first(x))))
            logits: torch.Tensor = self.last(torch.relu(self.back(hidden)))
            return logits

    return Tied().eval()


def test_a_callable_is_imported_by_its_name(tmp_path, monkeypatch, make_ensemble) -> None:
    source = "from torch import nn\ndef build(width):\n    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))\n"
    (tmp_path / "networks_of_mine.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    backbone = load_backbone("networks_of_mine:build", input_shape=(1, 6, 6), classes=2, width=5)
    folder = export_ensemble(make_ensemble(backbone), tmp_path / "out")
    assert_same(load_ensemble(folder, import_code=True), make_ensemble(backbone))
    (tmp_path / "networks_of_mine.py").unlink()
    sys.modules.pop("networks_of_mine")
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    with pytest.raises(SubnetSearchError, match=r"cannot be imported.*load_ensemble\(folder, network=...\)"):
        load_ensemble(folder, import_code=True)
    assert_same(load_ensemble(folder, backbone.model), make_ensemble(backbone))


def test_no_code_that_a_manifest_names_is_imported_unasked(tmp_path, monkeypatch, resnet, edit_manifest) -> None:
    (tmp_path / "would_be_run.py").write_text("raise SystemExit('was run')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = export_ensemble(resnet, tmp_path / "out")
    edit_manifest(folder, lambda content: content["card"].update(name="would_be_run:build"))
    with pytest.raises(
        SubnetSearchError, match=r"'would_be_run:build' is none of the built-in.*network=.*import_code=True"
    ):
        load_ensemble(folder)
    assert "would_be_run" not in sys.modules


def test_a_network_object_has_to_be_given(tmp_path, plain) -> None:
    folder = export_ensemble(plain, tmp_path / "out")
    with pytest.raises(
        SubnetSearchError, match=r"'my own' cannot be built by name.*load_ensemble\(folder, network=...\)"
    ):
        load_ensemble(folder)


@pytest.fixture
def exported(tmp_path, plain) -> Path:
    return export_ensemble(plain, tmp_path / "out")


def refused(folder: Path, network: nn.Module, message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        load_ensemble(folder, network)


def test_another_architecture_is_refused(exported, another_plain) -> None:
    refused(exported, nn.Linear(3, 3), "out: the groups are those of another architecture than Linear: no module 'bn1'")
    refused(exported, another_plain(width=4), "module 'bn1' has 4 channels, a group at least 6")
    refused(exported, another_plain(width=8), "another architecture.*of another shape: .*conv1.weight")
    longer = another_plain()
    longer.more = nn.Linear(2, 2)
    refused(exported, longer, "another architecture.*2 missing in the file: network.more.weight")


@pytest.mark.parametrize("place", [0, 200, -1])
def test_one_changed_byte_of_the_weights_is_refused(exported, plain_network, place) -> None:
    path = exported / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    refused(exported, plain_network, "model.safetensors: SHA-256 is .*truncated, damaged or of another ensemble")


def test_truncated_weights_are_refused(exported, plain_network) -> None:
    path = exported / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(exported, plain_network, "model.safetensors: SHA-256 is .*truncated")


def rehash(folder: Path, edit_manifest) -> None:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    edit_manifest(folder, lambda content: content["weights"].update(sha256=digest))


def test_what_is_no_safetensors_is_refused_with_the_right_hash_too(exported, plain_network, edit_manifest) -> None:
    (exported / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    rehash(exported, edit_manifest)
    refused(exported, plain_network, "truncated or not a safetensors file")


def test_weights_that_are_not_finite_are_refused(exported, plain_network, edit_manifest) -> None:
    state = load_file(exported / "model.safetensors")
    state["network.head.bias"][1] = float("nan")
    save_file(state, exported / "model.safetensors")
    rehash(exported, edit_manifest)
    refused(exported, plain_network, "1 of 3 values of 'network.head.bias' are NaN or infinite")


def test_other_masks_among_the_weights_are_refused(exported, plain_network, edit_manifest) -> None:
    state = load_file(exported / "model.safetensors")
    state["network.fc.mask"][2, 3] ^= True
    save_file(state, exported / "model.safetensors")
    rehash(exported, edit_manifest)
    refused(exported, plain_network, "differ from those of the manifest .*first in 'network.fc.mask'")


def test_missing_weights_are_refused(exported, plain_network) -> None:
    (exported / "model.safetensors").unlink()
    refused(exported, plain_network, "out: has no model.safetensors, expected the weights")


def test_a_missing_tensor_is_refused(exported, plain_network, edit_manifest) -> None:
    state = load_file(exported / "model.safetensors")
    del state["network.fc.mask"]
    save_file(state, exported / "model.safetensors")
    rehash(exported, edit_manifest)
    refused(exported, plain_network, "1 missing in the file: network.fc.mask")


def test_nothing_of_the_folder_is_executed(exported, plain_network) -> None:
    (exported / "conftest.py").write_text("raise SystemExit")
    (exported / "data.pkl").write_bytes(b"\x80\x04cos\nsystem\n")
    assert json.loads((exported / "manifest.json").read_text())["card"]["name"] == "my own"
    load_ensemble(exported, plain_network)
