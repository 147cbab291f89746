"""Statistics after recalibration against the batch statistics, averaged by hand."""

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset

from subnet_search.data import ArrayDataset
from subnet_search.ensemble import EnsembleConfig, recalibrate
from subnet_search.errors import SubnetSearchError

MEMBERS = 3


@pytest.fixture
def dataset() -> ArrayDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (22, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return ArrayDataset(images, torch.arange(22) % 4)


def watch(network: nn.Module) -> dict[str, list[torch.Tensor]]:
    """Notes what comes to each norm."""
    seen: dict[str, list[torch.Tensor]] = {"bn0": [], "bn1": []}
    for name, inputs in seen.items():
        module = network.get_submodule(name)
        module.register_forward_pre_hook(lambda _module, args, inputs=inputs: inputs.append(args[0].detach().clone()))
    return seen


def test_statistics_are_the_mean_over_batches(tiny32, dataset) -> None:
    ensemble = tiny32.ensemble()
    seen = watch(ensemble.network)
    recalibrate(ensemble, dataset, samples=15, batch_size=6, precision="fp32")
    for name, inputs in seen.items():
        assert [len(rows) for rows in inputs] == [MEMBERS * 6] * 2  # the 3 images that are left over are dropped
        norm = ensemble.network.get_submodule(name)
        for k in range(MEMBERS):
            own = [rows[6 * k : 6 * (k + 1)].transpose(0, 1).flatten(1) for rows in inputs]
            mean = torch.stack([values.mean(dim=1) for values in own]).mean(dim=0)
            variance = torch.stack([values.var(dim=1, unbiased=True) for values in own]).mean(dim=0)
            torch.testing.assert_close(norm.running_mean[k], mean, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(norm.running_var[k], variance, rtol=1e-4, atol=1e-6)


def test_shared_norms_are_recalibrated_over_all_members(tiny32, dataset) -> None:
    ensemble = tiny32.ensemble(EnsembleConfig(norm="shared"))
    seen: list[torch.Tensor] = []
    layer = ensemble.network.bn1.layer
    layer.register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach().clone()))
    recalibrate(ensemble, dataset, samples=20, batch_size=10, precision="fp32")
    mean = torch.stack([rows.transpose(0, 1).flatten(1).mean(dim=1) for rows in seen]).mean(dim=0)
    torch.testing.assert_close(layer.running_mean, mean, rtol=1e-4, atol=1e-6)


def test_nothing_but_the_statistics_changes(tiny32, dataset) -> None:
    ensemble = tiny32.ensemble()
    momenta = [module.momentum for module in ensemble.modules() if isinstance(module, nn.BatchNorm2d)]
    before = {name: value.clone() for name, value in ensemble.state_dict().items()}
    recalibrate(ensemble, dataset, samples=8, batch_size=4, precision="fp32")
    changed = {name for name, value in ensemble.state_dict().items() if not torch.equal(value, before[name])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {f"network.{norm}.{key}" for norm in ("bn0", "bn1") for key in statistics}
    assert not ensemble.training
    assert [module.momentum for module in ensemble.modules() if isinstance(module, nn.BatchNorm2d)] == momenta
    assert all(parameter.grad is None for parameter in ensemble.parameters())


class Interrupted(ArrayDataset):
    """Images of which only the first batch can be read."""

    def __getitems__(self, indices):
        left = self.__dict__.setdefault("left", [1])
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return super().__getitems__(indices)


@pytest.mark.parametrize("thin", [True, False])
@pytest.mark.parametrize("norm", ["member", "shared"])
def test_an_interrupted_one_leaves_the_ensemble_as_it_was(tiny32, dataset, norm, thin) -> None:
    ensemble = tiny32.ensemble(EnsembleConfig(norm=norm)).train()
    ensemble.network.bn0.eval()  # a frozen norm in a network in training
    norms = [module for module in ensemble.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms[1].momentum = None
    momenta, modes = [module.momentum for module in norms], [module.training for module in ensemble.modules()]
    before = {name: value.clone() for name, value in ensemble.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        recalibrate(ensemble, Interrupted(dataset.images, dataset.labels), batch_size=6, precision="fp32", thin=thin)
    assert [module.momentum for module in norms] == momenta
    assert [module.training for module in ensemble.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in ensemble.state_dict().items())
    recalibrate(ensemble, dataset, batch_size=6, precision="fp32", thin=thin)
    fresh = tiny32.ensemble(EnsembleConfig(norm=norm))
    recalibrate(fresh, dataset, batch_size=6, precision="fp32", thin=thin)
    assert [module.training for module in ensemble.modules()] == modes
    assert all(torch.equal(value, ensemble.state_dict()[name]) for name, value in fresh.state_dict().items())


def test_it_starts_anew_and_depends_on_the_seed_alone(tiny32, dataset) -> None:
    found = []
    for seed in (0, 0, 1):
        ensemble = tiny32.ensemble()
        ensemble.network.bn1.running_mean.fill_(float(len(found)))
        recalibrate(ensemble, dataset, samples=6, batch_size=6, seed=seed, precision="fp32")
        found.append(ensemble.network.bn1.running_mean)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_fewer_images_than_a_batch_are_enough(tiny32, dataset) -> None:
    ensemble = tiny32.ensemble()
    recalibrate(ensemble, dataset, precision="fp32")
    assert ensemble.network.bn0.num_batches_tracked == 1


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"batch_size": 0}])
def test_no_images_are_refused(tiny32, dataset, wrong) -> None:
    with pytest.raises(SubnetSearchError, match="expected at least one of each"):
        recalibrate(tiny32.ensemble(), dataset, **wrong)


def test_a_dataset_without_a_length_is_refused(tiny32) -> None:
    class Stream(IterableDataset):
        def __iter__(self):
            yield torch.zeros(3, 8, 8, dtype=torch.uint8), 0

    with pytest.raises(SubnetSearchError, match="Stream has no length, expected a map-style dataset"):
        recalibrate(tiny32.ensemble(), Stream())


def test_dropout_draws_from_the_seed(tiny32, dataset) -> None:
    one, other = tiny32.ensemble(), tiny32.ensemble()
    for ensemble in (one, other):
        ensemble.network.get_submodule("bn0").register_forward_hook(
            lambda module, _args, out: nn.functional.dropout(out, 0.5, module.training)
        )
        recalibrate(ensemble, dataset, samples=15, batch_size=6, precision="fp32", thin=False)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
