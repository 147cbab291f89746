import copy
import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from subnet_search.backbones import load_backbone
from subnet_search.data import ArrayDataset, load_data
from subnet_search.device import drawing
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig, finetune, order_of_epoch, steps_of_epoch
from subnet_search.finetune.loss import residual_correlation
from subnet_search.finetune.probes import probes_of
from subnet_search.finetune.rows import _first_places
from subnet_search.groups import find_groups
from subnet_search.masks import MaskSet, full_masks

QUICK = FinetuneConfig(epochs=2, batch_size=12, precision="fp32")


def settings(**changes):
    return FinetuneConfig(**{"epochs": 2, "batch_size": 12, "precision": "fp32", **changes})


def equal(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("mode", "distill"), [("split", 0.0), ("repeat", 0.0), ("split", 0.4)])
def test_one_full_member_trains_as_a_plain_loop_trains_the_dense_network(small, mode, distill):
    config = settings(
        mode=mode, distill=distill, epochs=3, weight_decay=0.01, learning_rate=0.1, warmup=0.2, temperature=2.0
    )
    ensemble = small.ensemble(1, full=True)
    twin = copy.deepcopy(small.network).train()
    teacher = copy.deepcopy(small.network).eval()
    history = finetune(ensemble, small.data, config, teacher=teacher)

    decayed = [
        p for n, p in twin.named_parameters() if n in ("conv1.weight", "conv2.weight", "fc.weight", "head.weight")
    ]
    spared = [p for n, p in twin.named_parameters() if "bias" in n or n in ("bn1.weight", "last.weight")]
    assert len(decayed) + len(spared) == len(list(twin.parameters()))
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 0.01}, {"params": spared}], 0.1, 0.9, nesterov=True
    )
    total, number, losses = 3 * steps_of_epoch(config, 40, 1), 0, []
    warm = round(0.2 * total)
    for epoch in range(3):
        mean = 0.0
        order = order_of_epoch(config, 40, 1, epoch)
        for step in order:
            rate = (
                (number + 1) / warm
                if number < warm
                else 0.5 + 0.5 * math.cos(math.pi * (number - warm) / (total - warm))
            )
            for part in optimizer.param_groups:
                part["lr"] = 0.1 * rate
            x, labels = (small.data.images[step[0]] - 0.5) / 0.25, small.data.labels[step[0]]
            logits = twin(x)
            loss = (1 - distill) * F.cross_entropy(logits, labels)
            if distill:
                p = (teacher(x) / 2.0).softmax(-1).detach()
                loss = loss + distill * 4.0 * (p * (p.log() - (logits / 2.0).log_softmax(-1))).sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mean += loss.item() / len(order)
            number += 1
        losses.append(mean)

    assert history.losses == pytest.approx(losses, rel=1e-4)
    trained = ensemble.state_dict()
    for name, tensor in twin.state_dict().items():
        names = [f"network.{name}", f"network.{name.replace('.', '.layer.')}"]
        (got,) = [trained[n] for n in names if n in trained]
        torch.testing.assert_close(
            got.reshape(tensor.shape), tensor, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("mode", ["split", "repeat"])
def test_samples_are_counted_for_each_member_that_saw_them(small, mode):
    seen = []

    class Counting(ArrayDataset):
        def __getitems__(self, indices):
            seen.extend(indices)
            return super().__getitems__(indices)

    history = finetune(small.ensemble(3), Counting(small.data.images, small.data.labels), settings(mode=mode))
    assert history.samples_seen == 2 * (36 if mode == "split" else 3 * 36)
    assert len(seen) == 2 * 36  # in `repeat` read once, for all members
    assert len(history.losses) == len(history.seconds) == 2


def test_the_loss_goes_down(small):
    history = finetune(small.ensemble(2), small.data, settings(epochs=15, learning_rate=0.2))
    assert history.losses[-1] < 0.7 * history.losses[0]


def test_the_digits_network_recovers_from_masks_in_a_few_steps():
    backbone = load_backbone("digits")
    graph = find_groups(backbone.model, torch.zeros(1, 1, 8, 8))
    halves = {g.name: torch.arange(g.width) % 2 == 0 for g in graph.groups if g.kind == "inner"}
    masks = {**full_masks(graph.widths, 2).masks, **{n: torch.stack([half, ~half]) for n, half in halves.items()}}
    ensemble = SubnetEnsemble(backbone.model, graph, MaskSet(masks, "halves"), backbone.card)
    data = load_data("digits", backbone.card).subset(range(384))
    history = finetune(ensemble, data, FinetuneConfig(epochs=2, batch_size=64, learning_rate=0.02, precision="fp32"))
    assert history.losses[1] < 0.5 * history.losses[0]


@pytest.mark.parametrize("norm", ["member", "shared"])
@pytest.mark.parametrize("head", ["member", "shared"])
def test_masks_stand_and_cut_channels_stay_exactly_zero(small, norm, head):
    if head == "member":  # the logits of this network leave a norm, which has no head of each member's own
        small.network.last = nn.Identity()
        small = type(small)(small.network, find_groups(small.network, torch.zeros(1, 2, 6, 6)), small.data)
    ensemble = small.ensemble(3, config=EnsembleConfig(norm, head))
    before = ensemble.masks
    finetune(ensemble, small.data, settings(learning_rate=0.1))
    assert ensemble.masks.digest() == before.digest()
    for group in small.graph.groups:
        for site in group.sites:
            caught = []
            handle = ensemble.network.get_submodule(site.module).register_forward_hook(
                lambda _m, _i, o, c=caught: c.append(o)
            )
            with torch.no_grad():
                ensemble(torch.randn(4, 2, 6, 6))
            handle.remove()
            output = (
                caught[0].unflatten(0, (3, 4)).flatten(3).abs().amax(dim=-1)
                if caught[0].ndim > 2
                else caught[0].unflatten(0, (3, 4)).abs()
            )
            kept = before.masks[group.name]
            positions = [places[0] for places in site.index]
            assert (output.amax(dim=1)[:, positions][~kept] == 0).all()
            assert (output.amax(dim=1)[:, positions][kept] > 0).any()


def test_cut_affine_parameters_and_spared_ones_do_not_decay(small):
    ensemble = small.ensemble(3)
    cut = ~ensemble.masks.masks[small.graph.groups[0].name]
    norm = ensemble.network.bn1
    before = norm.weight.detach().clone(), norm.bias.detach().clone()
    finetune(ensemble, small.data, settings(weight_decay=0.5))
    assert torch.equal(norm.weight.detach()[cut], before[0][cut])
    assert torch.equal(norm.bias.detach()[cut], before[1][cut])
    assert not torch.equal(norm.weight.detach(), before[0])


def test_weight_decay_shrinks_matrices_and_nothing_else(small):
    # without an error to learn from, decay is all that moves the weights
    ensemble, plain = small.ensemble(2, full=True), small.ensemble(2, full=True)
    config = {"learning_rate": 0.01, "momentum": 0.0, "epochs": 1, "batch_size": 40, "mode": "repeat"}
    finetune(plain, small.data, settings(**config, weight_decay=0.0))
    finetune(ensemble, small.data, settings(**config, weight_decay=1.0))
    start = dict(small.ensemble(2, full=True).named_parameters())
    for (name, decayed), other in zip(ensemble.named_parameters(), plain.parameters(), strict=True):
        matrix = name in {
            "network.conv1.weight",
            "network.conv2.layer.weight",
            "network.fc.layer.weight",
            "network.head.weight",
        }
        expected = other - 0.01 * start[name] if matrix else other  # one step of SGD
        torch.testing.assert_close(decayed, expected, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_leftover_gradients_are_no_part_of_the_first_step(small):
    clean, dirty = small.ensemble(2), small.ensemble(2)
    for parameter in dirty.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    finetune(clean, small.data, QUICK)
    finetune(dirty, small.data, QUICK)
    assert equal(clean.state_dict(), dirty.state_dict())


@pytest.mark.parametrize("changes", [{"augment": "crop-flip"}, {"bagging": True}, {"mode": "repeat", "decorrelate": 0.5}, {"mode": "repeat", "decorrelate": 0.5, "probes": "noisy"}, {"mode": "repeat", "learn_probes": 0.5, "probes": "noisy"}, {"seed": 5}])  # fmt: skip
def test_a_seed_decides_everything(small, changes):
    ensembles = [small.ensemble(3) for _ in range(2)]
    histories = []
    for ensemble in ensembles:
        histories.append(finetune(ensemble, small.data, settings(**changes)))
        torch.manual_seed(77)  # the global state plays no part
    assert histories[0].losses == histories[1].losses
    assert equal(ensembles[0].state_dict(), ensembles[1].state_dict())
    other = small.ensemble(3)
    finetune(other, small.data, settings())
    assert not equal(other.state_dict(), ensembles[0].state_dict())


def test_augmentation_differs_from_epoch_to_epoch(small, monkeypatch):
    loop = importlib.import_module("subnet_search.finetune.rows")
    states = []

    def spying(images, kind, generator):
        states.append(generator.get_state())
        return loop_augment(images, kind, generator)

    loop_augment = loop.augment
    monkeypatch.setattr(loop, "augment", spying)
    finetune(small.ensemble(3), small.data, settings(augment="crop"))
    assert len({bytes(state.tolist()) for state in states}) == 6  # 2 epochs of 3 steps


def test_decorrelation_lowers_the_correlation_of_errors(small):
    x, labels = (small.data.images - 0.5) / 0.25, small.data.labels
    found = []
    for weight in (0.0, 2.0):
        ensemble = small.ensemble(3)
        finetune(ensemble, small.data, settings(mode="repeat", decorrelate=weight, epochs=6))
        with torch.no_grad():
            found.append(float(residual_correlation(ensemble(x), F.one_hot(labels))))
    assert found[1] < found[0]


@pytest.mark.parametrize(("kind", "weight"), [("mixed", 2.0), ("noisy", 2.0), ("jumbled", 0.5)])
def test_members_can_be_parted_on_images_that_they_are_not_trained_on(small, kind, weight):
    x = (small.data.images - 0.5) / 0.25
    found = []
    for decorrelate in (0.0, weight):
        ensemble = small.ensemble(3)
        config = settings(mode="repeat", decorrelate=decorrelate, probes=kind, epochs=8)
        finetune(ensemble, small.data, config)
        targets = F.one_hot(small.data.labels).float()
        with torch.no_grad(), drawing(torch.device("cpu"), 1):
            parted = [probes_of(x, targets, kind) for _ in range(20)]
            found.append(sum(float(residual_correlation(ensemble(rows), told)) for rows, told in parted))
    assert found[1] < found[0]


class Viewing(nn.Module):
    """The textbook's way to flatten, which a channels-last tensor does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.head = nn.Conv2d(2, 6, 3, padding=1), nn.Linear(54, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.head(F.relu(self.hidden(x.view(x.size(0), -1))))


def test_a_network_that_views_its_features_is_trained_with_contiguous_tensors(small):
    network = Viewing()
    graph = find_groups(network, torch.zeros(2, 2, 6, 6))
    ensemble = SubnetEnsemble(network, graph, full_masks(graph.widths, 2), small.ensemble().card)
    history = finetune(ensemble, small.data, settings())
    assert len(history.losses) == 2
    assert ensemble.network.get_submodule("conv.layer").weight.is_contiguous()
    finetune(plain := small.ensemble(2), small.data, settings())
    assert plain.network.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_members_can_learn_other_images_too(small):
    x = (small.data.images - 0.5) / 0.25
    found = []
    for weight in (0.0, 1.0):
        ensemble = small.ensemble(3)
        history = finetune(ensemble, small.data, settings(mode="repeat", learn_probes=weight, probes="noisy", epochs=8))
        assert history.samples_seen == 8 * 3 * 36 * (2 if weight else 1)
        with torch.no_grad(), drawing(torch.device("cpu"), 1):
            noisy = [probes_of(x, F.one_hot(small.data.labels).float(), "noisy") for _ in range(20)]
            found.append(sum(float(F.cross_entropy(ensemble(rows).mean(0), targets)) for rows, targets in noisy))
    assert found[1] < found[0]


def test_the_statistics_stay_those_of_the_images_that_are_trained_on(small):
    found = []
    for weight in (0.0, 1e-12):  # too little to change a weight
        ensemble = small.ensemble(3)
        history = finetune(ensemble, small.data, settings(mode="repeat", decorrelate=weight, probes="jumbled"))
        found.append(ensemble.state_dict())
        assert history.samples_seen == 2 * 3 * 36 * (2 if weight else 1)  # epochs, members, whole steps
    assert equal(*found)


def test_no_epochs_change_nothing(small):
    ensemble = small.ensemble(2).train()
    before = copy.deepcopy(ensemble.state_dict())
    history = finetune(ensemble, small.data, settings(epochs=0))
    assert (history.losses, history.seconds, history.samples_seen) == ((), (), 0)
    assert equal(ensemble.state_dict(), before)
    assert not ensemble.training


def test_the_teacher_is_not_trained(small):
    teacher = copy.deepcopy(small.network).train()
    teacher.bn1.eval()  # a frozen norm in a network in training
    modes = [module.training for module in teacher.modules()]
    asked = []
    teacher.register_forward_pre_hook(lambda module, _: asked.append(module.training))
    before = copy.deepcopy(teacher.state_dict())
    ensemble = small.ensemble(2)
    finetune(ensemble, small.data, settings(distill=0.5), teacher=teacher)
    assert asked
    assert not any(asked)
    assert [module.training for module in teacher.modules()] == modes
    assert equal(teacher.state_dict(), before)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not ensemble.training


def test_any_map_style_dataset_will_do(small):
    one, other = small.ensemble(2), small.ensemble(2)
    finetune(one, small.data, QUICK)
    finetune(other, [small.data[index] for index in range(40)], QUICK)
    assert equal(one.state_dict(), other.state_dict())


def test_errors_of_the_call(small):
    with pytest.raises(SubnetSearchError, match="the dense network is needed as teacher"):
        finetune(small.ensemble(2), small.data, settings(distill=0.5))
    with pytest.raises(SubnetSearchError, match="2 training images cannot be split over 3 members"):
        finetune(small.ensemble(3), small.data.subset([0, 1]), QUICK)
    with pytest.raises(SubnetSearchError, match="the network has 3 classes"):
        finetune(small.ensemble(2), ArrayDataset(small.data.images, small.data.labels + 1), QUICK)
    with pytest.raises(SubnetSearchError, match="some images have no label"):
        finetune(small.ensemble(2), ArrayDataset(small.data.images, small.data.labels - 1), QUICK)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_caller_s_mode_plays_no_part(small, mode):
    one, other = small.ensemble(2), small.ensemble(2)
    teacher = small.network
    finetune(one, small.data, settings(distill=0.5), teacher=teacher)
    with mode():
        finetune(other, small.data, settings(distill=0.5), teacher=teacher)
        assert not torch.is_grad_enabled()
    assert equal(one.state_dict(), other.state_dict())
    assert not any(tensor.is_inference() for tensor in other.state_dict().values())


def test_a_network_that_is_frozen_altogether_is_refused(small):
    small.network.requires_grad_(False)
    ensemble = small.ensemble(2)
    with pytest.raises(SubnetSearchError, match=r"all parameters are frozen .* expected some that can be trained"):
        finetune(ensemble, small.data, QUICK)
    assert finetune(ensemble, small.data, settings(epochs=0)).losses == ()
    ensemble.network.head.requires_grad_()
    before = copy.deepcopy(ensemble.state_dict())
    finetune(ensemble, small.data, QUICK)
    changed = {name for name, value in ensemble.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name in changed if name.endswith(("weight", "bias"))} == {
        "network.head.weight",
        "network.head.bias",
    }


def test_a_loss_that_is_not_finite_stops_the_training(small, tmp_path):
    ensemble = small.ensemble(2)
    with torch.no_grad():
        ensemble.network.head.weight[0, 0] = float("inf")
    with pytest.raises(
        SubnetSearchError, match=r"the training loss became nan in epoch 1; lower finetune\.learning_rate"
    ):
        finetune(ensemble, small.data, QUICK, checkpoint=tmp_path / "state.pt")
    assert not (tmp_path / "state.pt").exists()


def test_members_in_repeat_answer_to_the_same_changed_images(small):
    ensemble, seen = small.ensemble(2), []
    ensemble.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    finetune(ensemble, small.data, settings(mode="repeat", epochs=1, augment="crop-flip"))
    assert seen
    for rows in seen:
        first, second = rows.unflatten(0, (2, -1))
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_an_image_that_is_repeated_in_a_step_is_changed_in_one_way() -> None:
    assert _first_places(torch.tensor([7, 5, 7, 7, 5, 1])).tolist() == [0, 1, 0, 0, 1, 5]
