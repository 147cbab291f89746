"""One battery that every system of the comparison must pass."""

from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from subnet_search.baselines import CONTROL_MASKS, SYSTEMS, build
from subnet_search.baselines.mimo import Mimo, widened
from subnet_search.ensemble import Predictor, SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import slice_network, trunk_macs
from subnet_search.groups.cost import counted_macs

COMBINED = (
    "search",
    "search+draft",
    *(f"search+{algorithm}{part}" for algorithm in ("progressive", "gates") for part in ("", "+bagging", "+depth_masks")),
    *(f"{masks}+{part}" for masks in ("masksembles", "search") for part in ("stochastic_depth", "depth_masks", "bagging", "mimo")),
    "random+distill",
    "random+repeat",
    "random+mimo+depth_masks+stochastic_depth+bagging",
)  # fmt: skip
METHODS = (*SYSTEMS, *CONTROL_MASKS, *COMBINED)
MASKED = ("singe", "depth_masks", *CONTROL_MASKS, *COMBINED)
TRAINED = [method for method in METHODS if method != "msp"]


def images(count: int = 7) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(5))


def member_probabilities(predictor: Predictor, raw: Tensor) -> Tensor:
    return predictor.predict(raw).member_probabilities


def state_of(predictor: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in predictor.state_dict().items()}


def assert_same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_sum_to_one_and_are_as_many_as_members(trained, setup, method) -> None:
    predictor = trained(method, 0)[0].predictor
    answer = predictor.predict(images())
    assert answer.member_probabilities.shape == (predictor.members, 7, 10)
    sums = answer.member_probabilities.sum(dim=2)
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-6, rtol=0)
    torch.testing.assert_close(answer.probabilities, answer.member_probabilities.mean(dim=0))
    expected = {"msp": 1, "singe": 1}.get(method, 6 if "+mimo" in method else 3)
    assert predictor.members == expected
    assert predictor.card == setup.backbone.card


@pytest.mark.parametrize("method", METHODS)
def test_size_and_order_of_the_batch_do_not_matter_in_use(trained, method) -> None:
    predictor = trained(method, 0)[0].predictor
    raw = images()
    whole = member_probabilities(predictor, raw)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    for again in (
        torch.cat([member_probabilities(predictor, raw[i : i + 1]) for i in range(7)], dim=1),
        torch.cat([member_probabilities(predictor, part) for part in raw.split(3)], dim=1),
        member_probabilities(predictor, raw[order])[:, order.argsort()],
    ):
        torch.testing.assert_close(again, whole, atol=1e-5, rtol=0)  # convolutions choose by the size of the batch


@pytest.mark.parametrize("method", METHODS)
def test_repeating_by_hand_is_the_same(trained, method) -> None:
    predictor = trained(method, 0)[0].predictor
    x = predictor.card.prepare(images(3))
    with torch.no_grad():
        by_hand = predictor(x.repeat(predictor.members, 1, 1, 1), repeat=False)
        torch.testing.assert_close(by_hand, predictor(x), atol=1e-5, rtol=1e-5)
    if predictor.members > 1:
        with pytest.raises(SubnetSearchError, match=f"expected a multiple of the {predictor.members} members"):
            predictor(x.repeat(predictor.members, 1, 1, 1)[1:], repeat=False)


@pytest.mark.parametrize("method", METHODS)
def test_answering_changes_nothing(trained, method) -> None:
    predictor = trained(method, 0)[0].predictor
    before = state_of(predictor)
    first = member_probabilities(predictor, images())
    assert torch.equal(member_probabilities(predictor, images()), first)
    assert_same_state(before, state_of(predictor))


@pytest.mark.parametrize("method", TRAINED)
def test_another_seed_gives_another_predictor_and_its_file_gives_it_back(trained, tmp_path, method) -> None:
    predictor, other = trained(method, 0)[0].predictor, trained(method, 1)[0].predictor
    raw = images()
    answer, another = member_probabilities(predictor, raw), member_probabilities(other, raw)
    assert not torch.allclose(answer, another, atol=1e-4)
    own = state_of(other)
    save_file({name: tensor.contiguous() for name, tensor in predictor.state_dict().items()}, tmp_path / "s")
    other.load_state_dict(load_file(tmp_path / "s"))
    assert torch.equal(member_probabilities(other, raw), answer)
    other.load_state_dict(own)


@pytest.mark.parametrize("method", TRAINED)
def test_a_training_that_was_killed_ends_with_the_weights_of_an_undisturbed_one(
    trained, resumed, tmp_path, method
) -> None:
    system, history = trained(method, 0)
    assert len(history.losses) == sum(phase.config.epochs for phase in system.phases)
    assert len(history.losses) == (3 if "progressive" in method else 2)  # an epoch of two steps in two rounds
    assert all(map(torch.isfinite, map(torch.tensor, history.losses)))
    assert_same_state(state_of(resumed(method, tmp_path).predictor), state_of(system.predictor))


def test_the_dense_network_is_taken_as_it_came(trained, setup) -> None:
    system, history = trained("msp", 0)
    assert (system.phases, history.losses, history.samples_seen) == ((), (), 0)
    logits = setup.backbone.model(setup.backbone.card.prepare(images()))
    torch.testing.assert_close(member_probabilities(system.predictor, images())[0].float(), logits.softmax(dim=1))


@pytest.mark.parametrize("method", TRAINED)
def test_every_sample_is_counted_that_went_through_the_network(trained, method) -> None:
    all_images = ("deep_ensemble", "deep_ensemble_finetuned", "bagging", "packed", "random+repeat")
    assert trained(method, 0)[1].samples_seen == 2 * 48 * (3 if method in all_images else 1)


def counted(network: nn.Module, channels: int = 1) -> Counter[str]:
    counts: Counter[str] = Counter()
    with torch.no_grad(), counted_macs(network, counts):
        network(torch.zeros(1, channels, 8, 8))
    return counts


@pytest.mark.parametrize("method", [method for method in METHODS if method not in MASKED])
def test_macs_of_whole_networks_are_those_that_run(trained, method) -> None:
    predictor = trained(method, 0)[0].predictor
    runs = 1 if method in ("msp", "mimo") or hasattr(predictor, "networks") else predictor.members
    assert predictor.macs() == runs * counted(predictor).total()


@pytest.mark.parametrize("method", MASKED)
def test_macs_of_masked_networks_are_those_of_the_members_cut_out(trained, setup, method) -> None:
    system = trained(method, 0)[0]
    # what is left out at random costs what it costs, and its masks are those without chance
    plain = build(method.replace("+stochastic_depth", ""), setup) if "stochastic_depth" in method else system
    ensemble = plain.predictor.predictor if isinstance(plain.predictor, Mimo) else plain.predictor
    assert isinstance(ensemble, SubnetEnsemble)
    backbone, graph, channels = setup.backbone, setup.graph, 1
    if "+mimo" in method:
        backbone, graph = widened(backbone, graph, inputs=2, seed=0)
        channels = 2
    masks, expected = ensemble.masks, 0
    layers = {branch.site: branch.layers for branch in graph.branches}
    for member in range(masks.members):
        kept = {name: mask[member] for name, mask in masks.masks.items()}
        counts = counted(slice_network(backbone.model, graph, kept).network, channels)
        idle = {layer for site in masks.left_out(member) for layer in layers[site]}
        expected += sum(macs for layer, macs in counts.items() if layer not in idle)
    expected -= (masks.members - 1) * trunk_macs(graph, ensemble.config.trunk_share)  # paid for once
    assert system.predictor.macs() == expected
    budget = 1 / 2.1 if method == "singe" else 1.8
    assert 0.7 * budget < expected / setup.graph.dense_macs <= budget
    assert system.budget == pytest.approx(budget)
    assert all(map(masks.left_out, range(masks.members))) == ("depth_masks" in method)
