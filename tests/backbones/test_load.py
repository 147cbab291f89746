from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from subnet_search.backbones import Card, build_network, load_backbone
from subnet_search.data import load_data
from subnet_search.errors import SubnetSearchError

MODULE = """
import torch
from torch import nn

def build(width=4, classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.Dropout(0.5), nn.Linear(width, classes))

def number():
    return 3

def broken():
    model = build()
    model[1].weight.data[0, 0] = float("nan")
    return model

def fails():
    raise RuntimeError("no such luck")

class Pair(nn.Module):
    def forward(self, x):
        return x, x

constant = 3
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working folder, as a user of the command has it."""
    name = f"user_network_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("unused")  # restores sys.path afterwards
    return name


def test_digits_come_along_and_are_accurate_on_unseen_images() -> None:
    backbone = load_backbone("digits")
    test = load_data("digits:test", backbone.card)
    with torch.no_grad():
        predicted = backbone.model(backbone.card.prepare(test.images)).argmax(1)
    assert not backbone.model.training
    assert (predicted == test.labels).double().mean() > 0.98


def test_random_weights_are_seeded_and_leave_the_global_state_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (load_backbone("resnet20", "random", seed=seed, width=4) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [backbone.model.get_parameter("conv1.weight") for backbone in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_built_in_card_and_what_changes_it() -> None:
    card = load_backbone("resnet20", "random", width=4).card
    assert card.input_shape == (3, 32, 32)
    assert card.classes[0] == "airplane"
    assert card.classes[9] == "truck"
    changed = load_backbone(
        "resnet20", "random", classes=["a", "b"], input_shape=(1, 16, 16), mean=[0.5], std=[0.25], width=4
    )
    assert changed.card == Card(
        "resnet20", (1, 16, 16), ("a", "b"), (0.5,), (0.25,), (("width", 4), ("classes", 2), ("inputs", 1))
    )
    assert changed.model(torch.rand(2, 1, 16, 16)).shape == (2, 2)
    assert load_backbone("resnet20", "random", card=changed.card).card == changed.card


def test_a_card_builds_its_network_again() -> None:
    backbone = load_backbone("digits")
    rebuilt = build_network(backbone.card)
    assert not rebuilt.training
    rebuilt.load_state_dict(backbone.model.state_dict())
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(rebuilt(x), backbone.model(x))


def test_weights_from_a_file(tmp_path: Path) -> None:
    trained = load_backbone("resnet20", "random", seed=3, width=4)
    safetensors.torch.save_file(trained.model.state_dict(), tmp_path / "w.safetensors")
    loaded = load_backbone("resnet20", tmp_path / "w.safetensors", width=4)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.model(x), trained.model(x))
    with pytest.raises(SubnetSearchError, match="those of another architecture than CifarResNet"):
        load_backbone("resnet20", tmp_path / "w.safetensors")
    with pytest.raises(SubnetSearchError, match="those of another architecture than DigitsNet"):
        load_backbone("digits", tmp_path / "w.safetensors")


def test_residual_networks_need_weights() -> None:
    with pytest.raises(SubnetSearchError, match=r"'resnet32' comes without weights; give a \.safetensors file"):
        load_backbone("resnet32")


def test_the_users_own_network(user_module: str) -> None:
    backbone = load_backbone(f"{user_module}:build", classes=3, input_shape=(3, 2, 2), width=5)
    assert backbone.card == Card(f"{user_module}:build", (3, 2, 2), ("0", "1", "2"), arguments=(("width", 5),))
    assert not backbone.model.training
    assert isinstance(backbone.model, nn.Sequential)
    assert backbone.model[1].out_features == 5
    rebuilt = build_network(Card.from_dict(backbone.card.to_dict()))
    assert torch.equal(rebuilt.state_dict()["1.weight"], backbone.model.state_dict()["1.weight"])


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("number", "returned a int, expected a torch.nn.Module"),
        ("missing", "has no callable 'missing'"),
        ("constant", "has no callable 'constant'"),
        ("fails", r"building it with \{\} failed \(RuntimeError: no such luck\)"),
        ("broken", r"1 of 48 values of '1\.weight' are NaN"),
        ("Pair", r"maps 2 images to tuple, expected logits of shape \(2, 3\)"),
    ],
)
def test_networks_that_cannot_be_used(user_module: str, attribute: str, message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        load_backbone(f"{user_module}:{attribute}", classes=3, input_shape=(3, 2, 2))


def test_a_card_that_does_not_fit_the_network(user_module: str) -> None:
    with pytest.raises(SubnetSearchError, match=r"to \(2, 3\), expected logits of shape \(2, 4\)"):
        load_backbone(f"{user_module}:build", classes=4, input_shape=(3, 2, 2))
    with pytest.raises(SubnetSearchError, match=r"fails on images of shape \(3, 5, 5\) .*check input_shape"):
        load_backbone(f"{user_module}:build", classes=3, input_shape=(3, 5, 5))
    with pytest.raises(SubnetSearchError, match=r"failed \(TypeError: .*depth"):
        load_backbone(f"{user_module}:build", classes=3, input_shape=(3, 2, 2), depth=3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet21", "no backbone 'resnet21', expected digits, resnet20"),
        ("a:", "no backbone 'a:'"),
        ("no_such_module:build", r"cannot be imported \(ModuleNotFoundError.*start in its folder"),
    ],
)
def test_names_that_lead_nowhere(name: str, message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        load_backbone(name, classes=3, input_shape=(3, 2, 2))


def test_a_network_that_is_not_built_in_needs_a_card() -> None:
    with pytest.raises(SubnetSearchError, match=r"not built in .* input_shape and classes are needed"):
        load_backbone("torchvision.models:resnet18")


@pytest.mark.shared_data
def test_the_wild_checkpoint_equals_the_clean_one(shared_data: Path) -> None:
    folder = shared_data / "backbones"
    wild = load_backbone("resnet20", folder / "resnet20-12fca82f.th")
    clean = load_backbone("resnet20", folder / "resnet20-12fca82f.safetensors")
    for (name, one), other in zip(wild.model.state_dict().items(), clean.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["resnet32-d509ac18", "resnet56-4bfd9763"])
def test_the_other_checkpoints_load(shared_data: Path, name: str) -> None:
    load_backbone(name.partition("-")[0], shared_data / "backbones" / f"{name}.safetensors")


@pytest.mark.shared_data
def test_the_pretrained_network_is_as_accurate_as_published(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(shared_data / "data"))
    import arrays

    x, y = arrays.load("cifar10-test")
    images = torch.from_numpy(x[:1000].copy()).permute(0, 3, 1, 2)
    backbone = load_backbone("resnet20", shared_data / "backbones" / "resnet20-12fca82f.th")
    with torch.no_grad():
        predicted = backbone.model(backbone.card.prepare(images)).argmax(1)
    assert (predicted == torch.from_numpy(y[:1000].astype("int64"))).double().mean() > 0.90  # 0.9173 on all 10,000
