import numpy as np
import pytest
import torch

from benchmarks import cifar, deep_ensemble, rows, train_resnet
from subnet_search.backbones import load_backbone
from subnet_search.data import ArrayDataset, load_data
from subnet_search.evaluate import check_row


@pytest.fixture
def pictures(monkeypatch, tmp_path) -> None:
    """Few made-up images in the place of CIFAR-10, and an empty place for weights and rows."""
    draw = torch.Generator().manual_seed(0)
    found = {
        name: ArrayDataset(torch.rand(40, 3, 32, 32, generator=draw), torch.arange(40) % 10, name)
        for name in cifar.SETS
    }
    monkeypatch.setattr(cifar, "images", lambda name, *_: found[name])
    monkeypatch.setattr(cifar, "TRAINED", tmp_path / "weights")
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    monkeypatch.setattr(train_resnet, "RUNS", tmp_path / "runs")


@pytest.mark.usefixtures("pictures")
def test_a_trained_network_is_found_by_its_name_and_has_not_seen_what_is_held_out(monkeypatch) -> None:
    seen = []
    real = train_resnet.finetune

    def spy(network, dataset, *args, **kwargs):
        seen.append(dataset)
        return real(network, dataset, *args, **kwargs)

    monkeypatch.setattr(train_resnet, "finetune", spy)
    with pytest.raises(SystemExit, match=r"train resnet20-45k first: .* --backbone resnet20$"):
        cifar.weights("resnet20-45k")
    train_resnet.main(train_resnet.Training(epochs=1))
    train, held_out = cifar.divided(load_backbone("resnet20", "random").card)  # as the laboratory has them
    assert torch.equal(seen[0].images, train.images)
    assert not (seen[0].images[:, None] == held_out.images).flatten(2).all(2).any()
    (row,) = rows.read("train_resnet")
    assert (row["network"], row["epochs"], set(row["figures"])) == ("resnet20-45k", 1, {"held out", "test"})
    fresh = load_backbone("resnet20", "random", seed=0).model.state_dict()
    weights = load_backbone(cifar.architecture("resnet20-45k"), cifar.weights("resnet20-45k")).model.state_dict()
    assert any(not torch.equal(weights[name], tensor) for name, tensor in fresh.items())
    before = cifar.weights("resnet20-45k").read_bytes()
    with pytest.raises(SystemExit, match="is there already; move it away"):
        train_resnet.main(train_resnet.Training(epochs=2))
    assert cifar.weights("resnet20-45k").read_bytes() == before


@pytest.mark.usefixtures("pictures")
def test_networks_of_several_seeds_are_a_deep_ensemble() -> None:
    members = deep_ensemble.Members(seeds=(0, 2))
    train_resnet.main(train_resnet.Training(epochs=1))
    with pytest.raises(SystemExit, match=r"train the other members first: .* --backbone resnet20 --seed 2$"):
        deep_ensemble.main(members)
    train_resnet.main(train_resnet.Training(epochs=1, seed=2))
    assert cifar.trained("resnet20-45k", 2).read_bytes() != cifar.weights("resnet20-45k").read_bytes()
    deep_ensemble.main(members)
    (row,) = rows.read("main_job")
    check_row(row)
    assert (row["method"], row["backbone"], row["members"], row["budget"]) == ("deep_ensemble", "resnet20-45k", 2, 2.0)
    assert row["metrics"]["cplx/MACsRatio"] == 2.0
    assert row["metrics"]["ens/ErrCorr"] < 1.0
    with pytest.raises(SystemExit, match="there is a row already of 2 members"):
        deep_ensemble.main(members)


@pytest.mark.usefixtures("pictures")
def test_members_that_were_trained_for_other_epochs_are_no_deep_ensemble() -> None:
    train_resnet.main(train_resnet.Training(epochs=1))
    train_resnet.main(train_resnet.Training(epochs=2, seed=1))
    with pytest.raises(SystemExit, match="trained alike: resnet20-45k-1 had other epochs or learning_rate"):
        deep_ensemble.main(deep_ensemble.Members(seeds=(0, 1)))
    with pytest.raises(SystemExit, match="no seeds are given"):
        deep_ensemble.main(deep_ensemble.Members(seeds=()))
    assert rows.read("main_job") == []


@pytest.mark.usefixtures("pictures")
def test_a_trial_keeps_nothing(tmp_path) -> None:
    train_resnet.main(train_resnet.Training(epochs=1, images=40))
    assert list(tmp_path.iterdir()) == []


def test_the_parts_of_cifar_as_files_are_those_that_networks_are_trained_on_and_judged_by(
    monkeypatch, tmp_path
) -> None:
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), np.arange(60) % 10
    np.savez(tmp_path / "train.npz", x=x, y=y)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "arrays.py").write_text(
        f"import numpy\n\ndef load(name):\n    found = numpy.load({str(tmp_path / 'train.npz')!r})\n    return found['x'], found['y']\n"
    )
    monkeypatch.setenv("SUBNET_SEARCH_DATA", str(tmp_path))
    monkeypatch.setattr(cifar, "CACHE", tmp_path / "cache")
    card = load_backbone("resnet20", "random").card
    for name, expected in zip(cifar.PARTS, cifar.divided(card), strict=True):
        found = cifar.images(name, card)
        assert torch.equal(found.images, expected.images)
        assert torch.equal(found.labels, expected.labels)
    train, held_out = (cifar.images(name, card).images for name in cifar.PARTS)
    assert (len(train), len(held_out)) == (54, 6)
    assert len(cifar.images(cifar.PARTS[0], card, 7).labels) == 7
    assert torch.equal(load_data(cifar.npz(cifar.PARTS[0], 7), card).images, train[:7])
