"""The module that is exported: equal to `predict`, in float32, for every kind of input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from subnet_search.backbones import Card
from subnet_search.ensemble.uncertainty import decompose, uncertainty_of
from subnet_search.errors import SubnetSearchError
from subnet_search.formats.deployable import OUTPUTS, Deployable, decompose_float32


@pytest.mark.parametrize("kind", ["uint8", "float", "normalised"])
@pytest.mark.parametrize("name", ["digits", "padded"])
def test_it_answers_as_predict_does(request, noise, as_kind, name, kind) -> None:
    ensemble = request.getfixturevalue(name)
    images = noise(ensemble.card, 9)
    expected = ensemble.predict(images)
    with torch.no_grad():
        answers = Deployable(ensemble, ensemble.card, kind)(as_kind(ensemble.card, images, kind))
    assert len(answers) == len(OUTPUTS) == 7
    for output, answer in zip(OUTPUTS, answers, strict=True):
        assert answer.dtype == torch.float32
        torch.testing.assert_close(answer.double(), getattr(expected, output), atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", ["uint8", "float", "normalised"])
def test_raw_images_of_either_type_become_the_kind_that_it_takes(noise, as_kind, kind) -> None:
    card = Card("pictures", (3, 4, 4), ("a", "b"), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    deployable, images = Deployable(nn.Flatten(), card, kind), noise(card, 5)
    expected = as_kind(card, images, kind)
    for raw in (images, images.float() / 255, images.double() / 255):
        given = deployable.of_raw(raw)
        assert given.dtype == expected.dtype
        torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("shape", ["sliced", "grouped"])
def test_packed_forms_answer_as_the_masked_network(digits, packed, noise, shape) -> None:
    images = noise(digits.card, 5)
    expected = digits.predict(images)
    with torch.no_grad():
        answers = Deployable(packed(digits, shape), digits.card)(images)
    for output, answer in zip(OUTPUTS, answers, strict=True):
        torch.testing.assert_close(answer.double(), getattr(expected, output), atol=2e-5, rtol=0)


def test_a_branch_that_a_member_leaves_out_stays_out(digits, noise) -> None:
    ensemble = digits.select([0, 1, 2])
    norm = ensemble.network.layer1[1].bn2
    norm.kept = torch.tensor([True, False, True])
    images = noise(digits.card, 4)
    expected = ensemble.predict(images)
    assert not torch.allclose(expected.probabilities, digits.predict(images).probabilities, atol=1e-3)
    with torch.no_grad():
        answers = Deployable(ensemble, ensemble.card)(images)
    torch.testing.assert_close(answers[1].double(), expected.member_probabilities, atol=2e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0, 20.0])
@pytest.mark.parametrize("spread", [1e-3, 0.03, 1.0])
def test_small_mutual_information_is_accurate_in_float32(scale, spread) -> None:
    """A difference of two entropies in float32 is wrong by 5e-7, which is more than most of these numbers."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1, 500, 10, generator=generator) * scale
    logits = base + torch.randn(4, 500, 10, generator=generator) * scale * spread
    exact = decompose(logits.double().softmax(dim=-1)).epistemic
    error = (decompose_float32(logits)[4].double() - exact).abs()
    counted = exact > 1e-9
    assert counted.any()
    assert (error / exact)[counted].quantile(0.99) < 1e-3
    assert error.max() < 5e-7


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(2, 6), st.floats(0.0, 200.0), st.integers(0, 1000))
def test_the_parts_add_up_and_stay_in_their_range(members, classes, scale, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(members, 8, classes, generator=generator)
    mean, each, total, aleatoric, epistemic, largest, energy = decompose_float32(logits)
    assert torch.equal(total, aleatoric + epistemic)
    assert (aleatoric >= 0).all()
    assert (epistemic >= 0).all()
    assert total.max() <= torch.tensor(float(classes)).log() + 1e-5
    assert epistemic.max() <= torch.tensor(float(members)).log() + 1e-5
    assert torch.equal(largest, mean.amax(dim=1))
    expected = uncertainty_of(logits)
    for output, answer in zip(OUTPUTS, (mean, each, total, aleatoric, epistemic, largest, energy), strict=True):
        torch.testing.assert_close(answer.double(), getattr(expected, output), atol=2e-6, rtol=2e-7)


def test_equal_members_have_no_mutual_information() -> None:
    logits = torch.randn(1, 1000, 10, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1)
    assert decompose_float32(logits)[4].max() == 0.0


def test_a_single_network_becomes_one_member() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    answers = Deployable(network, Card("plain", (1, 2, 2), ("a", "b")))(torch.zeros(3, 1, 2, 2, dtype=torch.uint8))
    assert answers[1].shape == (1, 3, 2)
    assert answers[4].max() == 0.0


def test_the_network_stays_as_it_is(digits) -> None:
    ensemble = digits.select([0, 1]).train()
    before = {name: value.clone() for name, value in ensemble.state_dict().items()}
    Deployable(ensemble, ensemble.card)(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    assert ensemble.training
    assert all(torch.equal(before[name], value) for name, value in ensemble.state_dict().items())


def test_what_cannot_be_exported_is_refused(digits) -> None:
    with pytest.raises(SubnetSearchError, match=r"input_kind is 'raw', expected one of \('uint8', 'float', 'norm"):
        Deployable(digits, digits.card, "raw")
    with pytest.raises(SubnetSearchError, match=r"weights of torch\.bfloat16, expected torch\.float32; export an fp32"):
        Deployable(nn.Linear(2, 2).bfloat16(), digits.card)
